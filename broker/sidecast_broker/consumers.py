"""The durable pull consumers that remember named subscriptions: read, made, handed over, advanced, deleted.

Must not know streams, nor who may do what. What a consumer would deliver is not looked at: records come to
clients from the shared log, and are pulled here, without their payloads, only to be acknowledged.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec
import nats.errors

from sidecast_broker.answers import ApiError, Away
from sidecast_broker.core.subscriptions import Holding, State, Subscription, metadata_of, state_of
from sidecast_broker.jetstream import JetStream
from sidecast_broker.pulls import Pulls, sequence_of
from sidecast_broker.settings import Nats

CONSUMER_NOT_FOUND, CONSUMER_EXISTS, CONSUMERS_FULL = 10014, 10148, 10026
PULL_MIN, PULL_MAX = 16, 256
ACK_WAIT_S = 2.0
"""After which what a broker pulled and neither acknowledged nor gave back, because it was killed, is
delivered again: until then a position within that can't be stored."""
PAUSE_S = 0.05
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


class _Line:
    """Who waits to have a consumer's position stored: whoever comes first stores the newest of all.

    Attributes:
        lock: lets one at a time at the consumer.
        waiting: what each of those who wait has to be stored.
        rounds: how often it was begun to store a position.
        stored: the round that was the last to end well, and how the subscription stood then.
    """

    __slots__ = ("__weakref__", "lock", "rounds", "stored", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting: list[int] = []
        self.rounds = 0
        self.stored: tuple[int, State | None] = (0, None)


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
        self._request_s = settings.request_s
        self._pulls = Pulls(stream, settings)
        self._inactive_s = inactive_s
        self._lines: WeakValueDictionary[str, _Line] = WeakValueDictionary()
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

    # ------------------------------------------------------------------ the position

    async def acknowledge(
        self, subscription: Subscription, sequence: int, known: State | None = None
    ) -> State | None:
        """Store that a client has confirmed everything up to a sequence, never less than is stored.

        Records are pulled up to there, without their payloads, and the last is acknowledged, which the server
        confirms when it has stored it; what was pulled beyond is given back. Another broker may do the same
        at the same time: whose position is higher remains. Of those who ask while one is being stored, one
        has the newest stored for all.

        Args:
            subscription: whose consumer.
            sequence: of any record of the stream.
            known: how the subscription stood a moment ago; None: that is asked for.

        Returns:
            How the subscription stands then; None: there is no such consumer.

        Raises:
            Away: it may be stored or not.
        """
        line = self._line(subscription)
        begun = line.rounds
        if line.lock.locked():
            known = None  # something else by the time it is one's turn
        line.waiting.append(sequence)
        try:
            async with asyncio.timeout(self._request_s + ACK_WAIT_S), line.lock:
                stored_by, state = line.stored
                if stored_by <= begun:
                    line.rounds += 1
                    state = await self._advance(subscription, max(line.waiting), known)
                    line.stored = line.rounds, state
                return state
        except TimeoutError as error:
            raise Away("the position could not be stored in time") from error
        finally:
            line.waiting.remove(sequence)

    async def _advance(self, subscription: Subscription, sequence: int, known: State | None) -> State | None:
        name = subscription.consumer
        state = known or await self._state(name)
        while state is not None and state.floor < sequence:
            floor = state.floor
            went_on = await self._pull_up_to(name, floor, sequence)
            state = await self._state(name)  # what counts is what is stored, whatever was acknowledged
            if state is None or state.floor >= sequence or (went_on and state.floor > floor):
                continue
            following = await self._stream.next(subscription.subject, state.floor + 1)
            if following is None or following.sequence > sequence:
                break
            # Pulled by another broker, which will acknowledge it, give it back, or be killed.
            await asyncio.sleep(PAUSE_S)
        return state

    async def _state(self, name: str) -> State | None:
        made = await self.get(name)
        return None if made is None else made.state

    async def _pull_up_to(self, name: str, floor: int, sequence: int) -> bool:
        """Pull records and acknowledge the last up to a sequence; False: no more are to be had."""
        newest, reached, count, total = None, floor, PULL_MIN, 0
        while True:
            # At most as many records of the subject lie there as there are sequences.
            asked = min(count, sequence - reached, PULL_MAX - total)
            pulled = await self._pulls.pull(name, asked)
            for each in pulled:
                reached = max(reached, sequence_of(each))
                if sequence_of(each) > sequence:
                    await self._pulls.give_back(each)
                elif newest is None or sequence_of(each) > sequence_of(newest):
                    newest = each
            total += len(pulled)
            went_on = len(pulled) == asked and reached <= sequence
            if not went_on or reached == sequence or total >= PULL_MAX:
                break
            # The others should lie as close to each other as those: what lies beyond is pulled for nothing.
            count = max((sequence - reached) * total // (reached - floor or 1), PULL_MIN)
        if newest is not None:
            await self._pulls.confirm(newest)
        return went_on

    async def touch(self, subscription: Subscription) -> None:
        """Have the server see that a subscription is in use: it counts pulls only.

        Raises:
            Away: no answer.
        """
        async with self._line(subscription).lock:
            for pulled in await self._pulls.pull(subscription.consumer, 1):
                await self._pulls.give_back(pulled)

    async def say_taken(self, subscription: Subscription, token: str) -> None:
        """Have whoever held a subscription ask who holds it; they may miss it.

        Raises:
            Away: NATS can't be reached.
        """
        try:
            await self._stream.client().publish(subscription.taken_subject, token.encode())
        except (nats.errors.Error, OSError) as error:
            raise Away(f"can't say who holds it: {error}") from error

    def _line(self, subscription: Subscription) -> _Line:
        """Give what those who wait at a consumer share; it lives as long as somebody waits."""
        line = self._lines.get(subscription.consumer)
        if line is None:
            line = self._lines[subscription.consumer] = _Line()
        return line


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
