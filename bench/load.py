"""The compiled load client, as an object: connections that are counted, checked and timed.

Must not know which server they go to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bench.child import Child, child


class Percentiles(msgspec.Struct, frozen=True):
    """Of durations, in milliseconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Connected(msgspec.Struct, frozen=True):
    """How connections opened.

    Attributes:
        connections: how many were wanted.
        ready: how many got what makes them ready.
        seconds: from the first attempt to the last one ready.
        refused: answers other than 200.
        retries: attempts that had to be repeated.
        head_ms: from `connect()` to the end of the response's head.
        ready_ms: from `connect()` to ready.
    """

    connections: int
    ready: int
    seconds: float
    refused: int
    retries: int
    holes: int
    repeats: int
    head_ms: Percentiles | None
    ready_ms: Percentiles | None


class Report(msgspec.Struct, frozen=True):
    """What came since the last mark.

    Attributes:
        connections: how many there are.
        ready: how many of them are open and ready.
        events: received, on all connections.
        bytes: received, with everything around the events.
        span_s: from the first to the last arrival.
        fewest: events on the connection that got the fewest.
        most: events on the one that got the most.
        holes: times an event was not the one after the one before.
        repeats: times an event, or a later one, had come before.
        ended: connections the server closed.
        latency_ms: from publishing to arrival.
    """

    connections: int
    ready: int
    events: int
    bytes: int
    span_s: float
    fewest: int
    most: int
    holes: int
    repeats: int
    ended: int
    latency_ms: Percentiles | None


class Load:
    """Open connections.

    Attributes:
        connected: how they opened.
    """

    def __init__(self, client: Child, connected: Connected) -> None:
        self._client = client
        self.connected = connected

    async def mark(self) -> None:
        """Set all counts to zero."""
        await self._client.ask("mark")

    async def report(self) -> Report:
        """Give the counts since the mark."""
        return msgspec.convert(await self._client.ask("report"), Report)

    async def wait(self, events: int, seconds: float) -> Report:
        """Give the counts once so many events have come since the mark, or the time is over."""
        return msgspec.convert(await self._client.ask(f"wait {events} {seconds}"), Report)

    async def storm(self, port: int, seconds: float) -> Connected:
        """Close all connections and open them again, all at once, each with its last event id.

        Returns:
            How they opened, once all got a first frame, or the time is over.
        """
        return msgspec.convert(await self._client.ask(f"storm {port} {seconds}"), Connected)


@asynccontextmanager
async def load(
    program: Path,
    port: int,
    path: str,
    folder: Path,
    *,
    connections: int,
    modulo: int = 1,
    body: str = "",
    ready: str = "head",
    in_turn: bool = False,
    name: str = "load",
) -> AsyncIterator[Load]:
    """Open connections and keep them for the length of the block.

    Args:
        program: the compiled client.
        port: of the server, on loopback.
        path: to ask for, with the connection's number modulo `modulo` for its `%d`.
        folder: where its log is written.
        connections: how many.
        modulo: see `path`.
        body: JSON to post there, with the connection's number for its `%d`; empty: the path is got.
        ready: when a connection counts as open: with the `head` of the response, its first `frame`, or after
            so many events.
        in_turn: open each when the one before is ready, which is closed then.
        name: of its log.

    Raises:
        ChildFailed: it can't run.
    """
    argv = [
        str(program),
        *("--port", str(port), "--path", path, "--connections", str(connections)),
        *("--modulo", str(modulo), "--ready", ready),
        *(["--body", body] if body else []),
        *(["--in-turn"] if in_turn else []),
    ]
    async with child(name, argv, folder) as client:
        yield Load(client, msgspec.convert(await client.answer(), Connected))
