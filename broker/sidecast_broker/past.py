"""A task as it stood at an earlier position, folded anew from memory or from the stream.

Must not know who asks, nor formats.
"""

from __future__ import annotations

import asyncio

from sidecast_broker.answers import Away
from sidecast_broker.core.fold import Fold
from sidecast_broker.core.log import Record
from sidecast_broker.hub import Hub
from sidecast_broker.tail import Tail

SLICE_RECORDS = 100
"""Records folded in one turn of the event loop: two milliseconds."""
EMPTY_READS_MAX = 5


async def folded_at(hub: Hub, tail: Tail, sequence: int) -> tuple[Fold, int]:
    """Fold a task up to a position, or to its first event where that comes later.

    Args:
        hub: the task's, with at least one event.
        tail: the hub's.
        sequence: the position; beyond the hub's end counts as the end.

    Returns:
        The fold, and the sequence it is of.

    Raises:
        Away: what memory doesn't hold can't be read.
    """
    if sequence >= hub.end:
        return hub.fold, hub.end
    fold = Fold(hub.key.task)
    at = 0
    for count, record in enumerate(await _records(hub, tail)):
        if record.sequence > sequence and fold.started:
            break
        fold.apply(record.event, record.sequence)
        at = record.sequence
        if count % SLICE_RECORDS == SLICE_RECORDS - 1:
            await asyncio.sleep(0)
    return fold, max(at, min(sequence, hub.end))


async def _records(hub: Hub, tail: Tail) -> list[Record]:
    """Give all records of a task that are still stored, oldest first."""
    first = hub.first or 0
    floor, kept = hub.log.floor, list(hub.log)
    if floor < first:
        return kept
    older: list[Record] = []
    cursor, empty = first, 0
    while cursor <= floor:
        page = await tail.read(cursor)
        records = [hub.past_record(stored) for stored in page.records if cursor <= stored.sequence <= floor]
        if not page.records:
            # What stood there has expired meanwhile, or the replica that answered is behind.
            empty += 1
            if empty == EMPTY_READS_MAX:
                raise Away("what is stored of the task can't be read")
            await asyncio.sleep(0.02 * empty)
            continue
        older += records
        cursor = page.records[-1].sequence + 1
    return older + kept
