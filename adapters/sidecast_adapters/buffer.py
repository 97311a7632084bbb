"""The buffer between an agent and NATS: records of all tasks, in order per task, within a bound.

Must not know asyncio, NATS or the clock: it decides what waits, what goes first when there is no room, and
where in each task's log something is missing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from sidecast_adapters.record import Rank, Record


class Lost(NamedTuple):
    """How much was dropped: events, and the bytes of their payloads."""

    events: int = 0
    bytes: int = 0

    def plus(self, events: int, size: int) -> Lost:
        """Give the sum of this and further events."""
        return Lost(self.events + events, self.bytes + size)


NOTHING = Lost()


class Taken(NamedTuple):
    """One record handed out for publishing.

    Attributes:
        record: what to publish.
        lost: what was dropped right before it.
        anew: it continues an artifact whose beginning was dropped, so it has to begin the artifact.
    """

    record: Record
    lost: Lost = NOTHING
    anew: bool = False


class _Entry:
    """A waiting record: a link of its task's list. `lost` is what was dropped right before it."""

    __slots__ = ("lost", "next", "ordinal", "prev", "queue", "record")

    def __init__(self, queue: _Queue, ordinal: int, record: Record, lost: Lost) -> None:
        self.queue = queue
        self.ordinal = ordinal
        self.record = record
        self.lost = lost
        self.prev: _Entry | None = None
        self.next: _Entry | None = None


class _Queue:
    """What waits for one task: a linked list, and what is handed out and not yet released."""

    __slots__ = (
        "first",
        "headless",
        "last",
        "tail_lost",
        "taken_bytes",
        "taken_events",
        "taken_from",
        "waiting",
    )

    def __init__(self) -> None:
        self.first: _Entry | None = None
        self.last: _Entry | None = None
        self.waiting = 0
        self.taken_events = 0
        self.taken_bytes = 0
        self.taken_from = 0
        self.tail_lost = NOTHING
        self.headless: set[str] = set()

    def link(self, entry: _Entry) -> None:
        entry.prev = self.last
        if self.last is None:
            self.first = entry
        else:
            self.last.next = entry
        self.last = entry
        self.waiting += 1

    def unlink(self, entry: _Entry) -> None:
        if entry.prev is None:
            self.first = entry.next
        else:
            entry.prev.next = entry.next
        if entry.next is None:
            self.last = entry.prev
        else:
            entry.next.prev = entry.prev
        self.waiting -= 1

    @property
    def idle(self) -> bool:
        return (
            self.first is None and not self.taken_events and not self.tail_lost.events and not self.headless
        )


