"""Records pulled from a durable consumer, to be acknowledged or given back.

Must not know what they are pulled for. Of a record nothing is looked at but where it is to be acknowledged:
each event that a client confirms is pulled once, so what one costs bounds how many can be.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec
import nats.errors

from sidecast_broker.answers import Away, Headers
from sidecast_broker.jetstream import JetStream
from sidecast_broker.settings import Nats

_encode = msgspec.json.encode
_NO_MORE = ("404", "408")
_SHORT_TOKENS, _SHORT_AT, _LONG_AT = 9, 5, 7
"""Subjects to acknowledge on have 9 tokens, of which the 6th is the sequence, or two more before it, which
name a domain and an account (nats-server ADR-15)."""


class Pulled(NamedTuple):
    """A record that was pulled.

    Attributes:
        sequence: of the stream.
        reply: the subject it is acknowledged on.
    """

    sequence: int
    reply: str


class _Pull:
    """The replies to one pull as they come in."""

    __slots__ = ("_count", "done", "found", "status")

    def __init__(self, count: int) -> None:
        self.found: list[Pulled] = []
        self.status: str | None = None
        self.done = asyncio.Event()
        self._count = count

    def take(self, reply: bytes, block: bytes) -> None:
        """Take a record, or what ends the pull."""
        try:
            if reply:
                self.found.append(pulled_of(reply.decode()))
            else:
                self.status = Headers(block).status or ""
        except (ValueError, IndexError):
            self.status = ""
        if self.status is not None or len(self.found) >= self._count:
            self.done.set()


class Pulls:
    """Pulls from the consumers of one stream.

    Args:
        stream: the connection to JetStream.
        settings: which stream, and how long an answer may take.
    """

    def __init__(self, stream: JetStream, settings: Nats) -> None:
        self._stream = stream
        self._name = settings.stream
        self._request_s = settings.request_s

    async def pull(self, name: str, count: int) -> list[Pulled]:
        """Give the next records of a consumer, fewer where there are no more at the moment.

        Args:
            name: of the consumer.
            count: at most so many.

        Raises:
            Away: no complete answer.
        """
        client = self._stream.client()
        inbox, pull = client.new_inbox(), _Pull(count)
        try:
            subscription = await client.receive_replies(inbox, pull.take)
            try:
                await client.publish(
                    f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{name}",
                    _encode({"batch": count, "no_wait": True}),
                    reply=inbox,
                )
                async with asyncio.timeout(self._request_s):
                    await pull.done.wait()
            finally:
                await client.forget(subscription)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"pull: {str(error) or type(error).__name__}") from error
        if pull.status is not None and pull.status not in _NO_MORE:
            raise Away(f"pull: {pull.status or 'an answer that is none'}")
        return pull.found

    async def confirm(self, pulled: Pulled) -> None:
        """Acknowledge a record and all before it; returns when the server has stored that.

        Raises:
            Away: it may be stored or not.
        """
        try:
            await self._stream.client().request(pulled.reply, b"+ACK", timeout=self._request_s)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"acknowledge: {str(error) or type(error).__name__}") from error

    async def give_back(self, pulled: Pulled) -> None:
        """Have the server deliver a record again, before those that nobody has pulled yet.

        Raises:
            Away: NATS can't be reached; it is delivered again after a while.
        """
        try:
            await self._stream.client().publish(pulled.reply, b"-NAK")
        except (nats.errors.Error, OSError) as error:
            raise Away(f"give back: {str(error) or type(error).__name__}") from error


def pulled_of(reply: str) -> Pulled:
    """Read which record is acknowledged on a subject: `$JS.ACK...`, as the server writes it."""
    tokens = reply.split(".")
    return Pulled(int(tokens[_SHORT_AT if len(tokens) == _SHORT_TOKENS else _LONG_AT]), reply)
