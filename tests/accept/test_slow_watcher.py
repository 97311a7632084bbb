"""A watcher that stops reading delays nobody, costs bounded memory, is cut in time, and resumes whole."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from accept.pulse import Beat
from accept.stage import p99s, records_of, stage
from e2e.check import check

pytestmark = pytest.mark.accept


LAG_S_MAX = 30.0
OTHERS = 50
RATE = 100.0
PADDING = 4000
ROUNDS = 4
WINDOW_S = 5.0
MIB = 1 << 20


async def test_a_stopped_watcher(tmp_path: Path, report: Callable[[str], None]) -> None:
    async with stage(tmp_path, {"stream.lag_s_max": LAG_S_MAX}) as there:
        broker = there.broker
        others = await there.readers("one", measure=True)
        pulse = await there.pulse(Beat("one", RATE, PADDING))
        # With the system's receive buffer its kernel may go on taking events for it for half a minute. Much
        # less than this, and TCP itself trickles: a segment on the loopback is 64 KiB.
        stopping, result = await there.watcher("one", receive_bytes=256 * 1024)
        await others.ask(f"open {OTHERS}")
        alone, beside = [], []
        for _round in range(ROUNDS):
            alone.append(await others.measure(WINDOW_S))
            stopping.send_signal(signal.SIGSTOP)
            beside.append(await others.measure(WINDOW_S))
            stopping.send_signal(signal.SIGCONT)
            await asyncio.sleep(1)  # it takes what has piled up

        memory = broker.memory_bytes
        closed_before = (await asyncio.to_thread(broker.metrics)).get("sidecast_streams_closed_total{lag}", 0)
        stopping.send_signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        beside.append(await others.measure(LAG_S_MAX - 5))
        grown = broker.memory_bytes - memory
        while (await asyncio.to_thread(broker.metrics)).get(
            "sidecast_streams_closed_total{lag}", 0
        ) == closed_before:
            assert time.monotonic() < stopped_s + LAG_S_MAX + 5, "it was not cut in time"
            await asyncio.sleep(0.1)
        cut_after_s = time.monotonic() - stopped_s
        grown = max(grown, broker.memory_bytes - memory)
        stopping.send_signal(signal.SIGCONT)
        published = await pulse.ask("stop")
        [record] = await records_of(stopping, result)
        lines = [line for line in broker.log_lines() if line.get("reason") == "lag"]

    p99_alone, p99_beside = (median(p99s(found)) for found in (alone, beside))
    report(
        f"p99 {p99_alone:.2f} ms alone ({p99s(alone)}), "
        f"{p99_beside:.2f} ms beside a stopped watcher ({p99s(beside)}); cut after {cut_after_s:.1f} s, "
        f"{grown / MIB:.1f} MiB more memory, {published['one']} events, {record.connections} connections"
    )
    assert p99_beside <= 1.2 * p99_alone + 2
    assert grown < 16 * MIB
    assert cut_after_s < LAG_S_MAX + 5
    assert [line["event"] for line in lines] == ["stream_closed"]
    assert record.connections == 2
    assert check(published, [record]) == []
    assert sum(each.ended for each in [*alone, *beside]) == 0
