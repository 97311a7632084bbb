"""The named subscriptions that streams of this broker hold: looked after, confirmed, let go.

Must not know formats, nor who may watch what.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

import structlog

from sidecast_broker.answers import Away, StreamInfo
from sidecast_broker.background import Background
from sidecast_broker.consumers import Consumers
from sidecast_broker.core.cursor import Cursor
from sidecast_broker.core.subscriptions import State, Subscription
from sidecast_broker.holds import Held
from sidecast_broker.jetstream import JetStream
from sidecast_broker.limits import FULL_RETRY_S
from sidecast_broker.metrics import Metrics
from sidecast_broker.positions import Positions
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Nats
from sidecast_broker.settings import Stream as StreamSettings

logger = structlog.get_logger(__name__)

LOOKS_AT_ONCE = 16
INFO_S = 1.0
"""How long what was asked of the stream answers for confirmations; a new epoch is noticed as much later."""


class Subscriptions:
    """Looks after the named subscriptions that streams hold.

    Args:
        stream: the connection to JetStream.
        nats: which stream.
        settings: limits and periods.
        metrics: where to count.
        clock: seconds, monotonic.

    Attributes:
        consumers: where they are remembered.
        stream: as given.
        per_principal_max: how many a principal may have; 0: no limit.
    """

    def __init__(
        self,
        stream: JetStream,
        nats: Nats,
        settings: StreamSettings,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.consumers = Consumers(stream, nats, settings.subscription_inactive_s)
        self._positions = Positions(self.consumers, stream, nats)
        self.stream = stream
        self.per_principal_max = settings.subscriptions_per_principal_max
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: dict[Held, None] = {}
        self._doubted: dict[Held, None] = {}
        self._info: StreamInfo | None = None
        self._asked_s = 0.0
        self._wake = asyncio.Event()
        # Brokers and servers may miss the word of who took over: asked for as often as heartbeats are sent.
        self._look_s = min(settings.heartbeat_s, settings.subscription_inactive_s / 4)
        self._touch_s = settings.subscription_inactive_s / 4
        self._background = Background("subscriptions", self._run)

    def start(self) -> None:
        """Begin to look after those that are held."""
        self._background.start()

    async def close(self) -> None:
        """End that."""
        await self._background.close()

    def holds(self, subscription: Subscription) -> bool:
        """Tell whether a stream of this broker holds a subscription."""
        return any(held.subscription == subscription for held in self._held)

    def check_room(self) -> None:
        """Let one more stream hold a subscription.

        Raises:
            Refused: `limit`: as many do here as may.
        """
        bound = self._settings.subscriptions_max
        if bound and len(self._held) >= bound:
            raise full("subscriptions", "as many named subscriptions are open as may be")

    def making(self, owned_prefix: str) -> asyncio.Lock:
        """Give what lets one subscription of a principal be made at a time: those there are, are counted."""
        lock = self._making.get(owned_prefix)
        if lock is None:
            lock = self._making[owned_prefix] = asyncio.Lock()
        return lock

    async def hold(self, held: Held) -> None:
        """Look after a subscription from here on, which its stream has just taken; `release` it.

        Raises:
            Away: NATS can't be reached.
            Refused: `limit`: as many are held here as may be.
        """
        subscription = held.subscription
        await self.stream.listen(held, subscription.taken_subject, lambda: self.doubt(held))
        self.check_room()  # of those who came at once, some may have filled it meanwhile
        held.due_s = held.touched_s = self._clock()
        self._held[held] = None
        self._metrics.subscriptions.set(len(self._held))
        await self.consumers.say_taken(subscription, held.token)

    async def release(self, held: Held) -> None:
        """Let go of a subscription whose stream has ended; its position stays."""
        self._held.pop(held, None)
        self._doubted.pop(held, None)
        held.let_go()
        self._metrics.subscriptions.set(len(self._held))
        await self.stream.unsubscribe(held)

    async def stream_at(self, cursor: Cursor) -> StreamInfo:
        """Say what the stream's leader says of it, or said a moment ago where a cursor is within that.

        Raises:
            Away: no answer.
        """
        info, now = self._info, self._clock()
        within = info is not None and cursor.epoch == info.epoch and cursor.sequence <= info.last
        if info is None or not within or now - self._asked_s > INFO_S:
            info = self._info = await self.stream.info()
            self._asked_s = now
        return info

    async def acknowledge(
        self, subscription: Subscription, sequence: int, by: str = "client", known: State | None = None
    ) -> State | None:
        """Store that a client has confirmed everything up to a sequence; None: there is no such subscription.

        Args:
            subscription: which one.
            sequence: of any record of the stream.
            by: what says so, for the metric.
            known: how it stood a moment ago; None: that is asked for.

        Raises:
            Refused: `unavailable`: it may be stored or not.
        """
        try:
            state = await self._positions.acknowledge(subscription, sequence, known)
        except Away as away:
            raise unavailable(away) from away
        if state is not None:
            self._metrics.subscription_acks.labels(by).inc()
        return state

    # ------------------------------------------------------------------ looking after

    def doubt(self, held: Held) -> None:
        """Have it looked at soon: somebody may have taken it over, or a position is to be stored."""
        if held in self._held:
            self._doubted[held] = None
            self._wake.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_s / 4):
                    await self._wake.wait()
            self._wake.clear()
            now = self._clock()
            doubted, self._doubted = self._doubted, {}
            due = [held for held in self._held if held in doubted or held.due_s <= now]
            for start in range(0, len(due), LOOKS_AT_ONCE):
                await asyncio.gather(*map(self._look_at, due[start : start + LOOKS_AT_ONCE]))

    async def _look_at(self, held: Held) -> None:
        held.due_s = self._clock() + self._look_s
        try:
            await self._look_after(held)
        except Away as away:
            logger.info("subscription_unknown", error=str(away))

    async def _look_after(self, held: Held) -> None:
        """End a stream that has lost its subscription; else store what is confirmed, and keep it alive."""
        subscription, confirmed = held.subscription, held.confirmed
        made = await self.consumers.get(subscription.consumer)
        if held not in self._held:
            return
        if made is None or made.state.holding.token != held.token:
            held.lose("deleted" if made is None else "displaced")
            return
        if confirmed > made.state.floor:
            await self._positions.acknowledge(subscription, confirmed)
            self._metrics.subscription_acks.labels("tcp").inc()
            held.touched_s = self._clock()
        elif self._clock() - held.touched_s >= self._touch_s:
            await self._positions.touch(subscription)
            held.touched_s = self._clock()


def full(reason: str, detail: str) -> Refused:
    """Give the refusal of one too many."""
    return Refused("limit", detail, reason=reason, retry_after_s=FULL_RETRY_S)


def unavailable(away: Away) -> Refused:
    """Give the refusal of what needs NATS, which is away."""
    return Refused("unavailable", f"named subscriptions: {away}", retry_after_s=1)
