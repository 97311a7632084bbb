"""A broker that checks credentials, tasks of several owners behind it, and everything it asks the stream.

Must not know what is tested.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from a2a_rig.awkward import AwkwardAgent, streamed
from a2a_rig.wire import WIRES, Wire, request
from aiohttp import web
from askers import EVERYTHING, Askers
from brokers import FakeBackend, OwnBroker, broker, done, status, task_record
from fake_jetstream import FakeJetStream
from sse import exchange

from sidecast_broker.answers import Page
from sidecast_broker.core.auth.principal import Grant, Principal
from sidecast_broker.core.log import Stored
from sidecast_broker.jetstream import JetStream
from sidecast_broker.settings import Nats
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey, encode_token, events_subject

# One length, so that no answer could differ by it.
ALICES = "task-of-alice"
BOBS = "task-of-bob--"
OPEN = "task-open----"
OWNERLESS = "task-ownerles"
MISSING = "task-missing-"
HERS_ELSEWHERE = "task-of-acme-"
"""A task of alice's in the tenant acme."""

ACME = "acme"

FLOOR_MS = 20
"""Shorter than a user would set it: nearly every test here is refused something."""

PRINCIPALS = (
    Principal("alice", "jwt"),
    Principal("bob", "jwt"),
    Principal("carol", "jwt", grants=(Grant("", "agent", "task-", is_prefix=True),)),
    Principal("dave", "api_key", tenant=ACME, grants=(EVERYTHING,)),
    Principal("erin", "jwt"),
    Principal("insider", "jwt", tenant="", grants=(EVERYTHING,)),
    Principal("root", "jwt", grants=(EVERYTHING,), rights=frozenset({"admin", "publish"})),
    Principal("teller", "jwt", rights=frozenset({"publish"})),
    Principal("chief", "jwt", tenant=ACME, rights=frozenset({"admin", "publish"})),
    Principal(
        "holder", "ticket", tasks=frozenset({TaskKey("", "agent", ALICES), TaskKey("", "agent", OPEN)})
    ),
)


class RecordingJetStream(FakeJetStream):
    """The double, which writes down what it is asked about which subject."""

    asked: list[tuple[str, str]]
    slow: Callable[[Stored | None], float]

    async def subscribe(self, token: object, subject: str, handler: Callable[[Stored], None]) -> None:
        self.asked.append(("subscribe", subject))
        await super().subscribe(token, subject, handler)

    async def last(self, subject: str) -> Stored | None:
        self.asked.append(("last", subject))
        return await super().last(subject)

    async def next(self, subject: str, sequence: int) -> Stored | None:
        self.asked.append((f"next {sequence}", subject))
        found = await super().next(subject, sequence)
        await asyncio.sleep(self.slow(found))
        return found

    async def read(self, subject: str, start: int, count_max: int | None = None) -> Page:
        self.asked.append(("read", subject))
        return await super().read(subject, start, count_max)


class RecordingBackend(FakeBackend):
    """The stream behind the broker.

    Attributes:
        asked: what brokers have asked about which subject.
        slow: how long the leader takes, by what it answers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []
        self.slow: Callable[[Stored | None], float] = lambda _found: 0.0

    def connect(self, nats: Nats, on_doubt: Callable[[str], None]) -> JetStream:
        connection = RecordingJetStream(self.server, nats, on_doubt, self.faults)
        connection.asked = self.asked
        connection.slow = lambda found: self.slow(found)
        self.connections.append(connection)
        return connection  # type: ignore[return-value]

    def store(self, task: str, *payloads: bytes, owner: str | None = None, tenant: str = "") -> int:
        """Store events of a task that belongs to somebody; give the last one's sequence."""
        headers = {names.OWNER: encode_token(owner)} if owner else {}
        subject = events_subject(TaskKey(tenant, "agent", task))
        return [self.server.publish(subject, payload, headers) for payload in payloads][-1]


