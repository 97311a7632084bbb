"""The servers that are compared: each started anew, asked for streams alike, published to in its own way.

Must not know what is measured.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
from nats.aio.client import Client

from bench import nchan
from bench.build import SOURCES, Programs
from bench.child import Child, ChildFailed, child
from bench.events import EVENT_BYTES, PAYLOAD, TASK, opening, payload
from bench.publisher import AGENT, Plan, Published
from sidecast_broker.embedded import find_server
from sidecast_schemas.subjects import EVENTS_PREFIX, TaskKey, events_subject

STREAM = "SIDECAST"
PUBLISH_WINDOW = 2000
"""Events of a task's history published between two looks at whether the server has taken them."""

Publish = Callable[[], Coroutine[None, None, Published]]


class Server(ABC):
    """A running server.

    Attributes:
        port: where it serves streams, on loopback.
        pid: of the process that serves them.
        path: of a task's stream, with the task's number for `%d`.
    """

    path = "/sub/bench-%d"

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid

    @property
    def nats_pid(self) -> int | None:
        """The process that stores events, where there is one."""
        return None

    @abstractmethod
    def publishing(self, plan: Plan) -> AbstractAsyncContextManager[Publish]:
        """Give a publisher that is connected and waits to be called; the plan's URLs are filled in."""

    async def begin(self, tasks: int, events: int = 0, first: int = 0) -> None:
        """Have tasks begin, each with so many events, where a server needs that: most know only live ones."""
        return


class Way(ABC):
    """A way of serving streams that takes part in the comparison.

    Attributes:
        name: in tables.
    """

    name: str

    def missing(self) -> str:
        """Say why it can't take part here; empty when it can."""
        return ""

    @abstractmethod
    def serve(self, programs: Programs, folder: Path) -> AbstractAsyncContextManager[Server]:
        """Run it for the length of the block, with its log in the folder."""


class _Pushed(Server):
    """A server that takes events by HTTP."""

    def __init__(self, port: int, pid: int, folder: Path) -> None:
        super().__init__(port, pid)
        self._folder = folder

    @asynccontextmanager
    async def publishing(self, plan: Plan) -> AsyncIterator[Publish]:
        url = f"http://127.0.0.1:{self.port}"
        watch = url + self.path % plan.first if plan.window else ""
        async with _publisher(msgspec.structs.replace(plan, url=url, watch=watch), self._folder) as publish:
            yield publish


@asynccontextmanager
async def _publisher(plan: Plan, folder: Path) -> AsyncIterator[Publish]:
    argv = [sys.executable, "-m", "bench.publisher", msgspec.json.encode(plan).decode()]
    async with child(
        f"publisher-{plan.first}", argv, folder, {"PYTHONPATH": str(SOURCES.parent)}
    ) as publisher:
        await publisher.answer()

        async def publish() -> Published:
            return msgspec.convert(await publisher.ask("go"), Published)

        yield publish


@asynccontextmanager
async def _compiled_publisher(
    program: Path, plan: Plan, nats_url: str, folder: Path
) -> AsyncIterator[Publish]:
    # What can stand in a subject as it is stays as it is: the format of the number is put in afterwards.
    subject = events_subject(TaskKey("", AGENT, TASK % 0)).removesuffix("0") + "%d"
    numbers = (plan.first, plan.tasks, plan.rate, plan.seconds)
    argv = [str(program), nats_url.rpartition(":")[2], subject, PAYLOAD, *map(str, numbers)]
    async with child(f"publisher-{plan.first}", argv, folder) as publisher:
        await publisher.answer()

        async def publish() -> Published:
            return msgspec.convert(await publisher.ask("go"), Published)

        yield publish


# ------------------------------------------------------------------ the floor


class _FloorServer(Server):
    path = "/%d"

    def __init__(self, port: int, program: Child) -> None:
        super().__init__(port, program.pid)
        self._program = program

    @asynccontextmanager
    async def publishing(self, plan: Plan) -> AsyncIterator[Publish]:
        which = "all" if plan.tasks == 1 else "one"

        async def publish() -> Published:
            sent = await self._program.ask(f"send {which} {plan.rate} {plan.seconds} {EVENT_BYTES}")
            return Published(sent["events"], sent["seconds"])

        yield publish


