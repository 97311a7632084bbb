"""Turns under way at the agent: one for each message, however many clients wait for what comes of it.

Must not know clients' requests or streams.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

import msgspec
import structlog
from msgspec import Raw, Struct

from sidecast_broker.a2a_view import AgentTurn
from sidecast_broker.agent_calls import AgentCalls, Headers
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.answers import Away
from sidecast_broker.capture import Capture, CapturedAnswer
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.messages import Begun, Claim, Messages
from sidecast_broker.refused import Refused
from sidecast_schemas.codec import InvalidEvent, decode_event

logger = structlog.get_logger(__name__)

KEPT_S = 300.0
"""How long a turn that has ended is known by its message: a client that retries attaches to it."""
KEPT_MAX = 10_000
"""Of those at most so many; the oldest are forgotten first, and found in the bucket or the log."""
TURNS_MAX = 10_000


class _Key(NamedTuple):
    """What tells messages apart: who sends it in which tenant, its id, and the task it names, or none."""

    tenant: str
    principal: str
    message_id: str
    task: str


class _Params(Struct):
    message: Raw


class _Message(Struct):
    taskId: str | None = None  # noqa: N815 - the wire's name


_decode_params = msgspec.json.Decoder(_Params).decode
_decode_message = msgspec.json.Decoder(_Message).decode


class Sent(AgentTurn):
    """A message that was sent to the agent.

    Attributes:
        begun: what came first, or why nothing came.
        after: the task's newest sequence when it was sent, 0 for a new task.
    """

    __slots__ = ("_listeners", "after", "begun")

    def __init__(self, message_id: str, after: int) -> None:
        super().__init__(message_id)
        self.after = after
        self.begun: asyncio.Future[Begun] = asyncio.get_running_loop().create_future()
        # Whoever waits sees why it failed; that nobody waits any more is no fault.
        self.begun.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._listeners: set[Callable[[], None]] = set()

    def listen(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the agent's answer has ended; `forget` undoes it."""
        self._listeners.add(tell)

    def forget(self, tell: Callable[[], None]) -> None:
        """Take back a `listen`."""
        self._listeners.discard(tell)

    def finish(self) -> None:
        """Know that the agent's answer has ended."""
        self.answered = True
        for tell in list(self._listeners):
            tell()


class Past(Sent):
    """A turn the log knows, whoever has sent its message."""

    __slots__ = ()

    def __init__(self, message_id: str) -> None:
        super().__init__(message_id, 0)


_Ask: TypeAlias = Callable[[Claim | None], Awaitable[None]]


