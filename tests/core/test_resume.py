"""Every line of the resume rules: which cursor gets a replay, which a gap, and when nothing follows."""

from __future__ import annotations

import pytest

from sidecast_broker.core.cursor import Gap
from sidecast_broker.core.resume import Opening, Position, open_at

OPEN = Position(
    epoch="e",
    stream_first=10,
    stream_last=100,
    interior_deletes=False,
    first=20,
    complete=True,
    end=90,
    terminal=None,
)
OVER = OPEN._replace(terminal=90)
PARTIAL = OPEN._replace(complete=False, interior_deletes=True)
PURGED_FRONT = OPEN._replace(complete=False)


@pytest.mark.parametrize(
    ("position", "requested", "expected"),
    [
        (OPEN, "e-50", Opening("replay", 50, None)),
        (OPEN, "e-90", Opening("replay", 90, None)),
        (OPEN, "e-95", Opening("replay", 95, None)),  # written by another task
        (OPEN, "e-100", Opening("replay", 100, None)),
        (OPEN, "e-0", Opening("replay", 0, None)),  # all of a whole task is there
        (OPEN, "e-101", Opening("snapshot", 90, Gap("ahead", 0))),
        (OPEN, "f-50", Opening("snapshot", 90, Gap("epoch", 0))),
        (OPEN, "-1", Opening("snapshot", 90, Gap("malformed", 0))),
        (OPEN, "1e9", Opening("snapshot", 90, Gap("malformed", 0))),
        (OPEN, "x" * 4096, Opening("snapshot", 90, Gap("malformed", 0))),
        (OPEN, "e-\x00", Opening("snapshot", 90, Gap("malformed", 0))),
        (PARTIAL, "e-18", Opening("snapshot", 90, Gap("expired", 19))),
        (PARTIAL, "e-19", Opening("replay", 19, None)),
        (PARTIAL, "e-20", Opening("replay", 20, None)),
        (PURGED_FRONT, "e-8", Opening("snapshot", 90, Gap("expired", 9))),
        (PURGED_FRONT, "e-9", Opening("replay", 9, None)),  # nothing after it has left the stream
        (OVER, "e-89", Opening("replay", 89, None)),
        (OVER, "e-90", None),
        (OVER, "e-100", None),
        (OVER, "f-100", Opening("snapshot", 90, Gap("epoch", 0))),
    ],
)
def test_with_a_cursor(position: Position, requested: str, expected: Opening | None) -> None:
    assert open_at(requested, "snapshot", position) == expected


def test_a_cursor_goes_before_from() -> None:
    assert open_at("e-50", "now", OPEN) == Opening("replay", 50, None)


@pytest.mark.parametrize(
    ("position", "start", "expected"),
    [
        (OPEN, "snapshot", Opening("snapshot", 90, None)),
        (OPEN, "start", Opening("replay", 19, None)),
        (OPEN, "now", Opening("live", 90, None)),
        (OVER, "snapshot", Opening("snapshot", 90, None)),
        (OVER, "start", Opening("replay", 19, None)),
        (OVER, "now", None),
        (PARTIAL, "snapshot", Opening("snapshot", 90, Gap("expired", 19))),
        (PARTIAL, "start", Opening("replay", 19, Gap("expired", 19))),
        (PARTIAL, "now", Opening("live", 90, None)),
    ],
)
def test_without_a_cursor(position: Position, start, expected: Opening | None) -> None:
    assert open_at(None, start, position) == expected
