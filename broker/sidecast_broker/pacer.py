"""Writes a task's records to the subscribers that are sent to at their own pace, batch by batch.

One timer for all of them, and no task, timer or queue of a client's own. Must not know what records mean, nor
HTTP.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from itertools import count
from typing import Literal, NamedTuple, Protocol

from sidecast_broker.core.fold import read_activity
from sidecast_broker.core.frame import chunk
from sidecast_broker.core.log import Log, Record
from sidecast_broker.core.pace import Pace, Window
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.fanout import SLICE_S, SLICE_SUBSCRIBERS
from sidecast_broker.metrics import Deliveries
from sidecast_broker.subscriber import Subscriber, View
from sidecast_schemas.codec import TurnBody
from sidecast_schemas.events import ACTIVITY, INTERRUPTED_STATES, TERMINAL_STATES

RECORDS_MAX = 256
"""Records looked at for one write: about 64 KiB, what the kernel takes at once."""

_DECISIVE = TERMINAL_STATES | INTERRUPTED_STATES


class Timers:
    """Runs functions at their times, with one timer of the event loop for all of them.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._armed: asyncio.TimerHandle | None = None
        self._armed_at_s = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due_s: float, run: Callable[[], None]) -> None:
        """Run a function once the clock has come to a time; it can't be taken back."""
        heapq.heappush(self._heap, (due_s, next(self._order), run))
        self._arm()

    def _arm(self) -> None:
        due_s = self._heap[0][0]
        if self._armed is not None:
            if self._armed_at_s <= due_s:
                return
            self._armed.cancel()
        self._armed_at_s = due_s
        delay_s = max(due_s - self._clock(), 0.0)
        self._armed = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._armed = None
        self.run_due()
        if self._heap and self._armed is None:
            self._arm()

    def run_due(self) -> None:
        """Run what is due."""
        now_s = self._clock()
        while self._heap and self._heap[0][0] <= now_s:
            heapq.heappop(self._heap)[2]()


class Batch(NamedTuple):
    """What goes out in one write, as the bytes that clients at the same place share.

    Attributes:
        cursor: what a client that has it has been sent.
        data: frames.
        chunked: the same as an HTTP chunk.
        events: how many records' frames.
    """

    cursor: int
    data: bytes
    chunked: bytes
    events: int


class Source(Protocol):
    """What a pacer asks about the task."""

    @property
    def log(self) -> Log:
        """The task's records."""

    def batch(self, view: View, records: list[Record], count_max: int | None) -> tuple[int, bytes, int]:
        """Give the position that at most so many frames lead up to, the frames joined, how many there are."""

    def last_frame(self, view: View, cursor: int) -> bytes | None:
        """Give what ends a stream that has been sent all up to a cursor; None: more may follow."""


class _Group:
    """The paced subscribers of one view and pace: they share a window."""

    __slots__ = ("made", "members", "scheduled", "view", "window")

    def __init__(self, view: View, pace: Pace) -> None:
        self.view = view
        self.window = Window(pace.batch_s, pace.batch_max if pace.batch_s else 1)
        self.members: dict[Subscriber, None] = {}
        self.scheduled = False
        self.made: dict[tuple[int, int | None], Batch] = {}


