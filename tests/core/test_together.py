"""Every line of the resume rules for several tasks: one cursor goes on only where it does for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.cursor import Gap
from sidecast_broker.core.resume import Opening, Position, Start, open_at
from sidecast_broker.core.together import open_together

STREAM = Position("e", 10, 100, interior_deletes=False, first=10, complete=False, end=95, terminal=None)
WHOLE = STREAM._replace(first=20, complete=True, end=90)
OVER = WHOLE._replace(terminal=60)
LATE = WHOLE._replace(first=30, terminal=80)
PARTIAL = WHOLE._replace(first=40, complete=False, interior_deletes=True)


@pytest.mark.parametrize(
    ("requested", "tasks", "listed", "expected"),
    [
        ("e-50", [WHOLE, OVER], True, Opening("replay", 50, None)),
        ("e-5", [WHOLE, OVER], True, Opening("replay", 5, None)),  # all of both is there
        ("e-5", [WHOLE, OVER], False, Opening("snapshot", 95, Gap("expired", 9))),  # others may have been
        ("e-9", [], False, Opening("replay", 9, None)),
        ("e-38", [WHOLE, PARTIAL], True, Opening("snapshot", 95, Gap("expired", 39))),
        ("e-39", [WHOLE, PARTIAL], True, Opening("replay", 39, None)),
        ("e-79", [OVER, LATE], True, Opening("replay", 79, None)),
        ("e-80", [OVER, LATE], True, None),
        ("e-80", [OVER, LATE], False, Opening("replay", 80, None)),
        ("e-80", [OVER, WHOLE], True, Opening("replay", 80, None)),
        ("e-101", [WHOLE], True, Opening("snapshot", 95, Gap("ahead", 0))),
        ("f-50", [WHOLE, PARTIAL], True, Opening("snapshot", 95, Gap("epoch", 39))),
        ("e-\x00", [WHOLE], False, Opening("snapshot", 95, Gap("malformed", 9))),
    ],
)
def test_with_a_cursor(requested: str, tasks: list[Position], listed: bool, expected: Opening | None) -> None:
    assert open_together(requested, "snapshot", STREAM, tasks, listed=listed) == expected


@pytest.mark.parametrize(
    ("start", "tasks", "listed", "expected"),
    [
        ("snapshot", [WHOLE, OVER], True, Opening("snapshot", 95, None)),
        ("snapshot", [WHOLE, PARTIAL], True, Opening("snapshot", 95, Gap("expired", 39))),
        ("start", [WHOLE, LATE], True, Opening("replay", 19, None)),
        ("start", [], False, Opening("replay", 9, Gap("expired", 9))),
        ("now", [WHOLE, OVER], True, Opening("live", 95, None)),
        ("now", [OVER, LATE], True, None),
        ("now", [OVER, LATE], False, Opening("live", 95, None)),
    ],
)
def test_without_a_cursor(
    start: Start, tasks: list[Position], listed: bool, expected: Opening | None
) -> None:
    assert open_together(None, start, STREAM, tasks, listed=listed) == expected


POSITIONS = st.builds(
    lambda first, length, complete, over: WHOLE._replace(
        first=first, complete=complete, interior_deletes=True, terminal=first + length if over else None
    ),
    st.integers(10, 60),
    st.integers(0, 30),
    st.booleans(),
    st.booleans(),
)


@given(tasks=st.lists(POSITIONS, min_size=1, max_size=6), sequence=st.integers(0, 120))
def test_a_list_is_continued_where_each_of_its_tasks_is(tasks: list[Position], sequence: int) -> None:
    cursor = f"e-{sequence}"
    together = open_together(cursor, "snapshot", STREAM, tasks, listed=True)
    alone = [open_at(cursor, "snapshot", task) for task in tasks]
    gaps = [opening for opening in alone if opening is not None and opening.gap is not None]
    if gaps:
        assert together is not None
        assert together.mode == "snapshot"
    elif all(opening is None for opening in alone):
        assert together is None
    else:
        assert together == Opening("replay", sequence, None)
