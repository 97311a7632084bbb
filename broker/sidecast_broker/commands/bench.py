"""`sidecast bench`: what a running broker delivers, measured from outside.

Must not know how the broker works: it publishes over HTTP and watches streams, each watcher in one of several
processes, so that the measuring is not what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import secrets
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeVar, cast
from urllib.parse import SplitResult, urlsplit

import aiohttp
import click
import msgspec

from sidecast_broker.commands.client_options import client_options
from sidecast_broker.commands.event_source import EventSourceParser
from sidecast_broker.commands.serve import run_loop
from sidecast_broker.commands.terminal import printable
from sidecast_broker.embedded import start_child, stop_child
from sidecast_schemas.events import COMPLETED, SUBMITTED, WORKING

CONNECT_S_MAX = 60.0
DRAIN_S_MAX = 30.0
OPENING_MAX = 64
"""Streams one process opens at once."""
LANES = 16
"""Requests that publish at once; a task's are one after the other."""
TEXT = "x" * 165
LINE_BYTES_MAX = 1 << 22
_STEP = math.log(1.02)

Key = TypeVar("Key", int, str)


class BenchFailed(Exception):  # noqa: N818 - named as the message reads
    """The broker refused to be measured, or went away."""


def count(counts: dict[Key, int], key: Key, times: int = 1) -> None:
    """Count something."""
    counts[key] = counts.get(key, 0) + times


class Plan(msgspec.Struct, frozen=True):
    """What one watching process does: `watchers` streams, of one task after the other."""

    url: str
    tasks: list[str]
    watchers: list[int]
    token: str | None


class Watched(msgspec.Struct):
    """What watchers saw; adds up.

    Attributes:
        connect: the times to the first frame, by `bucket`.
        latency: those from publishing to arrival.
        events: events received.
        lost: events that never came.
        duplicated: events that had come before.
        last_s: when the last one came (CLOCK_REALTIME).
        failed: why streams did not open or broke, and how many.
    """

    connect: dict[int, int] = {}
    latency: dict[int, int] = {}
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    last_s: float = 0.0
    failed: dict[str, int] = {}

    def add(self, other: Watched) -> None:
        """Add what others saw."""
        for index, times in other.connect.items():
            count(self.connect, index, times)
        for index, times in other.latency.items():
            count(self.latency, index, times)
        for reason, times in other.failed.items():
            count(self.failed, reason, times)
        self.events += other.events
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.last_s = max(self.last_s, other.last_s)


class Measured(msgspec.Struct, frozen=True):
    """The result, as `--json` prints it; times in milliseconds."""

    watchers: int
    tasks: int
    published: int
    published_per_s: float
    delivered: int
    deliveries_per_s: float
    lost: int
    duplicated: int
    failed: dict[str, int]
    connect_s: float
    connect_p50_ms: float
    connect_p99_ms: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def bucket(seconds: float) -> int:
    """Give the bucket of a duration: each is 2 % wide, from 1 µs."""
    return int(math.log(max(seconds * 1e6, 1.0)) / _STEP)


def percentile_ms(buckets: dict[int, int], share: float) -> float:
    """Give the duration below which that share of all lies, 0 where there are none."""
    rank = share * sum(buckets.values())
    for index in sorted(buckets):
        rank -= buckets[index]
        if rank < 0:
            return math.exp((index + 1) * _STEP) / 1000
    return math.exp((max(buckets) + 1) * _STEP) / 1000 if buckets else 0.0


# ---------------------------------------------------------------- watching


class _Mark(msgspec.Struct):
    n: int = 0
    ts: int = 0


class _Frame(msgspec.Struct):
    type: str = ""
    metadata: _Mark | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode


