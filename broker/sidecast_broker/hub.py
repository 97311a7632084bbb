"""One task in memory: takes what its tail reads, and has it written to its subscribers.

Must not know HTTP requests or NATS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Literal

import structlog

from sidecast_broker.batches import Content
from sidecast_broker.core.fold import Fold
from sidecast_broker.core.log import Log, Record, Stored, at_milliseconds
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.fanout import Fanout, Witness
from sidecast_broker.metrics import Metrics
from sidecast_broker.pacer import Pacer
from sidecast_broker.subscriber import Subscriber, View
from sidecast_broker.timers import Timers
from sidecast_broker.tracing import in_log, trace_of
from sidecast_schemas import headers as names
from sidecast_schemas.codec import Event, InvalidEvent, decode_event
from sidecast_schemas.subjects import TaskKey

logger = structlog.get_logger(__name__)


RECORDS_MIN = 32
RECORDS_MAX = 256
LOOK_MAX = 2048
"""Records looked at for one write: few where few are allowed, and as many as make some 64 KiB, what the
kernel takes at once. Of a thinned format many become few; these take 5 ms; who is slower falls behind."""
WRITE_BYTES_MAX = 64 * 1024


def cut(pieces: list[tuple[int, bytes]], count_max: int) -> int:
    """Tell how many of a view's pieces to send: at most so many, or on to the next position."""
    kept = min(count_max, len(pieces))
    while kept < len(pieces) and not pieces[kept - 1][0]:
        kept += 1
    return kept


def fitting(pieces: list[tuple[int, bytes]]) -> int:
    """Tell how many of a view's pieces make one write: so many bytes, and always the first."""
    size = 0
    for count, (_sequence, data) in enumerate(pieces):
        size += len(data)
        if size > WRITE_BYTES_MAX:
            return max(count, 1)
    return len(pieces)


class _Nothing:
    """What a fan-out and a pacer without subscribers ask of their task."""

    log = Log(0)


def ignore_growth(_bytes: int) -> None:
    """Count no memory: nobody holds the hub, or nobody does any more."""