def stocked() -> RecordingBackend:
    """Give a stream with tasks of several owners."""
    backend = RecordingBackend()
    for task, owner, tenant in (
        (ALICES, "alice", ""),
        (BOBS, "bob", ""),
        (OWNERLESS, None, ""),
        (HERS_ELSEWHERE, "alice", ACME),
    ):
        backend.store(task, task_record(task), status("on it", task), done(task), owner=owner, tenant=tenant)
    backend.store(OPEN, task_record(OPEN), status("on it", OPEN), owner="alice")
    return backend


class Ask(NamedTuple):
    """A request: method, target, body and headers."""

    method: str
    target: str
    body: bytes | None
    headers: dict[str, str]

    def raw(self, who: str | None) -> bytes:
        """Write it, from somebody, over a connection of its own."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: broker", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if who is not None:
            lines.append(f"Authorization: Bearer {who}")
        if self.body is not None:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join((*lines, "", "")).encode() + (self.body or b"")


Path = Callable[[str], Ask]


def _get(target: str, **headers: str) -> Path:
    return lambda task: Ask("GET", target.format(task), None, headers)


def _rpc(wire: Wire, method: str, **params: Any) -> Path:
    headers = {"Content-Type": "application/json"} | ({"A2A-Version": "1.0"} if wire.version == "1.0" else {})

    def give(task: str) -> Ask:
        filled = json.loads(json.dumps(params).replace("{}", task))
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": filled}
        return Ask("POST", "/", json.dumps(body).encode(), headers)

    return give


def _rest(wire: Wire, method: str, path: str, body: Any = None) -> Path:
    headers = {"Content-Type": "application/json"} | ({"A2A-Version": "1.0"} if wire.version == "1.0" else {})
    prefix = "/v1" if wire.version == "0.3" else ""

    def give(task: str) -> Ask:
        data = None if body is None else json.dumps(body).replace("{}", task).encode()
        return Ask(method, (prefix + path).format(task), data, headers)

    return give


def _of_wire(wire: Wire, do: str, **fields: Any) -> Path:
    def give(task: str) -> Ask:
        method, path, body, headers = request(
            wire, do, task=task, text="go", message_id=uuid4().hex, **fields
        )
        return Ask(method, path, body, headers)

    return give


ALIASES = {
    "events": "/tasks/{}/events",
    "messages": "/tasks/{}/messages/stream",
    "stream": "/stream/tasks/{}",
    "api": "/api/stream/{}",
    "query": "/a2a/stream?taskId={}",
}
"""Every path of the browser format."""

BROWSER: dict[str, Path] = {
    f"{name}{kind}": _get(path, Accept=accept)
    for name, path in ALIASES.items()
    for kind, accept in (("", "text/event-stream"), (" json", "application/json"), (" any", "*/*"))
}
V1_RPC, V1_REST, V03_RPC, V03_REST = WIRES

PASSED: dict[str, Path] = {
    f"{do} {wire}": _of_wire(wire, do) for wire in WIRES for do in ("send", "get", "cancel")
} | {
    "set push 1.0": _rpc(
        V1_RPC, "CreateTaskPushNotificationConfig", taskId="{}", url="http://127.0.0.1:9/", id="c"
    ),
    "get push 1.0": _rpc(V1_RPC, "GetTaskPushNotificationConfig", taskId="{}", id="c"),
    "list push 1.0": _rpc(V1_RPC, "ListTaskPushNotificationConfigs", taskId="{}"),
    "delete push 1.0": _rpc(V1_RPC, "DeleteTaskPushNotificationConfig", taskId="{}", id="c"),
    "get push 0.3": _rpc(V03_RPC, "tasks/pushNotificationConfig/get", id="{}"),
    "list push 0.3": _rpc(V03_RPC, "tasks/pushNotificationConfig/list", id="{}"),
    "set push rest": _rest(
        V1_REST, "POST", "/tasks/{}/pushNotificationConfigs", {"url": "http://127.0.0.1:9/", "id": "c"}
    ),
    "get push rest": _rest(V1_REST, "GET", "/tasks/{}/pushNotificationConfigs/c"),
    "list push rest": _rest(V1_REST, "GET", "/tasks/{}/pushNotificationConfigs"),
    "delete push rest": _rest(V1_REST, "DELETE", "/tasks/{}/pushNotificationConfigs/c"),
    "list push rest 0.3": _rest(V03_REST, "GET", "/tasks/{}/pushNotificationConfigs"),
}
"""A2A operations that name a task and pass to the agent."""

STREAMED: dict[str, Path] = {
    f"{do} {wire}": _of_wire(wire, do) for wire in WIRES for do in ("subscribe", "stream")
} | {
    "subscribe by GET": _of_wire(V1_REST, "subscribe", verb="GET"),
    "subscribe by GET 0.3": _of_wire(V03_REST, "subscribe", verb="GET"),
    "subscribe behind the agent": _of_wire(V1_REST, "subscribe", prefix="/agents/agent"),
    "subscribe behind the agent rpc": _of_wire(V1_RPC, "subscribe", prefix="/agents/agent/a2a"),
    "subscribe /a2a": _of_wire(V1_RPC, "subscribe", prefix="/a2a"),
}
"""A2A operations that name a task and are answered by a stream."""

TASK_PATHS = BROWSER | STREAMED | PASSED

_DATE = re.compile(rb"\r\nDate: [^\r]*")


async def answered(url: str, ask: Ask, who: str | None) -> bytes:
    """Give every byte of an answer but the date."""
    return _DATE.sub(b"", await exchange(url, ask.raw(who)))


def status_of(answer: bytes) -> int:
    """Give the status of an answer."""
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> Any:
    """Give the JSON of an answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


