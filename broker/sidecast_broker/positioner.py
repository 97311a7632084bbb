"""Compares all open tails with what the stream's leader says: what was lost is looked for, not waited for.

Must not know what a tail feeds.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from sidecast_broker.answers import Away, StreamInfo
from sidecast_broker.background import Background
from sidecast_broker.feed import Feed
from sidecast_broker.jetstream import JetStream
from sidecast_broker.tail import Tail

logger = structlog.get_logger(__name__)

SUSPECT_S = 0.3
"""A live message may be on its way while the leader already counts it: that long it isn't lost."""
BACKWARDS_CHECKS = 3
"""How often a last sequence must be seen below what it was: a frozen leader answers with an old one."""
LEADER_UNSEEN_MAX = 3
_ASK_ANEW = frozenset({"connected", "reconnected", "leader-elected"})
"""A question that was on its way by then is lost: waiting for its answer costs `nats.request_s`."""


class Positioner:
    """Compares all open tails with what the leader says, so that no lost live message stays unnoticed.

    Republishing is at most once; a leader killed or a leaf link cut loses live messages with nothing to
    reveal it. See ADR 2.

    Args:
        stream: the stream.
        verify_s: how often to look.

    Attributes:
        info: the stream's state when it was last looked at, None before.
        known: set once there is one.
    """

    def __init__(self, stream: JetStream, verify_s: float) -> None:
        self.info: StreamInfo | None = None
        self.known = asyncio.Event()
        self._stream = stream
        self._verify_s = verify_s
        self._tails: set[Tail] = set()
        self._feeds: set[Feed] = set()
        self._doubt = asyncio.Event()
        self._ask_anew = asyncio.Event()
        self._failures = 0
        self._reported = ""
        self._background = Background("positioner", self._run)

    def start(self) -> None:
        """Begin to look."""
        self._background.start()

    async def close(self) -> None:
        """Stop looking."""
        await self._background.close()

    def add(self, tail: Tail) -> None:
        """Watch over a tail."""
        self._tails.add(tail)

    def remove(self, tail: Tail) -> None:
        """Forget a tail; unknown ones are fine."""
        self._tails.discard(tail)

    def add_feed(self, feed: Feed) -> None:
        """Watch over a feed."""
        self._feeds.add(feed)

    def remove_feed(self, feed: Feed) -> None:
        """Forget a feed; unknown ones are fine."""
        self._feeds.discard(feed)

    def doubt(self, reason: str) -> None:
        """Look at once: messages may have been lost."""
        logger.debug("position_doubted", reason=reason)
        self._doubt.set()
        if reason in _ASK_ANEW:
            self._ask_anew.set()

    async def _run(self) -> None:
        pause_s = self._verify_s  # being connected is a doubt, and the first look
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), pause_s)
            self._doubt.clear()
            try:
                await self.verify()
                self._failures, self._reported, pause_s = 0, "", self._verify_s
            except Away as away:
                self._failures += 1
                pause_s = min(0.2 * 2**self._failures, self._verify_s)
                if self._reported != str(away):
                    self._reported = str(away)
                    logger.warning("stream_away", error=str(away))
                if self._failures >= LEADER_UNSEEN_MAX and self._stream.connected and self.info is not None:
                    # This server can't see the leader, or the connection only seems to stand.
                    self._failures = 0
                    await self._stream.reconnect("the stream's leader can't be seen through this server")

    async def verify(self) -> None:
        """Compare every tail with the stream once, and start repairs.

        Raises:
            Away: the leader, or an up-to-date replica, can't be reached.
        """
        before, tails = self.info, list(self._tails)
        info = await self._ask()
        self._failures = 0  # what may fail from here on is no question of this server seeing the leader
        if before is not None and await self._begun_anew(before, info):
            info = await self._stream.info()
            self.info = info
            logger.warning("stream_begun_anew", epoch=info.epoch, before=before.epoch)
            for tail in list(self._tails):
                tail.reset(info)
            for feed in list(self._feeds):
                feed.reset(info)
            return
        for feed in list(self._feeds):
            feed.confirm(info)
        await self._compare(tails, before.last if before else 0, info)
        if before is not None:
            purged = info.deleted != before.deleted
            for tail in tails:
                if tail in self._tails and (purged or tail.begins_below(info.first)):
                    await tail.check_retained()
        self.info = info
        self.known.set()

    async def _ask(self) -> StreamInfo:
        """Ask the leader for the stream's state, anew where another answers from now on."""
        loop = asyncio.get_running_loop()
        while True:
            self._ask_anew.clear()
            answered, changed = (
                loop.create_task(self._stream.info()),
                loop.create_task(self._ask_anew.wait()),
            )
            try:
                await asyncio.wait({answered, changed}, return_when=asyncio.FIRST_COMPLETED)
                if answered.done():
                    return answered.result()
            finally:
                answered.cancel()
                changed.cancel()

    async def _compare(self, tails: list[Tail], known_to: int, info: StreamInfo) -> None:
        """Ask for what is new above the last look; for tails opened since, above what they know."""
        behind = [tail for tail in tails if tail.position < info.last]
        newest: dict[str, int] = {}
        for group in (
            [tail for tail in behind if tail.position >= known_to],
            [tail for tail in behind if tail.position < known_to],
        ):
            if group:
                above = min(tail.position for tail in group)
                newest |= await self._stream.newest((tail.subject for tail in group), above, info.last)
        suspects = [tail for tail in behind if newest.get(tail.subject, 0) > tail.end]
        for tail in behind:
            if tail not in suspects:
                tail.confirm(info.last)
        if suspects:
            await asyncio.sleep(SUSPECT_S)
            for tail in suspects:
                tail.repair("positioning", newest[tail.subject])

    async def _begun_anew(self, before: StreamInfo, info: StreamInfo) -> bool:
        """Tell whether the stream is another one than before; renew an epoch that didn't change by itself.

        A leader that was frozen may answer once more with an old state: lower sequences of the same stream
        must be seen several times. Where they have gone on beyond what they were, a tail has met another
        record at a sequence it knows.
        """
        if info.epoch != before.epoch:
            return True
        contradicted = False
        for tail in list(self._tails):
            contradicted = contradicted or await tail.is_contradicted()
        if info.created == before.created and not contradicted:
            for _check in range(BACKWARDS_CHECKS):
                if info.last >= before.last:
                    return False
                await asyncio.sleep(0.5)
                info = await self._stream.info()
            if info.last >= before.last:
                return False
        await self._stream.renew_epoch(before.epoch)
        return True
