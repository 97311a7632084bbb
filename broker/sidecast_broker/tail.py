"""One task's records from JetStream in order without a hole: history, then live, gaps repaired.

Must not know what the records mean or who receives them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import structlog

from sidecast_broker.answers import Away, Page, StreamInfo
from sidecast_broker.core.log import Stored
from sidecast_broker.jetstream import JetStream
from sidecast_schemas.subjects import TaskKey, events_subject, live_subject

logger = structlog.get_logger(__name__)

HELD_MAX = 1024
"""Live messages held while something before them is missing; older ones are read from the stream again."""
SHORT_ANSWERS_MAX = 3

Cause = Literal["hole", "positioning", "epoch", "open"]


class Sink(Protocol):
    """What a tail feeds: the task's log, in order."""

    @property
    def end(self) -> int:
        """The sequence of the newest record taken, 0 before the first."""

    @property
    def first(self) -> int | None:
        """The sequence of the task's first retained record as far as known; None: nothing is stored."""

    def append(self, stored: Stored) -> None:
        """Take the next record; nothing is missing between the end and it."""

    def lose(self) -> None:
        """Know that records between the end and the next one appended are gone from the stream."""

    def retain(self, first: int | None) -> None:
        """Know which sequence is the task's first in the stream now; None: nothing is left of it."""

    def reset(self, epoch: str) -> None:
        """Forget everything: the stream has begun anew, its records are appended from the first one on."""

    def loaded(self) -> None:
        """Know that what the stream held has been appended."""

    def is_known(self, stored: Stored) -> bool | None:
        """Tell whether a record at or below the end is the one already taken; None: that isn't held."""

    @property
    def complete(self) -> bool:
        """Whether the first record appended is known to be the task's true first."""

    def assume_whole_stream(self) -> None:
        """Know that the stream has never lost a message, so that any first record is a task's true first."""


