"""Watches streams in one process, and counts what comes on them.

Must not know who publishes; a process of watchers knows its plan only.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
import sys
import time
from collections import Counter
from typing import cast
from urllib.parse import SplitResult, urlsplit

import msgspec

from sidecast_broker.commands.bench.chunks import Chunks
from sidecast_broker.commands.bench.durations import bucket, count
from sidecast_broker.commands.event_source import EventSourceParser

DRAIN_S_MAX = 30.0
OPENING_MAX = 64
"""Streams one process opens at once."""


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


class _Mark(msgspec.Struct):
    n: int = 0
    ts: int = 0


class _Frame(msgspec.Struct):
    type: str = ""
    metadata: _Mark | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode


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
