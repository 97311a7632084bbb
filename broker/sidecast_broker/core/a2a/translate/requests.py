"""Parameters of every operation: v1.0's requests to those of v0.3, and back.

Must not know JSON-RPC's envelope, nor paths and queries: the caller adds to a REST request what those say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Raw

from sidecast_broker.core.a2a.translate.messages import message_tree_from_v03, message_tree_to_v03
from sidecast_broker.core.a2a.translate.names import state_from_v03, state_to_v03
from sidecast_broker.core.a2a.translate.push_configs import (
    config_from_v03,
    config_to_v03,
    create_request_from_v03_rest,
    create_request_to_v03_rest,
    inner_config_from_v03,
    inner_config_to_v03,
)
from sidecast_broker.core.a2a.translate.raw import (
    NULL,
    Tree,
    Untranslatable,
    decode_line,
    encode,
    hold,
    is_set,
    object_of,
    pop_named,
    pop_other,
    release,
    restore,
)
from sidecast_broker.core.a2a.translate.spellings import respell, spelled_object
from sidecast_schemas.codec import RawObject

SEND_OPERATIONS = frozenset({"SendMessage", "SendStreamingMessage"})
CREATE_PUSH_CONFIG = "CreateTaskPushNotificationConfig"

_ONE_CONFIG = {"id": "taskId", "pushNotificationConfigId": "id"}
_NAMES: dict[str, dict[str, str]] = {
    "GetTaskPushNotificationConfig": _ONE_CONFIG,
    "DeleteTaskPushNotificationConfig": _ONE_CONFIG,
    "ListTaskPushNotificationConfigs": {"id": "taskId"},
}
"""v0.3's names of parameters that v1.0 calls otherwise, by operation."""

_SEND = frozenset({"message", "configuration", "metadata"})
_IDS = frozenset({"id", "taskId", "metadata"})
_CONFIGURATION_REST = frozenset({"acceptedOutputModes", "historyLength"})
_CONFIGURATION = frozenset({"acceptedOutputModes", "taskPushNotificationConfig", "returnImmediately"})
_INNER_CONFIG = frozenset({"id", "url", "token", "authentication"})
_TENANT = ("tenant",)
_PROTO_SEND = {"request": "message"}
_ZERO = re.compile(rb'"?-?0(?:\.0+)?(?:[eE][+-]?[0-9]+)?"?')
_TRUE = Raw(b"true")
_FALSE = Raw(b"false")
_NOT = {b"true": _FALSE, b"false": _TRUE}


def params_to_v03(operation: str, params: bytes, *, rest: bool) -> bytes:
    """Give what v0.3 says of an operation: parameters of JSON-RPC, or a REST body, path and query.

    Args:
        operation: its name in v1.0, `GetTask`.
        params: v1.0's.
        rest: whether for REST.

    Returns:
        For JSON-RPC the parameters. For REST the body of a send or of the creation of a push notification
        config; for any other operation v1.0's names of ids, for the path, and of the rest, for the query.
        What neither can say (`metadata` of a cancellation) is among them: the caller leaves it out.

    Raises:
        Untranslatable: a looked-at field of them is not what v1.0 says.

    Source: digest 2.3.
    """
    fields = decode_line(params, "params")
    if operation in SEND_OPERATIONS:
        return encode(_send_to_v03(fields, rest=rest))
    if operation == CREATE_PUSH_CONFIG:
        return encode(create_request_to_v03_rest(fields) if rest else config_to_v03(fields, rest=False))
    if operation == "ListTasks" and is_set(fields, "status"):
        fields["status"] = state_to_v03(fields["status"], rest=rest).raw
    return encode(fields if rest else _named_to_v03(operation, fields))


def params_from_v03(operation: str, params: bytes, *, rest: bool) -> bytes:
    """Give v1.0's parameters of an operation that v0.3 calls.

    Metadata that v1.0 has no field for stays: unknown fields are ignored there.

    Args:
        operation: its name in v1.0, `GetTask`.
        params: the parameters of JSON-RPC. Of REST the body of a send or of the creation of a push
            notification config; for any other operation an object of what the query says, whose values may
            be strings.
        rest: whether it is REST that calls.

    Returns:
        v1.0's parameters, of REST but for the ids on the path: the caller sets those, in place of what a body
        named.

    Raises:
        Untranslatable: a looked-at field of them is not what v0.3 says.

    Source: digest 2.3.
    """
    fields = decode_line(params, "params")
    if operation in SEND_OPERATIONS:
        return encode(_send_from_v03(fields, rest=rest))
    if operation == CREATE_PUSH_CONFIG:
        return encode(create_request_from_v03_rest(fields) if rest else config_from_v03(fields, rest=False))
    if rest:
        respell(fields)
        # The proto's own requests name the task in a path; some clients send that as a body too.
        pop_named(fields, ("name", "parent"))
    _limit_from_v03(fields)
    if operation == "ListTasks" and is_set(fields, "status"):
        fields["status"] = state_from_v03(fields["status"], rest=rest)
    return encode(fields if rest else _named_from_v03(operation, fields))


