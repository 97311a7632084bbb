from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.spread import FASTEST, MISSED_S, Spread


def times(count: int, over_s: float, stalls: dict[int, float] | None = None) -> list[float]:
    """Give when each step is done, where those that wait are woken in time but for some stalls."""
    spread, now_s, done = Spread(count, over_s, 0.0), 0.0, []
    for index in range(count):
        now_s += spread.wait_s(now_s)
        now_s += (stalls or {}).get(index, 0.0)
        done.append(now_s)
    return done


def test_steps_are_spread_evenly() -> None:
    assert times(4, 20.0) == [0.0, 5.0, 10.0, 15.0]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_over_no_time_all_are_due_at_once(count: int) -> None:
    assert times(count, 0.0) == [0.0] * count


def test_what_a_stall_has_missed_is_made_good_slowly() -> None:
    done = times(2000, 20.0, {500: 3.0})
    assert done[500] == pytest.approx(8.0)
    second = sum(8.0 <= at_s < 9.0 for at_s in done)
    assert second <= 100 * FASTEST + 100 * MISSED_S * FASTEST + 2
    assert done[-1] == pytest.approx(20.0, abs=0.05)


@given(
    count=st.integers(1, 300),
    over_s=st.floats(1, 60),
    stalls=st.dictionaries(st.integers(0, 299), st.floats(0, 5), max_size=5),
)
def test_no_second_holds_much_more_than_the_plan_and_the_end_is_no_later_than_the_stalls(
    count: int, over_s: float, stalls: dict[int, float]
) -> None:
    done = times(count, over_s, stalls)
    assert done == sorted(done)
    rate = count / over_s
    for begin_s in done:
        within = sum(begin_s <= at_s < begin_s + 1 for at_s in done)
        assert within <= rate * FASTEST * (1 + MISSED_S) + 2
    assert done[-1] <= over_s + sum(stalls.values()) + 1e-6
