"""A broker with real credentials at a real nats-server, tasks of several owners, and what attacks may change.

Must not know what is attacked.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import issuer
from a2a_rig.awkward import AwkwardAgent
from access_rig import ACME, ALICES, BOBS, HERS_ELSEWHERE, OPEN, OWNERLESS, as_task
from aiohttp import web
from brokers import OwnBroker, RealBackend, broker, done, status, task_record, until
from issuer import AUDIENCE, ISSUER, jwks
from nats_server import NatsServer, request_api
from sse import Watch, exchange, kinds

from sidecast_broker.auth.api_keys import hash_key
from sidecast_broker.jetstream import JetStream
from sidecast_broker.settings import Nats
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey, encode_token, events_subject

API_KEY = "sidecast_" + "k3y" * 14
TICKET_SECRET = "a secret of tickets that is long enough for them"
BUCKETS = ("SIDECAST_REVOKED", "SIDECAST_MESSAGES")

_DATE = re.compile(rb"\r\nDate: [^\r]*")


def token(kind: str = "rsa", algorithm: str | None = None, **changed: Any) -> str:
    """Sign a token of alice's that is valid for ten minutes, unless what is changed says otherwise."""
    return issuer.token(kind, algorithm, **{"exp": in_ten_minutes(), **changed})


def in_ten_minutes() -> int:
    """Give a time, seconds since 1970."""
    return int(time.time()) + 600


def bearer(text: str) -> str:
    """Give the line that carries a token or a key."""
    return f"Authorization: Bearer {text}"


def dateless(answer: bytes) -> bytes:
    """Give an answer without its date."""
    return _DATE.sub(b"", answer)


class Shot(NamedTuple):
    """A request, byte for byte but for its framing.

    Attributes:
        method: of HTTP.
        target: of HTTP, as it is sent.
        lines: of the head; a `Host` is added where they name none.
        body: sent with its length, and as JSON unless the lines name a type.
        internal: whether it goes to the internal listener.
        until: bytes of the answer at which the client leaves; empty: it waits for the end.
    """

    method: str
    target: str
    lines: tuple[str, ...] = ()
    body: bytes | None = None
    internal: bool = False
    until: bytes = b""

    def raw(self) -> bytes:
        """Write it, over a connection of its own."""
        names = {line.partition(":")[0].strip().lower() for line in self.lines}
        head = [f"{self.method} {self.target} HTTP/1.1"]
        head += ["Host: localhost"] if "host" not in names else []
        head += [*self.lines, "Connection: close"]
        if self.body is not None:
            head += ["Content-Type: application/json"] if "content-type" not in names else []
            if not names & {"content-length", "transfer-encoding"}:
                head.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join((*head, "", "")).encode("utf-8", "surrogateescape") + (self.body or b"")


class Backend(RealBackend):
    """The stream of the run's nats-server, which keeps the connections that brokers make to it."""

    def __init__(self, server: NatsServer) -> None:
        super().__init__(server)
        self.connections: list[JetStream] = []

    def connect(self, nats: Nats, on_doubt: Callable[[str], None]) -> JetStream:
        connection = super().connect(nats, on_doubt)
        self.connections.append(connection)
        return connection

    async def aclose(self) -> None:
        """Close the connection to publish on."""
        await self.close()

    async def store(
        self,
        task: str,
        *payloads: bytes,
        owner: str | None = None,
        tenant: str = "",
        agent: str = "agent",
    ) -> None:
        """Store events of a task that belongs to somebody."""
        headers = {names.OWNER: encode_token(owner)} if owner else {}
        for payload in payloads:
            await self.publish_on(events_subject(TaskKey(tenant, agent, task)), payload, headers)

    async def flush(self) -> None:
        """Wait until the server has taken all that brokers have sent."""
        for connection in self.connections:
            if connection._client is not None:
                await connection._client.flush()

    async def stored(self) -> list[tuple[object, ...]]:
        """Give every stream and bucket, and how far each has come."""
        found = (await request_api(self.server.url, "STREAM.LIST", {}))["streams"] or []
        return sorted(
            (
                each["config"]["name"],
                *(each["state"].get(name) for name in ("last_seq", "messages", "consumer_count")),
            )
            for each in found
        )

    async def subscribed(self, principal: str) -> list[tuple[object, ...]]:
        """Give each named subscription of a principal, who holds it, and how far it is confirmed."""
        listed = await request_api(self.server.url, "CONSUMER.LIST.SIDECAST", {})
        assert listed["total"] == len(listed["consumers"] or []), "more than one page"
        return sorted(
            (*each["config"]["metadata"].values(), each["ack_floor"]["stream_seq"])
            for each in listed["consumers"] or []
            if f'"{principal}"' in each["config"].get("metadata", {}).get("sidecast-identity", "")
        )


