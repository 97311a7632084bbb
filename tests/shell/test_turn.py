"""What a burst makes necessary is run once, at its end or in the next turn of the event loop."""

from __future__ import annotations

import asyncio

from sidecast_broker.turn import Turn


async def test_the_end_of_a_burst_runs_what_waits_in_order() -> None:
    turn, ran = Turn(), list[int]()
    for number in range(3):
        turn.soon(lambda number=number: ran.append(number))  # type: ignore[misc]
    assert ran == []
    turn.end()
    assert ran == [0, 1, 2]
    await asyncio.sleep(0)
    assert ran == [0, 1, 2]


async def test_without_an_end_it_runs_in_the_next_turn() -> None:
    turn, ran = Turn(), list[int]()
    turn.soon(lambda: ran.append(1))
    await asyncio.sleep(0)
    assert ran == [1]


async def test_what_is_asked_for_meanwhile_waits_for_the_next_end() -> None:
    turn, ran = Turn(), list[int]()
    turn.soon(lambda: turn.soon(lambda: ran.append(2)))
    turn.end()
    assert ran == []
    turn.end()
    assert ran == [2]


async def test_one_that_raises_is_reported_and_stops_no_other() -> None:
    turn, ran, told = Turn(), list[int](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    fault = ValueError("not this one")

    def fail() -> None:
        raise fault

    turn.soon(fail)
    turn.soon(lambda: ran.append(1))
    turn.end()
    assert (ran, told) == ([1], [fault])


async def test_bursts_give_what_goes_on_for_long_no_more_than_one_run_in_a_turn() -> None:
    turn, ran = Turn(), 0

    def go_on() -> None:
        nonlocal ran
        ran += 1
        turn.soon(go_on)

    turn.soon(go_on)
    for _burst in range(20):
        turn.end()
        await asyncio.sleep(0)
    before = ran
    for _turn in range(10):
        await asyncio.sleep(0)
    assert ran - before == 10


async def test_what_comes_afterwards_waits_for_all_of_the_end() -> None:
    turn, ran = Turn(), list[str]()

    def encode(name: str) -> None:
        ran.append(f"encode {name}")
        turn.afterwards(lambda: write(name))

    def write(name: str) -> None:
        ran.append(f"write {name}")
        if name == "a":
            turn.afterwards(lambda: ran.append("write what came meanwhile"))

    for name in ("a", "b"):
        turn.soon(lambda name=name: encode(name))  # type: ignore[misc]
    turn.end()
    assert ran == ["encode a", "encode b", "write a", "write b", "write what came meanwhile"]
    turn.end()
    assert len(ran) == 5
