"""The writer of one task's log: sends its records in order, one acknowledgement at a time, come what may.

Must not know what the records say. The order rule is ADR 3: at most one publish is unacknowledged (one
record, or an atomic batch of what has queued), it carries the expected last sequence of the subject, and
after a publish of unknown outcome the stream's leader says what is stored.
"""

from __future__ import annotations

import asyncio
import logging

from sidecast_adapters.connection import Ack, Refusal, Unreachable, cancelled
from sidecast_adapters.flight import Flight
from sidecast_adapters.limit import EVENT_BYTES_MAX, TooLarge, fit
from sidecast_adapters.outline import Outline
from sidecast_adapters.position import Position, Stored, judge
from sidecast_adapters.record import Record
from sidecast_adapters.shared import Shared
from sidecast_adapters.trace import queued
from sidecast_schemas.events import TERMINAL_STATES
from sidecast_schemas.subjects import TaskKey, events_subject

logger = logging.getLogger("sidecast_adapters")

BATCH_BYTES_MAX = 1 << 20
HEADER_BYTES_MAX = 640
"""Room for all headers of a message but the owner."""
PAYLOAD_BYTES_MIN = 256
REFUSALS_MAX = 5
DUPLICATES_MAX = 2

_WRONG_LAST_SEQUENCE = 10071
_MESSAGE_TOO_LARGE = 10054
_BATCHES_UNSUPPORTED = frozenset({10174, 10177})
_BATCH_TOO_LARGE = 10199
_BATCH_HAS_DUPLICATE = 10201


