"""Batching for 1,000 watchers of one task: few writes, little delay, a third of the processor time."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from accept.pulse import Beat
from accept.readers import Measured
from accept.stage import Asked, Stage, stage
from accept.test_hostile_connections import processor_s

pytestmark = pytest.mark.accept

WATCHERS = 1_000
MEASURED = 50
"""Of them, those whose latency is measured; the others only take what comes."""
RATE = 50.0
ROUNDS = 2
WINDOW_S = 10.0
BATCH_MS = 100


class Way(NamedTuple):
    """Watchers of one pace."""

    measured: Asked
    others: Asked

    async def open(self, watchers: int) -> None:
        """Have so many of them."""
        await self.measured.ask(f"open {min(MEASURED, watchers)}")
        await self.others.ask(f"open {max(watchers - MEASURED, 0)}")


class Found(NamedTuple):
    """What one window of one way has cost."""

    measured: Measured
    writes: float
    events: float
    processor_us: float


async def watchers(there: Stage, query: str) -> Way:
    return Way(
        await there.readers("one", measure=True, query=query),
        await there.readers("one", measure=False, query=query),
    )


async def window(there: Stage, way: Way) -> Found:
    await way.open(WATCHERS)
    await way.measured.measure(1)
    delivered = (await asyncio.to_thread(there.broker.metrics))["sidecast_events_delivered_total{events}"]
    used_s = processor_s(there.broker)
    measured = await way.measured.measure(WINDOW_S)
    used_s = processor_s(there.broker) - used_s
    delivered = (await asyncio.to_thread(there.broker.metrics))[
        "sidecast_events_delivered_total{events}"
    ] - delivered
    await way.open(0)
    while (await asyncio.to_thread(there.broker.metrics))["sidecast_subscribers{events}"] > 0:
        await asyncio.sleep(0.1)
    return Found(
        measured,
        measured.reads / MEASURED / WINDOW_S,
        delivered / WATCHERS / WINDOW_S,
        used_s / delivered * 1e6,
    )


async def test_batches(tmp_path: Path, report: Callable[[str], None]) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # what the broker's process inherits
    async with stage(tmp_path) as there:
        await there.pulse(Beat("one", RATE, 100))
        even, batched = await watchers(there, ""), await watchers(there, f"&batch_ms={BATCH_MS}")
        plain, paced = [], []
        for _round in range(ROUNDS):
            plain.append(await window(there, even))
            paced.append(await window(there, batched))
    even_us, paced_us = (min(each.processor_us for each in found) for found in (plain, paced))
    delay_ms = max(each.measured.p99_ms for each in paced) - min(each.measured.p50_ms for each in plain)
    writes = max(each.writes for each in paced)
    report(
        f"{writes:.2f} writes per second and watcher (unbatched {plain[0].writes:.1f}); added delay "
        f"p99 {delay_ms:.1f} ms (p50 {paced[0].measured.p50_ms:.1f}, unbatched "
        f"{plain[0].measured.p50_ms:.1f}); {paced_us:.2f} µs of the broker's processor per delivered event, "
        f"unbatched {even_us:.2f} µs: {paced_us / even_us:.3f}"
    )
    for each in (*plain, *paced):
        assert each.measured.ended == 0
        assert each.events >= RATE * 0.9
    assert writes <= 11
    assert delay_ms <= 150
    assert paced_us <= 0.35 * even_us
