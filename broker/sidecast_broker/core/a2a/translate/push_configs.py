"""Push notification configs: v1.0's flat `TaskPushNotificationConfig` to v0.3's two nested objects, and back.

Must not know which operation they belong to.
"""

from __future__ import annotations

import re

from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import (
    EMPTY,
    NULL,
    Tree,
    drop_unset,
    encode,
    is_object,
    is_set,
    list_of,
    object_of,
    pop_named,
    pop_other,
    text_of,
)
from sidecast_broker.core.a2a.translate.spellings import respell, spelled_object
from sidecast_schemas.codec import RawObject

_INNER = ("id", "url", "token", "authentication")
_INNER_NAMES = frozenset(_INNER)
_AUTHENTICATION = frozenset({"schemes", "credentials"})
_OUTER = "pushNotificationConfig"
_NAME = re.compile(r"tasks/(.+)/pushNotificationConfigs/(.*)", re.DOTALL)
_PARENT = re.compile(r"tasks/(.+?)(?:/pushNotificationConfigs)?", re.DOTALL)


def inner_config_to_v03(fields: RawObject, *, rest: bool) -> tuple[Tree, RawObject]:
    """Give v0.3's `PushNotificationConfig` of a flat config.

    Args:
        fields: the flat config; taken over.
        rest: whether in ProtoJSON.

    Returns:
        The inner object, and the fields that have no place in it.

    Raises:
        Untranslatable: a field that is looked at has the wrong type.
    """
    tree: Tree = pop_named(fields, _INNER)
    beside = fields.get(_OUTER)
    if not rest and beside is not None and is_object(beside):
        more = object_of(beside, _OUTER)
        if more and more.keys().isdisjoint(_INNER_NAMES):
            del fields[_OUTER]
            tree |= more
    if "url" not in tree and not rest:
        tree["url"] = EMPTY
    if is_set(tree, "authentication"):
        tree["authentication"] = _authentication_to_v03(tree["authentication"], rest=rest)
    return tree, fields


def inner_config_from_v03(fields: RawObject, *, rest: bool) -> Tree:
    """Give the flat config of v0.3's `PushNotificationConfig`, all its other fields included.

    Args:
        fields: the inner object; taken over.
        rest: whether it is ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type.
    """
    if rest:
        respell(fields)
        for name in ("id", "token"):
            drop_unset(fields, name)
    tree: Tree = fields
    if is_set(fields, "authentication"):
        tree["authentication"] = _authentication_from_v03(fields["authentication"])
    return tree


def config_to_v03(fields: RawObject, *, rest: bool) -> Tree:
    """Give v0.3's `TaskPushNotificationConfig` of a flat config.

    In REST form, which has no metadata here, fields that v0.3 does not have are left out.

    Args:
        fields: the flat config; taken over.
        rest: whether in ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type.
    """
    inner, outer = inner_config_to_v03(fields, rest=rest)
    if not rest:
        return {**outer, _OUTER: inner}
    task = text_of(outer.get("taskId", EMPTY), "taskId")
    config = text_of(inner["id"], "id") if is_set(inner, "id") else ""
    return {"name": f"tasks/{task}/pushNotificationConfigs/{config}", _OUTER: inner}


def config_from_v03(fields: RawObject, *, rest: bool) -> Tree:
    """Give the flat config of v0.3's `TaskPushNotificationConfig`.

    Args:
        fields: the outer object; taken over.
        rest: whether it is ProtoJSON.

    Raises:
        Untranslatable: a field that is looked at has the wrong type or is missing.
    """
    if rest:
        respell(fields)
    inner = inner_config_from_v03(
        spelled_object(fields.pop(_OUTER, NULL), _OUTER, rest=rest),
        rest=rest,
    )
    if rest and is_set(fields, "name"):
        match = _NAME.fullmatch(text_of(fields.pop("name"), "name"))
        if match is not None:
            fields.setdefault("taskId", Raw(encode(match[1])))
            if match[2]:
                inner.setdefault("id", Raw(encode(match[2])))
    tree: Tree = {**fields, **pop_named(inner, _INNER)}
    # No field of the inner object may name the task: what was checked is the outer one.
    if inner:
        tree[_OUTER] = inner
    return tree


def create_request_to_v03_rest(fields: RawObject) -> Tree:
    """Give the body by which v0.3's REST sets a config, as a2a-sdk sends it.

    Args:
        fields: the flat config; taken over.

    Raises:
        Untranslatable: a field that is looked at has the wrong type.
    """
    config_id = fields["id"] if is_set(fields, "id") else EMPTY
    task = text_of(fields.get("taskId", EMPTY), "taskId")
    return {"parent": f"tasks/{task}", "configId": config_id, "config": config_to_v03(fields, rest=True)}


def create_request_from_v03_rest(fields: RawObject) -> Tree:
    """Give the flat config of the body by which v0.3's REST sets one.

    Args:
        fields: the request as a2a-sdk sends it, or its `config` alone, as the proto maps it to HTTP; taken
            over.

    Raises:
        Untranslatable: a field that is looked at has the wrong type or is missing.
    """
    respell(fields)
    if not is_set(fields, "config"):
        return config_from_v03(fields, rest=True)
    tree = config_from_v03(object_of(fields["config"], "config"), rest=True)
    if is_set(fields, "configId") and fields["configId"] != EMPTY:
        tree.setdefault("id", fields["configId"])
    if is_set(fields, "parent"):
        match = _PARENT.fullmatch(text_of(fields["parent"], "parent"))
        if match is not None:
            tree["taskId"] = Raw(encode(match[1]))
    return tree


def _authentication_to_v03(raw: Raw, *, rest: bool) -> Tree:
    fields = object_of(raw, "authentication")
    scheme = fields.pop("scheme", NULL)
    schemes = [] if scheme in (NULL, EMPTY) else [scheme]
    # More than one scheme came from v0.3: v1.0 has room for the first only, the others stand beside it.
    if is_set(fields, "schemes"):
        former = list_of(fields["schemes"], "schemes")
        if former[:1] == schemes:
            schemes = former
    if rest:
        pop_other(fields, _AUTHENTICATION)
    return {**fields, "schemes": schemes}


def _authentication_from_v03(raw: Raw) -> Tree:
    fields = object_of(raw, "authentication")
    tree: Tree = fields
    schemes = fields.get("schemes", NULL)
    if schemes == NULL:
        return tree
    names = list_of(schemes, "schemes")
    if len(names) < 2:
        del fields["schemes"]
    if names:
        text_of(names[0], "scheme")
        tree["scheme"] = names[0]
    return tree
