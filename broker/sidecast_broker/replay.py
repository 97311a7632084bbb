"""What one client is sent of older records: as much as one write takes and its pace allows, in order.

Must not know connections, nor how a stream goes on where older records are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecast_broker.answers import Away
from sidecast_broker.core.log import Record, Stored
from sidecast_broker.core.rest import Rest, rest_of
from sidecast_broker.hub import WRITE_BYTES_MAX, Hub, cut, fitting
from sidecast_broker.metrics import Metrics
from sidecast_broker.stream_view import StreamView
from sidecast_broker.subscriber import Subscriber
from sidecast_broker.tail import Tail

WRITE_RECORDS_MAX = 256
"""Records looked at for one write while catching up: as many as usually make `WRITE_BYTES_MAX`."""
PAGE_RECORDS_MIN = 2
"""Of a page of older events: its first is the one a client has."""
SHORT_READS_MAX = 5


class Replay:
    """One client's way through older records.

    Args:
        subscriber: its place; each portion moves it on.
        view: its format.
        metrics: where to count.
        clock: seconds, monotonic.

    Attributes:
        anchored: whether this stream has led the client to its cursor; else the client has named it.
    """

    __slots__ = ("_clock", "_metrics", "_page_records", "_rest", "_subscriber", "_view", "anchored")

    def __init__(
        self, subscriber: Subscriber, view: StreamView, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self.anchored = False
        self._subscriber = subscriber
        self._view = view
        self._metrics = metrics
        self._clock = clock
        self._page_records: int | None = None
        self._rest: Rest | None = None

    def due_s(self) -> float:
        """Give the time from which the client's rate allows another read of older events; 0: any time."""
        bucket, pace = self._subscriber.bucket, self._subscriber.pace
        return 0.0 if bucket is None or pace is None else bucket.due_s(self._clock(), pace.replayed_at_once)

    def take(self, hub: Hub, records: list[Record], source: str, end: int = 0) -> bytes:
        """Give older records to be sent, at least one: what one write takes, and a rate allows.

        Args:
            hub: the task's.
            records: in a row.
            source: where they were found, `memory` or `stream`.
            end: where that leads; 0: up to the last of them.
        """
        return self.spend(hub, hub.pieces(self._view, records), end or records[-1].sequence, source)

    def take_kept(self, hub: Hub) -> bytes:
        """Give what follows the cursor in a task's log, which holds something there."""
        return self.take(hub, hub.log.after(self._subscriber.cursor, WRITE_RECORDS_MAX), "memory")

    def take_rest(self, hub: Hub) -> bytes:
        """Give more of a page of which a pace has left something; empty: there is nothing."""
        rest, self._rest = self._rest, None
        if rest is None or rest.after != self._subscriber.cursor:
            return b""
        return self.spend(hub, rest.pieces, rest.end, "stream")

    def forget_rest(self) -> None:
        """Drop what is left of a page: the client is sent something else, or may not have all of it."""
        self._rest = None

    def spend(self, hub: Hub, pieces: list[tuple[int, bytes]], end: int, source: str) -> bytes:
        """Give the first frames, as many as one write takes and a pace allows; keep the rest of a page.

        Args:
            hub: the task's.
            pieces: frames, each with the position it leads up to.
            end: where all of them lead.
            source: as of `take`.
        """
        subscriber = self._subscriber
        # A page that was read is sent whole, unless a pace says otherwise.
        count_max = fitting(pieces) if source == "memory" else len(pieces)
        bucket, now_s = subscriber.bucket, self._clock()
        if bucket is not None:
            count_max = min(count_max, max(bucket.available(now_s), 1))
        elif subscriber.pace is not None:
            count_max = min(count_max, subscriber.pace.batch_max)
        if (kept := cut(pieces, count_max)) < len(pieces):
            left, pieces = pieces[kept:], pieces[:kept]
            if source == "stream":
                self._rest = rest_of(left, pieces[-1][0], end)
            end = pieces[-1][0]
        if bucket is not None:
            bucket.take(len(pieces), now_s)
        count = len(pieces)
        subscriber.cursor = end
        subscriber.events += count
        self.anchored = True
        self._metrics.replayed_events.labels(source).inc(count)
        self._metrics.deliveries.events[self._view.format] += count
        return self._view.joined(hub, pieces)

    async def read(self, hub: Hub, tail: Tail, is_over: Callable[[], bool]) -> bytes:
        """Give the next page of what a task's log doesn't hold any more, to be sent.

        Empty where there is nothing to send: the page shows nothing, what followed the cursor is gone, which
        the subscriber's gap says, or the stream goes on otherwise.

        Args:
            hub: the task's.
            tail: the hub's.
            is_over: whether the stream ends, so that nobody needs what is being read.

        Raises:
            Away: it can't be read, and was asked for often enough.
        """
        subscriber, cursor, epoch = self._subscriber, self._subscriber.cursor, hub.epoch
        count_max = self._count_max()
        pause_s = 0.05
        for _attempt in range(SHORT_READS_MAX):
            try:
                # From the cursor's own record on: while it is still stored, so is all that follows it.
                page = await tail.read(cursor, count_max)
                first = page.records[0].sequence if page.records else 0
                if first != cursor and not self.anchored:
                    await tail.check_retained()
            except Away:
                page, first = None, 0
            if is_over() or hub.failed or hub.epoch != epoch or cursor < hub.gap_below:
                return b""
            if page is not None and len(page.records) > (first == cursor):
                break
            await asyncio.sleep(pause_s)
            pause_s *= 2
        else:
            raise Away("what is stored of the task can't be read")
        if first != cursor and (self.anchored or cursor < hub.oldest_cursor):
            subscriber.gap = "expired"
            return b""
        # Not beyond the hub's end: whether what follows there is still deliverable only its fold will say.
        end = hub.end
        between = [stored for stored in self._fitting(page.records) if cursor < stored.sequence <= end]
        records = [hub.past_record(stored) for stored in between]
        if records:
            return self.take(hub, records, "stream")
        subscriber.cursor = end
        return b""

    def _count_max(self) -> int | None:
        """Give how many records a page is to hold; None: as many as it may.

        No page waits for its time: a client with a rate has as much read as it is sent, and its own record.
        """
        if self._view.thins:
            return None
        pace = self._subscriber.pace
        if pace is not None and pace.rate:
            return min(self._page_records or WRITE_RECORDS_MAX, pace.replayed_at_once + 1)
        return self._page_records

    def _fitting(self, records: list[Stored]) -> list[Stored]:
        """Give of a page what one write takes, and have the next page hold about that."""
        if self._view.thins:
            return records  # many become few
        size, kept = 0, 0
        for stored in records:
            size += len(stored.payload)
            kept += size <= WRITE_BYTES_MAX
        if size > WRITE_BYTES_MAX:
            # The rest is read again, once.
            self._page_records = max(len(records) * WRITE_BYTES_MAX // size, PAGE_RECORDS_MIN)
            return records[: max(kept, PAGE_RECORDS_MIN)]
        if size * 4 < WRITE_BYTES_MAX:
            self._page_records = None
        return records