class Floor(Way):
    """A loop of `send()` in C."""

    name = "floor"

    @asynccontextmanager
    async def serve(self, programs: Programs, folder: Path) -> AsyncIterator[Server]:
        async with child(self.name, [str(programs.floor)], folder) as program:
            yield _FloorServer((await program.answer())["port"], program)


# ------------------------------------------------------------------ others


class Plain(Way):
    """The usual aiohttp-sse server."""

    name = "plain"

    @asynccontextmanager
    async def serve(self, programs: Programs, folder: Path) -> AsyncIterator[Server]:
        environ = {"PYTHONPATH": str(SOURCES.parent)}
        async with child(self.name, [sys.executable, "-m", "bench.plain_sse"], folder, environ) as program:
            yield _Pushed((await program.answer())["port"], program.pid, folder)


class Nchan(Way):
    """nginx with the nchan module, one worker."""

    name = "nchan"

    def missing(self) -> str:
        return nchan.missing()

    @asynccontextmanager
    async def serve(self, programs: Programs, folder: Path) -> AsyncIterator[Server]:
        async with nchan.serving(folder) as (port, pid):
            yield _Pushed(port, pid, folder)


# ------------------------------------------------------------------ the broker


RPC_PATH = "/?A2A-Version=1.0"
"""Where a broker takes JSON-RPC of A2A 1.0."""


def rpc_body(task: int) -> str:
    """Give the request for a task's stream by JSON-RPC; its id a UUID with the client's number for `%d`."""
    return (
        '{"jsonrpc":"2.0","id":"00000000-0000-4000-8000-%012d","method":"SubscribeToTask",'
        f'"params":{{"id":"{TASK % task}"}}}}'
    )


class BrokerServer(Server):
    """A broker and its NATS server.

    Attributes:
        internal_url: where it shows its metrics.
        nats_url: where its NATS server is.
    """

    path = "/tasks/bench-%d/events"

    def __init__(
        self,
        listening: dict[str, Any],
        pid: int,
        nats_url: str,
        nats_pid: int,
        folder: Path,
        programs: Programs,
    ) -> None:
        super().__init__(int(listening["url"].rpartition(":")[2]), pid)
        self._programs = programs
        self.internal_url = str(listening["internal_url"])
        self.nats_url = nats_url
        self._nats_pid = nats_pid
        self._folder = folder

    @property
    def nats_pid(self) -> int | None:
        return self._nats_pid

    @asynccontextmanager
    async def publishing(self, plan: Plan) -> AsyncIterator[Publish]:
        if plan.window:
            watch = f"http://127.0.0.1:{self.port}{self.path % plan.first}"
            plan = msgspec.structs.replace(plan, url=self.nats_url, watch=watch)
            publisher = _publisher(plan, self._folder)
        else:
            publisher = _compiled_publisher(self._programs.publish, plan, self.nats_url, self._folder)
        async with publisher as publish:
            yield publish

    async def begin(self, tasks: int, events: int = 0, first: int = 0) -> None:
        client = await nats.connect(self.nats_url)
        for task in range(first, first + tasks):
            subject = events_subject(TaskKey("", AGENT, TASK % task))
            for n in range(events + 1):
                await client.publish(subject, payload(task, n) if n else opening(task))
                if n % PUBLISH_WINDOW == PUBLISH_WINDOW - 1:
                    await client.flush()
        await client.flush(60)
        # A flush says that the server has the messages; that they are stored says their sequence.
        wanted = (events + 1) * tasks
        async with asyncio.timeout(60):
            while await _stored(client, first, tasks) < wanted:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        await client.close()

    @asynccontextmanager
    async def reads(self) -> AsyncIterator[dict[str, int]]:
        """Count the requests to JetStream in the block, by what they ask.

        A subscriber in the same account gets a copy of every request to the API.

        Yields:
            Filled while the block runs: `read SUBJECT` for each batched read of a task's records, `first` for
            questions to the leader for a task's first record, `other`.
        """
        counts: dict[str, int] = {}

        async def count(message: Any) -> None:
            request = json.loads(message.data or b"{}")
            subject = request.get("next_by_subj")
            name = f"read {subject}" if subject and "batch" in request else "first" if subject else "other"
            counts[name] = counts.get(name, 0) + 1

        client = await nats.connect(self.nats_url)
        try:
            for operation in ("DIRECT.GET", "STREAM.MSG.GET", "STREAM.INFO"):
                await client.subscribe(f"$JS.API.{operation}.{STREAM}", cb=count)
            await client.flush()
            yield counts
        finally:
            await client.close()


