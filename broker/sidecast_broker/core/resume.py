"""What a stream begins with: a replay, a snapshot after a gap, live events, or nothing at all.

Must not know how any of it is read or written.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from sidecast_broker.core.cursor import Gap, resolve

Start = Literal["snapshot", "start", "now"]
STARTS: tuple[str, ...] = get_args(Start)
Mode = Literal["snapshot", "replay", "live"]


class Position(NamedTuple):
    """Where a task and its stream stand.

    Attributes:
        epoch: the stream's.
        stream_first: the stream's oldest retained sequence.
        stream_last: its newest, by the leader's word.
        interior_deletes: whether messages between the two are missing.
        first: sequence of the task's first retained record.
        complete: whether that is the task's true first one.
        end: sequence of the task's newest record.
        terminal: sequence of the record that ended the task, None while it is open.
    """

    epoch: str
    stream_first: int
    stream_last: int
    interior_deletes: bool
    first: int
    complete: bool
    end: int
    terminal: int | None


class Opening(NamedTuple):
    """How a stream begins.

    Attributes:
        mode: `snapshot`: the task as it stands; `replay`: the events after `after`; `live`: only new ones.
        after: the cursor to continue from.
        gap: why what the client has can't be continued, or what it asked for isn't whole.
    """

    mode: Mode
    after: int
    gap: Gap | None


def open_at(requested: str | None, start: Start, position: Position) -> Opening | None:
    """Decide how a stream begins; None: nothing this stream could deliver will ever follow.

    Args:
        requested: the client's cursor as it sent it, None for none.
        start: where to begin without one.
        position: where the task stands.
    """
    first = Gap("expired", position.first - 1)
    partial = None if position.complete else first
    if requested is not None:
        answer = resolve(
            requested,
            epoch=position.epoch,
            stream_first=position.stream_first,
            stream_last=position.stream_last,
            interior_deletes=position.interior_deletes,
            first_retained=position.first,
            complete=position.complete,
        )
        if isinstance(answer, Gap):
            return Opening("snapshot", position.end, answer)
        if position.terminal is not None and answer.after >= position.terminal:
            return None
        return Opening("replay", answer.after, None)
    if start == "now":
        return None if position.terminal is not None else Opening("live", position.end, None)
    if start == "start":
        return Opening("replay", position.first - 1, partial)
    return Opening("snapshot", position.end, partial)
