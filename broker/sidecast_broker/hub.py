"""One task in memory and its subscribers: writes each new record's shared bytes to all who have caught up.

One synchronous loop, no await and no task wake-up per client. Must not know HTTP requests or NATS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Literal, Protocol

import structlog

from sidecast_broker.core.fold import Fold
from sidecast_broker.core.frame import chunk
from sidecast_broker.core.log import Log, Record, Stored, at_milliseconds
from sidecast_broker.metrics import Metrics
from sidecast_schemas import headers as names
from sidecast_schemas.codec import InvalidEvent, decode_event
from sidecast_schemas.subjects import InvalidId, TaskKey, decode_token

logger = structlog.get_logger(__name__)

SLICE_S = 0.002
SLICE_SUBSCRIBERS = 200
"""The loop over a task's subscribers yields after so long, or so many: other tasks wait no longer."""

Wake = Literal["behind", "ended", "gap"]
GapReason = Literal["expired", "epoch", "malformed", "ahead", "slow"]


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


class Transport(Protocol):
    """The part of an asyncio transport that a hub uses."""

    def write(self, data: bytes) -> None:
        """Send, or buffer what the socket doesn't take."""

    def get_write_buffer_size(self) -> int:
        """Tell how many bytes the socket has not taken yet."""

    def is_closing(self) -> bool:
        """Tell whether the connection is gone or going."""


class View(Protocol):
    """How one client format shows a task; equal views share every encoded byte."""

    @property
    def key(self) -> Hashable:
        """Equal for views that encode and filter alike."""

    @property
    def format(self) -> str:
        """The format's name in metrics and logs."""

    def record(self, hub: Hub, record: Record) -> bytes:
        """Give the frame of a record, empty where this view leaves it out."""

    def end(self, hub: Hub) -> bytes:
        """Give what is sent after the task's terminal event."""


class Subscriber:
    """One client of one task: a cursor into its log, and where its bytes go.

    Attributes:
        cursor: sequence of the newest record it has been sent.
        events: frames of records sent.
        bytes_sent: bytes of frames sent.
        written_at_s: when it was last sent something on its own (monotonic).
        joined: whether the hub writes to it.
        gap: why what follows its cursor can't be had, until its stream has told it.
    """

    __slots__ = (
        "buffer_bytes_max",
        "bytes_sent",
        "chunked",
        "cursor",
        "events",
        "gap",
        "joined",
        "transport",
        "view",
        "wake",
        "written_at_s",
    )

    def __init__(
        self,
        view: View,
        transport: Transport,
        *,
        chunked: bool,
        buffer_bytes_max: int,
        wake: Callable[[Wake], None],
    ) -> None:
        self.view = view
        self.transport = transport
        self.chunked = chunked
        self.buffer_bytes_max = buffer_bytes_max
        self.wake = wake
        self.cursor = 0
        self.events = 0
        self.bytes_sent = 0
        self.written_at_s = 0.0
        self.gap: GapReason | None = None
        self.joined = False


