"""Results of every operation that does not stream: v1.0's to those of v0.3, and back.

Must not know JSON-RPC's envelope, HTTP, nor agent cards.
"""

from __future__ import annotations

from sidecast_broker.core.a2a.translate.events import (
    response_from_v03,
    response_to_v03,
    task_from_v03,
    task_to_v03,
)
from sidecast_broker.core.a2a.translate.push_configs import config_from_v03, config_to_v03
from sidecast_broker.core.a2a.translate.raw import (
    NULL,
    Tree,
    Untranslatable,
    decode_line,
    decode_list_line,
    encode,
    is_set,
    objects_of,
    text_of,
)
from sidecast_broker.core.a2a.translate.spellings import respell, spelled_objects
from sidecast_broker.core.a2a.translate.updates import task_tree_from_v03, task_tree_to_v03

_RESPONSES = frozenset({"SendMessage", "SendStreamingMessage", "SubscribeToTask"})
_TASKS = frozenset({"GetTask", "CancelTask"})
_CONFIGS = frozenset({"CreateTaskPushNotificationConfig", "GetTaskPushNotificationConfig"})
_LIST_CONFIGS = "ListTaskPushNotificationConfigs"
_DELETE_CONFIG = "DeleteTaskPushNotificationConfig"


def result_to_v03(operation: str, result: bytes, *, rest: bool) -> bytes:
    """Give what v0.3 answers to an operation: the result of JSON-RPC, or the body of REST.

    On JSON-RPC the page token of a list of push notification configs is left out: that list is a bare array.

    Args:
        operation: its name in v1.0, `GetTask`.
        result: v1.0's.
        rest: whether by REST.

    Returns:
        One line of JSON. An answer without content (of a deletion) is null, on REST an empty object.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    if operation in _RESPONSES:
        return response_to_v03(result, rest=rest)
    if operation in _TASKS:
        return task_to_v03(result, rest=rest)
    if operation == _DELETE_CONFIG:
        return b"{}" if rest else b"null"
    fields = decode_line(result, "result")
    if operation in _CONFIGS:
        return encode(config_to_v03(fields, rest=rest))
    if operation == _LIST_CONFIGS and not rest:
        configs = objects_of(fields["configs"], "configs") if is_set(fields, "configs") else []
        return encode([config_to_v03(each, rest=False) for each in configs])
    return encode(_list_to_v03(operation, fields, rest=rest))


def result_from_v03(operation: str, result: bytes, *, rest: bool) -> bytes:
    """Give v1.0's result of an operation that v0.3 has answered.

    Args:
        operation: its name in v1.0, `GetTask`.
        result: the result of JSON-RPC, or the body of REST.
        rest: whether it is REST's.

    Returns:
        One line of JSON. A result without content (of a deletion) is an empty object.

    Raises:
        Untranslatable: a looked-at field of it is not what v0.3 says.
    """
    if operation in _RESPONSES:
        return response_from_v03(result, rest=rest)
    if operation in _TASKS:
        return task_from_v03(result, rest=rest)
    if operation == _DELETE_CONFIG:
        return b"{}"
    if operation == _LIST_CONFIGS and not rest:
        configs = decode_list_line(result, "result")
        return encode({"configs": [config_from_v03(each, rest=False) for each in configs]})
    fields = decode_line(result, "result")
    if rest:
        respell(fields)
    if operation in _CONFIGS:
        return encode(config_from_v03(fields, rest=rest))
    return encode(_list_from_v03(operation, fields, rest=rest))


def _list_to_v03(operation: str, fields: Tree, *, rest: bool) -> Tree:
    if operation == "ListTasks" and is_set(fields, "tasks"):
        tasks = objects_of(fields["tasks"], "tasks")
        fields["tasks"] = [task_tree_to_v03(each, {}, rest=rest) for each in tasks]
    elif operation == _LIST_CONFIGS and is_set(fields, "configs"):
        configs = objects_of(fields["configs"], "configs")
        fields["configs"] = [config_to_v03(each, rest=rest) for each in configs]
    return fields


def _list_from_v03(operation: str, fields: Tree, *, rest: bool) -> Tree:
    if operation == "ListTasks" and is_set(fields, "tasks"):
        tasks = spelled_objects(fields["tasks"], "tasks", rest=rest)
        for task in tasks:
            if not rest and text_of(task.pop("kind", NULL), "task: kind") != "task":
                raise Untranslatable("task: kind is another one")
        fields["tasks"] = [task_tree_from_v03(task, rest=rest)[0] for task in tasks]
    elif operation == _LIST_CONFIGS and is_set(fields, "configs"):
        configs = spelled_objects(fields["configs"], "configs", rest=rest)
        fields["configs"] = [config_from_v03(each, rest=rest) for each in configs]
    return fields
