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


def response_to_v03(payload: bytes, *, final: bool | None = None) -> bytes:
    """Give the result object of v0.3's JSON-RPC, with its `kind`, of a StreamResponse.

    Args:
        payload: v1.0 JSON.
        final: of a status update: whether the stream ends with it; None: where its state is terminal.

    Returns:
        One line of JSON.

    Raises:
        Untranslatable: it is no StreamResponse, or a looked-at field of it is not what v1.0 says.

    Source: digest 2.3; C34, C35, C36, C39.
    """
    _, tree = _response_to_v03(payload, final, rest=False)
    return encode(tree)


def response_to_v03_rest(payload: bytes, *, final: bool | None = None) -> bytes:
    """Give the ProtoJSON of v0.3's REST of a StreamResponse.

    Python's v0.3 clients refuse fields that are not in the proto, so those go into metadata.

    Args:
        payload: v1.0 JSON.
        final: of a status update: whether the stream ends with it; None: where its state is terminal.

    Returns:
        One line of JSON.

    Raises:
        Untranslatable: it is no StreamResponse, or a looked-at field of it is not what v1.0 says.

    Source: digest 2.3; C35, C37.
    """
    member, tree = _response_to_v03(payload, final, rest=True)
    return encode({member: tree})


def response_from_v03(result: bytes) -> bytes:
    """Give the StreamResponse of a result of v0.3's JSON-RPC: of a stream, or of `message/send`.

    Args:
        result: v0.3 JSON with its `kind`.

    Returns:
        One line of JSON.

    Raises:
        Untranslatable: its kind is missing or unknown, or a looked-at field of it is not what v0.3 says.

    Source: digest 2.3; C60.
    """
    fields = decode_line(result, "result")
    kind = text_of(fields.pop("kind", NULL), "result: kind")
    member = _MEMBER_OF_KIND.get(kind)
    if member is None:
        raise Untranslatable(f"result: kind {kind!r} is none of v0.3")
    tree, held = _member_from_v03(member, fields, rest=False)
    return encode(_response(member, tree, {}, held))


def response_from_v03_rest(response: bytes) -> bytes:
    """Give the StreamResponse of a v0.3 REST response or stream frame.

    Args:
        response: ProtoJSON of the v0.3 proto.

    Returns:
        One line of JSON.

    Raises:
        Untranslatable: it has not exactly one member, or a looked-at field of it is not what v0.3 says.

    Source: digest 2.3; C60.
    """
    members = respell(decode_line(response, "response"), _PROTO_MEMBERS)
    member, beside = _only_member(members)
    tree, held = _member_from_v03(member, object_of(members[member], member), rest=True)
    return encode(_response(member, tree, beside, held))


def _response_to_v03(payload: bytes, final: bool | None, *, rest: bool) -> tuple[str, Tree]:
    members = decode_line(payload, "response")
    member, beside = _only_member(members)
    fields = object_of(members[member], member)
    held: Tree = {"response": beside} if beside else {}
    if member == "statusUpdate":
        return member, status_update_to_v03(fields, held, rest=rest, final=final)
    if member == "artifactUpdate":
        return member, artifact_update_to_v03(fields, held, rest=rest)
    if member == "task":
        return member, task_tree_to_v03(fields, held, rest=rest)
    return member, message_tree_to_v03(fields, held, rest=rest)


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


def task_to_v03(task: bytes) -> bytes:
    """Give the v0.3 JSON-RPC form of a task, with its `kind`.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    return encode(task_tree_to_v03(decode_line(task, "task"), {}, rest=False))


def task_to_v03_rest(task: bytes) -> bytes:
    """Give the v0.3 REST form of a task.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    return encode(task_tree_to_v03(decode_line(task, "task"), {}, rest=True))


def task_from_v03(task: bytes) -> bytes:
    """Give v1.0's form of a task in v0.3 JSON-RPC form.

    Raises:
        Untranslatable: its kind is not that of a task, or a looked-at field of it is not what v0.3 says.
    """
    fields = decode_line(task, "task")
    _check_kind(fields.pop("kind", NULL), "task")
    return encode(task_tree_from_v03(fields, rest=False)[0])


def task_from_v03_rest(task: bytes) -> bytes:
    """Give v1.0's form of a task in v0.3 REST form.

    Raises:
        Untranslatable: a looked-at field of it is not what v0.3 says.
    """
    return encode(task_tree_from_v03(decode_line(task, "task"), rest=True)[0])


def message_to_v03(message: bytes) -> bytes:
    """Give the v0.3 JSON-RPC form of a message, with its `kind`.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    return encode(message_tree_to_v03(decode_line(message, "message"), {}, rest=False))


def message_to_v03_rest(message: bytes) -> bytes:
    """Give the v0.3 REST form of a message.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    return encode(message_tree_to_v03(decode_line(message, "message"), {}, rest=True))


def message_from_v03(message: bytes) -> bytes:
    """Give v1.0's form of a message in v0.3 JSON-RPC form.

    Raises:
        Untranslatable: its kind is not that of a message, or a looked-at field of it is not what v0.3 says.
    """
    fields = decode_line(message, "message")
    _check_kind(fields.get("kind", NULL), "message")
    return encode(message_tree_from_v03(fields, rest=False)[0])


def message_from_v03_rest(message: bytes) -> bytes:
    """Give v1.0's form of a message in v0.3 REST form.

    Raises:
        Untranslatable: a looked-at field of it is not what v0.3 says.
    """
    return encode(message_tree_from_v03(decode_line(message, "message"), rest=True)[0])


def _check_kind(kind: Raw, name: str) -> None:
    if text_of(kind, f"{name}: kind") != name:
        raise Untranslatable(f"{name}: kind is another one")