def _named_to_v03(operation: str, fields: RawObject) -> Tree:
    """Give JSON-RPC's parameters v0.3's names, and hold what v0.3 has none for."""
    held: Tree = {}
    tenant = pop_named(fields, _TENANT)
    if tenant:
        held["fields"] = tenant
    if is_set(fields, "historyLength") and _is_zero(fields["historyLength"]):
        held["configuration"] = {"historyLength": fields["historyLength"]}
    names = _NAMES.get(operation, {})
    tree: Tree = _renamed(fields, {name: name_v03 for name_v03, name in names.items()})
    hold(tree, held)
    return tree


def _named_from_v03(operation: str, fields: RawObject) -> Tree:
    """Give JSON-RPC's parameters v1.0's names, and what was held."""
    tree: Tree = _renamed(fields, _NAMES.get(operation, {}))
    held, _ = release(tree)
    restore(tree, held, _IDS)
    restore(tree, held, _IDS, "configuration")
    return tree


def _send_to_v03(fields: RawObject, *, rest: bool) -> Tree:
    held: Tree = {}
    message = message_tree_to_v03(object_of(fields.pop("message", NULL), "message"), {}, rest=rest)
    tree: Tree = {"message": message}
    if is_set(fields, "configuration"):
        raw = fields.pop("configuration")
        tree["configuration"] = _configuration_to_v03(object_of(raw, "configuration"), held, rest=rest)
    lost = pop_other(fields, _SEND) if rest else pop_named(fields, _TENANT)
    if lost:
        held["fields"] = lost
    tree |= fields
    hold(tree, held)
    return tree


def _send_from_v03(fields: RawObject, *, rest: bool) -> Tree:
    if rest:
        respell(fields, _PROTO_SEND)
    message = spelled_object(fields.pop("message", NULL), "message", rest=rest)
    tree: Tree = {"message": message_tree_from_v03(message, rest=rest)[0], **fields}
    held, _ = release(tree)
    restore(tree, held, _SEND)
    if is_set(fields, "configuration"):
        configuration = spelled_object(fields["configuration"], "configuration", rest=rest)
        tree["configuration"] = _configuration_from_v03(configuration, held, rest=rest)
    return tree


def _configuration_to_v03(fields: RawObject, held: Tree, *, rest: bool) -> Tree:
    tree: Tree = {}
    immediately = fields.pop("returnImmediately", NULL)
    if immediately != NULL:
        tree["blocking"] = _negated(immediately, "returnImmediately")
    elif rest:
        # ProtoJSON leaves out what is false, so absent would say the opposite of v1.0's default.
        tree["blocking"] = _TRUE
    config = fields.pop("taskPushNotificationConfig", NULL)
    if config != NULL:
        flat = object_of(config, "taskPushNotificationConfig")
        inner, beside = inner_config_to_v03(flat, rest=rest)
        if rest and beside:
            held["pushConfig"] = beside
        tree["pushNotification" if rest else "pushNotificationConfig"] = inner if rest else inner | beside
    lost = pop_other(fields, _CONFIGURATION_REST) if rest else {}
    # Agents of v0.3 that take 0 at its word do what is meant, the others send everything.
    if is_set(fields, "historyLength") and _is_zero(fields["historyLength"]):
        lost["historyLength"] = fields["historyLength"]
    if lost:
        held["configuration"] = lost
    return tree | fields


def _configuration_from_v03(fields: RawObject, held: Mapping[str, Raw], *, rest: bool) -> Tree:
    tree: Tree = {}
    blocking = fields.pop("blocking", NULL)
    if blocking != NULL:
        tree["returnImmediately"] = _negated(blocking, "blocking")
    elif rest:
        tree["returnImmediately"] = _TRUE
    name = "pushNotification" if rest else "pushNotificationConfig"
    config = fields.pop(name, NULL)
    if config != NULL:
        inner = inner_config_from_v03(object_of(config, name), rest=rest)
        restore(inner, dict(held), _INNER_CONFIG, "pushConfig")
        tree["taskPushNotificationConfig"] = inner
    _limit_from_v03(fields)
    tree |= fields
    restore(tree, dict(held), _CONFIGURATION, "configuration")
    return tree


def _limit_from_v03(fields: RawObject) -> None:
    # In v0.3 a history length of 0 is no limit, in v1.0 it is no history (digest 2.3).
    if is_set(fields, "historyLength") and _is_zero(fields["historyLength"]):
        del fields["historyLength"]


def _is_zero(raw: Raw) -> bool:
    if bytes(raw)[:1] not in b'"-0123456789':
        raise Untranslatable("historyLength: Expected `int`")
    return _ZERO.fullmatch(bytes(raw)) is not None


def _negated(raw: Raw, what: str) -> Raw:
    value = _NOT.get(bytes(raw))
    if value is None:
        raise Untranslatable(f"{what}: Expected `bool`")
    return value


def _renamed(fields: RawObject, names: Mapping[str, str]) -> RawObject:
    """Rename parameters; one that already has another's new name goes, so that it can't name another task."""
    taken = set(names.values()) - names.keys()
    return {names.get(name, name): raw for name, raw in fields.items() if name not in taken}
