"""Where a stream of several tasks begins: as `core.resume` decides it for one, for all of them at once.

Must not know how any of it is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecast_broker.core.cursor import Gap, Replay, resolve
from sidecast_broker.core.resume import Opening, Position, Start


def open_together(
    requested: str | None, start: Start, stream: Position, tasks: Sequence[Position], *, listed: bool
) -> Opening | None:
    """Decide how a stream begins; None: nothing it could deliver will ever follow.

    One cursor stands for all tasks, so it can be continued only where it can for each of them.

    Args:
        requested: the client's cursor as it sent it, None for none.
        start: where to begin without one.
        stream: where the whole stream stands: `first` is its first sequence, `end` the position up to which
            everything has been handed on, `complete` that it has lost nothing.
        tasks: where those tasks stand that are known; of a list, all that have begun.
        listed: whether these are all there will be.
    """
    positions = list(tasks) if listed else [*tasks, stream]
    terminal = _terminal(tasks) if listed else None
    if requested is not None:
        answers = [_resolve(requested, position) for position in positions or [stream]]
        gaps = [answer for answer in answers if isinstance(answer, Gap)]
        if gaps:
            return Opening("snapshot", stream.end, Gap(gaps[0].reason, max(gap.oldest for gap in gaps)))
        after = max(answer.after for answer in answers if not isinstance(answer, Gap))
        return None if terminal is not None and after >= terminal else Opening("replay", after, None)
    if start == "now":
        return None if terminal is not None else Opening("live", stream.end, None)
    lacking = [position for position in tasks if not position.complete]
    partial = Gap("expired", max(position.first for position in lacking) - 1) if lacking else None
    if start == "snapshot":
        return Opening("snapshot", stream.end, partial)
    if not listed:
        after = max(stream.first - 1, 0)
        return Opening("replay", after, partial if stream.complete else Gap("expired", after))
    after = min((position.first for position in tasks), default=stream.end + 1) - 1
    return Opening("replay", after, partial)


def _terminal(tasks: Sequence[Position]) -> int | None:
    """Give the sequence by which all tasks have ended; None: one is open, or there is none."""
    ends = [position.terminal for position in tasks]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def _resolve(requested: str, position: Position) -> Replay | Gap:
    return resolve(
        requested,
        epoch=position.epoch,
        stream_first=position.stream_first,
        stream_last=position.stream_last,
        interior_deletes=position.interior_deletes,
        first_retained=position.first,
        complete=position.complete,
    )
