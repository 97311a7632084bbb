"""Publishes the benchmark's events at a rate, or as fast as they are delivered; a process of its own.

    python -m bench.publisher PLAN      # a `Plan` as JSON

Writes a line when it is connected, begins when it gets one, and writes what it has published at the end. Must
not know who watches.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec
import nats
import uvloop

from bench.events import TASK, data, payload
from sidecast_schemas.subjects import TaskKey, events_subject

AGENT = "bench"
ANSWER_S_MAX = 40
"""How long a server may take for what it was sent: one that can't carry the rate is behind by as much."""
STALLED_S = 1.0

_NUMBER = re.compile(rb'"n":(\d+),')
_STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d)")


class Plan(msgspec.Struct, frozen=True):
    """What to publish where.

    Attributes:
        url: `nats://…`, or `http://…` of a server that takes `POST /pub/{task}`.
        watch: the URL of a stream of task 0, for plans with a window.
        first: number of the first task.
        tasks: how many tasks get an event in turn.
        rate: events a second, of all tasks together; 0: as fast as the window allows.
        window: events published and not yet seen on `watch`; 0: no limit.
        seconds: for how long.
    """

    url: str
    watch: str = ""
    first: int = 0
    tasks: int = 1
    rate: float = 0.0
    window: int = 0
    seconds: float = 1.0


class Published(msgspec.Struct, frozen=True):
    """What has been published, and in which time."""

    events: int
    seconds: float


class NatsTarget:
    """Publishes to JetStream without waiting for acknowledgements: the watchers tell whether all came."""

    async def open(self, url: str) -> None:
        """Connect."""
        self._client = await nats.connect(url, flusher_queue_size=100_000)
        self._subjects: dict[int, str] = {}

    async def publish(self, task: int, n: int) -> None:
        """Publish an event."""
        subject = self._subjects.get(task)
        if subject is None:
            subject = self._subjects[task] = events_subject(TaskKey("", AGENT, TASK % task))
        await self._client.publish(subject, payload(task, n))

    async def close(self) -> None:
        """Wait until the server has taken everything."""
        await self._client.flush(ANSWER_S_MAX)
        await self._client.close()


class HttpTarget:
    """Posts on one kept-alive connection, each request at its time, whether the last was answered or not."""

    async def open(self, url: str) -> None:
        """Connect."""
        address = urlsplit(url)
        self._host = f"{address.hostname}:{address.port}"
        self._reader, self._writer = await asyncio.open_connection(address.hostname, address.port)
        self._posted = self._answered = 0
        self._reading = asyncio.create_task(self._read())

    async def publish(self, task: int, n: int) -> None:
        """Post an event."""
        body = data(task, n)
        head = (
            f"POST /pub/{TASK % task} HTTP/1.1\r\nHost: {self._host}\r\nX-EventSource-Event: task.status\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        self._posted += 1
        await self._writer.drain()

    async def _read(self) -> None:
        rest = b""
        while read := await self._reader.read(65536):
            rest += read
            for answer in _STATUS.finditer(rest):
                if not answer[1].startswith(b"2"):
                    raise RuntimeError(f"a publish was answered with {answer[1].decode()}")
                self._answered += 1
            # As much as may be the beginning of one.
            rest = rest[-11:] if not _STATUS.search(rest[-11:]) else b""

    async def close(self) -> None:
        """Wait for all answers."""
        async with asyncio.timeout(ANSWER_S_MAX):
            while self._answered < self._posted and not self._reading.done():  # noqa: ASYNC110 - a counter
                await asyncio.sleep(0.01)
        if self._reading.done():
            self._reading.result()
            raise RuntimeError("the server closed the publisher's connection")
        self._reading.cancel()
        self._writer.close()


class Window:
    """Knows which event of task 0 a stream of it has brought last."""

    def __init__(self) -> None:
        self._seen = 0
        self._moved = asyncio.Event()

    async def open(self, url: str) -> None:
        """Open the stream."""
        address = urlsplit(url)
        self._reader, self._writer = await asyncio.open_connection(address.hostname, address.port)
        target = address.path + (f"?{address.query}" if address.query else "")
        head = f"GET {target} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n\r\n"
        self._writer.write(head.encode())
        await self._reader.readuntil(b"\r\n\r\n")
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        rest = b""
        while read := await self._reader.read(1 << 18):
            rest = rest[-64:] + read
            if numbers := _NUMBER.findall(rest):
                self._seen = max(self._seen, int(numbers[-1]))
                self._moved.set()

    async def until_seen(self, n: int) -> None:
        """Wait until an event has come; an end of the stream, or a long silence, counts as that."""
        try:
            async with asyncio.timeout(STALLED_S):
                while self._seen < n and not self._reading.done():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self._seen = n


async def publish_all(
    plan: Plan, publish: Callable[[int, int], Awaitable[None]], window: Window
) -> Published:
    """Publish by the plan, and tell what came of it."""
    began_s = time.monotonic()
    until_s = began_s + plan.seconds
    for count in itertools.count():
        now = time.monotonic()
        due_s = began_s + count / plan.rate if plan.rate else now
        if max(due_s, now) >= until_s:
            break
        if due_s > now:
            await asyncio.sleep(due_s - now)
        n = count // plan.tasks + 1
        if plan.window:
            await window.until_seen(n - plan.window)
        await publish(plan.first + count % plan.tasks, n)
    return Published(count, time.monotonic() - began_s)


async def main(plan: Plan) -> None:
    """Connect, wait for the word, publish."""
    target = NatsTarget() if plan.url.startswith("nats:") else HttpTarget()
    await target.open(plan.url)
    window = Window()
    if plan.watch:
        await window.open(plan.watch)
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    published = await publish_all(plan, target.publish, window)
    await target.close()
    sys.stdout.write(msgspec.json.encode(published).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(msgspec.json.decode(sys.argv[1].encode(), type=Plan)))
