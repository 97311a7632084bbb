"""What came of tasks that were looked at: no more of it than may be, and not what is still to be said."""

from __future__ import annotations

import pytest

from sidecast_broker import belonging
from sidecast_broker.belonging import Belonging


def test_what_is_refused_stays_so_until_it_is_admitted() -> None:
    found = Belonging()
    assert not found.refuses("a")
    found.refuse("a")
    found.heed("a")  # who says so is not asked for a context
    assert found.refuses("a")
    found.admit("a")
    assert not found.refuses("a")


def test_what_was_put_off_is_refused_until_it_names_its_context_and_late_until_it_is_admitted() -> None:
    found = Belonging()
    assert not found.is_late("a")
    found.put_off("a")
    assert (found.refuses("a"), found.is_late("a")) == (True, True)
    found.heed("a")
    assert (found.refuses("a"), found.is_late("a")) == (False, True)
    found.admit("a")
    assert not found.is_late("a")


def test_no_more_is_remembered_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(belonging, "REFUSED_MAX", 3)
    found = Belonging()
    for task in "abcd":
        found.refuse(task)
        found.put_off(task)
    assert [found.refuses(task) for task in "abcd"] == [False, False, False, True]


def test_all_of_it_can_be_forgotten() -> None:
    found = Belonging()
    found.refuse("a")
    found.put_off("b")
    found.clear()
    assert [found.refuses("a"), found.refuses("b"), found.is_late("b")] == [False] * 3
