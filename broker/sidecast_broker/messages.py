"""What each message has begun, for all brokers of an agent: one entry in a JetStream bucket for each (ADR 6).

Must not know how messages are sent, nor who waits for what comes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from hashlib import blake2b
from typing import NamedTuple

import msgspec
import structlog
from msgspec import Raw, Struct

from sidecast_broker.answers import Away, PublishConflict
from sidecast_broker.bucket import Bucket
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_schemas.subjects import agent_tokens

logger = structlog.get_logger(__name__)

MESSAGE_BYTES_MAX = 64 * 1024
"""An answer that is a message alone is kept up to this size: buckets are for small values."""
WRITE_S_MAX = 2.0
"""How long the client waits for what its message has begun to be written: it gives up after 5 s."""
PAUSE_S = 0.05
PAUSE_S_MAX = 1.0
REFRESHES = 4
"""A claim is written again so often within the time after which it counts as abandoned."""

_encode = msgspec.json.encode


class Begun(NamedTuple):
    """What came first of a turn.

    Attributes:
        task: the task it works on; None for an answer that is a message alone.
        message: that message, a StreamResponse.
    """

    task: str | None
    message: bytes


class _Kept(Struct, omit_defaults=True):
    """The value of an entry: who sends the message, and what came of it as soon as that is known."""

    claim: str = ""
    task: str | None = None
    message: Raw = Raw()
    too_large: bool = False

    def begun(self) -> Begun | None:
        """Give what came of the message; None: that isn't known.

        Raises:
            A2AError: it was answered, and the answer is not kept.
        """
        if self.task:
            return Begun(self.task, b"")
        if bytes(self.message).startswith(b"{"):
            return Begun(None, bytes(self.message))
        if self.too_large:
            raise A2AError(
                ErrorKind.UNSUPPORTED_OPERATION, "This message was answered, and the answer is not kept"
            )
        return None


_decode = msgspec.json.Decoder(_Kept).decode


def _read(value: bytes) -> _Kept:
    """Read a value; one that can't be read is a claim of nobody, which lasts as long as any."""
    try:
        return _decode(value)
    except msgspec.DecodeError:
        return _Kept()


class Claim:
    """The right of this broker to send a message; held until it is known what comes of it.

    Args:
        bucket: where it stands.
        key: its entry.
        name: tells it from all other claims.
        revision: of its entry.
        refresh_s: how often it is written again.
    """

    def __init__(self, bucket: Bucket, key: str, name: str, revision: int, refresh_s: float) -> None:
        self._bucket = bucket
        self._key = key
        self._name = name
        self._revision = revision
        self._refresh_s = refresh_s
        self._value: bytes | None = _encode(_Kept(name))
        self._settled = asyncio.Event()
        self._written = asyncio.Event()
        self._dropped = False

    async def settle(self, begun: Begun) -> None:
        """Write down what the message has begun: from here on, whoever sends it again is led there.

        Where NATS is away it is written later.
        """
        kept = _Kept(self._name, begun.task)
        if begun.task is None:
            kept.too_large = len(begun.message) > MESSAGE_BYTES_MAX
            if not kept.too_large:
                kept.message = Raw(begun.message)
        await self._settle(_encode(kept))

    async def release(self) -> None:
        """Let anybody send the message: nothing came of it."""
        await self._settle(None)

    def drop(self) -> None:
        """Write it no more where it isn't settled: what comes of the message will not be known here."""
        if not self._settled.is_set():
            self._dropped = True
            self._settled.set()

    async def _settle(self, value: bytes | None) -> None:
        self._value = value
        self._settled.set()
        try:
            async with asyncio.timeout(WRITE_S_MAX):
                await self._written.wait()
        except TimeoutError:
            logger.warning("message_not_recorded", key=self._key)

    async def keep(self) -> None:
        """Write the claim again and again, then what it was settled with."""
        while not self._dropped:
            settled = self._settled.is_set()
            if not settled:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._refresh_s):
                        await self._settled.wait()
                        continue
            try:
                await self._write(self._value)
            except Away:
                await asyncio.sleep(PAUSE_S)
                continue
            if settled:
                self._written.set()
                return

    async def _write(self, value: bytes | None) -> None:
        """Write a value in the place of this claim, unless another claim stands there.

        Raises:
            Away: it may be written or not.
        """
        while True:
            try:
                self._revision = await self._bucket.put(self._key, value, self._revision)
                return
            except PublishConflict:
                found = await self._bucket.get(self._key)
                # Of an earlier write whose acknowledgement was lost, or forgotten, which is as good.
                if found is not None and (found.value is None or _read(found.value).claim != self._name):
                    if value is not None or found.value is not None:
                        logger.warning("message_claim_lost", key=self._key)
                    return
                self._revision = found.revision if found is not None else 0


