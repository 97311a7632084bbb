"""The operations of A2A: what each is called in both generations and bindings, and where it names a task.

Must not know how a request is read, nor how one is answered.
"""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import quote

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.wire import Version

TaskField = Literal["id", "taskId", "message.taskId"]


class RestForm(NamedTuple):
    """How REST spells an operation.

    Attributes:
        methods: HTTP methods it answers on; to call an agent, the first, and the next one after a 405.
        path: from the interface's URL; `{task}` and `{config}` stand for ids.
    """

    methods: tuple[str, ...]
    path: str


class Operation(NamedTuple):
    """One operation.

    Attributes:
        name: of A2A 1.0; its JSON-RPC method there. The agent card has a name of the same form.
        method_v03: the JSON-RPC method of v0.3; None: there is none.
        rest: in v1.0.
        rest_v03: in v0.3.
        streams: it is answered by a stream.
        ours: the broker answers it; any other passes to the agent.
        task: where the JSON-RPC parameters of v1.0 name a task; None: it names none.
        task_v03: where those of v0.3 do.
    """

    name: str
    method_v03: str | None
    rest: RestForm
    rest_v03: RestForm
    streams: bool = False
    ours: bool = False
    task: TaskField | None = None
    task_v03: TaskField | None = None

    @property
    def task_is_optional(self) -> bool:
        """Whether it may name no task: a message without one begins a new task."""
        return self.task == "message.taskId"


def _rest(path: str, *methods: str) -> tuple[RestForm, RestForm]:
    """Give the forms of v1.0 and v0.3, where those differ by the beginning of the path alone."""
    return RestForm(methods, path), RestForm(methods, f"/v1{path}")


SEND_MESSAGE = Operation(
    "SendMessage",
    "message/send",
    *_rest("/message:send", "POST"),
    task="message.taskId",
    task_v03="message.taskId",
)
SEND_STREAMING_MESSAGE = Operation(
    "SendStreamingMessage",
    "message/stream",
    *_rest("/message:stream", "POST"),
    streams=True,
    ours=True,
    task="message.taskId",
    task_v03="message.taskId",
)
GET_TASK = Operation(
    "GetTask",
    "tasks/get",
    *_rest("/tasks/{task}", "GET"),
    task="id",
    task_v03="id",
)
LIST_TASKS = Operation("ListTasks", None, *_rest("/tasks", "GET"))
CANCEL_TASK = Operation(
    "CancelTask",
    "tasks/cancel",
    *_rest("/tasks/{task}:cancel", "POST"),
    task="id",
    task_v03="id",
)
# The specification's prose says POST, its proto GET, in both generations (digest 0.1). Agents of v0.3 answer
# GET, those of v1.0 rather POST.
SUBSCRIBE_TO_TASK = Operation(
    "SubscribeToTask",
    "tasks/resubscribe",
    RestForm(("POST", "GET"), "/tasks/{task}:subscribe"),
    RestForm(("GET", "POST"), "/v1/tasks/{task}:subscribe"),
    streams=True,
    ours=True,
    task="id",
    task_v03="id",
)
CREATE_PUSH_CONFIG = Operation(
    "CreateTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/set",
    *_rest("/tasks/{task}/pushNotificationConfigs", "POST"),
    task="taskId",
    task_v03="taskId",
)
GET_PUSH_CONFIG = Operation(
    "GetTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/get",
    *_rest("/tasks/{task}/pushNotificationConfigs/{config}", "GET"),
    task="taskId",
    task_v03="id",
)
LIST_PUSH_CONFIGS = Operation(
    "ListTaskPushNotificationConfigs",
    "tasks/pushNotificationConfig/list",
    *_rest("/tasks/{task}/pushNotificationConfigs", "GET"),
    task="taskId",
    task_v03="id",
)
DELETE_PUSH_CONFIG = Operation(
    "DeleteTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/delete",
    *_rest("/tasks/{task}/pushNotificationConfigs/{config}", "DELETE"),
    task="taskId",
    task_v03="id",
)
GET_EXTENDED_CARD = Operation(
    "GetExtendedAgentCard",
    "agent/getAuthenticatedExtendedCard",
    RestForm(("GET",), "/extendedAgentCard"),
    RestForm(("GET",), "/v1/card"),
)
GET_CARD = Operation(
    "GetAgentCard",
    None,
    RestForm(("GET", "HEAD"), "/.well-known/agent-card.json"),
    RestForm(("GET", "HEAD"), "/.well-known/agent.json"),
    ours=True,
)
"""The public card; no JSON-RPC method and no generation of its own (C56)."""

