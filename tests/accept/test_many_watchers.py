"""A task with 10,000 watchers delays a task with one by at most 10 ms at p99."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from accept.pulse import Beat
from accept.stage import p99s, stage

pytestmark = pytest.mark.accept


CROWD = 10_000
CROWD_RATE = 2.0
ONE_RATE = 50.0
ROUNDS = 3
WINDOW_S = 6.0
SETTLE_S = 2.0
DESCRIPTORS = CROWD + 500


async def test_a_crowd_beside_one(tmp_path: Path, report: Callable[[str], None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"this system allows a process {hard} open files, and {DESCRIPTORS} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # what the broker's process inherits
    try:
        async with stage(tmp_path) as there:
            await there.pulse(Beat("crowd", CROWD_RATE, 100), Beat("one", ONE_RATE, 100))
            one = await there.readers("one", measure=True)
            crowd = await there.readers("crowd", measure=False)
            await one.ask("open 1")
            alone, beside, delivered = [], [], []
            for _round in range(ROUNDS):
                alone.append(await one.measure(WINDOW_S))
                assert await crowd.ask(f"open {CROWD}") == CROWD
                await crowd.ask("begin")
                beside.append(await one.measure(WINDOW_S))
                delivered.append((await crowd.ask("end"))["reads"])
                await crowd.ask("open 0")
                while (await asyncio.to_thread(there.broker.metrics))["sidecast_subscribers{events}"] > 1:
                    await asyncio.sleep(0.1)
                await one.measure(SETTLE_S)  # what 10,000 connections leave behind is cleared away
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    p99_alone, p99_beside = (median(p99s(found)) for found in (alone, beside))
    report(
        f"p99 {p99_alone:.2f} ms alone ({p99s(alone)}), "
        f"{p99_beside:.2f} ms beside a crowd ({p99s(beside)}), "
        f"which took {delivered} frames in {WINDOW_S:g} s each"
    )
    assert min(delivered) >= CROWD * CROWD_RATE * WINDOW_S * 0.8
    assert p99_beside <= p99_alone + 10
