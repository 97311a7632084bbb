"""A process of watchers: each follows one task like a browser's EventSource, and is cut at random moments.

Must not know what is right: it writes down what each was given, and `check` judges. Run by `faults` as
`python -m e2e.watchers PLAN`, with the plan and later the records as JSON in files.

An EventSource dispatches a frame at its blank line and only then keeps its id; after any end of the response
it waits for the last `retry:` and asks again with the last id; an answer that isn't 200 with
`text/event-stream` ends it for good; 204 says that nothing follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from e2e.check import Item, Start, Watched, labels_in
from msgspec import Struct

READ_BYTES = 65_536
REFUSED_PAUSE_S = 0.1


class Wanted(Struct, frozen=True):
    """One watcher: its name, the task it asks for, how it begins, and which HTTP it speaks."""

    name: str
    task: str
    start: Start
    http: str = "1.1"


class Plan(Struct, frozen=True):
    """What a process of watchers does.

    Attributes:
        host: of the broker.
        port: of the broker.
        watchers: who watches.
        cut_s: mean time after which a watcher's connection is cut, 0 for never.
        cut_bytes: mean bytes after which it is cut, so also within a frame, 0 for never.
        seed: of all that is random.
        result: the file the records are written to.
        receive_bytes: SO_RCVBUF of each connection, 0 for the system's.
        crawl_bytes: so many each takes in a second, until SIGUSR1; 0 for as many as come.
    """

    host: str
    port: int
    watchers: list[Wanted]
    cut_s: float
    cut_bytes: int
    seed: int
    result: str
    receive_bytes: int = 0
    crawl_bytes: int = 0


class _Data(Struct):
    """What is read of a frame's data."""

    type: str
    text: str = ""
    task: msgspec.Raw = msgspec.Raw(b"")
    reason: str = ""
    taskId: str = ""  # noqa: N815 - the wire's name


_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_decode = msgspec.json.Decoder(_Data).decode


class Frames:
    """Turns the bytes of one response into frames: (id, retry, data); bytes of an unfinished one are lost."""

    def __init__(self) -> None:
        self._rest = b""
        self._id: bytes | None = None
        self._retry: int | None = None
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[tuple[str | None, int | None, bytes]]:
        """Take bytes; give the frames they complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            if not line:
                if self._data:
                    event_id = None if self._id is None else self._id.decode()
                    found.append((event_id, self._retry, b"\n".join(self._data)))
                self._id, self._retry, self._data = None, None, []
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b"id:"):
                self._id = line[3:].strip()
            elif line.startswith(b"retry:"):
                self._retry = int(line[6:])
        return found


class Body:
    """Takes a response's body out of its framing: chunks, a length, or neither.

    Attributes:
        ended: all of it has come; without framing only the end of the connection says so.
    """

    def __init__(self, head: bytes) -> None:
        self._chunked = b"transfer-encoding: chunked" in head.lower()
        length = _LENGTH.search(head)
        self._length = int(length[1]) if length else None
        self.ended = self._length == 0
        self._rest = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Take what came; give the body's part of it."""
        if self._chunked:
            return self._dechunk(data)
        if self._length is not None:
            self._length -= len(data)
            self.ended = self._length <= 0
        return data

    def _dechunk(self, data: bytes) -> bytes:
        rest, body = self._rest + data, []
        while rest and not self.ended:
            if self._left > 2:
                piece = rest[: self._left - 2]
                body.append(piece)
                rest = rest[len(piece) :]
                self._left -= len(piece)
            elif self._left:
                taken = min(self._left, len(rest))
                rest = rest[taken:]
                self._left -= taken
            else:
                size, line_end, following = rest.partition(b"\r\n")
                if not line_end:
                    break
                self._left = int(size, 16) + 2
                self.ended = self._left == 2
                rest = following
        self._rest = rest
        return b"".join(body)


