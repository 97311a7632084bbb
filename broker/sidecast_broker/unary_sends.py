"""Messages whose answer is no stream: passed to the agent once, however often they are sent.

Must not know how the agent is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.answering import answer_with
from sidecast_broker.asked import Asked, message_id_of, v1_params
from sidecast_broker.auth.access import Access
from sidecast_broker.core.a2a.errors import A2AError
from sidecast_broker.core.views.a2a import with_history
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.messages import Begun
from sidecast_broker.opening import open_hub, until
from sidecast_broker.refused import Refused, unknown
from sidecast_broker.turns import Past, Sent, Turns


class Hearing:
    """What is heard of the answer to one operation while it is passed on.

    Attributes:
        result: v1.0's, or None.
        error: why there is none, where the agent has said so.
    """

    __slots__ = ("error", "result")

    def __init__(self) -> None:
        self.result: bytes | None = None
        self.error: AgentAway | A2AError | None = None


class _Configuration(Struct):
    returnImmediately: bool | None = None  # noqa: N815 - the wire's name
    historyLength: int | None = None  # noqa: N815


class _Params(Struct):
    configuration: _Configuration | None = None


_decode_params = msgspec.json.Decoder(_Params).decode

Pass = Callable[[Hearing], Awaitable[web.StreamResponse]]


class UnarySends:
    """Answers messages.

    Args:
        hubs: the tasks.
        turns: messages under way.
        access: who may follow the task that a message has begun.
    """

    def __init__(self, hubs: Hubs, turns: Turns, access: Access) -> None:
        self._hubs = hubs
        self._turns = turns
        self._access = access

    async def answer(self, asked: Asked, pass_on: Pass) -> web.StreamResponse:
        """Answer a message: with the agent's own words, or with its task, where it was sent before.

        What was asked of the agent is seen through when the client leaves (C17).

        Args:
            asked: the request.
            pass_on: asks the agent.

        Raises:
            AgentAway, A2AError, Refused: there is no answer.
        """
        try:
            message_id = message_id_of(asked.params)
        except A2AError:
            return await pass_on(Hearing())  # the agent says what it misses
        key, principal = asked.key, asked.principal.name
        sent = self._turns.find(key.tenant, principal, message_id, key.task)
        after = 0
        if sent is None and key.task:
            hub = await open_hub(self._hubs, key, wait=True)
            with self._hubs.using(hub):
                after = hub.end
                if hub.fold.turn_span(message_id) is not None:
                    sent = Past(message_id)
        answers: list[web.StreamResponse] = []
        if sent is None:

            async def ask() -> bytes:
                hearing = Hearing()
                answers.append(await pass_on(hearing))
                if hearing.result is None:
                    raise hearing.error or AgentAway("broken", "the agent's answer can't be read")
                return hearing.result

            sent = self._turns.pass_on(key.tenant, principal, message_id, key.task, after, ask)
        if isinstance(sent, Past):
            return await self._attached(asked, sent, Begun(key.task, b""))
        await asyncio.wait({sent.begun})
        if answers:
            return answers[0]
        return await self._attached(asked, sent, sent.begun.result())

    async def _attached(self, asked: Asked, sent: Sent, begun: Begun) -> web.Response:
        """Answer with what a message has begun when it was sent before."""
        if begun.task is None:
            return answer_with(asked, begun.message)
        key = asked.key._replace(task=begun.task)
        if key != asked.key and not await self._access.follows(asked.principal, key):
            raise unknown()
        wanted = _wanted(asked)
        hub = await open_hub(self._hubs, key, wait=True)
        with self._hubs.using(hub):
            await until(hub, lambda: hub.fold.started)
            if not wanted.returnImmediately:
                await until(hub, lambda: hub.failed or _is_over(hub, sent), within_s=None)
            if hub.failed:
                raise Refused("unavailable", "the task can't be followed at the moment", retry_after_s=1)
            task = with_history(hub.fold.task(), wanted.historyLength)
        return answer_with(asked, msgspec.json.encode({"task": Raw(task)}))


def _wanted(asked: Asked) -> _Configuration:
    try:
        return _decode_params(v1_params(asked)).configuration or _Configuration()
    except msgspec.ValidationError:
        return _Configuration()  # the agent has taken it when it was sent first


def _is_over(hub: Hub, sent: Sent) -> bool:
    """Tell whether a turn has ended; where no record tells of turns, one that waits for input has."""
    known = hub.fold.turn_span(sent.message_id) is not None
    return hub.ended or sent.end(hub) is not None or (not known and hub.fold.interrupted)
