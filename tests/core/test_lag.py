"""For how long a peer has not acknowledged what it was sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.lag import Lag

STEPS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 10, allow_nan=False)), max_size=50
)
"""Bytes sent, bytes acknowledged of those pending, and the time that passes."""


def test_its_age_counts_from_when_it_was_first_seen() -> None:
    lag = Lag()
    assert lag.age_s(5.0) == 0
    assert lag.look(0, 100, 10.0, patient=False) == 0
    assert lag.look(0, 100, 12.5, patient=False) == 2.5
    assert lag.age_s(13.0) == 3


def test_none_is_settled_until_something_is_sent() -> None:
    lag = Lag()
    assert lag.settled_at(0)
    assert lag.look(100, 0, 1.0, patient=False) == 0
    assert (lag.settled_at(100), lag.settled_at(101)) == (True, False)
    lag.look(100, 1, 2.0, patient=False)
    assert not lag.settled_at(101)
    assert lag.age_s(9.0) == 7


def test_what_comes_meanwhile_is_not_waited_for() -> None:
    lag = Lag()
    lag.look(0, 100, 0.0, patient=False)
    assert lag.look(99, 500, 5.0, patient=False) == 5
    assert lag.look(100, 500, 6.0, patient=False) == 0  # all that was pending first is there
    assert lag.look(599, 1, 7.0, patient=False) == 1


def test_a_byte_is_enough_for_who_is_patient() -> None:
    lag = Lag()
    lag.look(0, 100, 0.0, patient=True)
    assert lag.look(1, 99, 5.0, patient=True) == 0
    assert lag.look(1, 99, 8.0, patient=True) == 3


@pytest.mark.parametrize("patient", [False, True])
@given(STEPS)
def test_who_takes_nothing_is_found_whatever_else_it_is_sent(
    patient: bool, steps: list[tuple[int, int, float]]
) -> None:
    lag, pending, now = Lag(), 1, 0.0
    lag.look(7, pending, now, patient=patient)
    for sent, _acknowledged, passed_s in steps:
        pending += sent
        now += passed_s
        assert lag.look(7, pending, now, patient=patient) == now


@pytest.mark.parametrize("patient", [False, True])
@given(STEPS)
def test_never_older_than_the_oldest_byte(patient: bool, steps: list[tuple[int, int, float]]) -> None:
    lag, now = Lag(), 0.0
    sent = acknowledged = 0
    seen_at: list[tuple[int, float]] = []  # so many bytes had been sent at that look
    for more, taken, passed_s in steps:
        now += passed_s
        sent += more
        acknowledged = min(acknowledged + taken, sent)
        seen_at.append((sent, now))
        oldest_s = next((now - at for bytes_, at in seen_at if bytes_ > acknowledged), 0.0)
        age_s = lag.look(acknowledged, sent - acknowledged, now, patient=patient)
        assert 0 <= age_s <= oldest_s
        if acknowledged == sent:
            assert age_s == 0