class Chunks:
    """Takes the head and the chunk framing off a response (RFC 9112, section 7.1).

    Attributes:
        status: the response's status line, empty before it came.
        over: whether the body has ended.
    """

    def __init__(self) -> None:
        self.status = ""
        self.over = False
        self._rest = b""
        self._chunked: bool | None = None
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; give those of the body."""
        self._rest += data
        if self._chunked is None:
            head, blank, rest = self._rest.partition(b"\r\n\r\n")
            if not blank:
                return b""
            self.status = head.partition(b"\r\n")[0].decode("latin-1")
            self._chunked = b"\r\ntransfer-encoding: chunked" in head.lower()
            self._rest = rest
        if not self._chunked:
            body, self._rest = self._rest, b""
            return body
        pieces = []
        while self._rest and not self.over:
            if self._left:
                piece, self._rest = self._rest[: self._left], self._rest[self._left :]
                self._left -= len(piece)
                pieces.append(piece)
                continue
            size, line_end, rest = self._rest.removeprefix(b"\r\n").partition(b"\r\n")
            if not line_end:
                break
            self._rest = rest
            self._left = int(size.partition(b";")[0], 16)
            self.over = self._left == 0
        return b"".join(pieces)


class Watch(asyncio.Protocol):
    """One stream, from the request to its end.

    Attributes:
        last: number of the last event.
    """

    def __init__(self, request: bytes, watched: Watched) -> None:
        loop = asyncio.get_running_loop()
        self.last = 0
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._watched = watched
        self._chunks = Chunks()
        self._parser = EventSourceParser()
        self._transport: asyncio.Transport | None = None
        self._clean = False
        self._began_s = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.time_ns()
        body = self._chunks.feed(data)
        if self._chunks.status and " 200" not in self._chunks.status:
            self._fail(self._chunks.status)
            body = b""
        for event in self._parser.feed(body):
            frame = _decode_frame(event.data)
            if frame.type == "stream.busy":
                self._fail("stream.busy")
            elif frame.type == "stream.end":
                self._clean = True
            elif not self.opened.done():
                count(self._watched.connect, bucket(time.monotonic() - self._began_s))
                self.opened.set_result(None)
            if frame.metadata is not None and frame.metadata.ts:
                self._count(frame.metadata, now)
        if (self._clean or self._chunks.over) and self._transport is not None:
            self._transport.close()

    def _count(self, mark: _Mark, now: int) -> None:
        watched = self._watched
        watched.events += 1
        count(watched.latency, bucket((now - mark.ts) * 1e-9))
        watched.last_s = now * 1e-9
        if mark.n <= self.last:
            watched.duplicated += 1
        else:
            watched.lost += mark.n - self.last - 1
            self.last = mark.n

    def _fail(self, reason: str) -> None:
        if not self._clean:
            self._clean = True
            count(self._watched.failed, reason)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._clean:
            count(self._watched.failed, f"broken off: {exc}" if exc else "broken off")
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_result(None)


def _request(url: SplitResult, task: str, token: str | None) -> bytes:
    lines = [
        f"GET {url.path}/tasks/{task}/events?from=now HTTP/1.1",
        f"Host: {url.netloc.rpartition('@')[2]}",
        "Accept: text/event-stream",
        *([f"Authorization: Bearer {token}"] if token else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def watch(plan: Plan) -> None:
    """Open the streams of a plan, say so in a line, and say what came once all have ended.

    The parent publishes each task's end; the line it writes then is how many events each task had.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    url, watched = urlsplit(plan.url), Watched()
    port = url.port or (443 if url.scheme == "https" else 80)
    context = ssl.create_default_context() if url.scheme == "https" else None
    assert url.hostname is not None
    host = url.hostname
    loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(OPENING_MAX)
    watches: list[tuple[int, Watch]] = []

    async def open_one(task: int) -> None:
        request = _request(url, plan.tasks[task], plan.token)
        async with slots:
            try:
                _, one = await loop.create_connection(
                    lambda: Watch(request, watched), host, port, ssl=context
                )
            except OSError as error:
                count(watched.failed, str(error))
                return
            watches.append((task, one))
            await one.opened

    await asyncio.gather(*(open_one(task) for task in plan.watchers))
    _say("{}")
    published = msgspec.json.decode(await asyncio.to_thread(sys.stdin.buffer.readline), type=list[int])
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S_MAX):
            await asyncio.gather(*(one.ended for _, one in watches))
    # What follows the last event that came is lost too; and all, where a stream never opened.
    watched.lost += sum(published[task] - one.last for task, one in watches)
    missing = Counter(plan.watchers) - Counter(task for task, _ in watches)
    watched.lost += sum(published[task] * count for task, count in missing.items())
    _say(msgspec.json.encode(watched).decode())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# ---------------------------------------------------------------- publishing


def _opening(task: str) -> bytes:
    return msgspec.json.encode({"task": {"id": task, "contextId": "bench", "status": {"state": SUBMITTED}}})


