"""nats-py's client with a short way for what the broker receives most: records, as raw headers and payload.

Must not know what the messages are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, Parser

from sidecast_broker.turn import report

Receive = Callable[[bytes, bytes, bytes], None]
"""Takes a message's subject, header block (empty without headers) and payload."""
ReceiveReply = Callable[[bytes, bytes], None]
"""Takes the subject a message is to be answered on (empty without), and its header block."""

_Received: TypeAlias = tuple[Receive, bytes, bytes, bytes]

_HEAD = re.compile(rb"HMSG ([^\s]+) (\d+) (?:[^\s]+ )?(\d+) (\d+)\r\n")
_LINE_END = 2


class ShortClient(Client):
    """Hands the messages of some subscriptions on as they came, in order, without parsing their headers.

    nats-py makes a message object, a dict of all headers, a queue and a task per subscription: two thirds of
    what receiving a record costs the broker. Measured per event of a cold history: see docs/benchmarks.md.

    Args:
        on_burst_end: called when all messages that were read in one go have been handed on.
    """

    def __init__(self, on_burst_end: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._on_burst_end = on_burst_end
        self._ps = _ShortParser(self)
        self.receivers: dict[int, Receive] = {}
        self._reply_receivers: dict[int, ReceiveReply] = {}

    async def receive(self, subject: str, receive: Receive) -> Subscription:
        """Subscribe; `receive` is called for each message, in order, as soon as it has been read.

        Messages that the server sends before this returns may be left out.
        """
        subscription = await self.subscribe(subject)
        self.receivers[subscription._id] = receive
        return subscription

    async def receive_replies(self, subject: str, receive: ReceiveReply) -> Subscription:
        """Subscribe to what is only to be answered; `receive` must not raise."""
        subscription = await self.subscribe(subject)
        self._reply_receivers[subscription._id] = receive
        return subscription

    async def forget(self, subscription: Subscription) -> None:
        """Unsubscribe what `receive` or `receive_replies` gave."""
        self.receivers.pop(subscription._id, None)
        self._reply_receivers.pop(subscription._id, None)
        try:
            await subscription.unsubscribe()
        finally:
            # It holds the subscription: so held in turn, it would wait for the collector.
            subscription._message_iterator = None

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        receive = self.receivers.get(sid)
        if (receive_reply := self._reply_receivers.get(sid)) is not None:
            self.stats["in_msgs"] += 1
            self.stats["in_bytes"] += len(data)
            receive_reply(reply, headers or b"")
            return
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            return
        self.take([(receive, subject, headers or b"", data)])

    def take(self, received: Sequence[_Received]) -> None:
        """Hand messages on, and say when these were all."""
        stats = self.stats
        stats["in_msgs"] += len(received)
        for receive, subject, headers, payload in received:
            stats["in_bytes"] += len(payload)
            try:
                receive(subject, headers, payload)
            except Exception as error:  # noqa: BLE001 - must not end the loop that reads the connection
                report(receive, error)
        self._on_burst_end()


class _ShortParser(Parser):
    """Cuts messages with headers out of what was read in one go; everything else goes the long way."""

    nc: ShortClient

    async def parse(self, data: bytes = b"") -> None:
        if self.state == AWAITING_MSG_PAYLOAD:
            missing = self.needed + _LINE_END - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
        elif self.buf:  # a line that came in parts
            data = bytes(self.buf) + data
            self.buf.clear()
        taken = self._take(data)
        if taken < len(data):
            await super().parse(data[taken:])

    def _take(self, data: bytes) -> int:
        """Hand on the whole messages at the beginning of the data; give where they end."""
        receivers, received, start = self.nc.receivers, [], 0
        while (head := _HEAD.match(data, start)) is not None:
            subject, sid, header_size, size = head.groups()
            receive = receivers.get(int(sid))
            body = head.end()
            end = body + int(size)
            if receive is None or end + _LINE_END > len(data):
                break
            headers_end = body + int(header_size)
            received.append((receive, subject, data[body:headers_end], data[headers_end:end]))
            start = end + _LINE_END
        if received:
            self.nc.take(received)
        return start
