"""How far named subscriptions are confirmed, moved at their consumers.

Must not know streams, nor who may do what. What a consumer would deliver is not looked at: records come to
clients from the shared log, and are pulled here, without their payloads, only to be acknowledged.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from sidecast_broker.answers import Away
from sidecast_broker.consumers import ACK_WAIT_S, Consumers
from sidecast_broker.core.subscriptions import State, Subscription
from sidecast_broker.jetstream import JetStream
from sidecast_broker.pulls import Pulls
from sidecast_broker.settings import Nats

PULL_MIN, PULL_MAX = 16, 256
PAUSE_S = 0.05


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


class Positions:
    """Moves the positions of one stream's subscriptions.

    Args:
        consumers: where they are kept.
        stream: the connection to JetStream.
        settings: which stream, and how long an answer may take.
    """

    def __init__(self, consumers: Consumers, stream: JetStream, settings: Nats) -> None:
        self._consumers = consumers
        self._stream = stream
        self._request_s = settings.request_s
        self._pulls = Pulls(stream, settings)
        self._lines: WeakValueDictionary[str, _Line] = WeakValueDictionary()

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
        made = await self._consumers.get(name)
        return None if made is None else made.state

    async def _pull_up_to(self, name: str, floor: int, sequence: int) -> bool:
        """Pull records and acknowledge the last up to a sequence; False: no more are to be had."""
        newest, reached, count, total = None, floor, PULL_MIN, 0
        while True:
            # At most as many records of the subject lie there as there are sequences.
            asked = min(count, sequence - reached, PULL_MAX - total)
            pulled = await self._pulls.pull(name, asked)
            for each in pulled:
                reached = max(reached, each.sequence)
                if each.sequence > sequence:
                    await self._pulls.give_back(each)
                elif newest is None or each.sequence > newest.sequence:
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

    def _line(self, subscription: Subscription) -> _Line:
        """Give what those who wait at a consumer share; it lives as long as somebody waits."""
        line = self._lines.get(subscription.consumer)
        if line is None:
            line = self._lines[subscription.consumer] = _Line()
        return line