class _Group:
    """The caught-up subscribers of one view."""

    __slots__ = ("flushed_at_s", "members", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.members: dict[Subscriber, None] = {}
        self.flushed_at_s = 0.0


class _Pass:
    """One write to one group: the records between two positions, as the bytes they share."""

    __slots__ = ("chunked", "count", "data", "end", "ended", "group", "members", "start", "written")

    def __init__(self, group: _Group, start: int, end: int, data: bytes, count: int, ended: bool) -> None:
        self.group = group
        self.members = list(group.members)
        self.start = start
        self.end = end
        self.data = data
        self.chunked = chunk(data) if data else b""
        self.count = count
        self.ended = ended
        self.written = 0


class Hub:
    """Holds one task's log and fold, and feeds its subscribers; the sink of the task's tail.

    Args:
        key: the task.
        epoch: the stream's, for event ids.
        log_bytes_max: memory for recent records.
        metrics: where to count.
        soon: runs a function in the next turn of the event loop.
        on_growth: called with the bytes by which the memory held has grown or shrunk.
        clock: seconds, monotonic.

    Attributes:
        first: sequence of the task's first retained record; None while nothing is stored.
        owner: the principal the first retained record names, if any.
        newest_at: when the newest record was stored.
        snapshots: encoded snapshots of the present position, by view.
        gap_below: cursors below this sequence have a hole behind them; 0: none has.
    """

    def __init__(
        self,
        key: TaskKey,
        epoch: str,
        *,
        log_bytes_max: int,
        metrics: Metrics,
        soon: Callable[[Callable[[], None]], object],
        on_growth: Callable[[int], None] = lambda _bytes: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key
        self.epoch = epoch
        self.log = Log(log_bytes_max)
        self.fold = Fold(key.task)
        self.first: int | None = None
        self.owner: str | None = None
        self.gap_below = 0
        self.newest_at = ""
        self.snapshots: dict[Hashable, bytes] = {}
        self.size_bytes = 0
        self._whole_stream = False
        self._metrics = metrics
        self._soon = soon
        self._on_growth = on_growth
        self._clock = clock
        self._groups: dict[Hashable, _Group] = {}
        self._flushed = 0
        self._passes: list[_Pass] = []
        self._index = 0
        self._scheduled = False
        self._oldest_at: str | None = None
        self._lost = False
        self._reloading = False
        self._warned: set[str] = set()
        self._waiting: set[Callable[[], None]] = set()

    # ------------------------------------------------------------------ the tail's sink

    @property
    def end(self) -> int:
        """The sequence of the newest record taken, 0 before the first."""
        return self.log.end

    def is_known(self, stored: Stored) -> bool | None:
        """Tell whether a record at or below the end is the one already taken; None: that isn't held."""
        record = self.log.find(stored.sequence)
        return None if record is None else record.at == at_milliseconds(stored.at)

    def append(self, stored: Stored) -> None:
        """Take the next record of the task; its subscribers get it in this turn of the event loop."""
        if self._lost:
            self._lost = self._whole_stream = False
            self.log.jump(stored.sequence - 1)
            self.gap_below = stored.sequence - 1
            self._account()
            self._interrupt("expired")
        if self.first is None:
            self.first = stored.sequence
            self.owner = self._owner_of(stored)
        elif names.OWNER in stored.headers and self._owner_of(stored) != self.owner:
            self._count_invalid("owner", stored.sequence)
        self.newest_at = at_milliseconds(stored.at)
        self.snapshots.clear()
        record = self._record(stored)
        if record is None:
            self.log.skip(stored.sequence)
        else:
            record.deliverable = self.fold.apply(record.event, record.sequence)
            if not record.deliverable and record.event.kind != "turn":
                reason = "after-terminal" if self.ends_at(record.sequence - 1) else "second-task"
                self._count_invalid(reason, record.sequence)
            self.log.append(record)
        if not self._scheduled:
            self._scheduled = True
            self._soon(self._flush)

    def lose(self) -> None:
        """Know that records between the end and the next one appended are gone from the stream."""
        self._lost = self.log.end > 0

    def retain(self, first: int | None) -> None:
        """Know which sequence is the task's first in the stream now; None: nothing is left of it."""
        if first == self.first:
            return
        self._whole_stream = False
        self.snapshots.clear()
        self.first = first
        if first is None:
            self.log.jump(self.log.end)
            self.fold = Fold(self.key.task)
            self.owner = None
        else:
            self.log.drop_below(first)
        self._account()

    def reset(self, epoch: str) -> None:
        """Forget everything: the stream has begun anew."""
        self.epoch = epoch
        self.log.jump(0)
        self.snapshots.clear()
        self.fold = Fold(self.key.task)
        self.first = self.owner = None
        self._lost = self._whole_stream = False
        self.gap_below = 0
        self._passes.clear()
        self._reloading = True
        self._account()
        self._interrupt("epoch")

    def loaded(self) -> None:
        """Know that what the stream held has been appended."""
        self._reloading = False
        self._tell_waiting()

    def assume_whole_stream(self) -> None:
        """Know that the stream has never lost a message, so that any first record is a task's true first."""
        self._whole_stream = True

    def _record(self, stored: Stored) -> Record | None:
        new = stored.sequence > self.log.end  # what is read once more is not counted once more
        try:
            event = decode_event(stored.payload)
        except InvalidEvent as invalid:
            if new:
                self._count_invalid(invalid.reason, stored.sequence)
            return None
        if (event.task_id or self.key.task) != self.key.task:
            if new:
                self._count_invalid("task-id", stored.sequence)
            return None
        if event.repaired and new:
            self._metrics.invalid_events.labels("surrogate").inc(event.repaired)
        return Record(stored.sequence, at_milliseconds(stored.at), event)

    def _owner_of(self, stored: Stored) -> str | None:
        token = stored.headers.get(names.OWNER)
        if token is None:
            return None
        try:
            return decode_token(token)
        except InvalidId:
            return None

    def _count_invalid(self, reason: str, sequence: int) -> None:
        self._metrics.invalid_events.labels(reason).inc()
        if reason not in self._warned:
            self._warned.add(reason)
            logger.warning("event_skipped", task=self.key.task, sequence=sequence, reason=reason)

    def _account(self) -> None:
        size = self.log.size_bytes + self.fold.size_bytes
        if size != self.size_bytes:
            grown, self.size_bytes = size - self.size_bytes, size
            self._on_growth(grown)

    def trim(self, log_bytes_max: int) -> None:
        """Let old records go until the log holds at most so much."""
        self.log.trim(log_bytes_max)
        self._account()

    # ------------------------------------------------------------------ subscribers

    @property
    def reloading(self) -> bool:
        """Whether the stream has begun anew and what it holds is still being read."""
        return self._reloading

    @property
    def ended(self) -> bool:
        """Whether the task is over and its terminal event is in the log."""
        return self.fold.terminal

    @property
    def oldest_cursor(self) -> int:
        """The lowest cursor after which nothing of the task is known to be missing."""
        if self.gap_below:
            return self.gap_below
        return 0 if self.complete or self.first is None else self.first - 1

    def past_record(self, stored: Stored) -> Record:
        """Make a record of one the log doesn't hold any more; the fold has counted it before."""
        record = self._record(stored)
        if record is None:
            return Record.undeliverable(stored.sequence)
        terminal = self.fold.terminal_sequence
        kind = record.event.kind
        record.deliverable = (
            kind != "turn"
            and (kind != "task" or stored.sequence == self.fold.opening_sequence)
            and (terminal is None or stored.sequence <= terminal)
        )
        return record

    @property
    def complete(self) -> bool:
        """Whether the task's true first event is still stored, and nothing after it is missing."""
        opening = self.fold.opening_sequence
        whole = self._whole_stream or (
            opening is not None and self.first is not None and self.first <= opening
        )
        return whole and not self.gap_below

    def ends_at(self, cursor: int) -> bool:
        """Tell whether nothing deliverable follows a cursor, ever."""
        return self.fold.terminal_sequence is not None and cursor >= self.fold.terminal_sequence

    def wait(self, tell: Callable[[], None]) -> None:
        """Call `tell` once a first record or the end of a reload comes; `stop_waiting` undoes it."""
        self._waiting.add(tell)

    def stop_waiting(self, tell: Callable[[], None]) -> None:
        """Take back a `wait`."""
        self._waiting.discard(tell)

    def _tell_waiting(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for tell in waiting:
            tell()

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

    def frames(self, view: View, records: list[Record]) -> tuple[bytes, int]:
        """Give the frames of records joined, and how many there are."""
        frames = [frame for record in records if record.deliverable and (frame := view.record(self, record))]
        return b"".join(frames), len(frames)

    def beat(self, subscriber: Subscriber, heartbeat: bytes, silent_s: float, now: float) -> None:
        """Send a subscriber a heartbeat if nothing was written to it for so long."""
        written_at_s = subscriber.written_at_s
        if subscriber.joined:
            written_at_s = max(written_at_s, self._groups[subscriber.view.key].flushed_at_s)
        if now - written_at_s >= silent_s and not subscriber.transport.is_closing():
            data = chunk(heartbeat) if subscriber.chunked else heartbeat
            subscriber.transport.write(data)
            subscriber.bytes_sent += len(data)
            subscriber.written_at_s = now

    def _interrupt(self, reason: GapReason) -> None:
        """Take every joined subscriber out of the loop: its stream tells it of the gap.

        Those that read at their own pace notice by `gap_below` or the epoch.
        """
        self._flushed = self.log.end
        for group in list(self._groups.values()):
            for subscriber in list(group.members):
                self.leave(subscriber)
                subscriber.gap = reason
                subscriber.wake("gap")

    # ------------------------------------------------------------------ the loop

    def _flush(self) -> None:
        """Encode what has come since the last flush, once per view, and start to write it out."""
        self._scheduled = False
        if self._passes:
            return  # the running pass starts the next one
        start, end = self._flushed, self.log.end
        self._flushed = end
        if self.first is not None and self._waiting:
            self._tell_waiting()
        if start < self.log.floor:
            # More came in one turn than the log may hold: each reads on from the stream.
            for record in self.log:
                record.forget_event()
            self._account()
            for group in list(self._groups.values()):
                for subscriber in list(group.members):
                    self._fall_behind(subscriber)
            return
        records = self.log.after(start)
        now = self._clock()
        for group in self._groups.values():
            data, count = self.frames(group.view, records)
            ended = self.ends_at(end)
            if ended:
                data += group.view.end(self)
            group.flushed_at_s = now if data else group.flushed_at_s
            self._passes.append(_Pass(group, start, end, data, count, ended))
        for record in records:
            record.forget_event()
        self._account()
        if records and self._passes:
            self._oldest_at = records[0].at
        self._index = 0
        self._run()

    def _run(self) -> None:
        """Write the current passes out, in slices, so that other tasks wait no longer than one."""
        until = self._clock() + SLICE_S
        budget = SLICE_SUBSCRIBERS
        while self._passes:
            current = self._passes[0]
            members, total = current.members, len(current.members)
            index = self._index
            while index < total:
                stop = min(index + 50, total)
                for position in range(index, stop):
                    self._write(members[position], current)
                budget -= stop - index
                index = stop
                if index < total and (budget <= 0 or self._clock() >= until):
                    self._index = index
                    self._soon(self._run)
                    return
            deliveries = self._metrics.deliveries
            deliveries.events[current.group.view.format] += current.count * current.written
            deliveries.bytes_sent += len(current.data) * current.written
            self._passes.pop(0)
            self._index = 0
        if self._oldest_at is not None:
            self._metrics.deliveries.observe_lag(max(0.0, time.time() - _seconds(self._oldest_at)))
            self._oldest_at = None
        if self.log.end > self._flushed:
            self._flush()

    def _write(self, subscriber: Subscriber, current: _Pass) -> None:
        if not subscriber.joined:
            return
        if subscriber.cursor >= current.end:
            if current.ended:
                self._fall_behind(subscriber)  # it had the end from elsewhere: it is told that it is one
            return
        if subscriber.cursor != current.start:
            self._fall_behind(subscriber)  # it joined in the middle of these records
            return
        if subscriber.transport.is_closing():
            self.leave(subscriber)  # its stream is about to notice; uvloop raises on a write now
            return
        if current.data:
            data = current.chunked if subscriber.chunked else current.data
            subscriber.transport.write(data)
            subscriber.events += current.count
            subscriber.bytes_sent += len(data)
            current.written += 1
        subscriber.cursor = current.end
        if current.ended:
            self.leave(subscriber)
            subscriber.wake("ended")
        elif subscriber.transport.get_write_buffer_size() > subscriber.buffer_bytes_max:
            self._fall_behind(subscriber)

    def _fall_behind(self, subscriber: Subscriber) -> None:
        self.leave(subscriber)
        subscriber.wake("behind")
