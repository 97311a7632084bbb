"""Where to go on after a publish of unknown outcome."""

from __future__ import annotations

import pytest

from sidecast_adapters.position import Position, Stored, Verdict, judge, message_id, ordinal_of

US, THEM = "a" * 32, "b" * 32


def ours(sequence: int, ordinal: int) -> Stored:
    return Stored(sequence, US, message_id(US, ordinal), "TASK_STATE_WORKING")


def theirs(sequence: int, ordinal: int = 1) -> Stored:
    return Stored(sequence, THEM, message_id(THEM, ordinal), "TASK_STATE_WORKING")


NEW = Position(Stored())
PLAIN = Stored(7)


@pytest.mark.parametrize(
    ("position", "found", "outcome", "stored"),
    [
        # A new log.
        (NEW, Stored(), "continue", 0),
        (NEW, ours(5, 10), "continue", 1),
        (NEW, ours(9, 12), "continue", 3),
        (NEW, theirs(5), "fenced", 0),
        (NEW, PLAIN, "fenced", 0),
        # A log another process began, or a client that sets no headers.
        (Position(theirs(5)), theirs(5), "continue", 0),
        (Position(PLAIN), PLAIN, "continue", 0),
        (Position(theirs(5)), ours(8, 11), "continue", 2),
        (Position(theirs(5)), theirs(6, 2), "fenced", 0),
        (Position(theirs(5)), Stored(), "reset", 0),
        # A log of ours.
        (Position(ours(5, 9), ours=True), ours(5, 9), "continue", 0),
        (Position(ours(5, 9), ours=True), ours(7, 11), "continue", 2),
        (Position(ours(5, 9), ours=True), theirs(6), "fenced", 0),
        (Position(ours(5, 9), ours=True), Stored(), "reset", 0),
        (Position(ours(5, 9), ours=True), ours(3, 8), "reset", 0),
    ],
)
def test_judge(position: Position, found: Stored, outcome: str, stored: int) -> None:
    verdict = judge(position, found, US, [10, 11, 12])
    assert (verdict.outcome, verdict.stored) == (outcome, stored)
    assert verdict.position.stored == found


def test_what_was_found_is_the_next_position() -> None:
    assert judge(NEW, ours(5, 10), US, [10]) == Verdict("continue", Position(ours(5, 10), ours=True), 1)


@pytest.mark.parametrize(
    ("stored", "ordinal"),
    [
        (ours(1, 42), 42),
        (theirs(1), None),
        (Stored(1), None),
        (Stored(1, US, ""), None),
        (Stored(1, US, f"{US}-x"), None),
        (Stored(1, US, f"{THEM}-1"), None),
        (Stored(1, THEM, message_id(US, 1)), None),
    ],
)
def test_ordinal_of(stored: Stored, ordinal: int | None) -> None:
    assert ordinal_of(stored, US) == ordinal
