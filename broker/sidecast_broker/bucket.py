"""A JetStream key-value bucket: an entry is replaced only by who knows it, and read at the leader.

Must not know what is kept in it. Laid out as NATS clients lay out theirs, so that their tools read it (ADR-8
of NATS); its age and size are bounds, beyond which the oldest entries are forgotten.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import structlog

from sidecast_broker.answers import (
    NO_MESSAGE,
    STREAM_NOT_FOUND,
    Away,
    Headers,
    PublishConflict,
    PublishRefused,
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


class Bucket:
    """One bucket; made when it is first used, where it is missing and `nats.manage_stream` is on.

    Args:
        stream: the connection to JetStream.
        name: of the bucket, `[A-Za-z0-9_-]+`.
        settings: replicas, and whether the bucket is made.
        age_s: after which an entry is forgotten.
    """

    def __init__(self, stream: JetStream, name: str, settings: Nats, age_s: int) -> None:
        self._stream = stream
        self._name = name
        self._settings = settings
        self._age_s = age_s
        self._seen = False

    async def get(self, key: str) -> Entry | None:
        """Ask the leader what a key holds; None: nothing, perhaps not any more.

        Args:
            key: one or more subject tokens.

        Raises:
            Away: no answer, or no bucket.
        """
        asked = {"last_by_subj": f"$KV.{self._name}.{key}"}
        answer = decode_message(await self._stream.api(f"STREAM.MSG.GET.KV_{self._name}", asked))
        found = answer.message
        if found is None:
            if answer.error is not None and answer.error.err_code == NO_MESSAGE:
                return None
            raise Away(answer.error.description if answer.error else "empty answer")
        value = None if _OPERATION in Headers(found.hdrs) else found.data
        return Entry(found.seq, value, parse_time(found.time))

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
        answer = decode_info(await self._stream.api(f"STREAM.INFO.KV_{self._name}"))
        if answer.error is not None:
            raise Away(answer.error.description)
        return parse_time(answer.ts)

    async def _open(self) -> None:
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

    def _config(self) -> dict[str, Any]:
        return {
            "name": f"KV_{self._name}",
            "subjects": [f"$KV.{self._name}.>"],
            "max_msgs_per_subject": 1,
            "storage": "file",
            # A full bucket forgets what is oldest; the usual `new` would refuse what is asked of it.
            "discard": "old",
            "max_age": int(self._age_s * 1e9),
            "max_bytes": BYTES_MAX,
            "duplicate_window": int(min(DUPLICATE_WINDOW_S, self._age_s) * 1e9),
            "num_replicas": self._settings.replicas,
            "deny_delete": True,
            "allow_rollup_hdrs": True,
        }