class Turns:
    """Sends messages to the agent, and reads its answers to their ends whether anybody waits or not.

    Args:
        calls: reach the agent.
        messages: know what messages have begun at any broker; None: only what came through this one counts.
        capture: publishes what the agent says; None: the agent does.
    """

    def __init__(self, calls: AgentCalls, messages: Messages | None, capture: Capture | None) -> None:
        self._calls = calls
        self._messages = messages
        self._capture = capture
        self._sent: dict[_Key, Sent] = {}
        self._kept: deque[tuple[_Key, Sent]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop reading."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def find(self, tenant: str, principal: str, message_id: str, task: str) -> Sent | None:
        """Give the turn a message has begun, where it came through this broker and not long ago.

        Args:
            tenant: of the task.
            principal: who sends it; empty for anybody.
            message_id: the message's.
            task: the one it names, or empty.
        """
        return self._sent.get(_Key(tenant, principal, message_id, task))

    def send(
        self, tenant: str, principal: str, message_id: str, params: bytes, headers: Headers, after: int
    ) -> Sent:
        """Send a message to the agent, or find the task that it has begun when it was sent before.

        Args:
            tenant: of the task.
            principal: who sends it, and will own the task it begins; empty for anybody.
            message_id: the message's.
            params: v1.0 SendMessageRequest.
            headers: of the client's request.
            after: the task's newest sequence, 0 for a new task.

        Raises:
            A2AError: too many messages are under way.
        """
        message = _decode_params(params).message
        key = _Key(tenant, principal, message_id, _decode_message(message).taskId or "")
        sent = self._new(key, after)
        told = (principal, tenant or None) if principal else (None, None)

        async def ask(claim: Claim | None) -> None:
            heard = self._listen(key, message)
            await self._ask(sent, claim, params, list(headers), told, heard)

        self._start(sent, key, ask)
        return sent

    def pass_on(
        self,
        tenant: str,
        principal: str,
        message_id: str,
        task: str,
        after: int,
        answer: Callable[[], Awaitable[bytes]],
    ) -> Sent:
        """Have a message answered by the agent, unless it was sent before: then `answer` is not called.

        Args:
            tenant: of the task.
            principal: who sends it; empty for anybody.
            message_id: the message's.
            task: the one it names, or empty.
            after: the task's newest sequence, 0 for a new task.
            answer: gives the agent's answer, a v1.0 SendMessageResponse; it raises AgentAway, A2AError or
                Refused where there is none.

        Raises:
            A2AError: too many messages are under way.
        """
        key = _Key(tenant, principal, message_id, task)
        sent = self._new(key, after)

        async def ask(claim: Claim | None) -> None:
            try:
                await self._begin(sent, claim, await answer())
            except InvalidEvent as invalid:
                raise AgentAway("broken", f"the agent's answer is none: {invalid}") from invalid
            if not sent.begun.done():
                raise AgentAway("broken", "the agent's answer names no task")

        self._start(sent, key, ask)
        return sent

    def _new(self, key: _Key, after: int) -> Sent:
        if len(self._running) >= TURNS_MAX:
            raise A2AError(ErrorKind.RESOURCE_EXHAUSTED, "Too many messages are under way")
        sent = self._sent[key] = Sent(key.message_id, after)
        return sent

    def _start(self, sent: Sent, key: _Key, ask: _Ask) -> None:
        running = asyncio.get_running_loop().create_task(self._run(sent, key, ask))
        self._running.add(running)

        def ended(done: asyncio.Task[None]) -> None:
            self._running.discard(done)
            # One that came to nothing may be sent again; the others are known for a while.
            if sent.begun.cancelled() or sent.begun.exception() is not None:
                self._drop(key, sent)
            else:
                self._keep(key, sent)

        running.add_done_callback(ended)

    def _keep(self, key: _Key, sent: Sent) -> None:
        asyncio.get_running_loop().call_later(KEPT_S, self._drop, key, sent)
        self._kept.append((key, sent))
        if len(self._kept) > KEPT_MAX:
            self._drop(*self._kept.popleft())

    def _drop(self, key: _Key, sent: Sent) -> None:
        if self._sent.get(key) is sent:
            del self._sent[key]

    async def _run(self, sent: Sent, key: _Key, ask: _Ask) -> None:
        """See a message through: to the end of the agent's answer, or to the task it began before."""
        claim: Claim | None = None
        try:
            # Which turns a task has had says its log.
            if self._messages is not None and not key.task:
                found = await self._messages.claim(key.tenant, key.principal, key.message_id)
                if isinstance(found, Begun):
                    sent.begun.set_result(found)
                    return
                claim = found
            await ask(claim)
        except (AgentAway, A2AError, Refused, Away) as error:
            if sent.begun.done():
                logger.info("agent_answer_broke_off", error=str(error))
                return
            if claim is not None:
                await claim.release()
            away = isinstance(error, Away)
            sent.begun.set_exception(A2AError(ErrorKind.UNAVAILABLE, str(error)) if away else error)
        finally:
            if claim is not None:
                claim.drop()
            if not sent.begun.done():
                sent.begun.cancel()
            sent.finish()

    def _listen(self, key: _Key, message: Raw) -> CapturedAnswer | None:
        if self._capture is None:
            return None
        return self._capture.answer(
            key.tenant, message=bytes(message), task_id=key.task or None, owner=key.principal or None
        )

    async def _ask(
        self,
        sent: Sent,
        claim: Claim | None,
        params: bytes,
        headers: list[tuple[str, str]],
        told: tuple[str | None, str | None],
        heard: CapturedAnswer | None,
    ) -> None:
        """Send a message to the agent, and read the answer to its end.

        Raises:
            AgentAway, A2AError, Refused: there is none, or it broke off.
        """
        error: Exception | None = None
        try:
            async with self._calls.send(params, headers, *told) as said:
                async for payload in said:
                    if heard is not None:
                        heard.take(payload)
                    if not sent.begun.done():
                        await self._begin(sent, claim, payload)
            if not sent.begun.done():
                raise AgentAway("broken", "the agent's answer was empty")
        except InvalidEvent as invalid:
            error = AgentAway("broken", f"the agent's answer is no event: {invalid}")
            raise error from invalid
        except (AgentAway, A2AError, Refused) as caught:
            error = caught
            raise
        finally:
            if heard is not None:
                refused = isinstance(error, A2AError | Refused) and heard.key is None
                if error is None or refused:
                    heard.end()
                else:
                    heard.broke()

    async def _begin(self, sent: Sent, claim: Claim | None, payload: bytes) -> None:
        """Take what the agent says first of a turn; no client sees it before all brokers can know it."""
        event = decode_event(payload)
        if event.kind == "message":
            begun = Begun(None, event.payload)
        elif event.task_id is not None:
            begun = Begun(event.task_id, b"")
        else:
            return
        if claim is not None:
            await claim.settle(begun)
        sent.begun.set_result(begun)