async def _stored(client: Client, first: int, tasks: int) -> int:
    request = {"subjects_filter": f"{EVENTS_PREFIX}.*.{AGENT}.*"}
    answer = await client.request(f"$JS.API.STREAM.INFO.{STREAM}", json.dumps(request).encode(), timeout=10)
    counts = json.loads(answer.data)["state"].get("subjects") or {}
    wanted = {events_subject(TaskKey("", AGENT, TASK % task)) for task in range(first, first + tasks)}
    return sum(count for subject, count in counts.items() if subject in wanted)


class Broker(Way):
    """Sidecast, as `sidecast serve` runs it, with a NATS server of its own."""

    name = "sidecast"

    @asynccontextmanager
    async def serve(self, programs: Programs, folder: Path) -> AsyncIterator[BrokerServer]:
        async with AsyncExitStack() as stack:
            yield (await stack.enter_async_context(self.serve_many(programs, folder, 1)))[0]

    @asynccontextmanager
    async def serve_many(
        self, programs: Programs, folder: Path, count: int
    ) -> AsyncIterator[list[BrokerServer]]:
        """Run several brokers at one NATS server."""
        async with AsyncExitStack() as stack:
            url, nats_pid = await stack.enter_async_context(_nats_server(folder))
            brokers = []
            for number in range(count):
                program = await stack.enter_async_context(
                    child(
                        f"broker-{number}",
                        [sys.executable, "-m", "sidecast_broker", "serve"],
                        folder,
                        {
                            "SIDECAST_NATS_URL": url,
                            "SIDECAST_AGENT_NAME": AGENT,
                            "SIDECAST_SERVER_PORT": "0",
                            "SIDECAST_SERVER_INTERNAL_PORT": "0",
                            "SIDECAST_SERVER_LOG_FORMAT": "json",
                        },
                    )
                )
                listening = await program.logged("listening")
                await _until_stream(str(listening["internal_url"]))
                brokers.append(BrokerServer(listening, program.pid, url, nats_pid, folder, programs))
            yield brokers


@asynccontextmanager
async def _nats_server(folder: Path) -> AsyncIterator[tuple[str, int]]:
    binary = find_server()
    store = Path(tempfile.mkdtemp(prefix="nats-", dir=folder))
    argv = [
        *(str(binary), "--addr=127.0.0.1", "--port=-1", "--jetstream"),
        *(f"--store_dir={store}", f"--ports_file_dir={store}"),
    ]
    try:
        async with child("nats-server", argv, folder) as server:
            yield await _nats_url(store / f"{binary.name}_{server.pid}.ports"), server.pid
    finally:
        shutil.rmtree(store, ignore_errors=True)


async def _nats_url(file: Path) -> str:
    """Wait for the file nats-server writes when it accepts, and give the URL in it."""
    try:
        async with asyncio.timeout(20):
            while not (url := _url_in(file)):  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ChildFailed("nats-server did not start") from None
    return url


def _url_in(file: Path) -> str:
    try:
        return str(json.loads(file.read_bytes())["nats"][0])
    except (OSError, ValueError, LookupError):
        return ""


async def _until_stream(internal_url: str) -> None:
    """Wait until a broker has seen its stream."""
    try:
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(_has_stream, internal_url):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ChildFailed("the broker does not reach its stream") from None


def _has_stream(internal_url: str) -> bool:
    with urllib.request.urlopen(f"{internal_url}/readyz", timeout=5) as answer:  # noqa: S310 - our own broker
        return json.load(answer)["nats"]["epoch"] is not None


WAYS: tuple[Way, ...] = (Floor(), Plain(), Nchan(), Broker())
