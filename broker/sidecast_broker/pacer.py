"""Writes a task's records to the subscribers that are sent to at their own pace, batch by batch.

No task, timer or queue of a client's own. Must not know what frames say, nor HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Literal, Protocol

from sidecast_broker.batches import Batch, Batches, Source
from sidecast_broker.core.frame import chunk
from sidecast_broker.core.log import Record
from sidecast_broker.core.pace import Pace, Window
from sidecast_broker.core.urgent import is_urgent
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.fanout import SLICE_S, SLICE_SUBSCRIBERS
from sidecast_broker.metrics import Deliveries
from sidecast_broker.subscriber import NEVER, Subscriber, View
from sidecast_broker.timers import Timers

_QUEUED = -1.0


class Task(Source, Protocol):
    """What is asked about the task."""

    def shown(self, view: View, records: list[Record]) -> int:
        """Tell how many of some records a view shows."""


class _Group:
    """The paced subscribers of one view and pace: they share a window."""

    __slots__ = ("closing", "members", "pace", "view", "window")

    def __init__(self, view: View, pace: Pace) -> None:
        self.view = view
        self.pace = pace
        self.window = Window(pace.batch_s, pace.batch_max if pace.batch_s else 1)
        self.members: dict[Subscriber, None] = {}
        self.closing = False


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
        source: Task,
        deliveries: Deliveries,
        soon: Callable[[Callable[[], None]], object],
        timers: Timers,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._soon = soon
        self._timers = timers
        self._clock = clock
        self._groups: dict[Hashable, _Group] = {}
        self._flushed = 0
        self._urgent = 0
        self._due: deque[Subscriber] = deque()
        self._running = False
        self._batches = Batches(source, deliveries)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def join(self, subscriber: Subscriber) -> None:
        """Write to a subscriber from its cursor on, at its pace."""
        if not self._groups:
            self._flushed = self._source.log.end
        self._group(subscriber).members[subscriber] = None
        subscriber.joined = True
        if subscriber.cursor < self._source.log.end:
            now_s = self._clock()
            self._schedule(subscriber, now_s, now_s)

    def _group(self, subscriber: Subscriber) -> _Group:
        assert subscriber.pace is not None
        key = (subscriber.view.key, subscriber.pace)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(subscriber.view, subscriber.pace)
        return group

    def leave(self, subscriber: Subscriber) -> None:
        """Stop writing to a subscriber; one that has not joined is fine."""
        if subscriber.joined:
            subscriber.joined = False
            subscriber.due_s = NEVER
            _forget_timer(subscriber)
            group = self._group(subscriber)
            del group.members[subscriber]
            if not group.members:
                del self._groups[(subscriber.view.key, subscriber.pace)]

    def interrupt(self, reason: StreamGapReason | Literal["failed"]) -> None:
        """Hand every subscriber back to its stream, which tells it of the gap, or breaks off."""
        self._flushed = self._source.log.end
        self._urgent = 0
        self._batches.forget()
        for group in list(self._groups.values()):
            for subscriber in list(group.members):
                self.leave(subscriber)
                if reason != "failed":
                    subscriber.gap = reason
                subscriber.wake("gap")

    def sleep(self, due_s: float, tell: Callable[[], None]) -> None:
        """Call `tell` at a time, for a stream that reads older events at its pace."""
        self._timers.at(due_s, tell)

    # ------------------------------------------------------------------ when

    def flush(self) -> None:
        """Take notice of what has come since the last flush: it goes out now, or has its time set."""
        log, now_s = self._source.log, self._clock()
        start, self._flushed = self._flushed, log.end
        self._batches.forget()
        if start < log.floor:
            for group in list(self._groups.values()):
                for subscriber in list(group.members):
                    if subscriber.cursor < log.floor:
                        self._hand_back(subscriber)
            start = log.floor
        records = log.after(start)
        for record in records:
            if is_urgent(record.event):
                self._urgent = record.sequence
        urgent = self._urgent > start
        for group in list(self._groups.values()):
            try:
                # Where nothing gathers, no batch is ever full.
                shown = self._source.shown(group.view, records) if group.pace.batch_s else 1
            except Exception:  # noqa: BLE001 - a fault of this view: raised again by each stream that reads on
                for subscriber in list(group.members):
                    self._hand_back(subscriber)
                continue
            due_s = group.window.gather(shown, now_s, urgent=urgent)
            if due_s <= now_s:
                self._open(group, now_s)
            elif not group.closing:
                group.closing = True
                self._timers.at(due_s, partial(self._close_window, group))

    def _close_window(self, group: _Group) -> None:
        """Send what has gathered; a batch that went out early has begun another window since."""
        group.closing = False
        now_s = self._clock()
        end = self._source.log.end
        if now_s >= group.window.closes_at_s:
            if any(member.cursor < end for member in group.members):
                self._open(group, now_s)
        elif group.members:
            group.closing = True
            self._timers.at(group.window.closes_at_s, partial(self._close_window, group))

    def _open(self, group: _Group, now_s: float) -> None:
        """Have all of a group written to: at once, or when the rate of each allows it."""
        group.window.send(now_s)
        if not group.pace.rate:
            # What most groups are: no member has a time of its own, but for those who are in the queue.
            self._queue([each for each in group.members if each.due_s != _QUEUED])
            return
        for subscriber in group.members:
            bucket = subscriber.bucket
            self._schedule(subscriber, now_s if bucket is None else bucket.due_s(now_s), now_s)

    def _schedule(self, subscriber: Subscriber, due_s: float, now_s: float) -> None:
        """Have one subscriber written to at a time of its own; an earlier one that is set stands."""
        if due_s >= subscriber.due_s:
            return
        _forget_timer(subscriber)
        if due_s <= now_s:
            self._queue([subscriber])
        else:
            subscriber.due_s = due_s
            subscriber.timer = self._timers.at(due_s, partial(self._come_due, subscriber))

    def _come_due(self, subscriber: Subscriber) -> None:
        subscriber.timer = None
        self._queue([subscriber])

    def _queue(self, subscribers: list[Subscriber]) -> None:
        for subscriber in subscribers:
            subscriber.due_s = _QUEUED
        self._due += subscribers
        self._run_soon()

    def _run_soon(self) -> None:
        if not self._running:
            self._running = True
            self._soon(self._run)

    # ------------------------------------------------------------------ writing

    def _run(self) -> None:
        """Write to those whose time has come, in slices, so that other tasks wait no longer than one."""
        due, clock = self._due, self._clock
        now_s = clock()
        until_s = now_s + SLICE_S
        left = min(SLICE_SUBSCRIBERS, len(due))
        try:
            while left > 0 and now_s <= until_s:
                left -= 1
                subscriber = due.popleft()
                if subscriber.joined and subscriber.due_s == _QUEUED:
                    self._serve(subscriber, now_s)
                    if subscriber.bucket is None:
                        left -= self._serve_alike(subscriber, left, now_s)
                now_s = clock()
        finally:
            self._running = False
            if due:
                self._run_soon()
            else:
                self._batches.forget()

    def _serve(self, subscriber: Subscriber, now_s: float) -> None:
        """Write one batch to a subscriber, and set the time of its next one where more is waiting."""
        log, bucket, pace = self._source.log, subscriber.bucket, subscriber.pace
        assert pace is not None
        subscriber.due_s = NEVER
        if subscriber.transport.is_closing():
            self.leave(subscriber)  # its stream is about to notice
            return
        if subscriber.cursor < log.floor:
            self._hand_back(subscriber)
            return
        count_max = pace.batch_max if pace.batch_s else None
        if bucket is not None:
            allowed = bucket.available(now_s)
            count_max = allowed if count_max is None else min(allowed, count_max)
        if subscriber.cursor < log.end and count_max != 0:
            made = self._batches.after(subscriber.cursor, subscriber.view, count_max)
            subscriber.cursor, ended, unsent = made.cursor, made.ended, 0
            if made.events:
                unsent = self._write(subscriber, made, now_s)
                if bucket is not None:
                    bucket.take(made.events, now_s)
        else:
            ended = self._source.last_frame(subscriber.view, subscriber.cursor) is not None
            unsent = 1
        if ended:
            self._hand_back(subscriber)  # the end is told by its stream
        elif unsent and subscriber.transport.get_write_buffer_size() > subscriber.buffer_bytes_max:
            self._hand_back(subscriber)
        elif subscriber.cursor < log.end:
            self._schedule(subscriber, self._next_s(subscriber, pace, now_s), now_s)

    def _serve_alike(self, served: Subscriber, left: int, now_s: float) -> int:
        """Write the batch one subscriber was written to those next in the queue it is for too; give how many.

        Most of a group are at one place: what a batch costs beside the kernel for each of them is all here.
        """
        due, made, pace, count = self._due, self._batches.newest, served.pace, 0
        if made is None or not made.events or made.ended or made.cursor < self._source.log.end:
            return 0
        assert pace is not None
        if made.count_max != (pace.batch_max if pace.batch_s else None):
            return 0  # nothing was written to that one
        start, cursor, view, events = made.start, made.cursor, made.view, made.events
        while due and count < left:
            subscriber = due[0]
            if (
                subscriber.cursor != start
                or subscriber.view is not view
                or subscriber.pace != pace
                or subscriber.insert is not None
                or subscriber.due_s != _QUEUED
                or subscriber.transport.is_closing()
            ):
                break
            due.popleft()
            count += 1
            subscriber.due_s = NEVER
            subscriber.cursor = cursor
            subscriber.written_at_s = now_s
            subscriber.events += events
            unsent = subscriber.send(made.chunked if subscriber.chunked else made.data)
            if unsent and subscriber.transport.get_write_buffer_size() > subscriber.buffer_bytes_max:
                self._hand_back(subscriber)
        made.written += count
        return count

    def _next_s(self, subscriber: Subscriber, pace: Pace, now_s: float) -> float:
        """Give the time at which what is left for a subscriber goes out."""
        bucket = subscriber.bucket
        if bucket is None:
            return now_s
        due_s = bucket.due_s(now_s)
        if pace.batch_s and due_s > now_s and subscriber.cursor >= self._urgent:
            # What the rate holds back gathers too; nothing that must not wait is in it.
            due_s = max(due_s, self._group(subscriber).window.closes_at_s)
        return due_s

    def _write(self, subscriber: Subscriber, made: Batch, now_s: float) -> int:
        """Write a batch; give the bytes that the socket did not take at once."""
        if subscriber.insert is not None:
            data = made.data.replace(b"\0", subscriber.insert)
            data = chunk(data) if subscriber.chunked else data
        else:
            data = made.chunked if subscriber.chunked else made.data
        subscriber.written_at_s = now_s
        subscriber.events += made.events
        made.written += 1
        return subscriber.send(data)

    def _hand_back(self, subscriber: Subscriber) -> None:
        self.leave(subscriber)
        subscriber.wake("behind")


def _forget_timer(subscriber: Subscriber) -> None:
    if subscriber.timer is not None:
        subscriber.timer.cancel()
        subscriber.timer = None
