from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.wheel import SLICE_MIN, SLICES, Wheel

PERIOD_S = 5.0


def turned(wheel: Wheel[int], from_s: float, to_s: float) -> list[tuple[float, list[int]]]:
    """Give what is taken and when, by somebody who waits as the wheel says."""
    found, now_s = [], from_s
    while (now_s := now_s + wheel.wait_s(now_s)) <= to_s:
        found.append((now_s, wheel.take(now_s)))
    return found


def wheel_of(count: int, chance: random.Random | None = None) -> Wheel[int]:
    wheel = Wheel[int](PERIOD_S, (chance or random.Random(7)).random)
    for member in range(count):
        wheel.add(member)
    return wheel


def test_all_are_due_at_first() -> None:
    assert sorted(wheel_of(100).take(1000.0)) == list(range(100))


@pytest.mark.parametrize("count", [1, 40, 1000, 5000])
def test_each_is_due_once_in_a_period(count: int) -> None:
    wheel = wheel_of(count)
    wheel.take(1000.0)
    taken = turned(wheel, 1000.0, 1000.0 + PERIOD_S)
    assert Counter(member for _at_s, members in taken for member in members) == Counter(range(count))


@pytest.mark.parametrize("count", [200, 1000, 5000])
def test_many_are_spread_evenly(count: int) -> None:
    wheel = wheel_of(count)
    wheel.take(1000.0)
    taken = turned(wheel, 1000.0, 1000.0 + PERIOD_S)
    assert max(len(members) for _at_s, members in taken) <= max(SLICE_MIN, count // SLICES + 1)
    for tenth in range(10):
        begin_s = 1000.0 + tenth * PERIOD_S / 10
        within = sum(len(members) for at_s, members in taken if begin_s <= at_s < begin_s + PERIOD_S / 10)
        assert within <= count / 10 * 1.5 + 2 * SLICE_MIN


def test_few_cost_one_question_a_period() -> None:
    wheel = wheel_of(SLICE_MIN)
    wheel.take(1000.0)
    assert len(turned(wheel, 1000.0, 1000.0 + 10 * PERIOD_S)) == 10


def test_where_there_is_nobody_there_is_one_question_a_period() -> None:
    wheel = wheel_of(0)
    wheel.take(1000.0)
    assert [members for _at_s, members in turned(wheel, 1000.0, 1000.0 + 3 * PERIOD_S)] == [[], [], []]


def test_what_was_missed_is_due_once() -> None:
    wheel = wheel_of(300)
    wheel.take(1000.0)
    assert sorted(wheel.take(1000.0 + 7.3 * PERIOD_S)) == list(range(300))
    assert wheel.take(1000.0 + 7.3 * PERIOD_S) == []


def test_those_that_turn_alike_do_not_ask_in_step() -> None:
    one, other = wheel_of(100, random.Random(1)), wheel_of(100, random.Random(2))
    for wheel in (one, other):
        wheel.take(1000.0)
    moments = [{at_s for at_s, _ in turned(wheel, 1000.0, 1005.0)} for wheel in (one, other)]
    assert not moments[0] & moments[1]


def test_one_that_has_a_place_keeps_it_and_unknown_ones_are_forgotten_again() -> None:
    wheel = wheel_of(3)
    wheel.add(1)
    wheel.remove(2)
    wheel.remove(99)
    assert (len(wheel), list(wheel), 1 in wheel, 2 in wheel) == (2, [0, 1], True, False)
    assert sorted(wheel.take(1000.0)) == [0, 1]


Comings = st.lists(st.tuples(st.floats(0.001, 2.0), st.integers(0, 60), st.booleans()), max_size=40)


@given(seed=st.integers(0, 1000), comings=Comings)
def test_whoever_comes_and_goes_nobody_waits_longer_than_a_period(
    seed: int, comings: list[tuple[float, int, bool]]
) -> None:
    wheel, now_s = wheel_of(0, random.Random(seed)), 50_000.0
    wheel.take(now_s)
    seen: dict[int, float] = {}
    for after_s, block, comes in comings:
        for at_s, members in turned(wheel, now_s, now_s + after_s):
            for member in members:
                assert at_s - seen[member] <= PERIOD_S + 1e-6
                seen[member] = at_s
        now_s += after_s
        assert all(now_s - at_s <= PERIOD_S + 1e-6 for at_s in seen.values())
        for member in range(block * 20, block * 20 + 20):
            if comes and member not in seen:
                wheel.add(member)
                seen[member] = now_s
            elif not comes and seen.pop(member, None) is not None:
                wheel.remove(member)
    assert set(wheel) == set(seen)
