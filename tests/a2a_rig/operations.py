"""Requests of those operations that no stream comes of, on the four wires, by hand.

Must not know who serves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from a2a_rig.wire import Binding, Version, Wire

Asked = tuple[str, str, bytes | None, dict[str, str]]
"""Method, path, body and headers."""

CONFIG = "p1"
HOOK = {"url": "https://example.org/hook", "token": "t"}


def other_request(wire: Wire, do: str, task: str, context: str = "") -> Asked:
    """Write a request of an operation that `wire.request` has no word for.

    Args:
        wire: to speak.
        do: one of the words in the tables below.
        task: that is asked about.
        context: that is asked about.
    """
    headers = {"Content-Type": "application/json"}
    if wire.version == "1.0":
        headers["A2A-Version"] = "1.0"
    verb, path, body = _TABLES[wire](task, context)[do]
    if wire.binding == "jsonrpc":
        body = {"jsonrpc": "2.0", "id": 1, "method": path, "params": body}
        path = "/"
    return verb, path, None if body is None else json.dumps(body).encode(), headers


_Table = dict[str, tuple[str, str, dict[str, Any] | None]]


def _rpc_v1(task: str, context: str) -> _Table:
    config = {"taskId": task, "id": CONFIG}
    return {
        "get with one message": ("POST", "GetTask", {"id": task, "historyLength": 1}),
        "list tasks": ("POST", "ListTasks", {"contextId": context, "pageSize": 5}),
        "set push config": ("POST", "CreateTaskPushNotificationConfig", config | HOOK),
        "get push config": ("POST", "GetTaskPushNotificationConfig", config),
        "list push configs": ("POST", "ListTaskPushNotificationConfigs", {"taskId": task}),
        "delete push config": ("POST", "DeleteTaskPushNotificationConfig", config),
        "extended card": ("POST", "GetExtendedAgentCard", {}),
        "no such operation": ("POST", "NoSuchOperation", {}),
    }


def _rest_v1(task: str, context: str) -> _Table:
    configs = f"/tasks/{task}/pushNotificationConfigs"
    return {
        "get with one message": ("GET", f"/tasks/{task}?historyLength=1", None),
        "list tasks": ("GET", f"/tasks?contextId={context}&pageSize=5", None),
        "set push config": ("POST", configs, {"taskId": task, "id": CONFIG} | HOOK),
        "get push config": ("GET", f"{configs}/{CONFIG}", None),
        "list push configs": ("GET", configs, None),
        "delete push config": ("DELETE", f"{configs}/{CONFIG}", None),
        "extended card": ("GET", "/extendedAgentCard", None),
        "no such operation": ("POST", f"/tasks/{task}:rewind", {}),
    }


def _rpc_v03(task: str, _context: str) -> _Table:
    config = {"id": task, "pushNotificationConfigId": CONFIG}
    held = {"taskId": task, "pushNotificationConfig": {"id": CONFIG} | HOOK}
    return {
        "get with one message": ("POST", "tasks/get", {"id": task, "historyLength": 1}),
        "list tasks": ("POST", "tasks/list", {}),
        "set push config": ("POST", "tasks/pushNotificationConfig/set", held),
        "get push config": ("POST", "tasks/pushNotificationConfig/get", config),
        "list push configs": ("POST", "tasks/pushNotificationConfig/list", {"id": task}),
        "delete push config": ("POST", "tasks/pushNotificationConfig/delete", config),
        "extended card": ("POST", "agent/getAuthenticatedExtendedCard", {}),
        "no such operation": ("POST", "tasks/rewind", {"id": task}),
    }


def _rest_v03(task: str, _context: str) -> _Table:
    configs = f"/v1/tasks/{task}/pushNotificationConfigs"
    name = f"tasks/{task}/pushNotificationConfigs/{CONFIG}"
    held = {"name": name, "pushNotificationConfig": {"id": CONFIG} | HOOK}
    return {
        "get with one message": ("GET", f"/v1/tasks/{task}?historyLength=1", None),
        "list tasks": ("GET", "/v1/tasks", None),
        "set push config": ("POST", configs, {"parent": f"tasks/{task}", "configId": CONFIG, "config": held}),
        "get push config": ("GET", f"{configs}/{CONFIG}", None),
        "list push configs": ("GET", configs, None),
        "delete push config": ("DELETE", f"{configs}/{CONFIG}", None),
        "extended card": ("GET", "/v1/card", None),
        "no such operation": ("POST", f"/v1/tasks/{task}:rewind", {}),
    }


_TABLES: dict[tuple[Version, Binding], Callable[[str, str], _Table]] = {
    ("1.0", "jsonrpc"): _rpc_v1,
    ("1.0", "rest"): _rest_v1,
    ("0.3", "jsonrpc"): _rpc_v03,
    ("0.3", "rest"): _rest_v03,
}
