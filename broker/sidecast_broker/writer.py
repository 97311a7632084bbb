"""Writes records to one task's log, one at a time, each behind the last one that this broker has read.

Must not know what the records mean. The order rule is ADR 3: at most one publish is unacknowledged, it
carries the expected last sequence of its subject, and after one of unknown outcome the stream's leader says
what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sidecast_broker.answers import Away, PublishConflict
from sidecast_broker.core.log import Record
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_schemas import headers as names
from sidecast_schemas.codec import decode_event
from sidecast_schemas.subjects import TaskKey, encode_token, events_subject

logger = structlog.get_logger(__name__)

LIVE_S = 0.25
"""What was stored comes back republished within so long, or it is read from the stream."""
PAUSE_S = 0.05
PAUSE_S_MAX = 2.0


class Writer:
    """Writes the log of one task, and reads it through the task's hub.

    Args:
        key: the task.
        stream: the connection to JetStream.
        hubs: where the hub comes from; it is in use from `open` to `close`.
        producer: names this broker in `Sidecast-Producer`.
        next_ordinal: gives the next number for a `Nats-Msg-Id`.

    Attributes:
        subject: where the task's records are stored.
        owner: the principal that the log's first record names, where it is known.
        epoch: of the stream as it was when the log was last read from its end.

    Raises:
        InvalidId: one of the ids can't be part of a subject.
    """

    def __init__(
        self, key: TaskKey, stream: JetStream, hubs: Hubs, producer: str, next_ordinal: Callable[[], int]
    ) -> None:
        self.key = key
        self.subject = events_subject(key)
        self.owner: str | None = None
        self.epoch = ""
        self._stream = stream
        self._hubs = hubs
        self._producer = producer
        self._next_ordinal = next_ordinal
        self._hub: Hub | None = None
        self._moved = asyncio.Event()
        self._tell: Callable[[], None] = lambda: None
        self._position = 0
        self._end = 0
        self._seen = 0
        self._own: set[int] = set()

    @property
    def hub(self) -> Hub:
        """The task's hub, once opened; it has read all up to the last record this broker wrote."""
        assert self._hub is not None
        return self._hub

    @property
    def opened(self) -> bool:
        """Whether the hub is there, and not one that a fault has stopped."""
        return self._hub is not None and not self._hub.failed

    @property
    def watchers(self) -> int:
        """How many others use the task's hub."""
        return self._hubs.watchers(self.key) - self.opened

    def on_records(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever the hub has taken in records."""
        self._tell = tell

    async def open(self) -> None:
        """Read the log up to what the stream's leader has.

        Raises:
            Away: NATS can't answer.
        """
        newest = await self._stream.last(self.subject)
        position = newest.sequence if newest is not None else 0
        await self._reach(position)
        self._settle(max(position, self.hub.end) if position else 0)
        self.epoch = self.hub.epoch

    def close(self) -> None:
        """Let go of the hub."""
        hub, self._hub = self._hub, None
        if hub is not None:
            hub.stop_listening(self._notice)
            self._hubs.release(hub)

    def others(self) -> list[Record]:
        """Give the records that others have written since this was last asked."""
        log = self.hub.log
        self._seen = max(self._seen, log.floor) if self._seen <= log.end else log.floor
        found = [record for record in log.after(self._seen) if record.sequence not in self._own]
        self._seen = log.end
        self._own = {sequence for sequence in self._own if sequence > self._seen}
        return found

    async def put(self, payload: bytes) -> bool:
        """Store a record behind the last one; waits as long as NATS is away.

        Returns:
            False where somebody else's record stands there: nothing was stored, and the log is read up to
            what the leader has.

        Raises:
            PublishRefused: the server says why it won't store it.
        """
        if self.hub.end != self._end:
            self._settle(self.hub.end)
        expected = self._position
        headers = self._headers(payload, expected)
        pause_s, unsure = PAUSE_S, False
        while True:
            try:
                sequence = await self._store(payload, headers, expected, unsure=unsure)
                break
            except Away as away:
                if not unsure:
                    logger.info("capture_waits", task=self.key.task, error=str(away))
                unsure = True
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
        if sequence is not None:
            self._own.add(sequence)
        await self._reach_patiently(sequence)
        return sequence is not None

    def _headers(self, payload: bytes, expected: int) -> dict[str, str]:
        headers = {
            names.MSG_ID: f"{self._producer}-{self._next_ordinal()}",
            names.PRODUCER: self._producer,
            names.EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected),
        }
        # In each record, not only in the first: that one expires before the others do.
        if owner := (self.hub.owner if self.hub.first is not None else self.owner):
            headers[names.OWNER] = encode_token(owner)
        if state := decode_event(payload).state or self.hub.fold.state:
            headers[names.STATE] = state
        return headers

    async def _store(
        self, payload: bytes, headers: dict[str, str], expected: int, *, unsure: bool
    ) -> int | None:
        """Store it, or find out where it stands; None: another record stands where it belongs.

        Raises:
            Away: it may be stored or not.
            PublishRefused: it won't be stored.
        """
        if unsure and (stands := await self._standing(headers[names.MSG_ID], expected)) != 0:
            return stands
        try:
            return (await self._stream.publish(self.subject, payload, headers)).seq
        except PublishConflict:
            return await self._standing(headers[names.MSG_ID], expected) or None

    async def _standing(self, message_id: str, expected: int) -> int | None:
        """Ask the leader what stands next: this record's sequence, None for another record, 0 for nothing."""
        found = await self._stream.next(self.subject, expected + 1)
        if found is None:
            return 0
        return found.sequence if found.headers.get(names.MSG_ID) == message_id else None

    async def _reach_patiently(self, sequence: int | None) -> None:
        pause_s = PAUSE_S
        while True:
            try:
                if sequence is None:
                    await self.open()
                else:
                    await self._reach(sequence)
                    self._settle(max(sequence, self.hub.end))
                return
            except Away:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)

    def _settle(self, position: int) -> None:
        # After a purge the subject's last sequence lies below what the hub has read.
        self._position, self._end = position, self.hub.end

    async def _reach(self, sequence: int) -> None:
        """Wait until the hub has read up to a sequence that the leader has named.

        Raises:
            Away: what is stored can't be read.
        """
        if not self.opened:
            self.close()
            self._hub = await self._hubs.acquire(self.key, sequence)
            self._hub.listen(self._notice)
            self._seen = self._hub.end
        hub = self.hub
        try:
            async with asyncio.timeout(LIVE_S):
                while hub.end < sequence and not hub.failed:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self._hubs.release(await self._hubs.acquire(self.key, sequence))

    def _notice(self) -> None:
        self._moved.set()
        self._tell()
