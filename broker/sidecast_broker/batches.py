"""The batches that paced subscribers at the same place share: made once, kept while others are written to.

Must not know who they are for, nor when they go out.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, Protocol

from msgspec import Struct

from sidecast_broker.core.frame import chunk
from sidecast_broker.core.log import Log
from sidecast_broker.metrics import Deliveries
from sidecast_broker.subscriber import View

MADE_BYTES_MAX = 1 << 20
"""Kept at once of one task: those at many places are written to one after the other."""


class Content(NamedTuple):
    """What goes out in one write.

    Attributes:
        cursor: what a client that has it has been sent.
        data: frames.
        events: how many.
    """

    cursor: int
    data: bytes
    events: int


class Source(Protocol):
    """What is asked about the task."""

    @property
    def log(self) -> Log:
        """The task's records."""

    def content(self, view: View, cursor: int, count_max: int | None) -> Content:
        """Give what goes out in one write after a cursor, of so many frames; None: no matter how many."""

    def last_frame(self, view: View, cursor: int) -> bytes | None:
        """Give what ends a stream that has been sent all up to a cursor; None: more may follow."""


class Batch(Struct):
    """What goes out in one write, and to whom.

    Attributes:
        view: theirs.
        start: the cursor it follows.
        count_max: of its events.
        cursor: what a client that has it has been sent.
        data: frames.
        chunked: the same as an HTTP chunk.
        events: how many.
        ended: whether nothing follows it, ever.
        written: to how many it was.
    """

    view: View
    start: int
    count_max: int | None
    cursor: int
    data: bytes
    chunked: bytes
    events: int
    ended: bool
    written: int = 0


class Batches:
    """Makes batches, and keeps them until they are forgotten: when a run ends, or records or an epoch begin.

    So they count in no account of memory, and none outlives what it was made of.

    Args:
        source: the task.
        deliveries: where to count, once for all who were written a batch.

    Attributes:
        size_bytes: of those kept.
        newest: the one given last, while it is kept.
    """

    def __init__(self, source: Source, deliveries: Deliveries) -> None:
        self.size_bytes = 0
        self._deliveries = deliveries
        self._source = source
        self._made: dict[Hashable, Batch] = {}
        self.newest: Batch | None = None

    def __len__(self) -> int:
        return len(self._made)

    def after(self, cursor: int, view: View, count_max: int | None) -> Batch:
        """Give what follows a cursor; those who are at the same place mostly ask in a row.

        Args:
            cursor: at or above the log's floor.
            view: the format.
            count_max: of its events, at least 1; None: no matter how many.
        """
        made = self.newest
        if made is not None and made.view is view and made.start == cursor and made.count_max == count_max:
            return made
        place = (view.key, cursor, count_max)
        made = self._made.get(place)
        if made is None:
            if self.size_bytes > MADE_BYTES_MAX:
                self.forget()
            end, data, events = self._source.content(view, cursor, count_max)
            ended = self._source.last_frame(view, end) is not None
            made = Batch(view, cursor, count_max, end, data, chunk(data), events, ended)
            self.size_bytes += 2 * len(data)
            self._made[place] = made
        self.newest = made
        return made

    def forget(self) -> None:
        """Free all, and count what was written of it."""
        deliveries = self._deliveries
        for batch in self._made.values():
            deliveries.events[batch.view.format] += batch.events * batch.written
            deliveries.bytes_sent += len(batch.data) * batch.written
        self._made.clear()
        self.size_bytes = 0
        self.newest = None
