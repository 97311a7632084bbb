"""The named subscriptions that streams of this broker hold: opened, taken over, confirmed, kept, let go.

Must not know formats, nor who may watch what.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import structlog
from aiohttp import web

from sidecast_broker.answers import Away
from sidecast_broker.background import Background
from sidecast_broker.consumers import Consumers, Exists, Full, Made
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.cursor import format_cursor
from sidecast_broker.core.outlived import Outlived
from sidecast_broker.core.resume import Opening
from sidecast_broker.core.subscriptions import (
    Holding,
    State,
    Subscription,
    Wish,
    check_client,
    check_name,
)
from sidecast_broker.jetstream import JetStream
from sidecast_broker.limits import FULL_RETRY_S
from sidecast_broker.metrics import Metrics
from sidecast_broker.paths import query_value
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Nats
from sidecast_broker.settings import Stream as StreamSettings

logger = structlog.get_logger(__name__)

HEADER = "Sidecast-Subscription"
TRIES = 3
LOOKS_AT_ONCE = 16
Lost = Literal["displaced", "deleted"]


def wish_of(request: web.BaseRequest) -> Wish | None:
    """Give what a request for a stream says of a named subscription; None: nothing.

    Raises:
        Refused: `bad-request`: a name or another parameter is none.
    """
    query = request.query
    given = request.headers.getall(HEADER, [])
    given += [query_value(request, "subscription")] if "subscription" in query else []
    if not given:
        return None
    if len(set(given)) > 1:
        raise Refused("bad-request", "subscription is named twice, and not alike")
    if (ack := query.get("ack", "auto")) not in ("auto", "client"):
        raise Refused("bad-request", "ack must be one of auto, client")
    try:
        name, client = check_name(given[0]), check_client(query.get("client", ""))
    except ValueError as error:
        raise Refused("bad-request", f"subscription: {error}") from error
    # Only an EventSource that reconnects by itself sends the header; a page that opens one can't.
    return Wish(name, client, "Last-Event-ID" in request.headers, ack == "client")


def who_of(principal: Principal) -> tuple[str | None, str]:
    """Give whose subscriptions somebody's are: names are unique within what bounds them."""
    return principal.tenant, principal.name


class Standing(NamedTuple):
    """How a subscription was found.

    Attributes:
        made: its consumer; None: there is none, or one of another epoch.
        cursor: where a client without a cursor goes on; None: as if it were new.
    """

    made: Made | None
    cursor: str | None


class Held:
    """One stream's hold on a subscription.

    Args:
        subscription: which one.
        token: of this stream.
        outlived: finds what the client's TCP has acknowledged; None: that doesn't count.
        tell: called when a position is to be stored.

    Attributes:
        confirmed: newest sequence to be stored; 0: none.
        lost: ends the stream, which doesn't hold it any more; set once there is one.
    """

    __slots__ = ("_tell", "confirmed", "due_s", "lost", "outlived", "subscription", "token", "touched_s")

    def __init__(
        self, subscription: Subscription, token: str, outlived: Outlived | None, tell: Callable[[Held], None]
    ) -> None:
        self.subscription = subscription
        self.token = token
        self.outlived = outlived
        self.confirmed = 0
        self.lost: Callable[[Lost], None] = lambda _reason: None
        self.due_s = 0.0
        self.touched_s = 0.0
        self._tell = tell

    def look(self, cursor: int, sent: int, acknowledged: int, now: float) -> None:
        """Take note of how far a stream is; see `Outlived.look`."""
        if self.outlived is not None:
            position = self.outlived.look(cursor, sent, acknowledged, now)
            if position is not None:
                self.confirmed = max(self.confirmed, position)
                self._tell(self)


