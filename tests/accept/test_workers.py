"""Two workers deliver at the price of one, and each carries its share of the streams."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from accept.pulse import Beat
from accept.stage import Stage, stage

pytestmark = pytest.mark.accept

STREAMS = 1000
RATE = 20.0
ROUNDS = 3
WINDOW_S = 5.0
SETTLE_S = 2.0


class Price(NamedTuple):
    """What a window cost: CPU of all processes per delivery, in µs; and each worker's streams."""

    cpu_us: float
    streams: dict[int, int]


async def price(folder: Path, workers: int) -> Price:
    """Measure a broker of so many workers."""
    folder.mkdir()
    async with stage(folder, {"server.workers": workers}) as there:
        await there.pulse(Beat("one", RATE, 100))
        crowd = await there.readers("one", measure=False)
        assert await crowd.ask(f"open {STREAMS}") == STREAMS
        await asyncio.sleep(SETTLE_S)
        streams = Counter(
            stream.get("worker", 1) for stream in (await asyncio.to_thread(there.broker.streams))
        )
        before_s, delivered = cpu_s(there), await delivered_by(there)
        await asyncio.sleep(WINDOW_S)
        used_s, delivered = cpu_s(there) - before_s, await delivered_by(there) - delivered
    assert delivered > STREAMS * RATE * WINDOW_S * 0.8
    return Price(used_s / delivered * 1e6, dict(streams))


async def delivered_by(there: Stage) -> float:
    """Give how many events the broker has delivered."""
    return (await asyncio.to_thread(there.broker.metrics))["sidecast_events_delivered_total{events}"]


def cpu_s(there: Stage) -> float:
    """Give the CPU time of the broker's process and its children, in seconds."""
    assert there.broker.process is not None
    pids = [there.broker.process.pid]
    children = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text()
    pids += map(int, children.split())
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def test_two_workers_at_the_price_of_one(tmp_path: Path, report: Callable[[str], None]) -> None:
    one, two = [], []
    for number in range(ROUNDS):
        one.append(await price(tmp_path / f"one-{number}", 1))
        two.append(await price(tmp_path / f"two-{number}", 2))
    # The least is what it costs: whatever else the machine does only adds to it.
    price_of_one, price_of_two = (min(each.cpu_us for each in found) for found in (one, two))
    shares = [streams / STREAMS for each in two for streams in each.streams.values()]
    report(
        f"{price_of_one:.2f} µs a delivery with one worker ({[round(each.cpu_us, 2) for each in one]}), "
        f"{price_of_two:.2f} µs with two ({[round(each.cpu_us, 2) for each in two]}), "
        f"{price_of_two / price_of_one:.2f} of it; shares {shares}"
    )
    assert len(shares) == 2 * ROUNDS
    assert all(0.35 <= share <= 0.65 for share in shares)
    assert price_of_two <= 1.15 * price_of_one