class Rig(NamedTuple):
    """A broker, its stream, and the agent beside it."""

    broker: OwnBroker
    backend: RecordingBackend
    agent: AwkwardAgent

    async def ask(self, path: Path | Ask, who: str | None, task: str = "") -> bytes:
        """Give every byte of an answer but the date."""
        return await answered(self.broker.url, path if isinstance(path, Ask) else path(task), who)

    def asked_of(self, task: str, tenant: str = "") -> list[str]:
        """Give what the stream was asked about a task, and forget it."""
        token = events_subject(TaskKey(tenant, "agent", task)).partition(".events.")[2]
        found = [what for what, subject in self.backend.asked if subject.endswith(token)]
        self.backend.asked.clear()
        return found


async def as_task(request: web.Request, body: bytes) -> web.StreamResponse:
    """Answer every operation as an agent that has every task: a Task, or a stream that begins with it."""
    asked = json.loads(body) if body else {}
    params = asked.get("params", asked)
    named = (params.get("message") or {}).get("taskId") or params.get("id") or request.path.split("/")[-1]
    task = {"id": named, "contextId": "context-1", "status": {"state": "TASK_STATE_WORKING"}}
    is_send = "message" in params
    result: dict[str, Any] = {"task": task} if is_send else task
    if request.path == "/":
        result = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
    if "Stream" in str(asked.get("method")) or request.path.endswith(":stream"):
        return await streamed([b"data: " + json.dumps(result).encode() + b"\n\n"])(request, body)
    return web.json_response(result)


@asynccontextmanager
async def rig(
    backend: RecordingBackend | None = None,
    *,
    principals: tuple[Principal, ...] = PRINCIPALS,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """Run a broker beside an agent, with tasks of several owners in its stream."""
    backend = backend or stocked()
    async with AwkwardAgent() as agent:
        agent.answer = as_task
        settings = {"agent__url": agent.url, "auth__required": "true"} | settings
        settings.setdefault("auth__refusal_floor_ms", FLOOR_MS)
        async with broker(backend, authenticator=Askers(*principals), **settings) as running:
            backend.asked.clear()
            yield Rig(running, backend, agent)