class Watcher:
    """One watcher: connects until it is told that nothing follows.

    Args:
        wanted: who it is.
        plan: the process's.
    """

    def __init__(self, wanted: Wanted, plan: Plan) -> None:
        self.record = Watched(wanted.name, wanted.task, wanted.start, [])
        self.connections = 0
        self.opened = asyncio.Event()
        self.ended_at = 0.0
        self._wanted = wanted
        self._plan = plan
        self._random = random.Random(f"{plan.seed} {wanted.name}")
        self._last_id = ""
        self._retry_s = 0.0
        self._over = False
        self.crawl_bytes = plan.crawl_bytes

    async def run(self) -> None:
        """Watch until the end."""
        while not self._over:
            self.connections += 1
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(REFUSED_PAUSE_S * self._random.uniform(0.5, 1.5))
            else:
                await asyncio.sleep(self._retry_s if not self._over else 0)

    def give_up(self) -> None:
        """End without having been told to."""
        self._over = True

    def result(self) -> Watched:
        """Give what it was given."""
        return msgspec.structs.replace(self.record, connections=self.connections, ended_at=self.ended_at)

    async def _connect(self) -> None:
        with socket.socket() as connection:
            connection.setblocking(False)
            if self._plan.receive_bytes:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._plan.receive_bytes)
            address = (self._plan.host, self._plan.port)
            await asyncio.get_running_loop().sock_connect(connection, address)
            # What a crawler has not taken yet stays in the kernel.
            limit = self.crawl_bytes or READ_BYTES
            reader, writer = await asyncio.open_connection(sock=connection.dup(), limit=limit)
        try:
            writer.write(self._request())
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status == 204:
                self._end("204")
            elif status != 200 or b"content-type: text/event-stream" not in head.lower():
                body = await reader.read(200)
                self._note(Item("refused", detail=f"{status} {body.decode(errors='replace')}"))
                self._over = True
            else:
                self.opened.set()
                await self._read(reader, Body(head))
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("cut within the head") from error
        finally:
            writer.transport.abort()

    def _request(self) -> bytes:
        wanted = self._wanted
        last_id = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
        return (
            f"GET /tasks/{wanted.task}/events?from={wanted.start}&wait_s=60 HTTP/{wanted.http}\r\n"
            f"Host: broker\r\nAccept: text/event-stream\r\n{last_id}\r\n"
        ).encode()

    async def _read(self, reader: asyncio.StreamReader, body: Body) -> None:
        frames = Frames()
        plan = self._plan
        left = round(self._random.expovariate(1 / plan.cut_bytes)) if plan.cut_bytes else sys.maxsize
        # A first snapshot may be larger than most lives: most are spared until they have an id.
        counts = self._random.random() < 0.1
        cut_s = self._random.expovariate(1 / plan.cut_s) if plan.cut_s else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(cut_s):
                while left > 0 and not body.ended:
                    if not (data := await reader.read(self.crawl_bytes or READ_BYTES)):
                        break
                    if self.crawl_bytes:
                        await asyncio.sleep(len(data) / self.crawl_bytes)
                    counts = counts or bool(self._last_id)
                    if counts:
                        data = data[:left]
                        left -= len(data)
                    for frame in frames.feed(body.feed(data)):
                        self._take(*frame)

    def _take(self, event_id: str | None, retry_ms: int | None, data: bytes) -> None:
        if retry_ms is not None:
            self._retry_s = retry_ms / 1000
        if event_id is not None:
            self._last_id = event_id
        decoded = _decode(data)
        kind, _dot, name = decoded.type.partition(".")
        if kind == "task":
            text = bytes(decoded.task).decode() if name == "snapshot" else decoded.text
            what = "snapshot" if name == "snapshot" else "event"
            labels = labels_in(text)
            if decoded.taskId != self._wanted.task:
                labels = ((decoded.taskId, 0), *labels)
            self._note(Item(what, event_id or "", labels, self.connections))
        elif name == "gap":
            self._note(Item("gap", connection=self.connections, detail=decoded.reason))
        elif name == "end":
            self._end(decoded.reason)

    def _end(self, reason: str) -> None:
        self._note(Item("end", connection=self.connections, detail=reason))
        self.ended_at = time.time()
        self._over = True
        self.opened.set()

    def _note(self, item: Item) -> None:
        self.record.items.append(item)


async def run(plan: Plan) -> list[Watched]:
    """Watch until all have reached their end, or SIGTERM; says `opened` and `ended` on standard output."""
    watchers = [Watcher(wanted, plan) for wanted in plan.watchers]
    loop = asyncio.get_running_loop()
    running = [loop.create_task(watcher.run()) for watcher in watchers]

    def give_up() -> None:
        for task in running:
            task.cancel()

    def hurry() -> None:
        for watcher in watchers:
            watcher.crawl_bytes = 0

    loop.add_signal_handler(signal.SIGTERM, give_up)
    loop.add_signal_handler(signal.SIGUSR1, hurry)
    opened = loop.create_task(_say_opened(watchers))
    outcomes: list[Any] = await asyncio.gather(*running, return_exceptions=True)
    opened.cancel()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [watcher.result() for watcher in watchers]


async def _say_opened(watchers: list[Watcher]) -> None:
    for watcher in watchers:
        await watcher.opened.wait()
    print("opened", flush=True)


def main() -> None:
    """Read the plan, watch, write the records."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        records = runner.run(run(plan))
    Path(plan.result).write_bytes(msgspec.json.encode(records))
    print("ended", flush=True)


if __name__ == "__main__":
    main()
