"""Measures a running broker: one process publishes, others watch, and what they saw adds up.

Must not know how the broker works, nor how the result is shown: the measuring is not what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import AsyncIterator

import aiohttp
import msgspec

from sidecast_broker.commands.bench.durations import percentile_ms
from sidecast_broker.commands.bench.publishing import BenchFailed, Publisher, ending, opening
from sidecast_broker.commands.bench.watching import DRAIN_S_MAX, Plan, Watched
from sidecast_broker.embedded import start_child, stop_child

CONNECT_S_MAX = 60.0
LINE_BYTES_MAX = 1 << 22
PROGRAM = __name__.rpartition(".")[0]
"""What a process of watchers runs: this package as a program."""


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


@contextlib.asynccontextmanager
async def _watching(plan: Plan) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await start_child(
        [sys.executable, "-m", PROGRAM, msgspec.json.encode(plan).decode()],
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
        publisher = Publisher(session, internal_url, names)
        await publisher.everywhere(opening)
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
        await publisher.everywhere(ending)
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
