"""All records of one agent in the order of the stream, without a hole: for several tasks at once.

Must not know what the records mean, nor who is allowed what. See ADR 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

import structlog

from sidecast_broker.answers import Away, StreamInfo
from sidecast_broker.core.log import Stored
from sidecast_broker.jetstream import JetStream
from sidecast_broker.tail import Cause
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import EVENTS_PREFIX, LIVE_PREFIX, InvalidId, agent_tokens, parse_subject

logger = structlog.get_logger(__name__)

FIRSTS_MAX = 1024
"""First records of tasks remembered while something before them is being read."""


class Arrival(NamedTuple):
    """One record at its place in the order of the stream.

    Attributes:
        sequence: its JetStream sequence.
        task: whose it is.
        stored: the record; its `previous` means nothing here.
        is_first: whether it is its task's first retained record; None: not known.
    """

    sequence: int
    task: str
    stored: Stored
    is_first: bool | None


class Follower(Protocol):
    """What a feed tells of records."""

    def hear(self, task: str, stored: Stored) -> None:
        """Know of a live message, which may come before its place in the order."""

    def arrive(self, arrival: Arrival) -> None:
        """Take the next record of the agent."""

    def advance(self, position: int) -> None:
        """Know that nothing of the agent lies between what came last and a sequence."""

    def lose(self) -> None:
        """Know that records of the agent have expired before they could be read."""

    def renew(self, epoch: str) -> None:
        """Forget everything: the stream has begun anew."""

    def fail(self) -> None:
        """Know that a fault of ours keeps the feed from going on."""


Route = Callable[[Arrival], "list[Follower]"]


class Feed:
    """Follows one agent.

    The stream's sequence is one more than the feed's position: nothing lies between, and the record is handed
    on at once. Otherwise what lies between may be other agents' records or a live message that was lost, and
    only the stream can tell: the range is read up to the record. See ADR 10.

    Args:
        stream: where records come from.
        tenant: the agent's.
        agent: its name.
        route: gives who takes a record.
        followers: gives all who follow.
        on_repair: called with the cause when records were read that did not come live.

    Attributes:
        position: all there is of the agent up to this sequence has been handed on.
        epoch: the stream's.
        failed: whether a fault of ours keeps it from going on.
        pattern: the events subjects of all tasks of the agent.
    """

    def __init__(
        self,
        stream: JetStream,
        tenant: str,
        agent: str,
        *,
        route: Route,
        followers: Callable[[], list[Follower]],
        on_repair: Callable[[Cause], None],
    ) -> None:
        tokens = agent_tokens(tenant, agent)
        self.pattern = f"{EVENTS_PREFIX}.{tokens}.*"
        self.position = 0
        self.epoch = ""
        self.failed = False
        self._live = f"{LIVE_PREFIX}.{tokens}.*"
        self._stream = stream
        self._route = route
        self._followers = followers
        self._on_repair = on_repair
        self._target = 0
        self._stated = 0
        self._heard = 0
        self._newest = 0
        self._firsts: dict[int, bool] = {}
        self._incarnation = 0
        self._reading = True
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Subscribe; from the position that the leader names afterwards, everything is handed on.

        Raises:
            Away: NATS can't answer; nothing stays open.
        """
        await self._stream.subscribe(self, self._live, self._on_live)
        try:
            incarnation = -1
            while incarnation != self._incarnation:
                incarnation = self._incarnation
                info = await self._stream.info()
        except BaseException:
            await self._stream.unsubscribe(self)
            raise
        self.position, self.epoch, self._stated = info.last, info.epoch, info.last
        self._reading = False
        self._go_on()

    async def close(self) -> None:
        """Stop following."""
        await self._stream.unsubscribe(self)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    def confirm(self, info: StreamInfo) -> None:
        """Make sure that everything up to the stream's last sequence is handed on."""
        self._stated = max(self._stated, info.last)
        self._target = max(self._target, info.last)
        self._go_on()

    def reset(self, info: StreamInfo) -> None:
        """Start over: the stream is another one than before."""
        self._incarnation += 1
        self._target = self._stated = self._heard = self._newest = 0
        self._firsts.clear()
        self.position, self.epoch = 0, info.epoch
        for follower in self._followers():
            follower.renew(info.epoch)
        self.confirm(info)

    def _on_live(self, stored: Stored) -> None:
        sequence = stored.sequence
        if sequence <= self.position:
            return
        task = _task_of(stored)
        if task is None:
            return
        arrival = Arrival(sequence, task, stored, stored.previous == 0)
        for follower in self._route(arrival):
            follower.hear(task, stored)
        if not self._reading and sequence == self.position + 1:
            self._hand_on(arrival)
            return
        if stored.previous == 0 and len(self._firsts) < FIRSTS_MAX:
            self._firsts[sequence] = True
        self._heard = max(self._heard, sequence)
        self._target = max(self._target, sequence)
        self._go_on()

    def _hand_on(self, arrival: Arrival) -> None:
        self.position = self._newest = arrival.sequence
        for follower in self._route(arrival):
            follower.arrive(arrival)

    def _move(self, position: int) -> None:
        """Know that there is nothing of the agent between the position and this one."""
        self.position = position
        for follower in self._followers():
            follower.advance(position)

    def _go_on(self) -> None:
        if self._target > self.position and not self._reading:
            self._reading = True
            self._task = asyncio.get_running_loop().create_task(self._catch_up())
            self._task.add_done_callback(self._look_for_failure)

    def _look_for_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("feed_failed", pattern=self.pattern, exc_info=error)
            self.failed = True
            for follower in self._followers():
                follower.fail()

    async def _catch_up(self) -> None:
        pause_s = 0.05
        while self.position < self._target:
            try:
                await self._step()
                pause_s = 0.05
            except Away as away:
                logger.info("feed_waits", pattern=self.pattern, error=str(away))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)
        self._reading = False

    async def _step(self) -> None:
        """Read on from the position; give up on what the leader says is not there.

        Raises:
            Away: NATS can't answer.
        """
        incarnation, start, target = self._incarnation, self.position, self._target
        # From the newest record on that was handed on: while it is still stored, nothing after it has
        # expired, for the oldest go first.
        page = await self._stream.read(self.pattern, self._newest or start + 1)
        found = page.records
        if self._newest and not (found and found[0].sequence == self._newest):
            await self._look_for_expiry(incarnation)
        if incarnation != self._incarnation:
            return
        if self._take(found):
            return
        following = await self._stream.next(self.pattern, start + 1)
        if following is not None and following.sequence <= target:
            if incarnation == self._incarnation:
                self._take([following])  # the replica that answered is behind
            return
        # Nothing of the agent is stored up to the target; how far the stream is at all, a live message that
        # was never stored must not say.
        last = self._stated if target <= self._stated else (await self._stream.info()).last
        if incarnation == self._incarnation and self.position == start:
            self._target = min(self._target, max(last, self._stated))
            self._firsts.clear()
            self._move(max(start, min(target, last)))

    async def _look_for_expiry(self, incarnation: int) -> None:
        info = await self._stream.info()
        if incarnation == self._incarnation and info.first > self.position + 1:
            logger.warning("feed_expired", pattern=self.pattern, position=self.position, first=info.first)
            self._newest = 0
            for follower in self._followers():
                follower.lose()

    def _take(self, records: list[Stored]) -> bool:
        start = self.position
        for stored in records:
            sequence = stored.sequence
            if sequence <= self.position:
                continue
            is_first = self._firsts.pop(sequence, None)
            if sequence > self._heard:
                self._on_repair("positioning")
            task = _task_of(stored)
            if task is None:
                self.position = self._newest = sequence
                continue
            self._hand_on(Arrival(sequence, task, stored, is_first))
        return self.position > start


def _task_of(stored: Stored) -> str | None:
    try:
        return parse_subject(stored.headers.get(names.SUBJECT, "")).task
    except InvalidId:
        return None
