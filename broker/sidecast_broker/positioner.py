"""Compares open tails with what the stream's leader says, each once in a period: what was lost is looked for.

Must not know what a tail feeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import NamedTuple

import structlog

from sidecast_broker.answers import Away, StreamInfo
from sidecast_broker.background import Background
from sidecast_broker.core.wheel import Wheel
from sidecast_broker.feed import Feed
from sidecast_broker.jetstream import SUBJECTS_PER_REQUEST, JetStream
from sidecast_broker.tail import Tail

logger = structlog.get_logger(__name__)

SUSPECT_S = 0.3
"""A live message may be on its way while the leader already counts it: that long it isn't lost."""
BACKWARDS_CHECKS = 3
"""How often a last sequence must be seen below what it was: a frozen leader answers with an old one."""
LEADER_UNSEEN_MAX = 3
_ASK_ANEW = frozenset({"connected", "reconnected", "leader-elected"})
"""A question that was on its way by then is lost: waiting for its answer costs `nats.request_s`."""


class Suspects(NamedTuple):
    """Tails whose logs end below what is stored.

    Attributes:
        epoch: of the stream.
        newest: the sequence of each one's newest record in the stream.
    """

    epoch: str
    newest: dict[Tail, int]


class Positioner:
    """Compares open tails with what the leader says, so that no lost live message stays unnoticed.

    Republishing is at most once; a leader killed or a leaf link cut loses live messages with nothing to
    reveal it. See ADR 2. Many answers at once would hold up what is delivered meanwhile: few tails are looked
    at in one go, all of them where there is reason to doubt.

    Args:
        stream: the stream.
        verify_s: how often to look at each tail.

    Attributes:
        info: the stream's state when it was last looked at, None before.
        known: set once there is one.
    """

    def __init__(self, stream: JetStream, verify_s: float) -> None:
        self.info: StreamInfo | None = None
        self.known = asyncio.Event()
        self._stream = stream
        self._verify_s = verify_s
        self._wheel: Wheel[Tail | Feed] = Wheel(verify_s, random.random)
        self._tails: dict[Tail, int] = {}  # with how many messages were deleted when it was last looked at
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
        self._tails[tail] = 0 if self.info is None else self.info.deleted
        self._wheel.add(tail)

    def remove(self, tail: Tail) -> None:
        """Forget a tail; unknown ones are fine."""
        self._tails.pop(tail, None)
        self._wheel.remove(tail)

    def add_feed(self, feed: Feed) -> None:
        """Watch over a feed."""
        self._feeds.add(feed)
        self._wheel.add(feed)

    def remove_feed(self, feed: Feed) -> None:
        """Forget a feed; unknown ones are fine."""
        self._feeds.discard(feed)
        self._wheel.remove(feed)

    def doubt(self, reason: str) -> None:
        """Look at once: messages may have been lost."""
        logger.debug("position_doubted", reason=reason)
        self._doubt.set()
        if reason in _ASK_ANEW:
            self._ask_anew.set()

    async def _run(self) -> None:
        now_s = asyncio.get_running_loop().time
        self._wheel.take(now_s())
        pause_s: float | None = self._verify_s  # being connected is a doubt, and the first look
        while True:
            wait_s = self._wheel.wait_s(now_s()) if pause_s is None else pause_s
            with contextlib.suppress(TimeoutError):
                # Not wait_for, which would miss being closed in the moment of a doubt.
                async with asyncio.timeout(wait_s):
                    await self._doubt.wait()
            whole = self._doubt.is_set() or pause_s is not None
            self._doubt.clear()
            due = self._wheel.take(now_s())
            try:
                await (self.verify() if whole else self._verify_slice(due))
                self._failures, self._reported, pause_s = 0, "", None
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
        suspects = await self._look(list(self._wheel))
        if suspects:
            await asyncio.sleep(SUSPECT_S)
            self._repair(suspects)

    async def _verify_slice(self, due: list[Tail | Feed]) -> None:
        suspects = await self._look(due)
        if suspects:
            # The next slices don't wait for what is on its way to these tails.
            asyncio.get_running_loop().call_later(SUSPECT_S, self._repair, suspects)

    def _repair(self, suspects: Suspects) -> None:
        if self.info is None or self.info.epoch != suspects.epoch:
            return  # the sequences are those of a stream that is gone
        for tail, newest in suspects.newest.items():
            if tail in self._tails:
                tail.repair("positioning", newest)

    async def _look(self, members: list[Tail | Feed]) -> Suspects | None:
        """Compare some with the stream; give who may have lost something.

        Raises:
            Away: the leader, or an up-to-date replica, can't be reached.
        """
        before, tails = self.info, [member for member in members if isinstance(member, Tail)]
        info = await self._ask()
        self._failures = 0  # what may fail from here on is no question of this server seeing the leader
        if before is not None and await self._begun_anew(before, info, tails):
            info = await self._stream.info()
            self.info = info
            logger.warning("stream_begun_anew", epoch=info.epoch, before=before.epoch)
            for member in list(self._wheel):
                member.reset(info)
            return None
        for member in members:
            if isinstance(member, Feed) and member in self._feeds:
                member.confirm(info)
        suspects = await self._compare(tails, info)
        for tail in tails:
            if before is not None and (deleted := self._tails.get(tail)) is not None:
                if deleted != info.deleted or tail.begins_below(info.first):
                    await tail.check_retained()
                if tail in self._tails:
                    self._tails[tail] = info.deleted
        self.info = info
        self.known.set()
        return suspects

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

    async def _compare(self, tails: list[Tail], info: StreamInfo) -> Suspects | None:
        """Ask for what is new above what the tails know; give whose log ends below."""
        # One that knows less than the others, as after a repair, shall not have all of them answered for.
        behind = sorted((tail for tail in tails if tail.position < info.last), key=lambda tail: tail.position)
        newest: dict[str, int] = {}
        for start in range(0, len(behind), SUBJECTS_PER_REQUEST):
            group = behind[start : start + SUBJECTS_PER_REQUEST]
            subjects = [tail.subject for tail in group]
            newest |= await self._stream.newest(subjects, group[0].position, info.last)
        suspects: dict[Tail, int] = {}
        for tail in behind:
            if newest.get(tail.subject, 0) > tail.end:
                suspects[tail] = newest[tail.subject]
            else:
                tail.confirm(info.last)
        return Suspects(info.epoch, suspects) if suspects else None

    async def _begun_anew(self, before: StreamInfo, info: StreamInfo, tails: list[Tail]) -> bool:
        """Tell whether the stream is another one than before; renew an epoch that didn't change by itself.

        A leader that was frozen may answer once more with an old state: lower sequences of the same stream
        must be seen several times. Where they have gone on beyond what they were, a tail has met another
        record at a sequence it knows.
        """
        if info.epoch != before.epoch:
            return True
        contradicted = False
        for tail in tails:
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
