"""What a stream of a hundred tasks costs the broker, beside a hundred streams of one task each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import nats
import pytest
from accept.stage import AGENT, Stage, stage
from accept.test_workers import cpu_s, delivered_by
from brokers import artifact, task_record
from nats_server import request_api

from sidecast_schemas.subjects import TaskKey, events_subject

pytestmark = pytest.mark.accept

TASKS = [f"t{number}" for number in range(100)]
RATE = 1000
TICK_S = 0.02
WINDOW_S = 6.0
SETTLE_S = 1.0
LISTED = "/events?from=now&" + "&".join(f"task={task}" for task in TASKS)
EACH = [f"/tasks/{task}/events?from=now" for task in TASKS]


async def read(there: Stage, path: str) -> None:
    """Open a stream, and read whatever comes until cancelled."""
    reader, writer = await asyncio.open_connection(there.broker.host, there.broker.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
        while await reader.read(1 << 16):
            pass
    finally:
        writer.transport.abort()


async def publish(there: Stage, begun: asyncio.Event) -> None:
    """Publish on all tasks in turn; each event replaces an artifact, so that the tasks stay small."""
    client = await nats.connect(there.nats_url)
    try:
        for task in TASKS:
            await client.request(events_subject(TaskKey("", AGENT, task)), task_record(task), timeout=10)
        begun.set()
        number = 0
        while True:
            for _ in range(round(RATE * TICK_S)):
                number += 1
                task = TASKS[number % len(TASKS)]
                payload = artifact(f"{number} {'x' * 100}", task)
                await client.publish(events_subject(TaskKey("", AGENT, task)), payload)
            await asyncio.sleep(TICK_S)
    finally:
        await client.close()


async def last(there: Stage) -> int:
    """Give how many events the stream has been sent."""
    info = await request_api(there.nats_url, "STREAM.INFO.SIDECAST", {})
    return int(info["state"]["last_seq"])


async def price(there: Stage, *paths: str) -> tuple[float, float]:
    """Give the broker's CPU for each event published, in µs, and how often each was delivered."""
    async with AsyncExitStack() as stack:
        for path in paths:
            reading = asyncio.create_task(read(there, path))
            stack.callback(reading.cancel)
        async with asyncio.timeout(60):
            while len(await asyncio.to_thread(there.broker.streams)) < len(paths):
                await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE_S)
        before_s, delivered, published = cpu_s(there), await delivered_by(there), await last(there)
        await asyncio.sleep(WINDOW_S)
        used_s, delivered = cpu_s(there) - before_s, await delivered_by(there) - delivered
        published = await last(there) - published
    return used_s / published * 1e6, delivered / published


async def test_what_a_stream_of_a_hundred_tasks_costs(tmp_path: Path, report: Callable[[str], None]) -> None:
    async with stage(tmp_path) as there:
        begun = asyncio.Event()
        publishing = asyncio.create_task(publish(there, begun))
        await begun.wait()
        found = {
            "a stream for each task": await price(there, *EACH),
            "one stream of all": await price(there, LISTED),
            "both": await price(there, *EACH, LISTED),
            "ten streams of all": await price(there, *[LISTED] * 10),
            "one stream of the agent": await price(there, "/events?from=now&agent=1"),
        }
        assert not publishing.done()
        publishing.cancel()
    told = (f"{name} {cost:.0f} µs ({times:.2f} deliveries)" for name, (cost, times) in found.items())
    report(f"CPU for an event, {RATE} a second on {len(TASKS)} tasks: " + "; ".join(told))
    each, together = found["a stream for each task"], found["one stream of all"]
    assert 0.95 < each[1] < 1.05
    assert 0.95 < together[1] < 1.05
    # Each event comes from NATS twice, once in the order of all; the fan-out is the same.
    assert together[0] < 2 * each[0]
