"""The feeds of agents: one for each that somebody watches several tasks of, shared by all who do.

Must not know which tasks those are.
"""

from __future__ import annotations

import asyncio

from sidecast_broker.feed import Feed
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.positioner import Positioner
from sidecast_broker.routing import Routing


class Followed:
    """One agent's feed, and who follows it.

    Attributes:
        name: the agent's tenant and name.
        feed: its records in order.
        routing: who gets which.
        opened: its opening.
        users: how many boards there are.
    """

    def __init__(self, name: tuple[str, str], feed: Feed, routing: Routing) -> None:
        self.name = name
        self.feed = feed
        self.routing = routing
        self.opened = asyncio.get_running_loop().create_task(feed.open())
        self.users = 0


class Feeds:
    """Opens, shares and closes feeds.

    Args:
        stream: the connection to JetStream.
        positioner: watches over them.
        metrics: where to count.
    """

    def __init__(self, stream: JetStream, positioner: Positioner, metrics: Metrics) -> None:
        self._stream = stream
        self._positioner = positioner
        self._metrics = metrics
        self._followed: dict[tuple[str, str], Followed] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until those that were left are closed."""
        await asyncio.gather(*self._closing)

    async def follow(self, tenant: str, agent: str) -> Followed:
        """Give an agent's feed, open; `leave` it after use.

        Raises:
            Away: NATS can't answer.
        """
        name = tenant, agent
        found = self._followed.get(name)
        if found is None or found.feed.failed:
            found = self._followed[name] = self._open(name)
        found.users += 1
        try:
            await asyncio.shield(found.opened)
        except BaseException:
            self.leave(found)
            raise
        return found

    def _open(self, name: tuple[str, str]) -> Followed:
        routing = Routing()
        feed = Feed(
            self._stream,
            *name,
            route=routing.route,
            followers=routing.all,
            on_repair=lambda cause: self._metrics.tail_repairs.labels(cause).inc(),
        )
        # Before anything is awaited: a stream that begins anew meanwhile resets this feed too.
        self._positioner.add_feed(feed)
        return Followed(name, feed, routing)

    def leave(self, followed: Followed) -> None:
        """Stop following; the last one closes the feed."""
        followed.users -= 1
        if followed.users:
            return
        if self._followed.get(followed.name) is followed:
            del self._followed[followed.name]
        self._positioner.remove_feed(followed.feed)
        closing = asyncio.get_running_loop().create_task(self._close(followed))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, followed: Followed) -> None:
        followed.opened.cancel()
        await asyncio.wait([followed.opened])
        if not followed.opened.cancelled():
            followed.opened.exception()
        await followed.feed.close()
