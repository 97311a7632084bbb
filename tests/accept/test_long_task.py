"""A task of 20,000 events: all in order, or a snapshot equal to the fold of all, in bounded memory."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accept.stage import AGENT, Stage, records_of, stage
from e2e.check import check, label
from e2e.faults import STREAM
from e2e.watchers import Wanted
from nats.aio.client import Client

from sidecast_adapters import Publisher
from sidecast_broker.core.fold import Fold
from sidecast_schemas.codec import decode_event

pytestmark = pytest.mark.accept

EVENTS = 20_000
LOG_BYTES_MAX = 2 << 20
MIB = 1 << 20


async def publish(url: str) -> None:
    """Publish the task as fast as the adapter takes it: an agent that writes a long report."""
    async with Publisher(url, agent=AGENT) as publisher:
        async with publisher.task("long", context_id="talk") as task:
            report = task.artifact("report.md", media_type="text/markdown")
            for number in range(1, EVENTS):
                if number % 100 == 1:
                    await task.progress(number / EVENTS, label("long", number))
                else:
                    await report.write(f"{label('long', number)} {'x' * 40}\n")
            await task.status("completed", label("long", EVENTS))
            assert await publisher.flush(60)
        assert publisher.counts.dropped_events == 0


async def fold_of_all(url: str) -> tuple[Any, int]:
    """Fold what a plain NATS client reads; give the Task and the bytes of all payloads."""
    connection = Client()
    await connection.connect(url)
    try:
        jetstream = connection.jetstream()
        last = (await jetstream.stream_info(STREAM)).state.last_seq
        subscription = await jetstream.subscribe("sidecast.v1.events.>", stream=STREAM, ordered_consumer=True)
        fold, sequence, size = Fold("long"), 0, 0
        while sequence < last:
            message = await subscription.next_msg(timeout=10)
            sequence = message.metadata.sequence.stream
            size += len(message.data)
            fold.apply(decode_event(message.data), sequence)
        return json.loads(fold.task()), size
    finally:
        await connection.close()


def first_frame(there: Stage, kind: str) -> Any:
    """Give the data of the first frame of a kind on a default stream."""
    request = urllib.request.Request(
        f"{there.broker.url}/tasks/long/events", headers={"Accept": "text/event-stream"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        for line in answer:
            if line.startswith(b"data: ") and (data := json.loads(line[6:]))["type"] == kind:
                return data
    raise AssertionError(f"no {kind}")


async def test_twenty_thousand_events(tmp_path: Path, report: Callable[[str], None]) -> None:
    async with stage(tmp_path, {"log.task_bytes_max": LOG_BYTES_MAX}) as there:
        broker = there.broker
        wanted = [
            Wanted(f"live-{start}-{index}", "long", start)
            for start in ("start", "snapshot", "now")
            for index in range(3)
        ]
        live, live_result = await there.watcher("long", *wanted)
        memory_before = broker.memory_bytes
        began_s = time.monotonic()
        await publish(there.nats_url)
        published_s = time.monotonic() - began_s
        live_records = await records_of(live, live_result)
        live_s = time.monotonic() - began_s
        live_grown = broker.memory_bytes - memory_before
        task, payload_bytes = await fold_of_all(there.nats_url)
        task_bytes = len(json.dumps(task, separators=(",", ":")))
        metrics = await asyncio.to_thread(broker.metrics)

        # The same from a broker that has seen nothing of it.
        await asyncio.to_thread(broker.kill9)
        await asyncio.to_thread(broker.start)
        memory_before = broker.memory_bytes
        began_s = time.monotonic()
        late, late_result = await there.watcher(
            "long", *(Wanted(f"late-{index}", "long", "start") for index in range(5))
        )
        late_records = await records_of(late, late_result)
        late_s = time.monotonic() - began_s
        snapshot = await asyncio.to_thread(first_frame, there, "task.snapshot")
        late_grown = broker.memory_bytes - memory_before
        late_metrics = await asyncio.to_thread(broker.metrics)

    report(
        f"{EVENTS} events of {payload_bytes / MIB:.1f} MiB published in {published_s:.1f} s, "
        f"at 9 live watchers after {live_s:.1f} s, at 5 late ones in {late_s:.1f} s; "
        f"the task has {task_bytes / MIB:.1f} MiB; log and fold {metrics['sidecast_log_bytes'] / MIB:.1f} "
        f"and {late_metrics['sidecast_log_bytes'] / MIB:.1f} MiB; the process grew by "
        f"{live_grown / MIB:.1f} and {late_grown / MIB:.1f} MiB"
    )
    assert check({"long": EVENTS}, [*live_records, *late_records]) == []
    assert snapshot["task"] == task
    assert snapshot["partial"] is False
    text = "".join(part["text"] for part in task["artifacts"][0]["parts"])
    written = [number for number in range(1, EVENTS) if number % 100 != 1]
    assert text == "".join(f"{label('long', number)} {'x' * 40}\n" for number in written)
    for found in (metrics, late_metrics):
        # The log keeps its bound; the fold holds the task's content, and once more encoded.
        assert found["sidecast_log_bytes"] <= LOG_BYTES_MAX + 2.5 * task_bytes
    for grown in (live_grown, late_grown):
        assert grown < 48 * MIB
