"""What is revoked, for all brokers of a stream: kept in a JetStream bucket, and looked at every second.

Must not know streams or requests. Source: contract, section 5.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import structlog

from sidecast_broker.answers import Away, PublishConflict
from sidecast_broker.background import Background
from sidecast_broker.bucket import Entry, Found, Standing
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.auth.revocation import (
    Revocation,
    Revoked,
    Unreadable,
    decode_revocation,
    encode_revocation,
)
from sidecast_broker.refused import Refused
from sidecast_schemas.subjects import TaskKey

logger = structlog.get_logger(__name__)

LOOK_S = 1.0
"""How often is looked for new ones: with the second in which streams are looked at, well within five."""
READY_S = 1.0
"""How long a request waits for the first look: a broker that has just started takes less."""
WRITES_MAX = 5
_RECONNECTED = frozenset({"connected", "reconnected"})


class Bucketful(Protocol):
    """The part of a bucket that is used here."""

    @property
    def name(self) -> str:
        """The bucket's name."""

    async def get(self, key: str) -> Entry | None:
        """Ask the leader what a key holds."""

    async def put(self, key: str, value: bytes | None, after: int) -> int:
        """Write a value behind a revision."""

    async def standing(self) -> Standing:
        """Ask the leader where the bucket stands, and make it where it is missing."""

    async def above(self, revision: int) -> list[Found]:
        """Ask the leader for all entries above a revision."""


class Kept(NamedTuple):
    """Where a revocation is stored."""

    bucket: str
    key: str
    revision: int


class Revocations:
    """Knows what is revoked.

    Args:
        bucket: where all brokers keep it.
        age_s: after which a revocation is forgotten.
        clock: the time, seconds since 1970.
    """

    def __init__(self, bucket: Bucketful, age_s: float, *, clock: Callable[[], float] = time.time) -> None:
        self._bucket = bucket
        self._clock = clock
        self._revoked = Revoked(age_s)
        self._standing = Standing("", 0)
        self._loaded = asyncio.Event()
        self._doubt = asyncio.Event()
        self._reported = ""
        self._background = Background("revocations", self._run)

    @property
    def generation(self) -> int:
        """Another number whenever something more is revoked."""
        return self._revoked.generation

    @property
    def loaded(self) -> bool:
        """Whether they have been read once."""
        return self._loaded.is_set()

    def start(self) -> None:
        """Begin to look."""
        self._background.start()

    async def close(self) -> None:
        """Stop looking."""
        await self._background.close()

    def doubt(self, reason: str) -> None:
        """Read all of them again at once after a reconnect: what was asked may be lost.

        Args:
            reason: why messages may have been lost; others than that come in numbers, and lose nothing here.
        """
        if reason in _RECONNECTED:
            self._doubt.set()

    # ------------------------------------------------------------------ asking

    async def admit(self, principal: Principal) -> None:
        """Let pass whose credential is not revoked; waits a moment where that isn't known yet.

        Raises:
            Refused: `unavailable`: it still isn't known; `unauthenticated`: it is revoked.
        """
        if not self._loaded.is_set():
            try:
                async with asyncio.timeout(READY_S):
                    await self._loaded.wait()
            except TimeoutError:
                detail = "what is revoked has not been read yet"
                raise Refused("unavailable", detail, retry_after_s=1) from None
        if self._revoked.covers_credential(principal):
            raise Refused("unauthenticated", "the credential has been revoked")

    def covers_credential(self, principal: Principal) -> bool:
        """Tell whether a credential is revoked, by itself or with all its holder has."""
        return self._revoked.covers_credential(principal)

    def covers_task(self, principal: Principal, key: TaskKey) -> bool:
        """Tell whether a task is revoked, for everybody or for this principal within its tenant."""
        return self._revoked.covers_task(principal, key)

    # ------------------------------------------------------------------ revoking

    async def revoke(self, revocation: Revocation) -> Kept:
        """Store a revocation, in the place of an older one of the same name; here it holds at once.

        Raises:
            Away: it may be stored or not.
        """
        key, value, after = revocation.key, encode_revocation(revocation), 0
        for _attempt in range(WRITES_MAX):
            try:
                revision = await self._bucket.put(key, value, after)
            except PublishConflict:
                found = await self._bucket.get(key)
                after = 0 if found is None else found.revision
                continue
            self._revoked.add(revocation)
            return Kept(self._bucket.name, key, revision)
        raise Away("others revoke the same at the moment")

    # ------------------------------------------------------------------ looking

    async def _run(self) -> None:
        loop, anew = asyncio.get_running_loop(), True
        while True:
            try:  # being connected is a doubt, and the first look
                async with asyncio.timeout(LOOK_S):
                    await self._doubt.wait()
                    anew = True
            except TimeoutError:
                pass
            self._doubt.clear()
            look, doubted = loop.create_task(self._look(anew=anew)), loop.create_task(self._doubt.wait())
            try:
                await asyncio.wait({look, doubted}, return_when=asyncio.FIRST_COMPLETED)
                if not look.done():
                    # A question that was on its way is lost: its answer would be waited for in vain.
                    continue
                anew = not self._succeeded(look)
            finally:
                look.cancel()
                doubted.cancel()

    def _succeeded(self, look: asyncio.Task[None]) -> bool:
        """Tell whether a look has come to its end, and say once what keeps it from that."""
        try:
            look.result()
        except Away as away:
            if self._reported != str(away):
                self._reported = str(away)
                logger.warning("revocations_away", error=str(away))
            return False
        self._reported = ""
        return True

    async def _look(self, *, anew: bool) -> None:
        """Take what is new, or everything.

        Nothing is dropped for not being there any more: a bucket that was lost must not let anybody in again.

        Raises:
            Away: it can't be asked for.
        """
        standing, known = await self._bucket.standing(), self._standing
        after = known.last
        if anew or standing.created != known.created or standing.last < known.last:
            after = 0
        last = after
        for found in await self._bucket.above(after) if standing.last > after else ():
            self._take(found)
            last = found.entry.revision
        self._standing = Standing(standing.created, last)
        self._revoked.forget(self._clock())
        if not self._loaded.is_set():
            self._loaded.set()
            logger.info("revocations_loaded", count=len(self._revoked))

    def _take(self, found: Found) -> None:
        if found.entry.value is None:
            self._revoked.lift(found.key)
            return
        try:
            revocation = decode_revocation(found.entry.value)
        except Unreadable as error:
            logger.error("revocation_unreadable", key=found.key, error=str(error))
            return
        self._revoked.add(revocation)
