"""Results of every operation that does not stream: v1.0's to those of v0.3, and back.

Must not know JSON-RPC's envelope, HTTP, nor agent cards.
"""

from __future__ import annotations

from sidecast_broker.core.a2a.translate.events import (
    response_from_v03,
    response_from_v03_rest,
    response_to_v03,
    response_to_v03_rest,
    task_from_v03,
    task_from_v03_rest,
    task_to_v03,
    task_to_v03_rest,
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


def result_to_v03(operation: str, result: bytes) -> bytes:
    """Give v0.3's JSON-RPC result of an operation.

    The page token of a list of push notification configs is left out: v0.3's list is a bare array.

    Args:
        operation: its name in v1.0, `GetTask`.
        result: v1.0's.

    Returns:
        One line of JSON. A result without content (of a deletion) is null.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    if operation in _RESPONSES:
        return response_to_v03(result)
    if operation in _TASKS:
        return task_to_v03(result)
    if operation == "DeleteTaskPushNotificationConfig":
        return b"null"
    fields = decode_line(result, "result")
    if operation in _CONFIGS:
        return encode(config_to_v03(fields, rest=False))
    if operation == "ListTaskPushNotificationConfigs":
        configs = objects_of(fields["configs"], "configs") if is_set(fields, "configs") else []
        return encode([config_to_v03(each, rest=False) for each in configs])
    return encode(_list_to_v03(operation, fields, rest=False))


def result_to_v03_rest(operation: str, result: bytes) -> bytes:
    """Give v0.3's REST answer of an operation.

    Args:
        operation: its name in v1.0, `GetTask`.
        result: v1.0's.

    Returns:
        One line of JSON. An answer without content (of a deletion) is an empty object.

    Raises:
        Untranslatable: a looked-at field of it is not what v1.0 says.
    """
    if operation in _RESPONSES:
        return response_to_v03_rest(result)
    if operation in _TASKS:
        return task_to_v03_rest(result)
    if operation == "DeleteTaskPushNotificationConfig":
        return b"{}"
    fields = decode_line(result, "result")
    if operation in _CONFIGS:
        return encode(config_to_v03(fields, rest=True))
    return encode(_list_to_v03(operation, fields, rest=True))


def result_from_v03(operation: str, result: bytes) -> bytes:
    """Give v1.0's result of an operation called by v0.3's JSON-RPC.

    Args:
        operation: its name in v1.0, `GetTask`.
        result: v0.3's.

    Returns:
        One line of JSON. A result without content (of a deletion) is an empty object.

    Raises:
        Untranslatable: a looked-at field of it is not what v0.3 says.
    """
    if operation in _RESPONSES:
        return response_from_v03(result)
    if operation in _TASKS:
        return task_from_v03(result)
    if operation == "DeleteTaskPushNotificationConfig":
        return b"{}"
    if operation == "ListTaskPushNotificationConfigs":
        configs = decode_list_line(result, "result")
        return encode({"configs": [config_from_v03(each, rest=False) for each in configs]})
    fields = decode_line(result, "result")
    if operation in _CONFIGS:
        return encode(config_from_v03(fields, rest=False))
    return encode(_list_from_v03(operation, fields, rest=False))


def result_from_v03_rest(operation: str, result: bytes) -> bytes:
    """Give v1.0's result of an operation called by v0.3's REST.

    Args:
        operation: its name in v1.0, `GetTask`.
        result: v0.3's.

    Returns:
        One line of JSON. An answer without content (of a deletion) is an empty object.

    Raises:
        Untranslatable: a looked-at field of it is not what v0.3 says.
    """
    if operation in _RESPONSES:
        return response_from_v03_rest(result)
    if operation in _TASKS:
        return task_from_v03_rest(result)
    if operation == "DeleteTaskPushNotificationConfig":
        return b"{}"
    fields = respell(decode_line(result, "result"))
    if operation in _CONFIGS:
        return encode(config_from_v03(fields, rest=True))
    return encode(_list_from_v03(operation, fields, rest=True))


def _list_to_v03(operation: str, fields: Tree, *, rest: bool) -> Tree:
    if operation == "ListTasks" and is_set(fields, "tasks"):
        tasks = objects_of(fields["tasks"], "tasks")
        fields["tasks"] = [task_tree_to_v03(each, {}, rest=rest) for each in tasks]
    elif operation == "ListTaskPushNotificationConfigs" and is_set(fields, "configs"):
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
    elif operation == "ListTaskPushNotificationConfigs" and is_set(fields, "configs"):
        configs = spelled_objects(fields["configs"], "configs", rest=rest)
        fields["configs"] = [config_from_v03(each, rest=rest) for each in configs]
    return fields