class Pacer:
    """Holds a task's paced subscribers, by view and pace, and writes to them when their time comes.

    Args:
        source: the task.
        deliveries: where to count.
        soon: runs a function in the next turn of the event loop.
        timers: of all tasks.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        source: Source,
        deliveries: Deliveries,
        soon: Callable[[Callable[[], None]], object],
        timers: Timers,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._deliveries = deliveries
        self._soon = soon
        self._timers = timers
        self._clock = clock
        self._groups: dict[Hashable, _Group] = {}
        self._flushed = 0
        self._due: deque[Subscriber] = deque()
        self._running = False
        self._made_end = 0

    def __bool__(self) -> bool:
        return bool(self._groups)

    def join(self, subscriber: Subscriber) -> None:
        """Write to a subscriber from its cursor on, at its pace."""
        assert subscriber.pace is not None
        key = (subscriber.view.key, subscriber.pace)
        if not self._groups:
            self._flushed = self._source.log.end
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(subscriber.view, subscriber.pace)
        group.members[subscriber] = None
        subscriber.joined = True
        if subscriber.cursor < self._source.log.end:
            self._schedule(subscriber, self._clock())

    def leave(self, subscriber: Subscriber) -> None:
        """Stop writing to a subscriber; one that has not joined is fine."""
        if subscriber.joined:
            subscriber.joined = False
            key = (subscriber.view.key, subscriber.pace)
            group = self._groups[key]
            del group.members[subscriber]
            if not group.members:
                del self._groups[key]

    def interrupt(self, reason: StreamGapReason | Literal["failed"]) -> None:
        """Hand every subscriber back to its stream, which tells it of the gap, or breaks off."""
        self._flushed = self._source.log.end
        for group in list(self._groups.values()):
            for subscriber in list(group.members):
                self.leave(subscriber)
                if reason != "failed":
                    subscriber.gap = reason
                subscriber.wake("gap")

    def sleep(self, due_s: float, tell: Callable[[], None]) -> None:
        """Call `tell` at a time, for a stream that reads older events at its pace."""
        self._timers.at(due_s, tell)

    def flush(self) -> None:
        """Take notice of what has come since the last flush: it goes out now, or has its time set."""
        log, now_s = self._source.log, self._clock()
        start, self._flushed = self._flushed, log.end
        if start < log.floor:
            for group in list(self._groups.values()):
                for subscriber in list(group.members):
                    if subscriber.cursor < log.floor:
                        self._hand_back(subscriber)
            start = log.floor
        records = log.after(start)
        urgent = any(map(_is_urgent, records))
        gathered = sum(record.deliverable for record in records)
        for group in list(self._groups.values()):
            due_s = group.window.gather(gathered, now_s, urgent=urgent)
            if due_s <= now_s:
                self._open(group, now_s)
            elif not group.scheduled:
                group.scheduled = True
                self._timers.at(due_s, partial(self._close_window, group))

    def _close_window(self, group: _Group) -> None:
        """Send what has gathered; a batch that went out early has begun another window since."""
        group.scheduled = False
        now_s = self._clock()
        end = self._source.log.end
        if now_s >= group.window.closes_at_s:
            if any(member.cursor < end for member in group.members):
                self._open(group, now_s)
        elif group.members:
            group.scheduled = True
            self._timers.at(group.window.closes_at_s, partial(self._close_window, group))

    def _open(self, group: _Group, now_s: float) -> None:
        group.window.send(now_s)
        for subscriber in group.members:
            if not subscriber.scheduled:
                subscriber.scheduled = True
                self._due.append(subscriber)
        self._run_soon()

    def _schedule(self, subscriber: Subscriber, due_s: float) -> None:
        """Have one subscriber written to at a time of its own."""
        if not subscriber.scheduled:
            subscriber.scheduled = True
            self._timers.at(due_s, partial(self._come_due, subscriber))

    def _come_due(self, subscriber: Subscriber) -> None:
        self._due.append(subscriber)
        self._run_soon()

    def _run_soon(self) -> None:
        if not self._running:
            self._running = True
            self._soon(self._run)

    def _run(self) -> None:
        """Write to those whose time has come, in slices, so that other tasks wait no longer than one."""
        until_s = self._clock() + SLICE_S
        for _ in range(min(SLICE_SUBSCRIBERS, len(self._due))):
            subscriber = self._due.popleft()
            subscriber.scheduled = False
            if subscriber.joined:
                self._serve(subscriber)
            if self._clock() > until_s:
                break
        self._running = False
        if self._due:
            self._run_soon()

    def _serve(self, subscriber: Subscriber) -> None:
        """Write one batch to a subscriber, and set the time of its next one where more is waiting."""
        log, transport, bucket = self._source.log, subscriber.transport, subscriber.bucket
        if transport.is_closing():
            self.leave(subscriber)  # its stream is about to notice
            return
        if subscriber.cursor < log.floor:
            self._hand_back(subscriber)
            return
        now_s = self._clock()
        allowed = None if bucket is None else bucket.available(now_s)
        if subscriber.cursor < log.end and allowed != 0:
            batch = self._batch(subscriber, allowed)
            subscriber.cursor = batch.cursor
            if batch.data:
                self._write(subscriber, batch, now_s)
                if bucket is not None:
                    bucket.take(batch.events, now_s)
        if self._source.last_frame(subscriber.view, subscriber.cursor) is not None:
            self._hand_back(subscriber)  # the end is told by its stream
        elif transport.get_write_buffer_size() > subscriber.buffer_bytes_max:
            self._hand_back(subscriber)
        elif subscriber.cursor < log.end:
            due_s = now_s if bucket is None else bucket.due_s(now_s)
            if bucket is not None:
                assert subscriber.pace is not None
                window = self._groups[(subscriber.view.key, subscriber.pace)].window
                due_s = max(due_s, window.closes_at_s if subscriber.pace.batch_s else 0.0)
            self._schedule(subscriber, due_s)

    def _batch(self, subscriber: Subscriber, allowed: int | None) -> Batch:
        """Give what follows a cursor, made once for all that share pace, view and place."""
        log = self._source.log
        group = self._groups[(subscriber.view.key, subscriber.pace)]
        if self._made_end != log.end:
            self._made_end = log.end
            for each in self._groups.values():
                each.made.clear()
        place = (subscriber.cursor, allowed)
        batch = group.made.get(place)
        if batch is None:
            records = log.after(subscriber.cursor, RECORDS_MAX)
            if records:
                cursor, data, events = self._source.batch(group.view, records, allowed)
            else:
                cursor, data, events = log.end, b"", 0
            batch = group.made[place] = Batch(cursor, data, chunk(data), events)
        return batch

    def _write(self, subscriber: Subscriber, batch: Batch, now_s: float) -> None:
        if subscriber.insert is not None:
            data = batch.data.replace(b"\0", subscriber.insert)
            data = chunk(data) if subscriber.chunked else data
        else:
            data = batch.chunked if subscriber.chunked else batch.data
        subscriber.transport.write(data)
        subscriber.written_at_s = now_s
        subscriber.events += batch.events
        subscriber.bytes_sent += len(data)
        self._deliveries.events[subscriber.view.format] += batch.events
        self._deliveries.bytes_sent += len(data)

    def _hand_back(self, subscriber: Subscriber) -> None:
        self.leave(subscriber)
        subscriber.wake("behind")


def _is_urgent(record: Record) -> bool:
    """Tell whether a record must not wait in a batch: terminal, interrupted, an error, the end of a turn."""
    event = record.event
    if isinstance(event.body, TurnBody):
        return event.body.phase == "end"
    if event.state in _DECISIVE:
        return True
    if event.kind != "statusUpdate" or ACTIVITY.encode() not in event.payload:
        return False
    activity = read_activity(event)
    return activity is not None and activity.known.kind == "error"
