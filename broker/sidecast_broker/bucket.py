"""A JetStream key-value bucket: an entry is replaced only by who knows it, and read at the leader.

Must not know what is kept in it. Laid out as NATS clients lay out theirs, so that their tools read it (ADR-8
of NATS); its age is a bound, beyond which entries are forgotten, and its size one.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import structlog

from sidecast_broker.answers import (
    NO_MESSAGE,
    STREAM_NOT_FOUND,
    Away,
    Headers,
    InfoAnswer,
    PublishConflict,
    PublishRefused,
    StoredMessage,
    decode_info,
    decode_message,
    parse_time,
)
from sidecast_broker.jetstream import JetStream
from sidecast_broker.settings import Nats
from sidecast_broker.stream_config import differences
from sidecast_schemas import headers as names

logger = structlog.get_logger(__name__)

BYTES_MAX = 128 * 1024 * 1024
DUPLICATE_WINDOW_S = 120.0
READS_MAX = 64
"""Entries asked for at once when many are read."""
_OPERATION = "KV-Operation"
_DELETED = "DEL"


class Entry(NamedTuple):
    """What a key holds.

    Attributes:
        revision: what a write must name to replace it.
        value: as it was written; None where it was deleted.
        at_s: when, in seconds since the epoch, by the server's clock.
    """

    revision: int
    value: bytes | None
    at_s: float


class Found(NamedTuple):
    """An entry, and the key that holds it."""

    key: str
    entry: Entry


class Standing(NamedTuple):
    """Where a bucket stands.

    Attributes:
        created: when it was made, as the server writes it.
        last: the newest revision ever given.
    """

    created: str
    last: int


class Bucket:
    """One bucket; made when it is first used, where it is missing and `nats.manage_stream` is on.

    Args:
        stream: the connection to JetStream.
        name: of the bucket, `[A-Za-z0-9_-]+`.
        settings: replicas, and whether the bucket is made.
        age_s: after which an entry is forgotten.
        forgets: whether it forgets the oldest entries when it is full, or takes no more.
    """

    def __init__(
        self, stream: JetStream, name: str, settings: Nats, age_s: int, *, forgets: bool = True
    ) -> None:
        self._stream = stream
        self._name = name
        self._forgets = forgets
        self._settings = settings
        self._age_s = age_s
        self._seen = False

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    async def get(self, key: str) -> Entry | None:
        """Ask the leader what a key holds; None: nothing, perhaps not any more.

        Args:
            key: one or more subject tokens.

        Raises:
            Away: no answer, or no bucket.
        """
        found = await self._message({"last_by_subj": f"$KV.{self._name}.{key}"})
        return None if found is None else _entry(found)

    async def above(self, revision: int) -> list[Found]:
        """Ask the leader for all entries above a revision, oldest first.

        Raises:
            Away: no answer to all questions, or no bucket.
        """
        prefix = f"$KV.{self._name}."
        found: dict[int, StoredMessage] = {}
        start, count = revision + 1, 1
        while True:
            # Each is answered with the first entry at or above its revision; mostly they lie close together.
            asked = (
                self._message({"seq": start + ahead, "next_by_subj": f"{prefix}>"}) for ahead in range(count)
            )
            answers = await asyncio.gather(*asked)
            found.update((answer.seq, answer) for answer in answers if answer is not None)
            if answers[-1] is None:
                break
            start, count = answers[-1].seq + 1, READS_MAX
        return [Found(found[seq].subject.removeprefix(prefix), _entry(found[seq])) for seq in sorted(found)]

    async def _message(self, asked: dict[str, Any]) -> StoredMessage | None:
        answer = decode_message(await self._stream.api(f"STREAM.MSG.GET.KV_{self._name}", asked))
        if answer.message is None and (answer.error is None or answer.error.err_code != NO_MESSAGE):
            raise Away(answer.error.description if answer.error else "empty answer")
        return answer.message

    async def put(self, key: str, value: bytes | None, after: int) -> int:
        """Write a value behind a revision.

        Args:
            key: one or more subject tokens.
            value: None deletes.
            after: the revision it replaces; 0 where the key must hold nothing.

        Returns:
            The new revision.

        Raises:
            PublishConflict: the key holds another revision.
            Away: it may be written or not; or there is no bucket, or no room in it.
        """
        if not self._seen:
            await self._open()
        headers = {names.EXPECTED_LAST_SUBJECT_SEQUENCE: str(after)}
        if value is None:
            headers[_OPERATION] = _DELETED
        try:
            return (await self._stream.publish(f"$KV.{self._name}.{key}", value or b"", headers)).seq
        except PublishConflict:
            raise
        except PublishRefused as refused:
            raise Away(str(refused)) from refused
        except Away:
            self._seen = False  # it may be gone
            raise

    async def now_s(self) -> float:
        """Give the time by the server's clock, seconds since the epoch.

        Raises:
            Away: no answer, or no bucket.
        """
        return parse_time((await self._info()).ts)

    async def standing(self) -> Standing:
        """Ask the leader where the bucket stands, and make it where it is missing.

        Raises:
            Away: no answer, or it can't be made.
        """
        try:
            answer = await self._info() if self._seen else await self._open()
        except Away:
            self._seen = False  # it may be gone
            raise
        return Standing(answer.created, answer.state.last_seq)

    async def _info(self) -> InfoAnswer:
        answer = decode_info(await self._stream.api(f"STREAM.INFO.KV_{self._name}"))
        if answer.error is not None:
            raise Away(answer.error.description)
        return answer

    async def _open(self) -> InfoAnswer:
        path, wanted = f"STREAM.INFO.KV_{self._name}", self._config()
        answer = decode_info(await self._stream.api(path))
        if answer.error is not None and answer.error.err_code == STREAM_NOT_FOUND:
            if not self._settings.manage_stream:
                raise Away(f"bucket {self._name} does not exist and nats.manage_stream is off")
            answer = decode_info(await self._stream.api(f"STREAM.CREATE.KV_{self._name}", wanted))
            if answer.error is None:
                logger.info("bucket_created", bucket=self._name, replicas=self._settings.replicas)
        if answer.error is not None:
            raise Away(f"bucket {self._name}: {answer.error.description}")
        if different := differences(answer.config, wanted):
            logger.warning("bucket_differs", bucket=self._name, differences=different)
        self._seen = True
        return answer

    def _config(self) -> dict[str, Any]:
        return {
            "name": f"KV_{self._name}",
            "subjects": [f"$KV.{self._name}.>"],
            "max_msgs_per_subject": 1,
            "storage": "file",
            # `new` is usual for buckets: full, it takes nothing more.
            "discard": "old" if self._forgets else "new",
            "max_age": int(self._age_s * 1e9),
            "max_bytes": BYTES_MAX,
            "duplicate_window": int(min(DUPLICATE_WINDOW_S, self._age_s) * 1e9),
            "num_replicas": self._settings.replicas,
            "deny_delete": True,
            "allow_rollup_hdrs": True,
        }


def _entry(message: StoredMessage) -> Entry:
    value = None if _OPERATION in Headers(message.hdrs) else message.data
    return Entry(message.seq, value, parse_time(message.time))
