"""What a client's TCP has acknowledged and its stream has then outlived: the weaker kind of confirmation.

Must not know sockets, nor what a position is confirmed for.
"""

from __future__ import annotations

from collections import deque

BEATS = 2
"""A peer that is gone without a word is found by the second heartbeat: TCP answers the first with a reset."""
MARKS_PER_BEAT = 2
MARKS_MAX = 64
"""Of a client that never confirms all; of the newest only the last is kept then."""


class Outlived:
    """Follows one stream's positions from being written to being outlived.

    A position counts once all bytes up to it were acknowledged by the peer's TCP and the stream then lived
    for two heartbeats more: what the socket took is not what the client got.

    Args:
        heartbeat_s: the stream's, in seconds.
    """

    __slots__ = ("_life_s", "_marks", "_pause_s", "_told")

    def __init__(self, heartbeat_s: float) -> None:
        self._life_s = BEATS * heartbeat_s
        self._pause_s = heartbeat_s / MARKS_PER_BEAT
        self._marks: deque[_Mark] = deque()
        self._told = 0

    def look(self, cursor: int, sent: int, acknowledged: int, now: float) -> int | None:
        """Give a position that has just become outlived, the newest; None: none has.

        Called often, with what holds at the moment; a heartbeat holds no more than a handful of marks.

        Args:
            cursor: sequence of the newest record written.
            sent: bytes written so far.
            acknowledged: of these, bytes the peer's TCP has acknowledged.
            now: seconds, monotonic.
        """
        marks = self._marks
        newest = marks[-1] if marks else None
        if cursor > (newest.cursor if newest is not None else self._told) and (
            newest is None or now - newest.marked_at >= self._pause_s
        ):
            if len(marks) >= MARKS_MAX:
                marks.pop()
            marks.append(_Mark(cursor, sent, now))
        outlived = None
        for mark in marks:
            if mark.acknowledged_at is None and acknowledged >= mark.bytes:
                mark.acknowledged_at = now
        while marks and (at := marks[0].acknowledged_at) is not None and now - at >= self._life_s:
            outlived = self._told = marks.popleft().cursor
        return outlived


class _Mark:
    """A position, the bytes that lead up to it, and when these had arrived."""

    __slots__ = ("acknowledged_at", "bytes", "cursor", "marked_at")

    def __init__(self, cursor: int, sent: int, now: float) -> None:
        self.cursor = cursor
        self.bytes = sent
        self.marked_at = now
        self.acknowledged_at: float | None = None