def _status(task: str, state: str, text: str = "", mark: dict[str, int] | None = None) -> bytes:
    status: dict[str, object] = {"state": state}
    if text:
        status["message"] = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}
    update: dict[str, object] = {"taskId": task, "contextId": "bench", "status": status}
    if mark is not None:
        update["metadata"] = mark
    return msgspec.json.encode({"statusUpdate": update})


def _ending(task: str) -> bytes:
    return _status(task, COMPLETED)


class _Publisher:
    """Publishes to some tasks over HTTP, and knows how many events each has had."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tasks: list[str]) -> None:
        self.sent = [0] * len(tasks)
        self._session = session
        self._url = url
        self._tasks = tasks

    async def post(self, task: int, lines: Iterable[bytes]) -> None:
        url = f"{self._url}/publish/{self._tasks[task]}"
        headers = {"Content-Type": "application/x-ndjson"}
        try:
            async with self._session.post(url, data=b"\n".join(lines), headers=headers) as response:
                if response.status != 200:
                    answer = (await response.content.read(500)).decode(errors="replace")
                    raise BenchFailed(f"publishing was answered with {response.status}: {answer}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BenchFailed(f"can't publish at {self._url}: {error or 'no answer'}") from error

    async def everywhere(self, event: Callable[[str], bytes]) -> None:
        """Publish one event to every task, made from its name."""

        async def lane(first: int) -> None:
            for task in range(first, len(self._tasks), LANES):
                await self.post(task, [event(self._tasks[task])])

        await asyncio.gather(*(lane(first) for first in range(LANES)))

    async def run(self, rate: float, seconds: float) -> float:
        """Publish at a rate, to all tasks in turn; give the seconds it took."""
        began_s, each = time.monotonic(), rate / len(self._tasks)

        async def lane(first: int) -> None:
            mine = range(first, len(self._tasks), LANES)
            while mine and (elapsed := time.monotonic() - began_s) < seconds:
                for task in mine:
                    # Tasks take turns within their common period.
                    due = math.floor(elapsed * each + 1 - task / len(self._tasks))
                    if due > self.sent[task]:
                        numbers = range(self.sent[task] + 1, due + 1)
                        self.sent[task] = due
                        await self.post(task, [self._event(task, n) for n in numbers])
                await asyncio.sleep(min(0.002, 1 / rate))

        await asyncio.gather(*(lane(first) for first in range(LANES)))
        return time.monotonic() - began_s

    def _event(self, task: int, n: int) -> bytes:
        return _status(self._tasks[task], WORKING, TEXT, {"n": n, "ts": time.time_ns()})


# ---------------------------------------------------------------- measuring


@contextlib.asynccontextmanager
async def _watching(plan: Plan) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await start_child(
        [sys.executable, "-m", __spec__.name, msgspec.json.encode(plan).decode()],
        stdin=pipe,
        stdout=pipe,
        limit=LINE_BYTES_MAX,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await stop_child(process)


async def _answer(process: asyncio.subprocess.Process, seconds_max: float) -> bytes:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(seconds_max):
            line = await process.stdout.readline()
    except TimeoutError:
        raise BenchFailed("the watchers do not answer") from None
    if not line:
        raise BenchFailed("a process of watchers ended")
    return line


async def measure(
    url: str,
    internal_url: str,
    token: str | None,
    *,
    watchers: int,
    tasks: int,
    rate: float,
    seconds: float,
    processes: int,
) -> Measured:
    """Publish to a running broker and watch what it delivers.

    Args:
        url: of its public listener.
        internal_url: of its internal listener, which takes events.
        token: a bearer token for both.
        watchers: streams, spread over the tasks.
        tasks: new ones, which are completed at the end.
        rate: events a second, to all tasks in turn.
        seconds: for how long.
        processes: that hold the streams.

    Raises:
        BenchFailed: events could not be published, or the watchers ended.
    """
    run = secrets.token_hex(4)
    names = [f"bench-{run}-{task}" for task in range(tasks)]
    of_watcher = [watcher % tasks for watcher in range(watchers)]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=CONNECT_S_MAX))
        )
        publisher = _Publisher(session, internal_url, names)
        await publisher.everywhere(_opening)
        began_s = time.monotonic()
        watching = [
            await stack.enter_async_context(_watching(Plan(url, names, of_watcher[first::processes], token)))
            for first in range(min(processes, watchers))
        ]
        for process in watching:
            await _answer(process, CONNECT_S_MAX)
        connect_s = time.monotonic() - began_s
        started_s = time.time()
        published_s = await publisher.run(rate, seconds)
        await publisher.everywhere(_ending)
        watched = Watched()
        for process in watching:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(publisher.sent) + b"\n")
        for process in watching:
            watched.add(msgspec.json.decode(await _answer(process, 2 * DRAIN_S_MAX), type=Watched))
    return Measured(
        watchers=watchers,
        tasks=tasks,
        published=sum(publisher.sent),
        published_per_s=sum(publisher.sent) / published_s,
        delivered=watched.events,
        deliveries_per_s=watched.events / max(published_s, watched.last_s - started_s),
        lost=watched.lost,
        duplicated=watched.duplicated,
        failed=watched.failed,
        connect_s=connect_s,
        connect_p50_ms=percentile_ms(watched.connect, 0.5),
        connect_p99_ms=percentile_ms(watched.connect, 0.99),
        p50_ms=percentile_ms(watched.latency, 0.5),
        p99_ms=percentile_ms(watched.latency, 0.99),
        p999_ms=percentile_ms(watched.latency, 0.999),
    )


def table(measured: Measured) -> str:
    """Write a result as lines of two columns."""
    rows = [
        ("streams", f"{measured.watchers:,}, of {measured.tasks:,} task{'s' * (measured.tasks > 1)}"),
        ("opened in", f"{measured.connect_s:.2f} s, with the start of the processes that hold them"),
        ("first frame", f"p50 {measured.connect_p50_ms:.1f} ms, p99 {measured.connect_p99_ms:.1f} ms"),
        ("published", f"{measured.published:,} events, {measured.published_per_s:,.1f}/s"),
        ("delivered", f"{measured.delivered:,} events, {measured.deliveries_per_s:,.0f}/s"),
        (
            "latency",
            f"p50 {measured.p50_ms:.1f} ms, p99 {measured.p99_ms:.1f} ms, p99.9 {measured.p999_ms:.1f} ms",
        ),
        ("lost", f"{measured.lost:,}"),
        ("duplicated", f"{measured.duplicated:,}"),
        *(("failed", f"{count:,} streams: {reason}") for reason, count in sorted(measured.failed.items())),
    ]
    return "\n".join(f"{name:<12} {value}" for name, value in rows)


@click.command("bench")
@client_options("public", "http://127.0.0.1:8480")
@click.option(
    "--internal-url",
    default="http://127.0.0.1:8481",
    show_default=True,
    help="The broker's internal listener, which takes events.",
)
@click.option("--watchers", type=click.IntRange(1, 20_000), default=100, show_default=True, help="Streams.")
@click.option(
    "--tasks",
    type=click.IntRange(1, 20_000),
    default=1,
    show_default=True,
    help="Tasks the streams are spread over.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 100_000),
    default=50.0,
    show_default=True,
    help="Events a second, to all tasks in turn.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86_400),
    default=5.0,
    show_default=True,
    help="How long to publish.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=lambda: min(4, os.cpu_count() or 1),
    show_default="up to 4",
    help="Processes that hold the streams.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(
    url: str,
    internal_url: str,
    token: str | None,
    watchers: int,
    tasks: int,
    rate: float,
    seconds: float,
    processes: int,
    as_json: bool,
) -> None:
    """Measure a running broker: publish events to new tasks and time their arrival at many streams.

    Latency is from just before an event is sent to the broker to its arrival here; the tasks are completed at
    the end. Exits with 1 when an event was lost or came twice, or a stream failed.
    """
    try:
        measured = run_loop(
            measure(
                url,
                internal_url.rstrip("/"),
                token,
                watchers=watchers,
                tasks=tasks,
                rate=rate,
                seconds=seconds,
                processes=processes,
            )
        )
    except BenchFailed as error:
        raise click.ClickException(printable(str(error))) from error
    click.echo(msgspec.json.encode(measured).decode() if as_json else printable(table(measured)))
    if measured.lost or measured.duplicated or measured.failed:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    run_loop(watch(msgspec.json.decode(sys.argv[1].encode(), type=Plan)))