PROTOCOL_OPERATIONS = (
    SEND_MESSAGE,
    SEND_STREAMING_MESSAGE,
    GET_TASK,
    LIST_TASKS,
    CANCEL_TASK,
    SUBSCRIBE_TO_TASK,
    CREATE_PUSH_CONFIG,
    GET_PUSH_CONFIG,
    LIST_PUSH_CONFIGS,
    DELETE_PUSH_CONFIG,
    GET_EXTENDED_CARD,
)
"""All but the public card. Source: A2A 1.0, section 5.3; v0.3, section 3.5.6; digest 1.1 and 2.1."""

_METHODS: dict[Version, dict[str, Operation]] = {
    "1.0": {operation.name: operation for operation in PROTOCOL_OPERATIONS},
    "0.3": {operation.method_v03: operation for operation in PROTOCOL_OPERATIONS if operation.method_v03},
}
_OTHER: dict[Version, Version] = {"1.0": "0.3", "0.3": "1.0"}


def operation_of(method: str, version: Version) -> Operation:
    """Give the operation a JSON-RPC method names.

    Args:
        method: as the client sent it.
        version: the client's.

    Raises:
        A2AError: METHOD_NOT_FOUND (C49).
    """
    operation = _METHODS[version].get(method)
    if operation is None:
        other = _OTHER[version]
        if method in _METHODS[other]:
            detail = f"This is a method of A2A {other}, and A2A-Version says {version} (or nothing: 0.3)"
            raise A2AError(ErrorKind.METHOD_NOT_FOUND, detail)
        raise A2AError(ErrorKind.METHOD_NOT_FOUND)
    return operation


def rpc_method(operation: Operation, version: Version) -> str | None:
    """Give the JSON-RPC method to call an operation by; None: this generation has none."""
    if operation is GET_CARD:
        return None
    return operation.name if version == "1.0" else operation.method_v03


def rest_form(operation: Operation, version: Version) -> RestForm:
    """Give the HTTP methods and the path, not filled in, of an operation."""
    return operation.rest if version == "1.0" else operation.rest_v03


def rest_call(
    operation: Operation, version: Version, *, task: str = "", config: str = "", tenant: str = ""
) -> RestForm:
    """Give the HTTP methods and the path to call an operation of an agent by.

    Args:
        operation: which.
        version: the agent's.
        task: id of the task, where the path names one.
        config: id of the push notification configuration, where it names one.
        tenant: of the agent's interface; v1.0 only.

    Raises:
        A2AError: INVALID_PARAMS: an id is missing, or can't stand on a path.
    """
    methods, path = rest_form(operation, version)
    for place, value in (("{task}", task), ("{config}", config)):
        if place in path:
            path = path.replace(place, _path_text(value))
    if tenant and version == "1.0" and operation is not GET_CARD:
        path = f"/{_path_text(tenant)}{path}"
    return RestForm(methods, path)


def is_one_segment(task: str) -> bool:
    """Tell whether a task's id is one segment of a path to every server, and names no action of a task.

    Many servers decode a path before they look where it leads (a2a-sdk's do): to them an escaped slash is
    one, and `t%3Asubscribe` ends with an action (A2A v1.0, section 5.3).
    """
    action = task.rpartition(":")[2] if ":" in task else ""
    return (
        bool(task)
        and task not in (".", "..")
        and not any(character in "/\\%" or not character.isprintable() for character in task)
        and action not in ("subscribe", "resubscribe", "cancel")
    )


def _path_text(value: str) -> str:
    if not is_one_segment(value):
        raise A2AError(
            ErrorKind.INVALID_PARAMS, "An id can't stand on a path, which is how this agent is asked"
        )
    return quote(value, safe="")
