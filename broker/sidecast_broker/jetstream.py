"""The JetStream stream behind the broker's connection: what its leader says, and reads of stored records.

Must not know tasks' logs or subscribers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import nats.errors
import structlog

from sidecast_broker.answers import (
    NO_MESSAGE,
    STREAM_NOT_FOUND,
    Away,
    Headers,
    InfoAnswer,
    Page,
    PublishAnswer,
    PublishConflict,
    PublishRefused,
    StreamInfo,
    TooManyResults,
    Unusable,
    decode_ack,
    decode_info,
    decode_message,
    decode_subjects,
    parse_time,
)
from sidecast_broker.core.cursor import epoch_of_creation, is_epoch
from sidecast_broker.core.log import Stored
from sidecast_broker.nats_connection import NatsConnection
from sidecast_broker.settings import Nats
from sidecast_broker.stream_config import desired_config, differences, unusable_because
from sidecast_schemas import headers as names

logger = structlog.get_logger(__name__)

SUBJECTS_PER_REQUEST = 256
PAGE_BYTES_MAX = 4 * 1024 * 1024
REPLICA_S = 0.05
"""A replica that is behind gets, or another is picked after, so long."""

_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""The second where the publish that was first is still on its way to the replicas."""


class JetStream(NatsConnection):
    """One connection to NATS that comes back by itself, and the stream behind it.

    Args:
        settings: where NATS is, and how the stream is made where the broker makes it.
        on_doubt: called when messages may have been lost: reconnected, slow consumer, leader elected.
    """

    def __init__(self, settings: Nats, on_doubt: Callable[[str], None]) -> None:
        super().__init__(settings, on_doubt)
        self._history_slots = asyncio.Semaphore(settings.history_reads_max)
        self._examined: object = None

    # ------------------------------------------------------------------ the leader's word

    async def info(self) -> StreamInfo:
        """Ask the stream's leader for the stream's state; creates the stream where that is our part.

        Raises:
            Away: no answer; Unusable: the stream can't be worked with.
        """
        answer = await self._info_answer()
        if answer.error is not None and answer.error.err_code == STREAM_NOT_FOUND:
            if not self._settings.manage_stream:
                raise Away(f"stream {self._settings.stream} does not exist and nats.manage_stream is off")
            await self._create()
            answer = await self._info_answer()
        if answer.error is not None:
            raise Away(answer.error.description)
        self._examine(answer)
        state = answer.state
        epoch = (answer.config.get("metadata") or {}).get("sidecast-epoch", "")
        if not is_epoch(epoch):
            epoch = epoch_of_creation(int(parse_time(answer.created) * 1000))
        return StreamInfo(epoch, answer.created, state.first_seq, state.last_seq, state.num_deleted)

    async def _info_answer(self) -> InfoAnswer:
        return decode_info(await self.api(f"STREAM.INFO.{self._settings.stream}"))

    async def _create(self) -> None:
        config = desired_config(self._settings)
        config["metadata"] = {"sidecast-epoch": epoch_of_creation(int(time.time() * 1000))}
        answer = decode_info(await self.api(f"STREAM.CREATE.{self._settings.stream}", config))
        if answer.error is not None:
            raise Away(f"can't create stream {self._settings.stream}: {answer.error.description}")
        logger.info("stream_created", stream=self._settings.stream, replicas=self._settings.replicas)

    def _examine(self, answer: InfoAnswer) -> None:
        reasons = unusable_because(answer.config)
        different = differences(answer.config, desired_config(self._settings))
        report = (tuple(reasons), tuple(different.items()))
        if report != self._examined and (reasons or different):
            log = logger.error if reasons else logger.warning
            log("stream_differs", stream=self._settings.stream, unusable=reasons, differences=different)
        self._examined = report
        if reasons:
            raise Unusable(f"stream {self._settings.stream} can't be used: {'; '.join(reasons)}")

    async def renew_epoch(self, old: str) -> None:
        """Write a new epoch into the stream's metadata: its sequences went backwards under the old one.

        Another broker may have done so already: then nothing is written.

        Raises:
            Away: no answer, or the update was refused.
        """
        answer = await self._info_answer()
        if answer.error is not None:
            raise Away(answer.error.description)
        epoch = epoch_of_creation(int(time.time() * 1000))
        config = answer.config
        metadata = config.get("metadata") or {}
        if is_epoch(written := metadata.get("sidecast-epoch", "")) and written != old:
            return
        config["metadata"] = {**metadata, "sidecast-epoch": epoch}
        updated = decode_info(await self.api(f"STREAM.UPDATE.{self._settings.stream}", config))
        if updated.error is not None:
            raise Away(f"can't write a new epoch: {updated.error.description}")
        logger.warning("epoch_renewed", epoch=epoch)

    async def last(self, subject: str) -> Stored | None:
        """Ask the leader for the newest message on a subject; None: there is none.

        Raises:
            Away: no answer.
        """
        return await self._message({"last_by_subj": subject})

    async def next(self, subject: str, sequence: int) -> Stored | None:
        """Ask the leader for the first message on a subject at or above a sequence; None: there is none.

        Raises:
            Away: no answer.
        """
        return await self._message({"seq": max(sequence, 1), "next_by_subj": subject})

    async def at(self, sequence: int) -> Stored | None:
        """Ask the leader for the message at a sequence, on whichever subject; None: there is none.

        Raises:
            Away: no answer.
        """
        return await self._message({"seq": sequence}) if sequence > 0 else None

    async def _message(self, request: dict[str, Any]) -> Stored | None:
        answer = decode_message(await self.api(f"STREAM.MSG.GET.{self._settings.stream}", request))
        if answer.message is None:
            if answer.error is not None and answer.error.err_code == NO_MESSAGE:
                return None
            raise Away(answer.error.description if answer.error else "empty answer")
        message = answer.message
        return Stored(
            message.seq,
            0,
            message.time,
            {**Headers(message.hdrs), names.SUBJECT: message.subject},
            message.data,
        )

    # ------------------------------------------------------------------ reads from any replica

    async def read(self, subject: str, start: int, count_max: int | None = None) -> Page:
        """Read stored messages of a subject in a row from any replica, which may be behind the leader.

        Args:
            subject: the events subject of one task.
            start: messages at or above this sequence.
            count_max: at most so many; default `nats.page_events`.

        Raises:
            Away: no complete answer.
        """
        async with self._history_slots:
            records, end = await self._direct(
                {
                    "seq": max(start, 1),
                    "next_by_subj": subject,
                    "batch": count_max or self._settings.page_events,
                    "max_bytes": PAGE_BYTES_MAX,
                }
            )
        previous = 0
        for stored in records:
            if stored.previous != previous:
                raise Away("a read lost messages on the way")
            previous = stored.sequence
        if records and int(end.get(names.LAST_SEQUENCE, 0)) != previous:
            raise Away("a read lost its last messages on the way")
        return Page(records, int(end.get(names.NUM_PENDING, 0)))

    async def newest(self, subjects: Iterable[str], above: int, last: int) -> dict[str, int]:
        """Give the newest sequence of each subject that has one above `above`.

        Args:
            subjects: events subjects.
            above: what was known before.
            last: the leader's last sequence; an answer of a replica that is behind it doesn't count.

        Raises:
            Away: no complete answer, or only stale ones.
        """
        wanted = list(subjects)
        found: dict[str, int] = {}
        for start in range(0, len(wanted), SUBJECTS_PER_REQUEST):
            batch = wanted[start : start + SUBJECTS_PER_REQUEST]
            request = {"multi_last": batch, "seq": above + 1, "batch": len(batch)}
            for _attempt in range(5):
                records, end = await self._direct(request)
                if end.get(names.STATUS) == "404":
                    # It knows none of the subjects, and doesn't say how far it is: the leader is asked.
                    records = [each for subject in batch if (each := await self.last(subject)) is not None]
                    break
                if int(end.get(names.UP_TO_SEQUENCE, 0)) >= last:
                    break
                await asyncio.sleep(REPLICA_S)
            else:
                raise Away("every answering replica is behind the leader")
            found.update((stored.headers[names.SUBJECT], stored.sequence) for stored in records)
        return found

    async def last_of(self, subjects: Sequence[str], above: int) -> list[Stored]:
        """Give the newest message of each subject that has one above `above`, from any replica, oldest first.

        Args:
            subjects: events subjects, with wildcards or without.
            above: what was known before.

        Raises:
            Away: no complete answer.
            TooManyResults: more subjects match than one answer holds, whatever `above` is.
        """
        found: list[Stored] = []
        while True:
            # Without `batch` the server would answer with one message only.
            request = {"multi_last": list(subjects), "batch": 1024, "max_bytes": PAGE_BYTES_MAX}
            records, end = await self._direct(request | {"seq": above + 1})
            found += records
            if not records or int(end.get(names.NUM_PENDING, 0)) == 0:
                return found
            above = records[-1].sequence

    async def subjects(self, pattern: str) -> list[str]:
        """Ask the leader which subjects hold messages, at most the 100,000 of one answer.

        Raises:
            Away: no answer.
        """
        answer = decode_subjects(
            await self.api(f"STREAM.INFO.{self._settings.stream}", {"subjects_filter": pattern})
        )
        if answer.error is not None:
            raise Away(answer.error.description)
        return list(answer.state.subjects)

    async def _direct(self, request: dict[str, Any]) -> tuple[list[Stored], dict[str, str]]:
        subject = f"$JS.API.DIRECT.GET.{self._settings.stream}"
        records, end = await self._inbox.direct_get(subject, msgspec.json.encode(request), self.client)
        if end.get(names.STATUS) == "413":
            raise TooManyResults("direct get: too many results")
        if end.get(names.STATUS) not in ("204", "404"):
            raise Away(f"direct get: {end.get(names.STATUS)} {end.get('Description', '')}")
        return records, end

    # ------------------------------------------------------------------ publishing

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> PublishAnswer:
        """Publish one message and wait until it is stored; give where, and whether it was there before.

        Raises:
            Away: no acknowledgement; it may be stored or not.
            PublishConflict: the last sequence is another than `Nats-Expected-Last-Subject-Sequence` says.
            PublishRefused: the server says why it won't store it.
        """
        client = self.client()
        try:
            answer = await client.request(
                subject, payload, timeout=self._settings.request_s, headers=headers or None
            )
        except nats.errors.MaxPayloadError as error:
            raise PublishRefused(f"an event may have at most {client.max_payload} bytes") from error
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"publish: {str(error) or type(error).__name__}") from error
        ack = decode_ack(answer.data)
        if ack.error is not None:
            if ack.error.code >= 500:
                raise Away(ack.error.description)
            if ack.error.err_code in _WRONG_LAST_SEQUENCE:
                raise PublishConflict(ack.error.description)
            raise PublishRefused(ack.error.description)
        return ack
