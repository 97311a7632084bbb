"""Writes a task's new records to all subscribers that have caught up: the same bytes to every one of a view.

One synchronous loop, no await and no task wake-up per client. Must not know what records mean, nor HTTP.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from sidecast_broker.core.frame import chunk
from sidecast_broker.core.log import Log, Record
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.metrics import Deliveries
from sidecast_broker.subscriber import Subscriber, View

SLICE_S = 0.001
SLICE_SUBSCRIBERS = 50
"""The loop over a task's subscribers yields after so long, or so many: other tasks wait no longer."""


class _Group:
    """The caught-up subscribers of one view."""

    __slots__ = ("flushed_at_s", "format", "members", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.format = view.format
        self.members: dict[Subscriber, None] = {}
        self.flushed_at_s = 0.0


class _Pass(Struct):
    """One write to one group: the records between two positions, as the bytes they share."""

    format: str
    members: list[Subscriber]
    start: int
    end: int
    data: bytes
    chunked: bytes
    count: int
    ended: bool
    pieces: dict[int, list[bytes]]
    written: int = 0


class Source(Protocol):
    """What a fan-out asks about the task."""

    @property
    def log(self) -> Log:
        """The task's records."""

    def frames(self, view: View, records: list[Record]) -> tuple[bytes, int]:
        """Give the frames of records joined, and how many there are."""

    def last_frame(self, view: View, cursor: int) -> bytes | None:
        """Give what ends a stream that has been sent all up to a cursor; None: more may follow."""


class Witness(Protocol):
    """Who is told what was delivered."""

    def written(self, records: Sequence[Record], reached: int) -> None:
        """Know that records have been written to so many subscribers."""


class Fanout:
    """Holds the subscribers that have caught up, by view, and writes to them.

    Args:
        source: the task.
        deliveries: where to count.
        soon: runs a function in the next turn of the event loop.
        afterwards: runs a function when every task of this turn has encoded what it writes.
        clock: seconds, monotonic.
        witness: told of each burst that was written; None: nobody is.
    """

    def __init__(
        self,
        source: Source,
        deliveries: Deliveries,
        soon: Callable[[Callable[[], None]], object],
        afterwards: Callable[[Callable[[], None]], object],
        clock: Callable[[], float],
        witness: Witness | None = None,
    ) -> None:
        self._source = source
        self._deliveries = deliveries
        self._soon = soon
        self._afterwards = afterwards
        self._clock = clock
        self._groups: dict[Hashable, _Group] = {}
        self._flushed = 0
        self._passes: list[_Pass] = []
        self._index = 0
        self._oldest_at: str | None = None
        self._witness = witness
        self._burst: list[Record] = []
        self._reached = 0

    def join(self, subscriber: Subscriber) -> None:
        """Write to a subscriber from now on; it has been sent all records up to its cursor, the log's end."""
        key = subscriber.view.key
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(subscriber.view)
        group.members[subscriber] = None
        subscriber.joined = True

    def leave(self, subscriber: Subscriber) -> None:
        """Stop writing to a subscriber; one that has not joined is fine."""
        if subscriber.joined:
            subscriber.joined = False
            group = self._groups[subscriber.view.key]
            del group.members[subscriber]
            if not group.members:
                del self._groups[subscriber.view.key]

    def beat(self, subscriber: Subscriber, heartbeat: bytes, silent_s: float, now: float) -> None:
        """Send a subscriber a heartbeat if nothing was written to it for so long."""
        written_at_s = subscriber.written_at_s
        if subscriber.joined and subscriber.pace is None:
            written_at_s = max(written_at_s, self._groups[subscriber.view.key].flushed_at_s)
        if now - written_at_s >= silent_s and not subscriber.transport.is_closing():
            data = chunk(heartbeat) if subscriber.chunked else heartbeat
            subscriber.transport.write(data)
            subscriber.bytes_sent += len(data)
            subscriber.written_at_s = now

    def interrupt(self, reason: StreamGapReason | Literal["failed"]) -> None:
        """Take every joined subscriber out of the loop: its stream tells it of the gap, or breaks off.

        Those that read at their own pace notice by `gap_below` or the epoch.
        """
        self._flushed = self._source.log.end
        for group in list(self._groups.values()):
            for subscriber in list(group.members):
                self.leave(subscriber)
                if reason != "failed":
                    subscriber.gap = reason
                subscriber.wake("gap")

    def forget(self) -> None:
        """Drop what is being written: its records are of an epoch that has passed."""
        self._passes.clear()

    def flush(self) -> None:
        """Encode what has come since the last flush, once per view, and have it written out.

        Not written at once: a system call between two tasks throws what encodes the next one's events out of
        the processor's caches, and makes that a third dearer.
        """
        if self._passes:
            return  # the running pass starts the next one
        log = self._source.log
        start, end = self._flushed, log.end
        self._flushed = end
        if start < log.floor:
            # More came in one turn than the log may hold: each reads on from the stream.
            for record in log:
                record.forget_event()
            for group in list(self._groups.values()):
                for subscriber in list(group.members):
                    self._fall_behind(subscriber)
            return
        records = log.after(start)
        if records and self._groups:
            self._oldest_at = records[0].at
        now = self._clock()
        for group in list(self._groups.values()):
            try:
                data, count = self._source.frames(group.view, records)
                last = self._source.last_frame(group.view, end)
            except Exception:  # noqa: BLE001 - a fault of this view: raised again by each stream that reads on
                for subscriber in list(group.members):
                    self._fall_behind(subscriber)
                continue
            if last is not None:
                data += last
            if data:
                group.flushed_at_s = now
            members = list(group.members)
            self._passes.append(
                _Pass(group.format, members, start, end, data, chunk(data), count, last is not None, {})
            )
        for record in records:
            record.forget_event()
        if self._passes:
            self._index = 0
            if self._witness is not None:
                self._burst = records
            self._afterwards(self._run)

    def _run(self) -> None:
        """Write the current passes out, in slices, so that other tasks wait no longer than one."""
        until = self._clock() + SLICE_S
        budget = SLICE_SUBSCRIBERS
        passes, deliveries = self._passes, self._deliveries
        while passes:
            current = passes[0]
            share = current.members[self._index : self._index + budget]
            self._write(share, current)
            if self._index + len(share) < len(current.members):
                self._index += len(share)
                self._soon(self._run)
                return
            deliveries.events[current.format] += current.count * current.written
            deliveries.bytes_sent += len(current.data) * current.written
            self._reached += current.written
            del passes[0]
            self._index = 0
            if passes:
                budget = budget - len(share) if self._clock() < until else 0
        if self._oldest_at is not None:
            deliveries.observe_write(self._oldest_at, time.time())
            self._oldest_at = None
        if self._witness is not None:
            self._witness.written(self._burst, self._reached)
            self._burst = []
        self._reached = 0
        if self._source.log.end > self._flushed:
            self.flush()

    def _write(self, subscribers: list[Subscriber], current: _Pass) -> None:
        """Write one pass to some of its subscribers; what a delivery costs beside the kernel is all here."""
        start, end, count, ended = current.start, current.end, current.count, current.ended
        shared, chunked, write, written = current.data, current.chunked, os.write, 0
        for subscriber in subscribers:
            if not subscriber.joined:
                continue
            if subscriber.cursor != start or start == end:
                # It joined in the middle of these records; or it had the end from elsewhere: it is told that.
                if subscriber.cursor < end or ended:
                    self._fall_behind(subscriber)
                continue
            transport = subscriber.transport
            if transport.is_closing():
                self.leave(subscriber)  # its stream is about to notice; uvloop raises on a write now
                continue
            subscriber.cursor = end
            unsent = 0
            if shared:
                if subscriber.insert is not None:
                    data = self._own(subscriber.insert, subscriber.chunked, current)
                else:
                    data = chunked if subscriber.chunked else shared
                unsent = size = len(data)
                if subscriber.fd >= 0 and not transport.get_write_buffer_size():
                    # Past the transport's queue, which costs a tenth of a delivery; what it says of an error,
                    # or of a full socket, the transport finds for itself.
                    try:
                        unsent -= write(subscriber.fd, data)
                    except OSError:
                        pass
                if unsent:
                    transport.write(data[-unsent:])
                subscriber.events += count
                subscriber.bytes_sent += size
                written += 1
            if ended:
                self.leave(subscriber)
                subscriber.wake("ended")
            elif unsent and transport.get_write_buffer_size() > subscriber.buffer_bytes_max:
                self._fall_behind(subscriber)
        current.written += written

    def _own(self, insert: bytes, chunked: bool, current: _Pass) -> bytes:
        """Give the shared bytes with what one client wants in its place: cut once, joined for each.

        The head of a chunk holds its length, so there is one cut for each length of what is put in.
        """
        length = len(insert) if chunked else 0
        pieces = current.pieces.get(length)
        if pieces is None:
            mark = bytes(length or 1)
            data = current.data.replace(b"\0", mark)
            pieces = current.pieces[length] = (chunk(data) if chunked else data).split(mark)
        return insert.join(pieces)

    def _fall_behind(self, subscriber: Subscriber) -> None:
        self.leave(subscriber)
        subscriber.wake("behind")
