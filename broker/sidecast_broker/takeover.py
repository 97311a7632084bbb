"""A named subscription as a new stream takes it over: found, begun where it is at, and handed to that stream.

Must not know formats, nor who may watch what.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from aiohttp import web

from sidecast_broker.answers import Away
from sidecast_broker.consumers import Exists, Full, Made
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.cursor import format_cursor
from sidecast_broker.core.outlived import Outlived
from sidecast_broker.core.resume import Opening
from sidecast_broker.core.subscriptions import (
    Holding,
    State,
    Subscription,
    Who,
    Wish,
    check_client,
    check_name,
)
from sidecast_broker.holds import Held
from sidecast_broker.paths import query_value
from sidecast_broker.refused import Refused
from sidecast_broker.subscriptions import Subscriptions, full, unavailable
from sidecast_schemas.subjects import TaskKey

HEADER = "Sidecast-Subscription"
TRIES = 3


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


def who_of(principal: Principal) -> Who:
    """Give whose subscriptions somebody's are: names are unique within what bounds them."""
    return principal.tenant, principal.name


class Takeover:
    """One request's way to its named subscription: `find`, then `take` or `confirm_end`.

    Args:
        wish: what the request says of it.
        subscription: which one is meant.
        cursor: as the client sent it; None: it sent none.
        subscriptions: those that are held here.
        wall_clock: seconds since 1970; all brokers' should agree within seconds.

    Attributes:
        cursor: where the stream begins: the client's own cursor, else what is remembered; None: as if new.
    """

    def __init__(
        self,
        wish: Wish,
        subscription: Subscription,
        cursor: str | None,
        subscriptions: Subscriptions,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.cursor = cursor
        self._subscription = subscription
        self._wish = wish
        self._resumes = cursor is not None
        self._subscriptions = subscriptions
        self._consumers = subscriptions.consumers
        self._wall_clock = wall_clock
        self._made: Made | None = None

    async def find(self, epoch: str) -> bool:
        """Find how the subscription stands; False: its client was displaced by another, and is to stay away.

        Args:
            epoch: the stream's.

        Raises:
            Refused: `unavailable`; `limit`: as many are open here as may be.
        """
        self._subscriptions.check_room()
        try:
            made = self._made = await self._consumers.get(self._subscription.consumer)
            if made is None:
                return True
            state, wish = made.state, self._wish
            if state.holding.turns_away(wish.client, self._wall_clock(), automatic=wish.automatic):
                return False
            if not self._resumes:
                self.cursor = state.cursor if state.epoch != epoch else await self._remembered(state)
        except Away as away:
            raise unavailable(away) from away
        return True

    async def _remembered(self, state: State) -> str | None:
        """Give where a client goes on; where that can't be known any more, from before everything.

        Expiry and purges move a consumer's floor over records that nobody confirmed. They remove the record
        at the floor, too, so while that is stored, the floor is what was confirmed.
        """
        position = state.position
        if position is None or state.is_certain:
            return state.cursor
        stored = await self._subscriptions.stream.at(position)
        if stored is None and (await self._subscriptions.stream.info()).last < position:
            raise Away("the stream's leader is behind")
        return format_cursor(state.epoch, 0 if stored is None else position)

    async def take(self, opening: Opening, epoch: str, heartbeat_s: float) -> Held:
        """Take the subscription over, and make it where there is none.

        Args:
            opening: how the stream begins.
            epoch: the stream's.
            heartbeat_s: of the stream.

        Returns:
            What the stream holds; `Subscriptions.release` it.

        Raises:
            Refused: `unavailable`; `limit`: the principal has as many as they may.
        """
        outlived = None if self._wish.by_client else Outlived(heartbeat_s)
        held = Held(self._subscription, secrets.token_hex(8), outlived, self._subscriptions.doubt)
        # Who goes on behind their own cursor says that they have all before it.
        resumed = self._resumes and opening.mode == "replay"
        try:
            await self._hand_over(held.token, opening, epoch, resumed=resumed)
            if resumed:
                await self._subscriptions.acknowledge(self._subscription, opening.after, "cursor")
            try:
                await self._subscriptions.hold(held)
            except BaseException:
                await self._subscriptions.release(held)
                raise
        except Away as away:
            raise unavailable(away) from away
        return held

    async def _hand_over(self, token: str, opening: Opening, epoch: str, *, resumed: bool) -> None:
        subscription, made = self._subscription, self._made
        for _attempt in range(TRIES):
            if made is not None and made.state.epoch != epoch:
                # Its positions mean nothing any more.
                await self._consumers.delete(subscription.consumer)
                made = None
            before = Holding() if made is None else made.state.holding
            holding = before.taken(token, self._wish.client, self._wall_clock())
            if made is not None:
                written = await self._consumers.hand_over(made, holding)
                if made is self._made and not self._resumes and _was_outdated(made, written):
                    raise Away("its leader was another")
                return
            begun = resumed or opening.mode == "live"
            # A snapshot is confirmed by its own id, so its record is the first that can be.
            start = opening.after + (opening.mode != "snapshot")
            try:
                async with self._subscriptions.making(subscription.owned_prefix):
                    await self._make_room()
                    await self._consumers.create(subscription, epoch, start, holding, begun=begun)
                    await self._give_way()
            except Exists:
                made = await self._consumers.get(subscription.consumer)
                continue
            except Full as reached:
                raise full("subscriptions", "the stream has as many consumers as it may") from reached
            return
        raise Away("the subscription is being opened and deleted elsewhere")

    async def _make_room(self, places: int = 1) -> None:
        bound = self._subscriptions.per_principal_max
        if bound and len(await self._consumers.names(self._subscription.owned_prefix)) + places > bound:
            detail = "this principal has as many named subscriptions as they may: delete one"
            raise full("principal-subscriptions", detail)

    async def _give_way(self) -> None:
        """Delete what was made where other brokers have made the last ones at the same time.

        Raises:
            Refused: `limit`: that was so.
        """
        try:
            await self._make_room(0)
        except Refused:
            await self._consumers.delete(self._subscription.consumer)
            raise

    async def confirm_end(self, sequence: int) -> None:
        """Take note that a client's own cursor lies behind the task's last event; no stream comes of it.

        Args:
            sequence: of that event.

        Raises:
            Refused: `unavailable`.
        """
        if self._resumes:
            await self._subscriptions.acknowledge(self._subscription, sequence, "cursor")


def takeover_of_task(
    wish: Wish | None,
    principal: Principal,
    key: TaskKey,
    cursor: str | None,
    subscriptions: Subscriptions,
) -> Takeover | None:
    """Give the way to the named subscription to one task that a request asks for; None: it asks for none.

    Args:
        wish: what the request says of it; None: nothing.
        principal: whose it is.
        key: the task.
        cursor: as of `Takeover`.
        subscriptions: those that are held here.
    """
    if wish is None:
        return None
    return Takeover(wish, Subscription.to_task(who_of(principal), key, wish.name), cursor, subscriptions)


def _was_outdated(before: Made, after: Made | None) -> bool:
    """Tell whether who led a consumer did so no more, and did not know: frozen, and running again."""
    return after is not None and (
        after.leader != before.leader and after.state.position != before.state.position
    )
