"""A process with many connections to one task that reads as fast as it can, and tells how late events come.

Must not know what is compared. Run as `python -m accept.readers PLAN`; commands are lines on standard input,
each answered by one line of JSON on standard output:

- `open N`: have N connections open, opening or closing the difference; answers when all have their head.
- `begin`: forget what was measured.
- `end`: tell what was measured since, as a `Measured`.

Latency is from the time an event carries in its text to the moment its bytes were read.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import sys
import time
from pathlib import Path

import msgspec
from msgspec import Struct

READ_BYTES = 65_536
OPENING_MAX = 500
"""Connections that wait for their head at once: what a broker's backlog takes."""


class Plan(Struct, frozen=True):
    """Where to read, and whether latencies are measured, or bytes only counted.

    A process that only counts stands for clients on other machines: it takes the processor only when nobody
    whose latency is measured wants it. The token is empty where none is needed; the query is added to that of
    the request.
    """

    host: str
    port: int
    task: str
    measure: bool
    token: str = ""
    query: str = ""


class Measured(Struct, frozen=True):
    """What came in a while: events, and quantiles of their latency in ms; counts only where none is measured.

    Attributes:
        reads: how often data was read.
        ended: connections the other side has closed.
    """

    reads: int
    ended: int
    events: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0


class Readers:
    """The connections of one process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._selector = selectors.DefaultSelector()
        self._connections: dict[socket.socket, bytes] = {}
        self._headless: set[socket.socket] = set()
        self._latencies: list[float] = []
        self._reads = 0
        self._ended = 0

    def serve(self) -> None:
        """Read until standard input ends."""
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            for key, _mask in self._selector.select():
                if isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)
                elif not self._command(sys.stdin.readline().split()):
                    return

    def _command(self, words: list[str]) -> bool:
        match words:
            case ["open", count]:
                self._open(int(count))
                print(len(self._connections), flush=True)
            case ["begin"]:
                self._latencies, self._reads, self._ended = [], 0, 0
                print("{}", flush=True)
            case ["end"]:
                print(msgspec.json.encode(self._measured()).decode(), flush=True)
            case _:
                return False
        return True

    def _open(self, count: int) -> None:
        while len(self._connections) > count:
            self._close(next(iter(self._connections)))
        token = f"Authorization: Bearer {self._plan.token}\r\n" if self._plan.token else ""
        request = (
            f"GET /tasks/{self._plan.task}/events?from=now&wait_s=60{self._plan.query} HTTP/1.1\r\n"
            f"Host: broker\r\nAccept: text/event-stream\r\n{token}\r\n"
        ).encode()
        while len(self._connections) < count or self._headless:
            while len(self._connections) < count and len(self._headless) < OPENING_MAX:
                connection = socket.create_connection((self._plan.host, self._plan.port), timeout=30)
                connection.sendall(request)
                connection.setblocking(False)
                self._connections[connection] = b""
                self._headless.add(connection)
                self._selector.register(connection, selectors.EVENT_READ)
            for key, _mask in self._selector.select():
                if isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)

    def _read(self, connection: socket.socket) -> None:
        if connection not in self._connections:
            return  # the same look that found it readable had a command that closed it
        data = b""
        with contextlib.suppress(ConnectionError):
            data = connection.recv(READ_BYTES)
        if not data:
            self._ended += 1
            self._close(connection)
            return
        self._reads += 1
        if connection in self._headless:
            if not data.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"not a stream: {data[:200]!r}")
            self._headless.discard(connection)
        if self._plan.measure:
            self._measure(connection, data)

    def _measure(self, connection: socket.socket, data: bytes) -> None:
        now = time.time()
        rest = self._connections[connection] + data
        start = rest.find(b" at=")
        while start >= 0:
            end = rest.find(b" ", start + 4)
            if end < 0:
                break
            self._latencies.append(now - float(rest[start + 4 : end]))
            rest = rest[end:]
            start = rest.find(b" at=")
        # What may hold the beginning of a time is looked at again.
        self._connections[connection] = rest[start:] if start >= 0 else rest[-4:]

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._headless.discard(connection)
        del self._connections[connection]
        connection.close()

    def _measured(self) -> Measured:
        found = sorted(self._latencies)
        if not found:
            return Measured(self._reads, self._ended)
        p50, p99 = (round(found[int(len(found) * share)] * 1000, 2) for share in (0.5, 0.99))
        return Measured(self._reads, self._ended, len(found), p50, p99)


if __name__ == "__main__":
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    if not plan.measure:
        os.nice(19)
    Readers(plan).serve()
