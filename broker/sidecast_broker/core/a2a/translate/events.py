"""Events: StreamResponse of v1.0 to the results of v0.3's streams, in JSON-RPC and in REST form, and back.

Must not know JSON-RPC's envelope, SSE, nor what the objects in an event consist of.
"""

from __future__ import annotations

from msgspec import Raw

from sidecast_broker.core.a2a.translate.messages import message_tree_from_v03, message_tree_to_v03
from sidecast_broker.core.a2a.translate.raw import (
    HELD,
    NULL,
    Tree,
    Untranslatable,
    decode_line,
    encode,
    is_object,
    is_set,
    object_of,
    text_of,
)
from sidecast_broker.core.a2a.translate.spellings import respell
from sidecast_broker.core.a2a.translate.updates import (
    artifact_update_from_v03,
    artifact_update_to_v03,
    status_update_from_v03,
    status_update_to_v03,
    task_tree_from_v03,
    task_tree_to_v03,
)
from sidecast_schemas.codec import RawObject

_MEMBERS = ("task", "message", "statusUpdate", "artifactUpdate")
_MEMBER_NAMES = frozenset(_MEMBERS)
_MEMBER_OF_KIND = {
    "task": "task",
    "message": "message",
    "status-update": "statusUpdate",
    "artifact-update": "artifactUpdate",
}
_PROTO_MEMBERS = {"msg": "message"}


def response_to_v03(payload: bytes, *, rest: bool, final: bool | None = None) -> bytes:
    """Give v0.3's form of a StreamResponse: on JSON-RPC a result object with its `kind`, on REST ProtoJSON.

    Python's v0.3 REST clients refuse fields that are not in the proto, so those go into metadata.

    Args:
        payload: v1.0 JSON.
        rest: whether in ProtoJSON.
        final: of a status update: whether the stream ends with it; None: where its state is terminal.

    Returns:
        One line of JSON.

    Raises:
        Untranslatable: it is no StreamResponse, or a looked-at field of it is not what v1.0 says.

    Source: digest 2.3; C34 to C37, C39.
    """
    members = decode_line(payload, "response")
    member, beside = _only_member(members)
    fields = object_of(members[member], member)
    held: Tree = {"response": beside} if beside else {}
    if member == "statusUpdate":
        tree = status_update_to_v03(fields, held, rest=rest, final=final)
    elif member == "artifactUpdate":
        tree = artifact_update_to_v03(fields, held, rest=rest)
    elif member == "task":
        tree = task_tree_to_v03(fields, held, rest=rest)
    else:
        tree = message_tree_to_v03(fields, held, rest=rest)
    return encode({member: tree} if rest else tree)


def response_from_v03(response: bytes, *, rest: bool) -> bytes:
    """Give the StreamResponse of what v0.3 answers: in a stream, or to `message/send`.

    Args:
        response: on JSON-RPC a result with its `kind`, on REST ProtoJSON of the v0.3 proto.
        rest: whether it is ProtoJSON.

    Returns:
        One line of JSON.

    Raises:
        Untranslatable: its kind is missing or unknown, it has not exactly one member, or a looked-at field of
            it is not what v0.3 says.

    Source: digest 2.3; C60.
    """
    if rest:
        members = respell(decode_line(response, "response"), _PROTO_MEMBERS)
        member, beside = _only_member(members)
        fields = object_of(members[member], member)
    else:
        fields, beside = decode_line(response, "result"), {}
        member = _member_of_kind(text_of(fields.pop("kind", NULL), "result: kind"))
    tree, held = _member_from_v03(member, fields, rest=rest)
    return encode(_response(member, tree, beside, held))


def _member_of_kind(kind: str) -> str:
    member = _MEMBER_OF_KIND.get(kind)
    if member is None:
        raise Untranslatable(f"result: kind {kind!r} is none of v0.3")
    return member


def _member_from_v03(member: str, fields: RawObject, *, rest: bool) -> tuple[Tree, RawObject]:
    if member == "statusUpdate":
        return status_update_from_v03(fields, rest=rest)
    if member == "artifactUpdate":
        return artifact_update_from_v03(fields, rest=rest)
    if member == "task":
        return task_tree_from_v03(fields, rest=rest)
    return message_tree_from_v03(fields, rest=rest)


def _only_member(members: RawObject) -> tuple[str, RawObject]:
    if len(members) == 1:
        ((name, raw),) = members.items()
        if name in _MEMBER_NAMES and raw != NULL:
            return name, {}
    found = [name for name in _MEMBERS if is_set(members, name)]
    if len(found) != 1:
        raise Untranslatable(f"response: exactly one of {', '.join(_MEMBERS)} is needed, not {len(found)}")
    return found[0], {key: raw for key, raw in members.items() if key not in _MEMBER_NAMES}


def _response(member: str, tree: Tree, beside: RawObject, held: RawObject) -> Tree:
    response: Tree = {member: tree, **beside}
    raw = held.get("response", NULL)
    if is_object(raw):
        for key, value in object_of(raw, HELD).items():
            if key not in _MEMBER_NAMES:
                response.setdefault(key, value)
    return response


def task_to_v03(task: bytes, *, rest: bool) -> bytes:
    """Give v0.3's form of a task: on JSON-RPC with its `kind`, on REST ProtoJSON.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    return encode(task_tree_to_v03(decode_line(task, "task"), {}, rest=rest))


def task_from_v03(task: bytes, *, rest: bool) -> bytes:
    """Give v1.0's form of a task of v0.3.

    Raises:
        Untranslatable: its kind, which JSON-RPC has, is not that of a task, or a looked-at field of it is not
            what v0.3 says.
    """
    fields = decode_line(task, "task")
    if not rest:
        _check_kind(fields.pop("kind", NULL), "task")
    return encode(task_tree_from_v03(fields, rest=rest)[0])


def message_to_v03(message: bytes, *, rest: bool) -> bytes:
    """Give v0.3's form of a message: on JSON-RPC with its `kind`, on REST ProtoJSON.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    return encode(message_tree_to_v03(decode_line(message, "message"), {}, rest=rest))


def message_from_v03(message: bytes, *, rest: bool) -> bytes:
    """Give v1.0's form of a message of v0.3.

    Raises:
        Untranslatable: its kind, which JSON-RPC has, is not that of a message, or a looked-at field of it is
            not what v0.3 says.
    """
    fields = decode_line(message, "message")
    if not rest:
        _check_kind(fields.get("kind", NULL), "message")
    return encode(message_tree_from_v03(fields, rest=rest)[0])


def _check_kind(kind: Raw, name: str) -> None:
    if text_of(kind, f"{name}: kind") != name:
        raise Untranslatable(f"{name}: kind is another one")