class Hub:
    """Holds one task's log and fold, and feeds its subscribers; the sink of the task's tail.

    Args:
        key: the task.
        epoch: the stream's, for event ids.
        log_bytes_max: memory for recent records.
        metrics: where to count.
        soon: runs a function in the next turn of the event loop.
        afterwards: called by what `soon` runs, runs a function when all of that has run.
        on_growth: the attribute.
        timers: of all tasks; None: its own.
        clock: seconds, monotonic.
        witness: told what was written to those who had caught up; None: nobody is.

    Attributes:
        first: sequence of the task's first retained record; None while nothing is stored.
        owner: the principal the first retained record names, if any.
        newest_at: when the newest record was stored.
        snapshots: encoded snapshots of the present position, by view.
        failed: whether a fault of ours, or another owner's task, keeps it from going on.
        gap_below: cursors below this sequence have a hole behind them; 0: none has.
        on_growth: called with the bytes by which the memory held has grown or shrunk.
        on_other_owner: called when a task of this id begins that is somebody else's than the one before;
            None: the hub fails.
    """

    def __init__(
        self,
        key: TaskKey,
        epoch: str,
        *,
        log_bytes_max: int,
        metrics: Metrics,
        soon: Callable[[Callable[[], None]], object],
        afterwards: Callable[[Callable[[], None]], object] = lambda run: run(),
        on_growth: Callable[[int], None] = ignore_growth,
        timers: Timers | None = None,
        clock: Callable[[], float] = time.monotonic,
        witness: Witness | None = None,
    ) -> None:
        self.key = key
        self.epoch = epoch
        self.log = Log(log_bytes_max)
        self.fold = Fold(key.task)
        self.first: int | None = None
        self.owner: str | None = None
        self.gap_below = 0
        self.failed = False
        self.newest_at = ""
        self.snapshots: dict[Hashable, bytes] = {}
        self.size_bytes = 0
        self._whole_stream = False
        self._metrics = metrics
        self._soon = soon
        self.on_growth = on_growth
        self.on_other_owner: Callable[[], None] | None = None
        self._owners: tuple[str | None, ...] = ()
        timers = Timers(clock) if timers is None else timers  # one with nothing to run is falsy
        self._fanout_of = partial(
            Fanout,
            deliveries=metrics.deliveries,
            soon=soon,
            afterwards=afterwards,
            clock=clock,
            witness=witness,
        )
        self._pacer_of = partial(Pacer, deliveries=metrics.deliveries, soon=soon, timers=timers, clock=clock)
        self._fanout, self.pacer = self._fanout_of(self), self._pacer_of(self)
        self._scheduled = False
        self._lost = False
        self._reloading = False
        self._warned: set[str] = set()
        self._waiting: set[Callable[[], None]] = set()
        self._listeners: set[Callable[[], None]] = set()

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
            if not self._begin(stored):
                return
        elif names.OWNER in stored.headers and stored.owner != self.owner:
            self._count_invalid("owner", stored)
        self.newest_at = at_milliseconds(stored.at)
        if self.snapshots:
            self.snapshots.clear()
        event = self._event(stored)
        if event is None:
            self.log.skip(stored.sequence)
        else:
            record = Record(stored.sequence, self.newest_at, event)
            record.deliverable = self.fold.apply(event, stored.sequence)
            if not record.deliverable and event.kind != "turn":
                reason = "after-terminal" if self.ends_at(stored.sequence - 1) else "second-task"
                self._count_invalid(reason, stored)
            self.log.append(record)
        if not self._scheduled:
            self._scheduled = True
            self._soon(self._flush)

    def _begin(self, stored: Stored) -> bool:
        """Take a first record's owner; False: another's than before, who watch that must be judged anew."""
        owner = stored.owner
        if self.failed or owner not in (self._owners or (owner,)):
            self.log.skip(stored.sequence)  # or its tail would read it again and again
            if not self.failed:
                (self.on_other_owner or self.fail)()
            return False
        self.first = stored.sequence
        self.owner = owner
        self._owners = (owner,)
        return True

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
        if first is None or first > self.log.end:
            # What is known of the task is gone; one of the same name may begin anew.
            self.first = None
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
        self._fanout.forget()
        self._reloading = True
        self._account()
        self._interrupt("epoch")

    def fail(self) -> None:
        """Know that the task can't go on here: its streams break off, to be resumed."""
        self.failed = True
        self._interrupt("failed")
        self._tell_waiting()
        for tell in tuple(self._listeners):
            tell()

    def let_go(self) -> None:
        """Hold nothing more that holds this, so that its memory is free at once: nobody uses it any more."""
        nothing: Any = _Nothing()
        self._fanout, self.pacer = self._fanout_of(nothing), self._pacer_of(nothing)
        self.on_other_owner = None

    def loaded(self) -> None:
        """Know that what the stream held has been appended."""
        self._reloading = False
        self._tell_waiting()

    def assume_whole_stream(self) -> None:
        """Know that the stream has never lost a message, so that any first record is a task's true first."""
        self._whole_stream = True

    def _event(self, stored: Stored) -> Event | None:
        new = stored.sequence > self.log.end  # what is read once more is not counted once more
        try:
            event = decode_event(stored.payload)
        except InvalidEvent as invalid:
            if new:
                self._count_invalid(invalid.reason, stored)
            return None
        if (task_id := event.task_id) is not None and task_id != self.key.task:
            if new:
                self._count_invalid("task-id", stored)
            return None
        if event.repaired and new:
            self._metrics.invalid_events.labels("surrogate").inc(event.repaired)
        return event

    def _count_invalid(self, reason: str, stored: Stored) -> None:
        self._metrics.invalid_events.labels(reason).inc()
        if reason not in self._warned:
            self._warned.add(reason)
            trace = in_log(trace_of(stored))
            logger.warning(
                "event_skipped", task=self.key.task, sequence=stored.sequence, reason=reason, **trace
            )

    def _account(self) -> None:
        snapshots = sum(map(len, self.snapshots.values())) if self.snapshots else 0
        size = self.log.size_bytes + self.fold.held_bytes + snapshots
        if size != self.size_bytes:
            grown, self.size_bytes = size - self.size_bytes, size
            self.on_growth(grown)

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
        event = self._event(stored)
        if event is None:
            return Record.undeliverable(stored.sequence)
        record = Record(stored.sequence, at_milliseconds(stored.at), event)
        terminal = self.fold.terminal_sequence
        kind = event.kind
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

    def listen(self, tell: Callable[[], None]) -> None:
        """Call `tell` after every turn of the event loop that brought records; `stop_listening` undoes it."""
        self._listeners.add(tell)

    def stop_listening(self, tell: Callable[[], None]) -> None:
        """Take back a `listen`."""
        self._listeners.discard(tell)

    def _tell_waiting(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for tell in waiting:
            tell()

    def frames(self, view: View, records: list[Record]) -> tuple[bytes, int]:
        """Give the frames of records joined, and how many there are."""
        if (pieces := view.pieces(self, records)) is not None:
            return view.joined(self, pieces), len(pieces)
        frames = [frame for record in records if record.deliverable and (frame := view.record(self, record))]
        return b"".join(frames), len(frames)

    def pieces(self, view: View, records: list[Record]) -> list[tuple[int, bytes]]:
        """Give the frames of records, each with the position it leads up to."""
        if (pieces := view.pieces(self, records)) is not None:
            return pieces
        return [
            (record.sequence, frame)
            for record in records
            if record.deliverable and (frame := view.record(self, record))
        ]

    def content(self, view: View, cursor: int, count_max: int | None) -> Content:
        """Give what goes out in one write after a cursor.

        Args:
            view: the format.
            cursor: at or above the log's floor.
            count_max: at most so many frames, at least 1, or a few more where only those make a position to
                continue from; None: all there are, up to what one write takes.
        """
        size = RECORDS_MIN if count_max is not None else RECORDS_MAX
        while True:
            records = self.log.after(cursor, size)
            pieces = self.pieces(view, records)
            # The last frame of a thinned format may hold more of what follows, and those up to its position.
            enough = count_max is not None and cut(pieces, count_max) < len(pieces)
            if enough or len(records) < size or size >= LOOK_MAX or fitting(pieces) < len(pieces):
                break
            size *= 4
        if not records:
            return Content(self.log.end, b"", 0)
        end = records[-1].sequence
        # No more than one write takes: what a client doesn't take is held for each of those.
        if (kept := cut(pieces, min(count_max or len(pieces), fitting(pieces)))) < len(pieces):
            del pieces[kept:]
            end = pieces[-1][0]
        return Content(end, view.joined(self, pieces), len(pieces))

    def shown(self, view: View, records: list[Record]) -> int:
        """Tell how many of some records a view shows, before a thinned one makes fewer of them."""
        return sum(1 for record in records if record.deliverable and view.record(self, record))

    def last_frame(self, view: View, cursor: int) -> bytes | None:
        """Give what ends a stream that has been sent all up to a cursor; None: more may follow."""
        return view.end(self) if view.ended(self, cursor) else None

    def join(self, subscriber: Subscriber) -> None:
        """Write to a subscriber from now on; it has been sent all records up to its cursor, the log's end."""
        (self._fanout if subscriber.pace is None else self.pacer).join(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Stop writing to a subscriber; one that has not joined is fine."""
        (self._fanout if subscriber.pace is None else self.pacer).leave(subscriber)

    def _interrupt(self, reason: StreamGapReason | Literal["failed"]) -> None:
        self._fanout.interrupt(reason)
        self.pacer.interrupt(reason)

    def beat(self, subscriber: Subscriber, heartbeat: bytes, silent_s: float, now: float) -> None:
        """Send a subscriber a heartbeat if nothing was written to it for so long."""
        self._fanout.beat(subscriber, heartbeat, silent_s, now)

    def _flush(self) -> None:
        self._scheduled = False
        if self._waiting and self.first is not None:
            self._tell_waiting()
        if self.pacer:
            self.pacer.flush()  # before the fan-out frees the decoded events
        self._fanout.flush()
        for tell in tuple(self._listeners):
            tell()
        self._account()
