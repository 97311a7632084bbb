"""Since when a client has not been sent all there is."""

from __future__ import annotations

import pytest

from sidecast_broker.core.slowness import Slowness

APART_S = 5.0


def test_it_lasts_until_the_client_has_caught_up() -> None:
    slowness = Slowness()
    assert not slowness.lasts(100.0, 0.0)
    slowness.fall_behind(10.0, APART_S)
    assert (slowness.lasts(12.9, 3.0), slowness.lasts(13.0, 3.0)) == (False, True)
    slowness.catch_up()
    assert not slowness.lasts(99.0, 3.0)


def test_who_falls_behind_again_meanwhile_is_slow_since_the_first_time() -> None:
    slowness = Slowness()
    slowness.fall_behind(10.0, APART_S)
    slowness.fall_behind(20.0, APART_S)
    assert slowness.lasts(20.0, 10.0)
    assert slowness.lags == 2


@pytest.mark.parametrize(("taken_at_s", "again_at_s", "since_s"), [(12.0, 16.9, 10.0), (12.0, 17.0, 17.0)])
def test_who_has_taken_what_its_rate_allows_for_long_enough_is_slow_anew(
    taken_at_s: float, again_at_s: float, since_s: float
) -> None:
    slowness = Slowness()
    slowness.fall_behind(10.0, APART_S)
    slowness.take(taken_at_s)
    slowness.fall_behind(again_at_s, APART_S)
    assert slowness.lasts(30.0, 30.0 - since_s)
    assert not slowness.lasts(30.0, 30.1 - since_s)


def test_what_was_taken_before_it_fell_behind_is_forgotten() -> None:
    slowness = Slowness()
    slowness.take(1.0)
    slowness.fall_behind(10.0, APART_S)
    slowness.fall_behind(20.0, APART_S)
    assert slowness.lasts(20.0, 10.0)


@pytest.mark.parametrize("slow", [True, False])
def test_who_is_shown_the_task_as_it_stands_has_missed_nothing(slow: bool) -> None:
    slowness = Slowness()
    slowness.fall_behind(10.0, APART_S)
    slowness.late_s(3, 50, 10.0)
    slowness.skip(slow=slow)
    assert not slowness.lasts(99.0, 0.0)
    assert slowness.late_s(3, 60, 20.0) == 0
    assert slowness.skips == slow


def test_it_is_late_while_it_lacks_what_was_there_at_first() -> None:
    slowness = Slowness()
    assert slowness.late_s(0, 9, 10.0) == 0
    assert slowness.late_s(8, 20, 15.0) == 5
    assert slowness.late_s(9, 30, 16.0) == 0  # it has all that: what counts is what there was by then
    assert slowness.late_s(29, 40, 20.0) == 4
    assert slowness.late_s(30, 40, 20.0) == 0
