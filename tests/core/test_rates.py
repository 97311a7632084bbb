from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.rates import Admission, Counts, Rates


def test_a_bucket_gives_its_count_at_once_and_then_evenly() -> None:
    rates = Rates[str](5, 10.0)
    assert [rates.take("a", 100.0) for _ in range(5)] == [0.0] * 5
    assert rates.take("a", 100.0) == 2.0
    assert rates.take("a", 101.0) == 1.0
    assert rates.take("a", 102.0) == 0.0
    assert rates.take("a", 102.0) == 2.0
    assert [rates.take("a", 200.0) for _ in range(6)] == [0.0] * 5 + [2.0]


def test_one_in_a_period() -> None:
    rates = Rates[None](1, 60.0)
    assert [rates.take(None, now) for now in (0.0, 0.0, 59.0, 60.0)] == [0.0, 60.0, 1.0, 0.0]


def test_keys_do_not_share() -> None:
    rates = Rates[str](1, 60.0)
    assert (rates.take("a", 0.0), rates.take("b", 0.0), rates.take("a", 0.0)) == (0.0, 0.0, 60.0)


def test_no_limit_remembers_nobody() -> None:
    rates = Rates[int](0, 60.0)
    assert not any(rates.take(key % 3, 0.0) for key in range(1000))
    assert len(rates) == 0


def test_a_clock_that_stands_still_or_goes_back_gives_nothing_away() -> None:
    rates = Rates[str](2, 10.0)
    assert [rates.take("a", 50.0) for _ in range(2)] == [0.0, 0.0]
    assert rates.take("a", 40.0) == 15.0


def test_memory_is_bounded_and_who_is_refused_is_not_forgotten_first() -> None:
    rates = Rates[int](1, 60.0, keys_max=100)
    assert rates.take(-1, 0.0) == 0.0
    for key in range(1000):
        assert rates.take(key, 0.0) == 0.0
        assert rates.take(-1, 0.0) == 60.0
        assert len(rates) <= 100


@given(
    count=st.integers(1, 50),
    period_s=st.floats(0.5, 120),
    steps=st.lists(st.floats(0, 5), max_size=200),
)
def test_never_more_than_the_count_and_what_time_gave_back(
    count: int, period_s: float, steps: list[float]
) -> None:
    rates = Rates[str](count, period_s)
    now_s, granted = 0.0, 0
    for step in steps:
        now_s += step
        wait_s = rates.take("a", now_s)
        if not wait_s:
            granted += 1
            assert granted <= count * (1 + now_s / period_s) + 1e-3
        else:
            assert 0 < wait_s <= period_s / count + 1e-6
            assert rates.take("a", now_s + wait_s) == 0.0, "who waits as long as they are told comes in"
            granted, now_s = granted + 1, now_s + wait_s


@given(most=st.integers(0, 4), comings=st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_counts_hold_what_was_added_and_no_more(most: int, comings: list[tuple[str, bool]]) -> None:
    counts = Counts[str](most)
    held: list[str] = []
    for key, comes in comings:
        if comes and not counts.is_full(key):
            counts.add(key)
            held.append(key)
        elif not comes and key in held:
            counts.remove(key)
            held.remove(key)
        assert counts.held(key) == held.count(key)
        assert counts.is_full(key) == (most > 0 and held.count(key) == most)
        assert len(counts) == len(set(held))


# --- admission


def test_a_burst_comes_in_and_the_rest_one_after_the_other() -> None:
    door = Admission(10, 3, 60.0)
    assert [door.enter(100.0) for _ in range(3)] == [0.0] * 3
    assert [round(door.enter(100.0), 6) for _ in range(4)] == [0.1, 0.2, 0.3, 0.4]
    assert [door.enter(101.0) for _ in range(4)][:3] == [0.0] * 3


def test_a_crowd_that_comes_when_it_is_told_to_is_in_at_its_second_try() -> None:
    door = Admission(100, 10, 60.0)
    again = [wait_s for _ in range(1000) if (wait_s := door.enter(0.0))]
    assert len(again) == 990
    assert not any(door.enter(at_s) for at_s in again)


def test_nobody_is_sent_away_for_longer_than_that() -> None:
    door = Admission(1, 1, 5.0)
    waits = [door.enter(0.0) for _ in range(100)]
    assert max(waits) == 5.0
    assert waits[:3] == [0.0, 1.0, 2.0]


def test_without_a_limit_everybody_comes_in() -> None:
    door = Admission(0, 0, 60.0)
    assert not any(door.enter(0.0) for _ in range(1000))


@given(
    per_s=st.integers(1, 100),
    burst=st.integers(1, 50),
    steps=st.lists(st.floats(0, 2), max_size=200),
)
def test_no_more_come_in_than_the_burst_and_what_time_gave_back(
    per_s: int, burst: int, steps: list[float]
) -> None:
    door = Admission(per_s, burst, 60.0)
    now_s, entered = 0.0, 0
    for step in steps:
        now_s += step
        entered += not door.enter(now_s)
        assert entered <= burst + now_s * per_s + 1e-3