class Subscriptions:
    """Opens named subscriptions for streams, and looks after those that are held.

    Args:
        stream: the connection to JetStream.
        nats: which stream.
        settings: limits and periods.
        metrics: where to count.
        clock: seconds, monotonic.
        wall_clock: seconds since 1970; all brokers' should agree within seconds.

    Attributes:
        consumers: where positions are kept.
    """

    def __init__(
        self,
        stream: JetStream,
        nats: Nats,
        settings: StreamSettings,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.consumers = Consumers(stream, nats, settings.subscription_inactive_s)
        self._stream = stream
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._wall_clock = wall_clock
        self._held: dict[Held, None] = {}
        self._doubted: dict[Held, None] = {}
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

    # ------------------------------------------------------------------ opening

    async def find(self, subscription: Subscription, wish: Wish, epoch: str) -> Standing | None:
        """Find how a subscription stands; None: its client was displaced by another, and is to stay away.

        Args:
            subscription: which one.
            wish: what the request says of it.
            epoch: the stream's.

        Raises:
            Refused: `unavailable`; `limit`: as many are open here as may be.
        """
        bound = self._settings.subscriptions_max
        if bound and len(self._held) >= bound:
            raise _full("subscriptions", "as many named subscriptions are open as may be")
        try:
            made = await self.consumers.get(subscription.consumer)
            if made is None:
                return Standing(None, None)
            state = made.state
            if state.holding.turns_away(wish.client, self._wall_clock(), automatic=wish.automatic):
                return None
            if state.epoch != epoch:
                return Standing(made, state.cursor)
            return Standing(made, await self._cursor(state))
        except Away as away:
            raise _unavailable(away) from away

    async def _cursor(self, state: State) -> str | None:
        """Give where a client goes on; where that can't be known any more, from before everything.

        Expiry and purges move a consumer's floor over records that nobody confirmed. They remove the record
        at the floor, too, so while that is stored, the floor is what was confirmed.
        """
        position = state.position
        if position is None or state.is_certain:
            return state.cursor
        stored = await self._stream.at(position)
        return format_cursor(state.epoch, 0 if stored is None else position)

    async def take(
        self,
        subscription: Subscription,
        wish: Wish,
        found: Standing,
        opening: Opening,
        epoch: str,
        *,
        resumed: bool,
        heartbeat_s: float,
    ) -> Held:
        """Take a subscription over for a new stream, and make it where there is none.

        Args:
            subscription: which one.
            wish: what the request says of it.
            found: how it was found.
            opening: how the stream begins.
            epoch: the stream's.
            resumed: whether it begins where the client's own cursor says, which confirms all before.
            heartbeat_s: of the stream.

        Returns:
            What the stream holds; `release` it.

        Raises:
            Refused: `unavailable`; `limit`: the principal has as many as they may.
        """
        token = secrets.token_hex(8)
        outlived = None if wish.by_client else Outlived(heartbeat_s)
        held = Held(subscription, token, outlived, self._doubt)
        confirmed = opening.after if resumed else 0
        try:
            await self._take(held, wish, found.made, opening, epoch, resumed=resumed)
            await self._stream.listen(held, subscription.taken_subject, lambda: self._doubt(held))
            try:
                await self.consumers.say_taken(subscription, token)
                if confirmed:
                    await self.consumers.acknowledge(subscription, confirmed)
                    self._metrics.subscription_acks.labels("cursor").inc()
            except BaseException:
                await self._stream.unsubscribe(held)
                raise
        except Away as away:
            raise _unavailable(away) from away
        held.due_s = held.touched_s = self._clock()
        self._held[held] = None
        self._metrics.subscriptions.set(len(self._held))
        return held

    async def _take(
        self, held: Held, wish: Wish, made: Made | None, opening: Opening, epoch: str, *, resumed: bool
    ) -> None:
        subscription = held.subscription
        for _attempt in range(TRIES):
            if made is not None and made.state.epoch != epoch:
                # Its positions mean nothing any more.
                await self.consumers.delete(subscription.consumer)
                made = None
            before = Holding() if made is None else made.state.holding
            holding = before.taken(held.token, wish.client, self._wall_clock())
            if made is not None:
                await self.consumers.hand_over(made, holding)
                return
            await self._make_room(subscription)
            # A snapshot is confirmed by its own id, so its record is the first that can be.
            begun = resumed or opening.mode == "live"
            start = opening.after + (opening.mode == "replay" or begun)
            try:
                await self.consumers.create(subscription, epoch, start, holding, begun=begun)
            except Exists:
                made = await self.consumers.get(subscription.consumer)
                continue
            except Full as full:
                raise _full("subscriptions", "the stream has as many consumers as it may") from full
            return
        raise Away("the subscription is being opened and deleted elsewhere")

    async def _make_room(self, subscription: Subscription) -> None:
        bound = self._settings.subscriptions_per_principal_max
        if bound and len(await self.consumers.names(subscription.owned_prefix)) >= bound:
            detail = "this principal has as many named subscriptions as they may: delete one"
            raise _full("principal-subscriptions", detail)

    async def release(self, held: Held) -> None:
        """Let go of a subscription whose stream has ended; its position stays."""
        self._held.pop(held, None)
        self._doubted.pop(held, None)
        self._metrics.subscriptions.set(len(self._held))
        await self._stream.unsubscribe(held)

    # ------------------------------------------------------------------ confirming

    async def acknowledge(
        self, subscription: Subscription, sequence: int, by: str = "client"
    ) -> State | None:
        """Store that a client has confirmed everything up to a sequence; None: there is no such subscription.

        Raises:
            Refused: `unavailable`: it may be stored or not.
        """
        try:
            state = await self.consumers.acknowledge(subscription, sequence)
        except Away as away:
            raise _unavailable(away) from away
        if state is not None:
            self._metrics.subscription_acks.labels(by).inc()
        return state

    # ------------------------------------------------------------------ looking after

    def _doubt(self, held: Held) -> None:
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
        """End a stream that doesn't hold its subscription any more, store what is confirmed, keep it alive."""
        subscription, confirmed = held.subscription, held.confirmed
        made = await self.consumers.get(subscription.consumer)
        if held not in self._held:
            return
        if made is None or made.state.holding.token != held.token:
            held.lost("deleted" if made is None else "displaced")
            return
        if confirmed > made.state.floor:
            await self.consumers.acknowledge(subscription, confirmed)
            self._metrics.subscription_acks.labels("tcp").inc()
            held.touched_s = self._clock()
        elif self._clock() - held.touched_s >= self._touch_s:
            await self.consumers.touch(subscription)
            held.touched_s = self._clock()


def _full(reason: str, detail: str) -> Refused:
    return Refused("limit", detail, reason=reason, retry_after_s=FULL_RETRY_S)


def _unavailable(away: Away) -> Refused:
    return Refused("unavailable", f"named subscriptions: {away}", retry_after_s=1)
