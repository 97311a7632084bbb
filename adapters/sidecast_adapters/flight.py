"""The records of one task that are on their way to JetStream: prepared, named, and not yet acknowledged.

Must not know connections: it turns what the buffer hands out into messages, and knows how to name them again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from msgspec import structs

from sidecast_adapters.buffer import NOTHING, Lost, Taken
from sidecast_adapters.connection import Outgoing
from sidecast_adapters.limit import TooLarge, fit
from sidecast_adapters.payload import decode, encode, with_loss
from sidecast_adapters.position import Stored, message_id
from sidecast_adapters.record import Rank, Record
from sidecast_adapters.trace import Publishing
from sidecast_schemas import headers
from sidecast_schemas.events import (
    SUBMITTED,
    TERMINAL_STATES,
    WORKING,
    Loss,
    StreamResponse,
    Task,
    TaskStatus,
    TaskStatusUpdateEvent,
)


def timestamp() -> str:
    """Give the time in the form A2A wants: RFC 3339, UTC, milliseconds, `Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Flight:
    """What is on its way for one task.

    Args:
        task_id: the task.
        context_id: its context.
        producer: names the publisher.
        next_ordinal: gives the publisher's next ordinal; ordinals of one flight rise.
        fixed_headers: those every message of the task carries.

    Attributes:
        records: on their way, in order.
        ordinals: theirs.
        state: the task's state behind the last record on its way, as far as known.
        acknowledged_state: its state behind the last record that is stored.
    """

    def __init__(
        self,
        task_id: str,
        context_id: str,
        producer: str,
        next_ordinal: Callable[[], int],
        fixed_headers: dict[str, str],
    ) -> None:
        self._task_id = task_id
        self._context_id = context_id
        self._producer = producer
        self._next_ordinal = next_ordinal
        self._fixed = fixed_headers
        self.records: list[Record] = []
        self.ordinals: list[int] = []
        self.state = ""
        self.acknowledged_state = ""
        self._owed: list[Loss] = []
        self._shortened = 0
        self._publishing = Publishing(task_id)

    @property
    def owes(self) -> bool:
        """Whether something was lost that the log doesn't say yet."""
        return bool(self._owed)

    def take_shortened(self) -> int:
        """Give how many records had to be shortened since this was last asked."""
        count, self._shortened = self._shortened, 0
        return count

    def load(self, taken: list[Taken], lost: Lost, *, has_task: bool, limit: int) -> list[TooLarge]:
        """Prepare what the buffer hands out.

        Args:
            taken: the next records.
            lost: what was dropped behind them.
            has_task: the log has its `task` record; another is not sent.
            limit: bytes a payload may have.

        Returns:
            The records that fit into no message; they are left out, and marked as lost.
        """
        refused: list[TooLarge] = []
        for each in taken:
            if each.lost != NOTHING:
                self._owed.append(Loss(dropped_events=each.lost.events, dropped_bytes=each.lost.bytes))
            if each.record.kind == "task" and (has_task or self.records):
                continue
            record = _beginning(each.record) if each.anew else each.record
            try:
                pieces = fit(record, limit)
                self._shortened += pieces[0] is not record and record.kind != "artifactUpdate"
                for piece in pieces:
                    self._add(piece, limit)
            except TooLarge as error:
                refused.append(error)
                self._owed.append(_too_large(record))
        if lost != NOTHING:
            self._owed.append(Loss(dropped_events=lost.events, dropped_bytes=lost.bytes))
        if self._owed:
            self._own_mark()
        self.records = self._publishing.begin(self.records)
        self._publishing.settle(self.records, "refused")
        self.ordinals = [self._next_ordinal() for _ in self.records]
        return refused

    def _add(self, record: Record, limit: int) -> None:
        if self._owed and record.kind != "task":
            if record.kind == "statusUpdate":
                payload = record.payload
                for loss in self._owed:
                    payload = with_loss(payload, loss)
                record = fit(structs.replace(record, payload=payload), limit)[0]
                self._owed.clear()
            else:
                self._own_mark()
        self.records.append(record)
        self.state = record.state or self.state

    def _own_mark(self) -> None:
        owed, self._owed = self._owed, []
        if self.state in TERMINAL_STATES:
            # Nobody receives a status behind the end.
            return
        self.state = self.state or WORKING
        status = TaskStatusUpdateEvent(
            taskId=self._task_id,
            contextId=self._context_id,
            status=TaskStatus(state=self.state, timestamp=timestamp()),
        )
        payload = encode(StreamResponse(statusUpdate=status))
        for loss in owed:
            payload = with_loss(payload, loss)
        self.records.append(Record("statusUpdate", payload, Rank.KEPT, self.state))

    def begin_again(self, *, reset: bool) -> None:
        """Name all records anew, behind a log that lost what was stored.

        Args:
            reset: the log has no record left, so it gets a `task` record first.
        """
        records, self.records = self.records, []
        ahead, self.state = self.state, self.acknowledged_state
        if reset:
            first = records[0].kind == "task" if records else False
            self.records.append(records.pop(0) if first else self._task_record())
        self._owed.append(Loss(reason="stream-reset"))
        self._own_mark()
        self.records += records
        self.state = ahead
        self.rename()

    def _task_record(self) -> Record:
        state = self.state or SUBMITTED
        status = TaskStatus(state=state, timestamp=timestamp())
        task = Task(id=self._task_id, contextId=self._context_id, status=status)
        return Record("task", encode(StreamResponse(task=task)), Rank.KEPT, state)

    def rename(self) -> None:
        """Give all records new message ids, because JetStream remembers the old ones without having them."""
        self.ordinals = [self._next_ordinal() for _ in self.records]

    def refit(self, limit: int) -> list[TooLarge]:
        """Make the records fit a limit that has become smaller; none of them may be stored.

        Returns:
            The records that fit no more, and are left out.
        """
        if all(len(record.payload) <= limit for record in self.records):
            return []
        records, self.records = self.records, []
        return self.load([Taken(record) for record in records], NOTHING, has_task=False, limit=limit)

    def landed(self, count: int) -> None:
        """Say that the first `count` records are stored."""
        for record in self.records[:count]:
            self.acknowledged_state = record.state or self.acknowledged_state
        del self.records[:count], self.ordinals[:count]
        self._publishing.settle(self.records)

    def give_up(self, reason: str) -> None:
        """Know that what is on its way is sent no more."""
        self._publishing.settle((), reason)

    def skip(self) -> None:
        """Leave the first record out; what it says is lost, and marked."""
        record = self.records.pop(0)
        del self.ordinals[0]
        self._owed.append(_too_large(record))
        self._publishing.settle(self.records, "refused")

    def stored_after(self, count: int, sequence: int) -> Stored:
        """Give the log's last record once the first `count` records are stored, the last at `sequence`."""
        state = self.acknowledged_state
        for record in self.records[:count]:
            state = record.state or state
        return Stored(sequence, self._producer, message_id(self._producer, self.ordinals[count - 1]), state)

    def messages(self, count: int, expected: int) -> Iterator[Outgoing]:
        """Give the first `count` records as messages: one alone, several as an atomic batch.

        Args:
            count: at least 1.
            expected: the subject's last sequence, which has to be so still.
        """
        batch_id = secrets.token_hex(16)
        state = self.acknowledged_state
        for index, record in enumerate(self.records[:count]):
            state = record.state or state
            fields = {
                headers.MSG_ID: message_id(self._producer, self.ordinals[index]),
                headers.PRODUCER: self._producer,
                **self._fixed,
            }
            if state:
                fields[headers.STATE] = state
            if record.traceparent:
                fields[headers.TRACEPARENT] = record.traceparent
            if index == 0:
                fields[headers.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(expected)
            if count > 1:
                fields[headers.BATCH_ID] = batch_id
                fields[headers.BATCH_SEQUENCE] = str(index + 1)
                if index == count - 1:
                    fields[headers.BATCH_COMMIT] = "1"
            yield Outgoing(record.payload, fields)


def _too_large(record: Record) -> Loss:
    return Loss(
        dropped_events=1,
        dropped_bytes=len(record.payload),
        reason="artifact-too-large" if record.kind == "artifactUpdate" else "message-too-large",
    )


def _beginning(record: Record) -> Record:
    event = decode(record.payload)
    del event["artifactUpdate"]["append"]
    return structs.replace(record, payload=encode(event), append=False)
