"""Of 200 watchers 20 are frozen and 20 crawl: the others notice nothing, and those come out whole."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from accept.pulse import Beat
from accept.stage import records_of, stage
from e2e.check import check
from e2e.watchers import Wanted

pytestmark = pytest.mark.accept

HEALTHY, FROZEN, CRAWLING = 160, 20, 20
RATE = 100.0
PADDING = 1_000
ALONE_S = 30.0
BESIDE_S = 90.0
LAG_S_MAX = 30.0
CRAWL_BYTES = 1_024
RECEIVE_BYTES = 64 * 1024
MIB = 1 << 20
HELD_BYTES = (256 + 64 + 64) * 1024
"""Of one client that takes nothing: `stream.buffer_bytes_max`, and where it catches up one write on top of
what the transport holds before it is full. The log (`log.task_bytes_max`) is full before they come."""
ALLOCATOR_BYTES = 8 * MIB
"""What is freed in pieces, and pages of older events on their way: 16 (`nats.history_reads_max`) at once."""


def wanted(kind: str, count: int) -> list[Wanted]:
    return [Wanted(f"{kind}-{number}", "one", "start") for number in range(count)]


def ports_of(process: asyncio.subprocess.Process) -> set[str]:
    """Give the local ports of a process's connections."""
    inodes = set()
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        name = os.readlink(descriptor)
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {str(int(line[1].split(":")[1], 16)) for line in lines if line[9] in inodes}


async def test_frozen_and_crawling_ones(tmp_path: Path, report: Callable[[str], None]) -> None:
    async with stage(tmp_path, {"stream.lag_s_max": LAG_S_MAX}) as there:
        broker = there.broker
        pulse = await there.pulse(Beat("one", RATE, PADDING))
        healthy = await there.readers("one", measure=True)
        await healthy.ask(f"open {HEALTHY}")
        await healthy.measure(3)
        alone = await healthy.measure(ALONE_S)
        memory = broker.memory_bytes
        frozen, frozen_result = await there.watcher(
            "one", *wanted("frozen", FROZEN), receive_bytes=RECEIVE_BYTES
        )
        crawling, crawling_result = await there.watcher(
            "one", *wanted("crawling", CRAWLING), receive_bytes=RECEIVE_BYTES, crawl_bytes=CRAWL_BYTES
        )
        frozen.send_signal(signal.SIGSTOP)
        frozen_s = time.monotonic()
        ports = ports_of(frozen)
        assert len(ports) == FROZEN
        beside = asyncio.ensure_future(healthy.measure(BESIDE_S))
        cut_after_s, most = 0.0, 0
        while not beside.done():
            most = max(most, broker.memory_bytes)
            await asyncio.wait([beside], timeout=0.25)
            cut = {
                line["peer"].rpartition(":")[2] for line in broker.log_lines() if line.get("reason") == "lag"
            }
            if cut >= ports and not cut_after_s:
                cut_after_s = time.monotonic() - frozen_s
        ended = [line for line in broker.log_lines() if line.get("event") == "stream_closed"]
        frozen.send_signal(signal.SIGCONT)
        crawling.send_signal(signal.SIGUSR1)
        published = await pulse.ask("stop")
        records = await records_of(frozen, frozen_result) + await records_of(crawling, crawling_result)
    found = beside.result()
    grown = most - memory
    reasons = {reason: sum(line["reason"] == reason for line in ended) for reason in {"lag", "client-gone"}}
    connections = [record.connections for record in records]
    report(
        f"healthy p99 {found.p99_ms:.2f} ms (p50 {found.p50_ms:.2f}) beside them, {alone.p99_ms:.2f} ms "
        f"(p50 {alone.p50_ms:.2f}) alone; the frozen ones cut after {cut_after_s:.1f} s, {reasons}; "
        f"{grown / MIB:.1f} MiB more memory; {published['one']} events; connections {connections}"
    )
    assert found.ended == alone.ended == 0
    assert found.p99_ms <= 1.3 * alone.p99_ms + 2
    assert 0 < cut_after_s < LAG_S_MAX + 5
    assert grown < (FROZEN + CRAWLING) * HELD_BYTES + ALLOCATOR_BYTES
    assert all(record.connections >= 2 for record in records[:FROZEN])
    assert check(published, records) == []
