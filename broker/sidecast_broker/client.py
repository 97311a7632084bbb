"""nats-py's client with a short way for what the broker receives most: records, as raw headers and payload.

Must not know what the messages are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.subscription import Subscription

Receive = Callable[[bytes, bytes, bytes], None]
"""Takes a message's subject, header block (empty without headers) and payload."""


class ShortClient(Client):
    """Hands the messages of some subscriptions on as they came, in order, without parsing their headers.

    nats-py makes a message object, a dict of all headers, a queue and a task per subscription: two thirds of
    what receiving a record costs the broker. Measured per event of a cold history: see docs/benchmarks.md.
    """

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, Receive] = {}

    async def receive(self, subject: str, receive: Receive) -> Subscription:
        """Subscribe; `receive` is called in a turn of the event loop of its own for each message.

        Messages that the server sends before this returns may be left out.
        """
        subscription = await self.subscribe(subject)
        self._receivers[subscription._id] = receive
        return subscription

    async def forget(self, subscription: Subscription) -> None:
        """Unsubscribe what `receive` gave."""
        self._receivers.pop(subscription._id, None)
        await subscription.unsubscribe()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        receive = self._receivers.get(sid)
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        # In a turn of its own: what it raises must not end the loop that reads the connection.
        asyncio.get_running_loop().call_soon(receive, subject, headers or b"", data)
