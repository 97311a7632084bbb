"""Where a publisher stands in one task's log, worked out from the last record the stream's leader has.

Must not know NATS connections: the leader's answer comes in as a `Stored`. The rule is ADR 3: at most one
publish per task is unacknowledged, so the last record tells exactly how much of it is stored.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Stored(NamedTuple):
    """The last record of a subject.

    Attributes:
        sequence: its stream sequence; 0 where the subject has no record.
        producer: its `Sidecast-Producer`, or empty.
        message_id: its `Nats-Msg-Id`, or empty.
        state: its `Sidecast-State`, or empty.
    """

    sequence: int = 0
    producer: str = ""
    message_id: str = ""
    state: str = ""


def message_id(producer: str, ordinal: int) -> str:
    """Give the `Nats-Msg-Id` of a publisher's record; ordinals rise with every record of the publisher."""
    return f"{producer}-{ordinal}"


def ordinal_of(stored: Stored, producer: str) -> int | None:
    """Give the ordinal of a record where `producer` published it, else None."""
    prefix, _, digits = stored.message_id.rpartition("-")
    if stored.producer != producer or prefix != producer or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits)


class Position(NamedTuple):
    """What a publisher knows of a task's log.

    Attributes:
        stored: the last record, as far as known.
        ours: whether this publisher has had a record of the task acknowledged.
    """

    stored: Stored
    ours: bool = False


class Verdict(NamedTuple):
    """What follows from the leader's answer.

    Attributes:
        outcome: `continue` (behind `position`), `reset` (continue, but acknowledged records are gone) or
            `fenced` (another publisher has written: stop).
        position: where the log ends.
        stored: how many of the records in flight are stored, counted from the first.
    """

    outcome: Literal["continue", "reset", "fenced"]
    position: Position
    stored: int = 0


def judge(position: Position, found: Stored, producer: str, in_flight: list[int]) -> Verdict:
    """Work out where to go on after a publish of unknown outcome.

    Args:
        position: what was known before.
        found: the subject's last record, as the leader says.
        producer: this publisher.
        in_flight: ordinals of the records whose acknowledgement is missing, rising.
    """
    ordinal = ordinal_of(found, producer)
    if ordinal is not None:
        known = ordinal_of(position.stored, producer)
        stored = sum(each <= ordinal for each in in_flight)
        # An older record of ours as the last one: the stream was set back behind what it had acknowledged.
        outcome: Literal["continue", "reset"] = (
            "reset" if position.ours and known is not None and ordinal < known else "continue"
        )
        return Verdict(outcome, Position(found, ours=True), stored)
    if found.sequence == 0:
        return Verdict("reset" if position.stored.sequence else "continue", Position(found, position.ours))
    if found[:3] == position.stored[:3]:
        return Verdict("continue", position)
    return Verdict("fenced", Position(found, position.ours))