class Buffer:
    """Records waiting to be stored, bounded by events and bytes over all tasks.

    What is handed out by `take` counts until `release`, and is never dropped. Beyond the bound the oldest
    record of the lowest rank goes; records ranked `KEPT` stay even then (a few per task), so a new record
    never waits.

    Args:
        events_max: how many records may wait or be on their way.
        bytes_max: how many bytes their payloads may have together.
    """

    def __init__(self, events_max: int, bytes_max: int) -> None:
        if events_max < 1 or bytes_max < 1:
            raise ValueError("a buffer needs room for at least one event and one byte")
        self.events_max = events_max
        self.bytes_max = bytes_max
        self.events = 0
        self.bytes = 0
        self.dropped = NOTHING
        self.ordinal = 0
        self._queues: dict[str, _Queue] = {}
        self._ranks: tuple[OrderedDict[int, _Entry], ...] = tuple(OrderedDict() for _ in range(Rank.KEPT))

    @property
    def full(self) -> float:
        """How full it is: 1.0 is the bound; more only by records that are never dropped."""
        return max(self.events / self.events_max, self.bytes / self.bytes_max)

    def append(self, key: str, record: Record) -> Lost:
        """Let a record wait at the end of a task's queue.

        Returns:
            What had to be dropped for it (maybe itself); never more than the bound asks for.
        """
        self.ordinal += 1
        queue = self._queues.setdefault(key, _Queue())
        entry = _Entry(queue, self.ordinal, record, queue.tail_lost)
        queue.tail_lost = NOTHING
        queue.link(entry)
        self.events += 1
        self.bytes += len(record.payload)
        if record.rank != Rank.KEPT:
            self._ranks[record.rank][entry.ordinal] = entry
        before = self.dropped
        while self.events > self.events_max or self.bytes > self.bytes_max:
            victims = next((rank for rank in self._ranks if rank), None)
            if victims is None:
                break
            self._drop(victims.popitem(last=False)[1])
        return Lost(self.dropped.events - before.events, self.dropped.bytes - before.bytes)

    def _drop(self, entry: _Entry) -> None:
        record, queue = entry.record, entry.queue
        size = len(record.payload)
        lost = entry.lost.plus(1, size)
        if entry.next is None:
            queue.tail_lost = queue.tail_lost.plus(*lost)
        else:
            entry.next.lost = entry.next.lost.plus(*lost)
        queue.unlink(entry)
        if record.artifact_id and not record.append:
            queue.headless.add(record.artifact_id)
        self._forget(1, size)
        self.dropped = self.dropped.plus(1, size)

    def _forget(self, events: int, size: int) -> None:
        self.events -= events
        self.bytes -= size

    def take(self, key: str, events_max: int, bytes_max: int) -> list[Taken]:
        """Hand out the next records of a task, in order; they count until `release`.

        Args:
            key: the task.
            events_max: at most so many records.
            bytes_max: at most so many bytes of payload, but always one record where one waits.
        """
        queue = self._queues.get(key)
        taken: list[Taken] = []
        size = 0
        while queue is not None and queue.first is not None and len(taken) < events_max:
            entry = queue.first
            length = len(entry.record.payload)
            if taken and size + length > bytes_max:
                break
            queue.unlink(entry)
            if entry.record.rank != Rank.KEPT:
                del self._ranks[entry.record.rank][entry.ordinal]
            size += length
            if not taken and not queue.taken_events:
                queue.taken_from = entry.ordinal
            taken.append(Taken(entry.record, entry.lost, self._begins_anew(queue, entry.record)))
        if queue is not None:
            queue.taken_events += len(taken)
            queue.taken_bytes += size
        return taken

    @staticmethod
    def _begins_anew(queue: _Queue, record: Record) -> bool:
        if not record.artifact_id or record.artifact_id not in queue.headless:
            return False
        queue.headless.discard(record.artifact_id)
        return record.append

    def take_lost(self, key: str) -> Lost:
        """Hand out what was dropped after the last record of a task, where nothing waits behind it."""
        queue = self._queues.get(key)
        if queue is None or queue.first is not None:
            return NOTHING
        lost, queue.tail_lost = queue.tail_lost, NOTHING
        return lost

    def release(self, key: str) -> None:
        """Say that all records handed out for a task are stored, or given up."""
        queue = self._queues.get(key)
        if queue is None:
            return
        self._forget(queue.taken_events, queue.taken_bytes)
        queue.taken_events = queue.taken_bytes = 0
        if queue.idle:
            del self._queues[key]

    def forget(self, key: str) -> Lost:
        """Drop everything a task has waiting or handed out, of whatever rank.

        Returns:
            What that was; it is counted as dropped.
        """
        queue = self._queues.pop(key, None)
        if queue is None:
            return NOTHING
        lost = Lost(queue.taken_events, queue.taken_bytes)
        entry = queue.first
        while entry is not None:
            lost = lost.plus(1, len(entry.record.payload))
            if entry.record.rank != Rank.KEPT:
                del self._ranks[entry.record.rank][entry.ordinal]
            entry = entry.next
        self._forget(*lost)
        self.dropped = self.dropped.plus(*lost)
        return lost

    def waits(self, key: str) -> bool:
        """Tell whether a task has a record waiting, or a loss that nothing behind it can carry."""
        queue = self._queues.get(key)
        return queue is not None and (queue.first is not None or bool(queue.tail_lost.events))

    def settled(self, key: str, ordinal: int) -> bool:
        """Tell whether all records of a task up to `ordinal` are stored or dropped, and losses handed out."""
        queue = self._queues.get(key)
        if queue is None:
            return True
        if queue.tail_lost.events or (queue.taken_events and queue.taken_from <= ordinal):
            return False
        return queue.first is None or queue.first.ordinal > ordinal
