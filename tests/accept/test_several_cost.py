"""What a stream of a hundred tasks costs the broker, beside a hundred streams of one task each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from accept.pulse import Beat
from accept.stage import Stage, stage
from accept.test_workers import cpu_s, delivered_by

pytestmark = pytest.mark.accept

TASKS = [f"t{number}" for number in range(100)]
RATE = 1000.0
WINDOW_S = 8.0
SETTLE_S = 2.0
LISTED = "/events?from=now&wait_s=60&" + "&".join(f"task={task}" for task in TASKS)
EACH = [f"/tasks/{task}/events?from=now&wait_s=60" for task in TASKS]


async def read(there: Stage, path: str) -> None:
    """Open a stream, and read whatever comes until cancelled."""
    reader, writer = await asyncio.open_connection(there.broker.host, there.broker.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
        while await reader.read(1 << 16):
            pass
    finally:
        writer.transport.abort()


async def first_event(there: Stage) -> None:
    """Wait until the last task has begun."""
    reader, writer = await asyncio.open_connection(there.broker.host, there.broker.port)
    writer.write(f"GET {EACH[-1]} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
    await reader.readuntil(b"task.artifact")
    writer.transport.abort()


async def price(there: Stage, *paths: str) -> tuple[float, float]:
    """Give the broker's CPU for each event published, in µs, and how often each was delivered."""
    async with AsyncExitStack() as stack:
        for path in paths:
            reading = asyncio.create_task(read(there, path))
            stack.callback(reading.cancel)
        await asyncio.sleep(SETTLE_S)
        before_s, delivered = cpu_s(there), await delivered_by(there)
        await asyncio.sleep(WINDOW_S)
        used_s, delivered = cpu_s(there) - before_s, await delivered_by(there) - delivered
    published = RATE * WINDOW_S
    return used_s / published * 1e6, delivered / published


async def test_what_a_stream_of_a_hundred_tasks_costs(tmp_path: Path, report: Callable[[str], None]) -> None:
    async with stage(tmp_path) as there:
        pulse = await there.pulse(*(Beat(task, RATE / len(TASKS), 100) for task in TASKS))
        async with asyncio.timeout(60):
            await first_event(there)
        found = {
            "a stream for each task": await price(there, *EACH),
            "one stream of all": await price(there, LISTED),
            "both": await price(there, *EACH, LISTED),
            "ten streams of all": await price(there, *[LISTED] * 10),
            "one stream of the agent": await price(there, "/events?from=now&agent=1"),
        }
        await pulse.ask("stop")
    told = (f"{name} {cost:.0f} µs ({times:.2f} deliveries)" for name, (cost, times) in found.items())
    report(f"CPU for an event at {RATE:g} events/s on {len(TASKS)} tasks: " + "; ".join(told))
    each, together = found["a stream for each task"], found["one stream of all"]
    assert 0.9 < each[1] < 1.1
    assert 0.9 < together[1] < 1.1
    assert together[0] < 2 * each[0]
