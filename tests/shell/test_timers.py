from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.timers import Timers


class Clock:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_what_is_due_runs_in_the_order_of_its_times() -> None:
    clock = Clock()
    timers = Timers(clock)
    ran: list[str] = []
    for due_s, name in ((103, "c"), (101, "a"), (102, "b"), (101, "A")):
        timers.at(due_s, lambda name=name: ran.append(name))  # type: ignore[misc]
    timers.run_due()
    assert ran == []
    clock.now_s = 102
    timers.run_due()
    assert (ran, len(timers)) == (["a", "A", "b"], 1)


async def test_one_that_raises_is_reported_and_keeps_none_of_the_others() -> None:
    clock = Clock()
    timers = Timers(clock)
    ran: list[str] = []
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def fail() -> None:
        raise RuntimeError("mine")

    timers.at(101, fail)
    timers.at(101, lambda: ran.append("next"))
    timers.at(102, lambda: ran.append("later"))
    clock.now_s = 102
    timers.run_due()
    assert ran == ["next", "later"]
    assert [str(context["exception"]) for context in reported] == ["mine"]


async def test_what_is_asked_for_while_they_run_is_run_too() -> None:
    clock = Clock()
    timers = Timers(clock)
    ran: list[int] = []
    timers.at(100, lambda: timers.at(100, lambda: ran.append(1)))
    timers.run_due()
    assert (ran, len(timers)) == ([1], 0)


async def test_the_loop_runs_them_by_itself_and_an_earlier_one_is_not_kept_by_a_later() -> None:
    timers = Timers()
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    started_s = loop.time()
    timers.at(loop.time() + 60, lambda: None)
    timers.at(loop.time() + 0.01, lambda: timers.at(loop.time() + 0.01, lambda: done.set_result(None)))
    async with asyncio.timeout(5):
        await done
    assert loop.time() - started_s >= 0.019


@given(st.lists(st.floats(0, 100), max_size=50), st.lists(st.floats(0, 10), max_size=20))
def test_each_runs_once_and_none_too_early(due: list[float], steps: list[float]) -> None:
    async def run() -> None:
        clock = Clock()
        timers = Timers(clock)
        ran: list[float] = []
        for delay_s in due:
            timers.at(100 + delay_s, lambda delay_s=delay_s: ran.append(delay_s))  # type: ignore[misc]
        for step_s in steps:
            clock.now_s += step_s
            timers.run_due()
            assert sorted(ran) == sorted(each for each in due if 100 + each <= clock.now_s)

    asyncio.run(run())