class Tail:
    """Follows one task.

    A live message names the sequence before it on its subject: equal to the sink's end, it is appended;
    otherwise it is held while what is missing is read. See ADR 1.

    Args:
        stream: where records come from.
        key: the task.
        sink: takes the records.
        on_doubt: called when the stream seems to be another one than before.
        on_repair: called with the cause when missing records had to be read.
        on_failure: called when a fault of ours has ended a repair: the tail is of no use any more.
    """

    def __init__(
        self,
        stream: JetStream,
        key: TaskKey,
        sink: Sink,
        *,
        on_doubt: Callable[[str], None],
        on_repair: Callable[[Cause], None],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.key = key
        self.subject = events_subject(key)
        self.position = 0
        self._stream = stream
        self._sink = sink
        self._on_doubt = on_doubt
        self._on_repair = on_repair
        self._on_failure = on_failure
        self._held: deque[Stored] = deque(maxlen=HELD_MAX)
        self._readings: dict[tuple[int, int | None], asyncio.Task[Page]] = {}
        self._target = 0
        self._contradicted_at = 0
        self._catching = True
        self._incarnation = 1
        self._complete_in = 0
        self._judged_in = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def end(self) -> int:
        """The sequence of the newest record handed on."""
        return self._sink.end

    def begins_below(self, sequence: int) -> bool:
        """Tell whether the task's first record, as far as known, lies below a sequence."""
        return self._sink.first is not None and self._sink.first < sequence

    async def open(self, position: int) -> None:
        """Subscribe, then read what is stored, up to where the leader says it ends; live from there.

        Args:
            position: the stream's last sequence at some moment before now.

        Raises:
            Away: NATS can't answer; nothing stays open.
        """
        try:
            await self._stream.subscribe(self, live_subject(self.key), self._on_live)
            await self._complete()
        except BaseException:
            await self._stream.unsubscribe(self)
            raise
        self.position = max(self.position, position)
        self._catching = False
        self._sink.loaded()

    async def close(self) -> None:
        """Stop following."""
        await self._stream.unsubscribe(self)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def confirm(self, position: int) -> None:
        """Know that the log holds all there is of this task up to a stream sequence."""
        if not self._catching:
            self.position = max(self.position, position)

    def repair(self, cause: Cause, target: int) -> None:
        """Make sure that the log reaches `target`, reading what is missing."""
        self._target = max(self._target, target)
        if not self._catching and self._sink.end < self._target:
            self._begin(cause)

    def hear(self, stored: Stored) -> None:
        """Take a live message of the task that came another way than by its own subscription."""
        self._on_live(stored)

    async def is_contradicted(self) -> bool:
        """Tell whether the leader holds another record at a sequence than the one handed on.

        Raises:
            Away: no answer.
        """
        sequence, incarnation = self._contradicted_at, self._incarnation
        if not sequence:
            return False
        stored = await self._stream.next(self.subject, sequence)
        if stored is not None and stored.sequence == sequence and self._sink.is_known(stored) is False:
            return True
        self._contradicted_at = 0  # the message was not the stream's
        if self._held and not self._catching and incarnation == self._incarnation:
            self._begin("hole")
        return False

    async def settled(self) -> None:
        """Wait until no repair is under way."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    def reset(self, info: StreamInfo) -> None:
        """Start over: the stream is another one than before."""
        self._held.clear()
        self._target = self.position = self._contradicted_at = 0
        self._incarnation += 1
        self._sink.reset(info.epoch)
        if not self._catching:
            self._begin("epoch")

    async def read(self, start: int, count_max: int | None = None) -> Page:
        """Read stored records from a sequence on; those who want the same page at once share one reading.

        Args:
            start: the sequence.
            count_max: at most so many; default `nats.page_events`.

        Raises:
            Away: no complete answer.
        """
        wanted = (start, count_max)
        reading = self._readings.get(wanted)
        if reading is None:
            reading = asyncio.get_running_loop().create_task(
                self._stream.read(self.subject, start, count_max)
            )
            self._readings[wanted] = reading
            reading.add_done_callback(lambda _done: self._readings.pop(wanted, None))
        return await asyncio.shield(reading)

    async def check_retained(self) -> None:
        """Ask the leader which of the task's records is its first now, after a purge or expiry.

        Raises:
            Away: no answer.
        """
        incarnation = self._incarnation
        while True:
            end = self._sink.end
            first = await self._stream.next(self.subject, 1)
            if incarnation != self._incarnation:
                return
            if first is not None or end == self._sink.end:
                break  # else a record came while the answer "none" was on its way
        self._sink.retain(first.sequence if first else None)

    def _on_live(self, stored: Stored) -> None:
        if self._catching or self._contradicted_at:
            self._held.append(stored)
        elif stored.previous == self._sink.end < stored.sequence:
            self._sink.append(stored)
        elif stored.sequence > self._sink.end:
            self._held.append(stored)
            self._begin("hole")
        elif not (known := self._sink.is_known(stored)):
            self._contradicted_at = stored.sequence if known is False else 0
            self._on_doubt("sequence-known-otherwise")

    def _begin(self, cause: Cause) -> None:
        self._catching = True
        self._task = asyncio.get_running_loop().create_task(self._catch_up(cause))
        self._task.add_done_callback(self._look_for_failure)

    def _look_for_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("repair_failed", task=self.key.task, exc_info=error)
            self._on_failure()

    async def _catch_up(self, cause: Cause) -> None:
        self._on_repair(cause)
        pause_s = 0.05
        while True:
            try:
                await self._complete()
                break
            except Away as away:
                logger.info("repair_waits", task=self.key.task, error=str(away))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)
        self._catching = False
        self._sink.loaded()

    async def _complete(self) -> None:
        """Append until nothing is missing: up to the leader's last record at first, to the target later.

        Raises:
            Away: NATS can't answer.
        """
        while True:
            incarnation = self._incarnation
            if self._complete_in != incarnation:
                newest = await self._stream.last(self.subject)
                if incarnation != self._incarnation:
                    continue
                self._target = max(self._target, newest.sequence if newest else 0)
                self._complete_in = incarnation
            if await self._step() and incarnation == self._incarnation:
                if self._judged_in == incarnation:
                    return
                await self._judge()  # what came meanwhile is settled by one more step

    async def _judge(self) -> None:
        """Find out whether what was read begins with the task's true first record.

        Asked after reading: a purge before is known by then, and one after it the positioner notices.

        Raises:
            Away: no answer.
        """
        incarnation = self._incarnation
        if not self._sink.complete:
            info = await self._stream.info()
            if incarnation != self._incarnation:
                return
            if info.first <= 1 and not info.deleted:
                self._sink.assume_whole_stream()
        self._judged_in = incarnation

    async def _step(self) -> bool:
        """Append what can be appended; give whether nothing is missing any more.

        Raises:
            Away: NATS can't answer.
        """
        for short in range(SHORT_ANSWERS_MAX):
            self._settle()
            if not self._held and self._sink.end >= self._target:
                return True
            if short:
                await asyncio.sleep(0.02 * short)  # the replica that answered is behind: give it a moment
            # From the end itself on: while the log's newest record is still stored, nothing after it was
            # purged or has expired, for both take the oldest first.
            end, incarnation = self._sink.end, self._incarnation
            page = await self._stream.read(self.subject, end)
            if incarnation != self._incarnation or await self._take(page.records, end):
                return False
        return await self._ask_leader()

    def _settle(self) -> None:
        while self._held:
            stored = self._held[0]
            if stored.sequence > self._sink.end:
                if stored.previous != self._sink.end:
                    return
                self._sink.append(stored)
            self._held.popleft()

    async def _take(self, records: Sequence[Stored], end: int) -> bool:
        progressed = False
        for stored in records:
            if stored.sequence <= end:
                continue
            if not progressed and end and records[0].sequence != end:
                await self._end_is_gone(stored.sequence)
            wanted = self._held[0].previous if self._held else 0
            if self._sink.end < wanted < stored.sequence:
                self._sink.lose()
            if stored.sequence > self._sink.end:
                self._sink.append(stored)
            progressed = True
        return progressed

    async def _end_is_gone(self, next_sequence: int) -> None:
        """Decide whether anything can have been lost between the log's end and the next stored record."""
        first = await self._stream.next(self.subject, 1)
        info = await self._stream.info()
        known_to = max(self._sink.end, self.position)
        if first is None or first.sequence > self._sink.end:
            # All that the log and the fold hold has been purged or has expired; a task of this name may have
            # begun anew.
            self._sink.retain(None)
        if next_sequence == known_to + 1 or (info.first <= known_to + 1 and not info.deleted):
            return
        self._on_doubt("end-is-gone")
        self._sink.lose()

    async def _ask_leader(self) -> bool:
        """Take the leader's word where replicas gave short answers; give whether nothing is missing.

        Raises:
            Away: no answer.
        """
        end, incarnation, target = self._sink.end, self._incarnation, self._target
        records: list[Stored] = []
        newest = await self._stream.next(self.subject, end) if end else None
        if newest is not None:
            records.append(newest)
        if newest is None or newest.sequence == end:
            following = await self._stream.next(self.subject, end + 1)
            if following is not None:
                records.append(following)
        end_is_gone = end and records and records[0].sequence > end
        first = await self._stream.next(self.subject, 1) if end_is_gone else None
        if incarnation != self._incarnation:
            return False
        stored_next = records[-1].sequence if records and records[-1].sequence > end else None
        if self._held and stored_next == self._held[0].sequence:
            # What should stand before the held message is not stored any more.
            self._sink.lose()
            if first is not None and first.sequence > end:
                self._sink.retain(None)  # nor is anything that was read: the task begins anew
            self._sink.append(self._held.popleft())
            return False
        if self._held and (stored_next is None or stored_next > self._held[0].sequence):
            # The held message is in no stream: purged, of a stream that is gone, or never stored at all.
            self._held.popleft()
            self._on_doubt("live-and-not-stored")
            return False
        if await self._take(records, end):
            return False
        if self._target == target:
            # Nothing is stored above the end: what the target named was missed, and has been purged.
            self._sink.lose()
            self._target = 0
        return not self._held and self._sink.end >= self._target
