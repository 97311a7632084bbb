"""Messages: `parts` and roles of v1.0 to those of v0.3, and back.

Must not know where a message stands, nor what its parts hold.
"""

from __future__ import annotations

from msgspec import Raw

from sidecast_broker.core.a2a.translate.names import (
    ROLE_UNSPECIFIED,
    is_other_role,
    role_from_v03,
    role_to_v03,
)
from sidecast_broker.core.a2a.translate.parts import parts_from_v03, parts_to_v03
from sidecast_broker.core.a2a.translate.raw import (
    EMPTY,
    NULL,
    Tree,
    Untranslatable,
    hold,
    object_of,
    objects_of,
    pop_named,
    pop_other,
    release,
    restore,
    text_of,
)
from sidecast_broker.core.a2a.translate.spellings import respell, spelled_objects
from sidecast_schemas.codec import RawObject

_KIND = Raw(b'"message"')
_IN_REST = frozenset({"messageId", "contextId", "taskId", "role", "parts", "metadata", "extensions"})
_BLOCKED = _IN_REST
_COLLIDING = ("kind",)


def message_tree_to_v03(fields: RawObject, held: Tree, *, rest: bool) -> Tree:
    """Give v0.3's form of a message.

    Args:
        fields: the message; taken over.
        held: what the caller has to hold in its metadata.
        rest: whether in ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type.
    """
    parts = parts_to_v03(fields.pop("parts", None), rest=rest)
    raw_role = fields.get("role")
    role, known = role_to_v03(raw_role, rest=rest)
    if not known:
        held["role"] = ROLE_UNSPECIFIED if raw_role is None or raw_role == NULL else raw_role
    lost = pop_other(fields, _IN_REST) if rest else pop_named(fields, _COLLIDING)
    if lost:
        held["fields"] = lost
    if rest:
        tree: Tree = {**fields, "role": role, "content": parts}
    else:
        tree = {"kind": _KIND, **fields, "role": role, "parts": parts}
        if "messageId" not in fields:
            tree["messageId"] = EMPTY
    if held or "metadata" in fields:
        hold(tree, held)
    return tree


def message_tree_from_v03(fields: RawObject, *, rest: bool) -> tuple[Tree, RawObject]:
    """Give v1.0's form of a message, and what its metadata held for the caller.

    Args:
        fields: the message; taken over. Its `kind` may be missing: its place tells.
        rest: whether it is ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type, is missing, or is none of v0.3.
    """
    raw_role = fields.get("role")
    if rest:
        respell(fields)
        # ProtoJSON leaves out what is at its default.
        role = (
            ROLE_UNSPECIFIED if raw_role is None or raw_role == NULL else role_from_v03(raw_role, rest=True)
        )
        raw_parts = fields.pop("content", NULL)
    else:
        _check_kind(fields)
        role = role_from_v03(NULL if raw_role is None else raw_role, rest=False)
        if "parts" not in fields:
            raise Untranslatable("message: parts are missing")
        raw_parts = fields.pop("parts")
    tree: Tree = fields
    tree["role"] = role
    if raw_parts != NULL:
        tree["parts"] = parts_from_v03(raw_parts, rest=rest)
    elif not rest:
        raise Untranslatable("message: parts are null")
    else:
        tree["parts"] = []
    if tree.get("messageId") == EMPTY:
        del tree["messageId"]
    held: RawObject = {}
    if "metadata" in tree:
        held, _ = release(tree)
        restore(tree, held, _BLOCKED)
        if "role" in held and is_other_role(held["role"]):
            tree["role"] = held["role"]
    return tree, held


def _check_kind(fields: RawObject) -> None:
    kind = fields.pop("kind", None)
    if kind is not None and kind != _KIND and text_of(kind, "message: kind") != "message":
        raise Untranslatable("message: kind is another one")


def nested_message_to_v03(raw: Raw, *, rest: bool) -> Tree | Raw:
    """Give v0.3's form of a message that may be null.

    Raises:
        Untranslatable: as `message_tree_to_v03`.
    """
    return raw if raw == NULL else message_tree_to_v03(object_of(raw, "message"), {}, rest=rest)


def nested_message_from_v03(raw: Raw, *, rest: bool) -> Tree | Raw:
    """Give v1.0's form of a message that may be null.

    Raises:
        Untranslatable: as `message_tree_from_v03`.
    """
    return raw if raw == NULL else message_tree_from_v03(object_of(raw, "message"), rest=rest)[0]


def history_to_v03(raw: Raw, *, rest: bool) -> list[Tree] | Raw:
    """Give v0.3's form of a task's history, which may be null.

    Raises:
        Untranslatable: as `message_tree_to_v03`.
    """
    if raw == NULL:
        return raw
    return [message_tree_to_v03(fields, {}, rest=rest) for fields in objects_of(raw, "history")]


def history_from_v03(raw: Raw, *, rest: bool) -> list[Tree] | Raw:
    """Give v1.0's form of a task's history, which may be null.

    Raises:
        Untranslatable: as `message_tree_from_v03`.
    """
    if raw == NULL:
        return raw
    return [message_tree_from_v03(f, rest=rest)[0] for f in spelled_objects(raw, "history", rest=rest)]
