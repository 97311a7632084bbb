"""Records pulled from a durable consumer, to be acknowledged or given back.

Must not know what they are pulled for.
"""

from __future__ import annotations

import msgspec
import nats.errors
from nats.aio.msg import Msg

from sidecast_broker.answers import Away
from sidecast_broker.jetstream import JetStream
from sidecast_broker.settings import Nats
from sidecast_schemas import headers as names

_encode = msgspec.json.encode
_NO_MORE = ("404", "408")


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

    async def pull(self, name: str, count: int) -> list[Msg]:
        """Give the next records of a consumer, fewer where there are no more at the moment.

        Args:
            name: of the consumer.
            count: at most so many.

        Raises:
            Away: no complete answer.
        """
        client = self._stream.client()
        inbox = client.new_inbox()
        found: list[Msg] = []
        try:
            subscription = await client.subscribe(inbox)
            try:
                await client.publish(
                    f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{name}",
                    _encode({"batch": count, "no_wait": True}),
                    reply=inbox,
                )
                while len(found) < count:
                    message = await subscription.next_msg(timeout=self._request_s)
                    if not message.reply:
                        _check_end(message)
                        break
                    found.append(message)
            finally:
                await subscription.unsubscribe()
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"pull: {str(error) or type(error).__name__}") from error
        return found

    async def confirm(self, message: Msg) -> None:
        """Acknowledge a record and all before it; returns when the server has stored that.

        Raises:
            Away: it may be stored or not.
        """
        try:
            await self._stream.client().request(message.reply, b"+ACK", timeout=self._request_s)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"acknowledge: {str(error) or type(error).__name__}") from error

    async def give_back(self, message: Msg) -> None:
        """Have the server deliver a record again, before those that nobody has pulled yet.

        Raises:
            Away: NATS can't be reached; it is delivered again after a while.
        """
        try:
            await self._stream.client().publish(message.reply, b"-NAK")
        except (nats.errors.Error, OSError) as error:
            raise Away(f"give back: {str(error) or type(error).__name__}") from error


def sequence_of(message: Msg) -> int:
    """Give the stream sequence of a pulled record."""
    return message.metadata.sequence.stream


def _check_end(message: Msg) -> None:
    status = (message.headers or {}).get(names.STATUS, "")
    if status not in _NO_MORE:
        raise Away(f"pull: {status or 'an answer that is none'}")