class Log:
    """Writes the log of one task, as long as something waits for it.

    Args:
        key: the task.
        context_id: its context.
        fixed_headers: headers of every message.
        shared: what all logs of the publisher share.

    Attributes:
        subject: where the task's events are published.
        outline: what the log says by the events observed.
        state: the task's state behind the last record appended; empty while unknown.
        ended: the task has a terminal state, so nothing but a turn's end follows.
        fenced: another publisher has written to the log; nothing is sent any more.
        users: how many tasks of the API hold it open.
    """

    def __init__(self, key: TaskKey, context_id: str, fixed_headers: dict[str, str], shared: Shared) -> None:
        self.key = key
        self.subject = events_subject(key)
        self.outline = Outline(key.task, context_id)
        self.state = ""
        self.ended = False
        self.fenced = False
        self.users = 0
        self._shared = shared
        self._headers_size = HEADER_BYTES_MAX + sum(map(len, fixed_headers.values()))
        self._limit_max = EVENT_BYTES_MAX
        self._flight = Flight(key.task, context_id, shared.producer, shared.next_ordinal, fixed_headers)
        self._position: Position | None = None
        self._certain = False
        self._was_over = False
        self._told_late = False
        self._told_failure = ""
        self._only_marks = False
        self._singly = False
        self._refusals = 0
        self._duplicates = 0
        self._drain: asyncio.Task[None] | None = None

    @property
    def payload_bytes_max(self) -> int:
        """Bytes a payload may have at the moment."""
        room = self._shared.connection.payload_bytes_max - self._headers_size
        return max(PAYLOAD_BYTES_MIN, min(room, self._limit_max))

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is on its way any more: it is stored, or given up."""
        if self._drain is not None:
            return False
        return self.fenced or self._shared.closed or not self._has_work()

    def settled(self, ordinal: int) -> bool:
        """Tell whether all up to an ordinal of the buffer is stored or given up, and losses are marked."""
        if self.idle:
            return True
        marked = not self._flight.owes and not (self._only_marks and self._flight.records)
        return marked and self._shared.buffer.settled(self.subject, ordinal)

    def append(self, record: Record) -> None:
        """Let a record follow; never waits.

        Raises:
            TooLarge: it fits into no message; nothing was appended.
        """
        if self._refuses(record):
            return
        record = queued(record)
        # Whether a `task` record is sent at all is seen when it is its turn.
        pieces = [record] if record.kind == "task" else fit(record, self.payload_bytes_max)
        if pieces[0] is not record and record.kind != "artifactUpdate":
            self._count_shortened(1)
        if record.state:
            self.state = record.state
            self.ended = record.state in TERMINAL_STATES
        for piece in pieces:
            self._shared.dropped(*self._shared.buffer.append(self.subject, piece))
        if self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._send_all(), name="sidecast-log")

    def _refuses(self, record: Record) -> bool:
        if self._shared.over:
            self._shared.refused(len(record.payload))
            return True
        if self.fenced:
            self._shared.count_dropped(1, len(record.payload))
            return True
        if not self.ended or (record.kind == "turn" and not self._was_over):
            return False
        self._shared.counts.late_events += 1
        if not self._told_late:
            self._told_late = True
            logger.warning("task %s has ended; what is published to it after that is dropped", self.key.task)
        return True

    async def close(self) -> None:
        """Stop sending; what waits is dropped and counted."""
        if self._drain is not None:
            await cancelled(self._drain)
            self._drain = None
        self._flight.give_up("closed")
        self._shared.count_dropped(*self._shared.buffer.forget(self.subject))

    async def _send_all(self) -> None:
        failures = 0
        try:
            while not self.fenced and not self._shared.closed and self._has_work():
                try:
                    if not self._certain:
                        await self._look()
                        continue
                    if not self._flight.records:
                        self._load()
                        continue
                    acknowledged = await self._send()
                except Unreachable as error:
                    acknowledged = False
                    if failures == 3:
                        logger.warning("task %s: events wait: %s", self.key.task, error)
                except Exception as error:  # noqa: BLE001 - events would wait for ever behind a dead sender
                    acknowledged = False
                    self._count_failed(error)
                if acknowledged:
                    failures = 0
                else:
                    self._certain = False
                    failures += 1
                    await self._shared.connection.pause(failures)
        finally:
            self._drain = None
            self._shared.progressed()

    def _count_failed(self, error: Exception) -> None:
        self._shared.counts.failed_sends += 1
        told = f"{type(error).__name__}: {error}"
        if told != self._told_failure:
            self._told_failure = told
            logger.error("task %s: sending failed; trying on", self.key.task, exc_info=error)

    def _has_work(self) -> bool:
        return bool(self._flight.records) or self._flight.owes or self._shared.buffer.waits(self.subject)

    def _load(self) -> None:
        buffer = self._shared.buffer
        buffer.release(self.subject)
        assert self._position is not None
        taken = buffer.take(self.subject, self._shared.batch_events_max, BATCH_BYTES_MAX)
        self._only_marks = not taken
        self._count_refused(
            self._flight.load(
                taken,
                buffer.take_lost(self.subject),
                has_task=self._position.stored.sequence > 0,
                limit=self.payload_bytes_max,
            )
        )
        self._count_shortened(self._flight.take_shortened())
        if not self._flight.records:
            self._landed(0)

    def _count_shortened(self, count: int) -> None:
        if count:
            self._shared.counts.shortened_events += count
            logger.warning("task %s: a status or task was too large and goes shortened", self.key.task)

    def _count_refused(self, refused: list[TooLarge]) -> None:
        for error in refused:
            self._shared.counts.refused_events += 1
            logger.error("task %s: dropped: %s", self.key.task, error)

    def _landed(self, count: int) -> None:
        self._flight.landed(count)
        self._shared.counts.stored_events += count
        if not self._flight.records:
            self._shared.buffer.release(self.subject)
        self._shared.progressed()

    async def _look(self) -> None:
        """Ask the leader where the log ends, and go on behind that."""
        async with self._shared.sending:
            found = await self._shared.connection.last_record(self.subject)
        if self._position is None:
            self._adopt(found)
        else:
            self._resume(self._position, found)
        self._certain = not self.fenced

    def _adopt(self, found: Stored) -> None:
        self._position = Position(found)
        self._flight.state = self._flight.acknowledged_state = found.state
        self.state = self.state or found.state
        if found.state in TERMINAL_STATES:
            self.ended = self._was_over = True
            lost = self._shared.buffer.forget(self.subject)
            self._shared.counts.late_events += lost.events
            logger.warning(
                "task %s ended in %s before; %d events published to it are dropped: a new run needs a new id",
                *(self.key.task, found.state, lost.events),
            )

    def _resume(self, position: Position, found: Stored) -> None:
        verdict = judge(position, found, self._shared.producer, self._flight.ordinals)
        if verdict.outcome == "fenced":
            self._fence(found)
            return
        self._position = verdict.position
        if verdict.stored:
            self._duplicates = 0
            self._landed(verdict.stored)
        if verdict.outcome == "reset":
            logger.error("task %s: records that were acknowledged are gone from the stream", self.key.task)
            self._flight.begin_again(reset=not found.sequence)
        elif self._duplicates >= DUPLICATES_MAX:
            # Purged or expired, yet inside the duplicate window.
            self._flight.rename()
            self._duplicates = 0
        self._count_refused(self._flight.refit(self.payload_bytes_max))

    def _fence(self, found: Stored) -> None:
        self.fenced = True
        self._flight.give_up("fenced")
        self._shared.counts.fenced_tasks += 1
        lost = self._shared.buffer.forget(self.subject)
        self._shared.count_dropped(*lost)
        logger.error(
            "task %s: publisher %s has written to it, so this one is stale and stops; %d events dropped",
            *(self.key.task, found.producer or "(unnamed)", lost.events),
        )

    async def _send(self) -> bool:
        """Publish what is on its way, or its first record alone; tell whether it was acknowledged."""
        assert self._position is not None
        count = 1 if self._singly else min(len(self._flight.records), self._shared.batch_events_max)
        async with self._shared.sending:
            messages = list(self._flight.messages(count, self._position.stored.sequence))
            ack = await self._shared.connection.publish(self.subject, messages)
        if ack.error is None and not ack.duplicate:
            self._position = Position(self._flight.stored_after(count, ack.seq), ours=True)
            self._landed(count)
            self._singly = False
            self._refusals = self._duplicates = 0
            return True
        self._understand(ack, count)
        return False

    def _understand(self, ack: Ack, count: int) -> None:
        """Take a refusal into account; where the log ends, the leader is asked next in any case."""
        error = ack.error or Refusal()
        if ack.duplicate or error.err_code == _BATCH_HAS_DUPLICATE:
            self._duplicates += 1
        elif error.err_code in _BATCHES_UNSUPPORTED:
            logger.warning("the stream takes no atomic batches (%s): slower, one by one", error.description)
            self._shared.batches_off()
        elif error.err_code == _BATCH_TOO_LARGE:
            self._shared.batch_events_limit = max(1, count // 2)
        elif error.err_code == _WRONG_LAST_SEQUENCE:
            pass
        elif count > 1:
            self._singly = True
        elif (
            error.err_code == _MESSAGE_TOO_LARGE and len(self._flight.records[0].payload) > PAYLOAD_BYTES_MIN
        ):
            # The stream's own limit, which it doesn't tell: halve until it fits.
            self._limit_max = max(PAYLOAD_BYTES_MIN, len(self._flight.records[0].payload) // 2)
        elif error.code < 500:
            self._refusals += 1
            if self._refusals >= REFUSALS_MAX:
                self._refusals = 0
                self._shared.counts.refused_events += 1
                self._flight.skip()
                logger.error("task %s: an event is refused: %s", self.key.task, error.description)
        else:
            logger.warning("task %s: events wait: JetStream says: %s", self.key.task, error.description)
