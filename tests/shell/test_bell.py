"""What wakes a stream's coroutine, and what doesn't."""

from __future__ import annotations

import asyncio

import pytest
from shell.test_hub_faults import KEY, stored

from sidecast_broker.bell import Bell
from sidecast_broker.hub import Hub
from sidecast_broker.metrics import Metrics
from sidecast_broker.timers import Timers


@pytest.fixture
async def hub() -> Hub:
    soon = asyncio.get_running_loop().call_soon
    return Hub(KEY, "epoch1", metrics=Metrics(), soon=soon, log_bytes_max=1 << 20)


async def test_a_ring_wakes_who_waits() -> None:
    bell = Bell()
    waiter = bell.next_ring()
    bell.ring()
    bell.ring()
    await waiter


async def test_a_ring_before_is_none() -> None:
    bell = Bell()
    bell.ring()
    waiter = bell.next_ring()
    await asyncio.sleep(0)
    assert not waiter.done()


async def test_a_first_record_wakes_and_so_does_a_ring(hub: Hub) -> None:
    bell = Bell()
    by_ring = asyncio.ensure_future(bell.rung_by(hub))
    await asyncio.sleep(0)
    bell.ring()
    await by_ring
    by_record = asyncio.ensure_future(bell.rung_by(hub, 60))
    await asyncio.sleep(0)
    hub.append(stored(1))
    await by_record


async def test_a_wait_that_is_over_leaves_nothing_at_the_hub(hub: Hub) -> None:
    bell = Bell()
    await bell.rung_by(hub, 0.001)
    cancelled = asyncio.ensure_future(bell.rung_by(hub))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    waiter = bell.next_ring()
    hub.append(stored(1))
    await asyncio.sleep(0)
    assert not waiter.done()


async def test_a_time_that_comes_late_wakes_nobody_else() -> None:
    now_s = 0.0
    timers = Timers(lambda: now_s)
    soon = asyncio.get_running_loop().call_soon
    hub = Hub(KEY, "epoch1", metrics=Metrics(), soon=soon, log_bytes_max=1 << 20, timers=timers)
    bell = Bell()
    asleep = asyncio.ensure_future(bell.sleep(hub, 5.0))
    await asyncio.sleep(0)
    bell.ring()
    await asleep
    waiter = bell.next_ring()
    now_s = 6.0
    timers.run_due()
    assert not waiter.done()
    asleep = asyncio.ensure_future(bell.sleep(hub, 7.0))
    await asyncio.sleep(0)
    now_s = 8.0
    timers.run_due()
    await asleep
