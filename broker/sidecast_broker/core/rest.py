"""What a client's pace has left over of a page that was read for it: its next frames, so many bytes of them.

Must not know clients, clocks, nor where pages come from.
"""

from __future__ import annotations

from typing import NamedTuple

REST_BYTES_MAX = 64 * 1024
"""Held for one client: what one write takes. What is left beyond it is read again."""


class Rest(NamedTuple):
    """Frames that follow a position, in order.

    Attributes:
        after: the position.
        pieces: each frame with the position it leads up to; 0: where the next one leads to.
        end: what a client that has all of them continues from.
    """

    after: int
    pieces: list[tuple[int, bytes]]
    end: int


def rest_of(pieces: list[tuple[int, bytes]], after: int, end: int) -> Rest | None:
    """Keep what is left of a page, on to the last position that fits; None: nothing.

    Args:
        pieces: as of `Rest`; the last one has a position.
        after: what the client has been sent.
        end: where the page ends, at or above the last position.
    """
    size = fitting = 0
    for number, (position, data) in enumerate(pieces, 1):
        size += len(data)
        if size > REST_BYTES_MAX:
            return Rest(after, pieces[:fitting], pieces[fitting - 1][0]) if fitting else None
        if position:
            fitting = number
    return Rest(after, pieces, end) if pieces else None