class Scene(NamedTuple):
    """What is attacked, and what must stay as it is.

    Attributes:
        stream: one of alice's, open.
        ticket: one of alice's, for `ALICES`.
        running: the tasks of asyncio that were there before the first attack.
        held: more streams of alice's with events of the same task.
    """

    broker: OwnBroker
    backend: Backend
    agent: AwkwardAgent
    stream: Watch
    ticket: str = ""
    running: frozenset[asyncio.Task[Any]] = frozenset()
    held: tuple[Watch, ...] = ()

    async def fire(self, shot: Shot) -> bytes:
        """Give every byte of the answer but the date."""
        url = self.broker.internal_url if shot.internal else self.broker.url
        return dateless(await exchange(url, shot.raw(), until=shot.until))

    async def hold(self, *shots: Shot) -> Scene:
        """Open streams that stay open; give the scene with them."""
        held = []
        for shot in shots:
            headers = dict(line.split(": ", 1) for line in shot.lines)
            held.append(await self.broker.watch(path=shot.target, headers=headers))
            await held[-1].next()
        return self._replace(held=tuple(held), running=frozenset(asyncio.all_tasks()))

    async def settled(self) -> None:
        """Wait until whatever a request has set going has ended, and has reached the nats-server."""
        known = self.running | {asyncio.current_task()}
        # A loop that waits for an event or a time makes a task of the first; the loop itself is counted.
        await until(lambda: not [each for each in asyncio.all_tasks() - known if not _waits(each)])
        await self.backend.flush()

    async def state(self) -> tuple[object, ...]:
        """Give all that an attack may have changed, once it is over."""
        await self.settled()
        listening = self.broker.listening
        return (
            await self.backend.stored(),
            await self.backend.subscribed("alice"),
            await self.broker.metric("sidecast_tasks"),
            len(self.agent.requests),
            [stream["task"] for stream in listening.streams.describe()],
            listening.streams.draining,
        )

    async def goes_on(self) -> None:
        """Check that the open stream carries the next event of its task and nothing before it."""
        await self.backend.store(OPEN, status("and on", OPEN), owner="alice")
        frame = await self.stream.next()
        assert (kinds([frame]), frame["text"]) == (["task.status"], "and on")
        for each in self.held:
            await each.until(lambda frame: "and on" in frame.data)


def _waits(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "") == "Event.wait"


async def fill(backend: Backend) -> None:
    """Store tasks of several owners in a new stream."""
    await backend.create()
    for bucket in BUCKETS:
        await backend.delete_bucket(bucket)
    for task, owner, tenant in (
        (ALICES, "alice", ""),
        (BOBS, "bob", ""),
        (OWNERLESS, None, ""),
        (HERS_ELSEWHERE, "alice", ACME),
    ):
        records = (task_record(task), status("on it", task), done(task))
        await backend.store(task, *records, owner=owner, tenant=tenant)
    # At another agent, an id of alice's is bob's.
    await backend.store(ALICES, task_record(ALICES), done(ALICES), owner="bob", agent="other")
    await backend.store(OPEN, task_record(OPEN), status("on it", OPEN), owner="alice")


async def as_agent(request: web.Request, body: bytes) -> web.StreamResponse:
    """Answer as an agent that has every task and shows all of them to everybody."""
    asked = json.loads(body) if body else {}
    if asked.get("method") != "ListTasks" and request.path not in ("/tasks", "/v1/tasks"):
        return await as_task(request, body)
    status = {"state": "TASK_STATE_WORKING"}
    tasks = [{"id": task, "contextId": "context-1", "status": status} for task in (ALICES, BOBS, OWNERLESS)]
    result: dict[str, Any] = {"tasks": tasks, "pageSize": 50, "totalSize": 3, "nextPageToken": ""}
    if request.path == "/":
        result = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
    return web.json_response(result)


def credentials(folder: Path) -> dict[str, object]:
    """Write the files that credentials are checked by; give the settings that name them."""
    (folder / "keys.json").write_bytes(jwks("rsa", "p256", "ed"))
    (folder / "keys.toml").write_text(
        f'[[key]]\nid = "one"\nsha256 = "{hash_key(API_KEY)}"\nprincipal = "alice"\n'
        f'[[key]]\nid = "old"\nsha256 = "{hash_key("old-key")}"\nprincipal = "alice"\n'
        "expires = 2001-01-01T00:00:00Z\n"
    )
    return {
        "auth__jwt_issuer": ISSUER,
        "auth__jwt_audience": AUDIENCE,
        "auth__jwt_jwks_file": folder / "keys.json",
        "auth__api_keys_file": folder / "keys.toml",
        "auth__ticket_secret": TICKET_SECRET,
        "auth__refusal_floor_ms": 5,
    }


@asynccontextmanager
async def scene(server: NatsServer, folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    """Run all of it, with one stream of alice's open."""
    given = credentials(folder) | settings
    alice = bearer(token())
    async with aclosing(Backend(server)) as backend, AwkwardAgent() as agent:
        await fill(backend)
        agent.answer = as_agent
        async with broker(backend, agent__url=agent.url, **given) as running:
            stream = await running.watch(OPEN, headers=dict([alice.split(": ", 1)]))
            await stream.take(2)
            it = Scene(running, backend, agent, stream)
            body = json.dumps({"tasks": [ALICES]}).encode()
            made = await it.fire(Shot("POST", "/tickets", (alice,), body))
            # The connections that stay open are open from here on.
            await it.fire(Shot("GET", "/tasks", (alice, "A2A-Version: 1.0")))
            yield it._replace(
                ticket=json.loads(made.partition(b"\r\n\r\n")[2])["ticket"],
                running=frozenset(asyncio.all_tasks()),
            )