class Messages:
    """Knows what messages have begun.

    Args:
        bucket: where all brokers of the agent keep it.
        agent: the agent's name.
        abandoned_s: age after which the claim of another broker counts as abandoned.
        patience_s: how long NATS may be away until a message is refused.
    """

    def __init__(self, bucket: Bucket, agent: str, *, abandoned_s: float, patience_s: float) -> None:
        self._bucket = bucket
        self._agent = agent
        self._abandoned_s = abandoned_s
        self._patience_s = patience_s
        self._broker = secrets.token_hex(16)
        self._claims = 0
        self._keeping: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Write nothing more."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def claim(self, tenant: str, principal: str, message_id: str) -> Claim | Begun:
        """Claim a message that names no task, or find out what it has begun.

        Waits while another broker holds a claim that isn't abandoned. One message must not be claimed twice
        at once by one broker.

        Args:
            tenant: of the request.
            principal: who sends it, empty for anybody.
            message_id: the message's.

        Raises:
            Away: NATS can't answer: whether it was sent before is not known.
            A2AError: it was answered, and the answer is not kept.
            InvalidId: an id can't be part of a subject.
        """
        key = f"{agent_tokens(tenant, self._agent)}.{_hash(principal, message_id)}"
        clock = asyncio.get_running_loop().time
        pause_s, away_at = PAUSE_S, clock() + self._patience_s
        while True:
            try:
                found = await self._try(key)
                away_at = clock() + self._patience_s
            except Away:
                if clock() >= away_at:
                    raise
                found = None
            if found is not None:
                return found
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _try(self, key: str) -> Claim | Begun | None:
        """Claim a message, or give what it has begun; None: another broker is about to know."""
        self._claims += 1
        name = f"{self._broker}-{self._claims}"
        value = _encode(_Kept(name))
        try:
            return self._claimed(key, name, await self._bucket.put(key, value, 0))
        except PublishConflict:
            pass
        found = await self._bucket.get(key)
        if found is None:
            return None  # it has just expired
        if found.value is not None:
            kept = _read(found.value)
            if (begun := kept.begun()) is not None:
                logger.info("message_known", task=begun.task)
                return begun
            # A claim of this broker itself is one whose acknowledgement it never saw.
            if kept.claim.partition("-")[0] != self._broker:
                age_s = await self._bucket.now_s() - found.at_s
                if age_s < self._abandoned_s:
                    return None
                logger.warning("message_taken_over", key=key, age_s=round(age_s, 1))
        try:
            return self._claimed(key, name, await self._bucket.put(key, value, found.revision))
        except PublishConflict:
            return None

    def _claimed(self, key: str, name: str, revision: int) -> Claim:
        claim = Claim(self._bucket, key, name, revision, self._abandoned_s / REFRESHES)
        task = asyncio.get_running_loop().create_task(claim.keep())
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)
        return claim


def _hash(principal: str, message_id: str) -> str:
    """Give a token that no two pairs share; nobody reads what clients call their messages."""
    pair = f"{len(principal)} {principal}{message_id}".encode(errors="surrogatepass")
    return blake2b(pair, digest_size=20).hexdigest()
