from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.pace import (
    RATE_MIN,
    SLACK,
    BadPace,
    Bounds,
    Bucket,
    Pace,
    Window,
    parse_pace,
    parse_rates,
)

BOUNDS = Bounds(
    batch_ms=0, batch_ms_max=5000, batch_max=100, batch_max_max=1000, rate=0, rate_max=1000, burst=20
)


# --- what a client may ask for


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, None),
        ({"batch_ms": "0"}, None),
        ({"batch_max": "7"}, None),
        ({"batch_ms": "100"}, Pace(0.1, 100, 0, 20)),
        ({"batch_ms": "5000", "batch_max": "1000"}, Pace(5, 1000, 0, 20)),
        ({"max_rate": "5"}, Pace(0, 100, 5, 20)),
        ({"max_rate": "0.1", "batch_ms": "1"}, Pace(0.001, 100, 0.1, 20)),
        ({"max_rate": "1000", "other": "x"}, Pace(0, 100, 1000, 20)),
    ],
)
def test_a_pace(query: dict[str, str], expected: Pace | None) -> None:
    assert parse_pace(query, BOUNDS) == expected


@pytest.mark.parametrize("name", ["batch_ms", "batch_max", "max_rate"])
@pytest.mark.parametrize(
    "value",
    ["", " 5", "5 ", "+5", "-5", "x", "5e3", "5.", ".5", "nan", "inf", "٥", "1_0", "9" * 10, "5\0", "0x5"],
)
def test_a_value_that_is_no_number_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadPace, match=f"^{name} must be ") as raised:
        parse_pace({name: value}, BOUNDS)
    assert raised.value.name == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_ms", "5001"),
        ("batch_ms", "1.5"),
        ("batch_max", "0"),
        ("batch_max", "1001"),
        ("max_rate", "0"),
        ("max_rate", "0.09"),
        ("max_rate", "1000.1"),
    ],
)
def test_a_value_out_of_bounds_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadPace, match=name):
        parse_pace({name: value}, BOUNDS)


def test_who_asks_for_nothing_has_the_defaults() -> None:
    bounds = BOUNDS._replace(batch_ms=50, rate=10)
    assert parse_pace({}, bounds) == Pace(0.05, 100, 10, 20)
    assert parse_pace({"batch_ms": "0", "max_rate": "7"}, bounds) == Pace(0, 100, 7, 20)


def test_rates_of_principals() -> None:
    assert parse_rates("") == {}
    assert parse_rates(" alice=10, reports=0,,a=b=0.5 ") == {"alice": 10, "reports": 0, "a=b": 0.5}


@pytest.mark.parametrize("text", ["alice", "=5", "alice=", "alice=x", "alice=-1", "alice=0.05", "a=1,a=2"])
def test_bad_rates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"is not NAME=RATE, 0 or from {RATE_MIN:g}"):
        parse_rates(text)


@given(st.floats(RATE_MIN, 1000), st.integers(1, 1000))
def test_older_events_are_read_within_the_burst(rate: float, burst: int) -> None:
    assert 1 <= Pace(rate=rate, burst=burst).replayed_at_once <= burst


# --- the bucket


@given(
    st.floats(RATE_MIN, 1000),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 60)), max_size=200),
)
def test_no_window_of_time_sees_more_than_burst_and_rate_allow(
    rate: float, burst: int, asked: list[tuple[float, int]]
) -> None:
    bucket, now_s = Bucket(rate, burst), 1000.0
    taken: list[tuple[float, int]] = []
    for pause_s, wanted in asked:
        now_s += pause_s
        count = min(bucket.available(now_s), wanted)
        if count:
            bucket.take(count, now_s)
            taken.append((now_s, count))
    for first in range(len(taken)):
        total = 0
        for at_s, count in taken[first:]:
            total += count
            assert total <= burst + rate * (at_s - taken[first][0]) + 1e-3


@given(st.floats(RATE_MIN, 1000), st.integers(1, 50), st.data())
def test_there_are_tokens_when_they_are_due_and_not_before(
    rate: float, burst: int, data: st.DataObject
) -> None:
    bucket, now_s = Bucket(rate, burst), 50.0
    for _ in range(20):
        bucket.take(data.draw(st.integers(1, 2 * burst)), now_s)
        count = data.draw(st.integers(1, burst))
        due_s = bucket.due_s(now_s, count)
        assert bucket.available(due_s) >= count
        if due_s > now_s:
            assert bucket.available(due_s - 0.01 / rate) < count
        now_s = due_s + data.draw(st.floats(0, 3))


def test_what_is_taken_beyond_the_tokens_is_owed() -> None:
    bucket = Bucket(10 * (1 + SLACK), 2)
    bucket.take(4, 100)
    assert [bucket.available(100 + n / 10) for n in range(6)] == [0, 0, 0, 1, 2, 2]


def test_an_hour_at_a_low_rate() -> None:
    bucket, now_s, sent = Bucket(5, 20), 0.0, 0
    while now_s < 3600:
        sent += (count := bucket.available(now_s))
        if count:
            bucket.take(count, now_s)
        now_s = bucket.due_s(now_s)
    assert 0.98 * 5 * 3600 <= sent <= 20 + 5 * 3600


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_ten_seconds_hold_more_than_ten_seconds_worth_once_the_burst_is_gone(at_once: int) -> None:
    bucket, times = Bucket(5, 20), []
    bucket.take(20, 0.0)
    now_s = 0.0
    while now_s < 100:
        if bucket.available(now_s):
            bucket.take(at_once, now_s)
            times += [now_s] * at_once
        now_s = bucket.due_s(now_s)
    assert max(sum(start <= at <= start + 10 for at in times) for start in times) <= 50


# --- the window


def test_the_first_after_silence_goes_at_once_and_what_follows_gathers() -> None:
    window = Window(0.1, 10)
    assert window.gather(1, 50.0, urgent=False) == 50.0
    window.send(50.0)
    assert window.gather(1, 50.02, urgent=False) == pytest.approx(50.1)
    assert window.gather(3, 50.09, urgent=False) == pytest.approx(50.1)
    window.send(50.1)
    assert window.gather(1, 50.5, urgent=False) == 50.5


@pytest.mark.parametrize(("count", "urgent"), [(10, False), (1, True)])
def test_a_full_and_an_urgent_batch_don_t_wait(count: int, urgent: bool) -> None:
    window = Window(5, 10)
    window.send(50.0)
    assert window.gather(count, 50.01, urgent=urgent) == 50.01


@given(st.lists(st.tuples(st.floats(0.001, 0.5), st.integers(1, 3)), min_size=1, max_size=200))
def test_an_event_waits_no_longer_than_a_window_and_writes_are_a_window_apart(
    moves: list[tuple[float, int]],
) -> None:
    window, now_s = Window(0.1, 1000), 10.0
    due_s, oldest_s, writes = None, None, []
    for pause_s, count in moves:
        now_s += pause_s
        if due_s is not None and due_s <= now_s:
            assert due_s - oldest_s <= 0.1 + 1e-9
            window.send(due_s)
            writes.append(due_s)
            due_s = oldest_s = None
        oldest_s = now_s if oldest_s is None else oldest_s
        due_s = window.gather(count, now_s, urgent=False)
        if due_s <= now_s:
            window.send(now_s)
            writes.append(now_s)
            due_s = oldest_s = None
    assert all(later - earlier >= 0.1 - 1e-9 for earlier, later in itertools.pairwise(writes))
