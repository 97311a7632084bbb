"""Where a stream of several tasks begins: which tasks there are by then, and behind which position.

Must not know HTTP, nor what a stream sends.
"""

from __future__ import annotations

from typing import NamedTuple

from sidecast_broker.answers import StreamInfo
from sidecast_broker.board import Board
from sidecast_broker.boards import Boards, Found
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.resume import Opening, Position, Start
from sidecast_broker.core.together import open_together
from sidecast_broker.hub import Hub


class Outset(NamedTuple):
    """How a stream begins.

    Attributes:
        found: the tasks there are; those of an agent or a context only where their snapshots are to be sent.
        opening: where; None: nothing the stream could deliver will ever follow.
    """

    found: Found
    opening: Opening | None


async def outset_of(
    boards: Boards, board: Board, principal: Principal, cursor: str | None, start: Start
) -> Outset:
    """Read what a stream begins with; takes as long as the histories of its tasks do.

    Args:
        boards: where tasks are found.
        board: in use.
        principal: who watches.
        cursor: the client's as it sent it, None for none.
        start: where to begin without one.

    Raises:
        Away: NATS can't answer.
        Refused: owners can't be looked up.
    """
    await boards.fill(board, principal)
    found = await boards.find(board, principal) if board.selection.listed else Found([], 0)
    opening = await _opening(boards, board, found, cursor, start)
    if opening is not None and opening.mode == "snapshot" and not board.selection.listed:
        found = await boards.find(board, principal)
        opening = await _opening(boards, board, found, cursor, start) or opening
    return Outset(found, opening)


async def _opening(
    boards: Boards, board: Board, found: Found, cursor: str | None, start: Start
) -> Opening | None:
    info = await boards.info()
    stream = Position(
        epoch=board.epoch,
        stream_first=info.first,
        stream_last=max(info.last, board.position),
        interior_deletes=bool(info.deleted),
        first=max(info.first, 1),
        complete=info.first <= 1,
        end=board.position,
        terminal=None,
    )
    positions = [_position(member.hub, info, stream) for member in found.members]
    listed = board.selection.listed and not board.missing
    return open_together(cursor, start, stream, positions, listed=listed)


def _position(hub: Hub, info: StreamInfo, stream: Position) -> Position:
    return Position(
        epoch=hub.epoch,
        stream_first=info.first,
        stream_last=stream.stream_last,
        interior_deletes=bool(info.deleted or hub.gap_below),
        first=max(hub.first or 0, hub.gap_below + 1),
        complete=hub.complete,
        end=hub.end,
        terminal=hub.fold.terminal_sequence,
    )
