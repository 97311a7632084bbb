"""Event ids `<epoch>-<sequence>`, and whether the log can continue exactly after one.

Must not know who asks, nor how a replay is read.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

SEQUENCE_MAX = 2**63 - 1
"""Largest sequence accepted: what a signed 64-bit integer holds; no stream gets there."""

_EPOCH = r"[A-Za-z0-9._~-]{1,64}"
_EPOCH_ONLY = re.compile(_EPOCH)
_CURSOR = re.compile(rf"({_EPOCH})-(0|[1-9][0-9]{{0,18}})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

GapReason = Literal["expired", "epoch", "malformed", "ahead"]


class MalformedCursor(ValueError):  # noqa: N818 - named as the answer reads: the cursor is malformed
    """Text that is not `<epoch>-<sequence>`."""


class Cursor(NamedTuple):
    """A position: who holds it knows everything of `epoch` up to and with `sequence`; 0 is the start."""

    epoch: str
    sequence: int


class Replay(NamedTuple):
    """The log continues exactly: send what follows `after`."""

    after: int


class Gap(NamedTuple):
    """The log can't continue from there: say so and send a snapshot.

    Attributes:
        reason: why.
        oldest: the lowest sequence a replay could have continued after.
    """

    reason: GapReason
    oldest: int


def is_epoch(text: str) -> bool:
    """Tell whether text can be an epoch: 1 to 64 of `A-Z a-z 0-9 . _ ~ -`."""
    return _EPOCH_ONLY.fullmatch(text) is not None


def epoch_of_creation(created_ms: int) -> str:
    """Give the epoch of a stream whose metadata names none: its creation time in base 36.

    Args:
        created_ms: milliseconds since 1970, not negative.
    """
    digits = ""
    while True:
        created_ms, digit = divmod(created_ms, 36)
        digits = _DIGITS[digit] + digits
        if created_ms == 0:
            return digits


def format_cursor(epoch: str, sequence: int) -> str:
    """Write a position as an event id."""
    return f"{epoch}-{sequence}"


def parse_cursor(text: str) -> Cursor:
    """Read an event id; only what `format_cursor` writes is one, so that each position has one spelling.

    The last `-` separates: an epoch may hold more.

    Args:
        text: what a client sent, of any length and content.

    Raises:
        MalformedCursor: it is anything else.
    """
    # Both repetitions are bounded, so a header of megabytes is given up after 84 characters.
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise MalformedCursor("an event id is <epoch>-<sequence>")
    sequence = int(match[2])
    if sequence > SEQUENCE_MAX:
        raise MalformedCursor(f"the sequence of an event id is at most {SEQUENCE_MAX}")
    return Cursor(match[1], sequence)


def resolve(
    requested: str,
    *,
    epoch: str,
    stream_first: int,
    stream_last: int,
    interior_deletes: bool,
    first_retained: int,
    complete: bool,
) -> Replay | Gap:
    """Decide whether a client's cursor can be continued without a hole.

    A cursor may name a sequence that another task wrote: what counts is that all of this task's events above
    it are still stored.

    Args:
        requested: the cursor as the client sent it.
        epoch: the stream's epoch.
        stream_first: the stream's first sequence; where it is empty, the one it would give next.
        stream_last: the stream's last sequence, by the leader's word: a follower may not know it yet.
        interior_deletes: whether messages between these two are missing (purged subjects, deleted messages).
        first_retained: sequence of the task's first stored record.
        complete: that record is the task's true first.
    """
    oldest = 0 if complete else max(first_retained - 1, 0)
    if not interior_deletes:
        # Nothing between the stream's ends is missing, so nothing of this task is.
        oldest = min(oldest, max(stream_first - 1, 0))
    try:
        cursor = parse_cursor(requested)
    except MalformedCursor:
        return Gap("malformed", oldest)
    if cursor.epoch != epoch:
        return Gap("epoch", oldest)
    if cursor.sequence > stream_last:
        return Gap("ahead", oldest)
    if cursor.sequence < oldest:
        return Gap("expired", oldest)
    return Replay(cursor.sequence)
