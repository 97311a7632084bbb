"""What a board's log doesn't hold any more, or never did: read from the stream, one page at a time.

Must not know who it is for.
"""

from __future__ import annotations

from sidecast_broker.board import Board
from sidecast_broker.boards import Boards
from sidecast_broker.core.log import Stored
from sidecast_broker.entry import Entry
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import InvalidId, parse_subject


async def read_past(
    boards: Boards, board: Board, cursor: int, until: int, *, sure: bool, resumed: bool = False
) -> tuple[int | None, list[Entry]]:
    """Read what follows a cursor; give how far that leads, None: it has expired; and the records of it.

    Args:
        boards: where to read.
        board: in use.
        cursor: where to begin.
        until: what follows this sequence is in the log.
        sure: whether it is known that nothing of the board's tasks between the cursor and what is stored has
            expired.
        resumed: whether the client has said what it has: then nothing of a task may be missing before its
            first record, as part of it is where that part was purged.

    Raises:
        Away: NATS can't answer.
        Refused: owners can't be looked up.
    """
    # From the cursor's own record on, where it is one of the agent's: while it is still stored, so is all
    # that follows it.
    records = await boards.read(board, cursor)
    if not (records and records[0].sequence == cursor):
        first = (await boards.info()).first
        if first > cursor + 1 and not sure:
            return None, []
    between = [stored for stored in records if cursor < stored.sequence <= until]
    if not between and not (records and records[-1].sequence > until):
        following = await boards.following(board, cursor + 1)
        if following is None or following.sequence > until:
            return until, []
        between = [following]  # the replica that answered is behind
    entries = [entry for stored in between if (entry := await _entry(board, stored)) is not None]
    short = resumed and any(entry.hub.oldest_cursor > cursor for entry in entries)
    if short and (await boards.info()).deleted:
        return None, []
    reached = between[-1].sequence if between else until
    return (until if records and records[-1].sequence > until else reached), entries


async def _entry(board: Board, stored: Stored) -> Entry | None:
    try:
        task = parse_subject(stored.headers.get(names.SUBJECT, "")).task
    except InvalidId:
        return None
    return await board.entry(stored, task)
