"""The durable pull consumers that remember named subscriptions: read, made, handed over, listed, deleted.

Must not know streams, nor who may do what, nor how a position is moved.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec
import nats.errors

from sidecast_broker.answers import ApiError, Away
from sidecast_broker.core.subscriptions import Holding, State, Subscription, metadata_of, state_of
from sidecast_broker.jetstream import JetStream
from sidecast_broker.settings import Nats

CONSUMER_NOT_FOUND, CONSUMER_EXISTS, CONSUMERS_FULL = 10014, 10148, 10026
ACK_WAIT_S = 2.0
"""After which what a broker pulled and neither acknowledged nor gave back, because it was killed, is
delivered again: until then a position within that can't be stored."""
NAMES_AT_ONCE, INFOS_AT_ONCE = 2, 16


class Exists(Exception):  # noqa: N818
    """The consumer that was to be made is there: somebody else has made it."""


class Full(Exception):  # noqa: N818
    """The stream has as many consumers as it allows."""


class _Position(msgspec.Struct):
    consumer_seq: int = 0
    stream_seq: int = 0


class _Cluster(msgspec.Struct):
    leader: str = ""


class _Answer(msgspec.Struct):
    config: dict[str, Any] = {}
    ack_floor: _Position = msgspec.field(default_factory=_Position)
    num_pending: int = 0
    num_ack_pending: int = 0
    cluster: _Cluster = msgspec.field(default_factory=_Cluster)
    success: bool = False
    error: ApiError | None = None


class _Names(msgspec.Struct):
    consumers: list[str] | None = None
    total: int = 0
    error: ApiError | None = None


_decode = msgspec.json.Decoder(_Answer).decode
_decode_names = msgspec.json.Decoder(_Names).decode
_encode = msgspec.json.encode


class Made(NamedTuple):
    """A consumer as it stands.

    Attributes:
        state: what it says of its subscription.
        config: as the server keeps it.
        leader: of the nodes of a cluster, the one that leads it; it has said all this.
    """

    state: State
    config: dict[str, Any]
    leader: str


class Consumers:
    """Speaks to the server of the consumers of one stream.

    Args:
        stream: the connection to JetStream.
        settings: which stream.
        inactive_s: how long a consumer is kept that nothing is pulled from.
    """

    def __init__(self, stream: JetStream, settings: Nats, inactive_s: float) -> None:
        self._stream = stream
        self._name = settings.stream
        self._inactive_s = inactive_s
        self._naming = asyncio.Semaphore(NAMES_AT_ONCE)

    async def get(self, name: str) -> Made | None:
        """Ask the consumer's leader how it stands; None: there is none, or it remembers no subscription.

        Raises:
            Away: no answer.
        """
        answer = _decode(await self._stream.api(f"CONSUMER.INFO.{self._name}.{name}"))
        if answer.error is not None:
            if answer.error.err_code == CONSUMER_NOT_FOUND:
                return None
            raise Away(answer.error.description)
        return _made(answer)

    async def create(
        self, subscription: Subscription, epoch: str, start: int, holding: Holding, *, begun: bool
    ) -> None:
        """Make the consumer of a subscription.

        Args:
            subscription: which one.
            epoch: the stream's.
            start: the sequence it begins at.
            holding: who holds it.
            begun: whether everything before `start` is confirmed.

        Raises:
            Exists: somebody else has made it.
            Full: the stream takes no more.
            Away: no answer, or it was refused.
        """
        config = {
            "name": subscription.consumer,
            "durable_name": subscription.consumer,
            "filter_subject": subscription.subject,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(start, 1),
            "ack_policy": "all",
            "ack_wait": int(ACK_WAIT_S * 1e9),
            "max_deliver": -1,
            "headers_only": True,
            "inactive_threshold": int(self._inactive_s * 1e9),
            "metadata": metadata_of(subscription, epoch, begun=begun, holding=holding),
        }
        await self._write(subscription, config, "create")

    async def hand_over(self, made: Made, holding: Holding) -> Made | None:
        """Write down who holds a subscription; its position stays.

        Returns:
            The consumer as it stood when that was written; None: the server doesn't say.

        Raises:
            Away: no answer, or it was refused.
        """
        state = made.state
        metadata = metadata_of(state.subscription, state.epoch, begun=state.begun, holding=holding)
        kept = {key: value for key, value in made.config.items() if key != "metadata"}
        kept["inactive_threshold"] = int(self._inactive_s * 1e9)
        return _made(await self._write(state.subscription, {**kept, "metadata": metadata}, "update"))

    async def _write(self, subscription: Subscription, config: dict[str, Any], action: str) -> _Answer:
        path = f"CONSUMER.CREATE.{self._name}.{subscription.consumer}.{subscription.subject}"
        body = {"stream_name": self._name, "config": config, "action": action}
        answer = _decode(await self._stream.api(path, body))
        if answer.error is not None:
            if answer.error.err_code == CONSUMER_EXISTS:
                raise Exists
            if answer.error.err_code == CONSUMERS_FULL:
                raise Full
            raise Away(answer.error.description)
        return answer

    async def delete(self, name: str) -> bool:
        """Delete a consumer; False: there was none.

        Raises:
            Away: no answer.
        """
        answer = _decode(await self._stream.api(f"CONSUMER.DELETE.{self._name}.{name}"))
        if answer.error is not None and answer.error.err_code != CONSUMER_NOT_FOUND:
            raise Away(answer.error.description)
        return answer.success

    async def names(self, prefix: str) -> list[str]:
        """Give the names of the stream's consumers that begin so; the server can only list all.

        Raises:
            Away: no answer.
        """
        found: list[str] = []
        seen = 0
        async with self._naming:
            while True:
                path = f"CONSUMER.NAMES.{self._name}"
                answer = _decode_names(await self._stream.api(path, {"offset": seen}))
                if answer.error is not None:
                    raise Away(answer.error.description)
                page = answer.consumers or []
                found += [name for name in page if name.startswith(prefix)]
                seen += len(page)
                if not page or seen >= answer.total:
                    return found

    async def owned(self, prefix: str) -> list[State]:
        """Give how the subscriptions stand whose consumers begin so.

        Raises:
            Away: no answer.
        """
        gate = asyncio.Semaphore(INFOS_AT_ONCE)

        async def ask(name: str) -> Made | None:
            async with gate:
                return await self.get(name)

        answers = await asyncio.gather(*map(ask, await self.names(prefix)))
        return [made.state for made in answers if made is not None]

    async def say_taken(self, subscription: Subscription, token: str) -> None:
        """Have whoever held a subscription ask who holds it; they may miss it.

        Raises:
            Away: NATS can't be reached.
        """
        try:
            await self._stream.client().publish(subscription.taken_subject, token.encode())
        except (nats.errors.Error, OSError) as error:
            raise Away(f"can't say who holds it: {error}") from error


def _made(answer: _Answer) -> Made | None:
    config, floor = answer.config, answer.ack_floor
    state = state_of(
        config.get("metadata") or {},
        start=config.get("opt_start_seq", 0),
        floor=floor.stream_seq,
        acknowledged=floor.consumer_seq,
        pending=answer.num_pending + answer.num_ack_pending,
    )
    return None if state is None else Made(state, config, answer.cluster.leader)
