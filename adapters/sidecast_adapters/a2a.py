"""The adapter for a2a-sdk, 0.3.x and 1.x: wraps an agent's executor, and publishes what it says as it says
it.

    handler = DefaultRequestHandler(agent_executor=publishing(MyExecutor(), publisher), …)

Must not know NATS. The executor is the one place that sees everything in both generations; the queue it gets
is a proxy, so no class of the SDK but `AgentExecutor` is needed. Publishing never breaks the agent: what
can't be published is counted and logged. The owner of a task is whom the broker says the client is, else the
user the SDK has authenticated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from a2a import types
from a2a.server.agent_execution import AgentExecutor

from sidecast_adapters.a2a_json import event_json, object_json
from sidecast_adapters.publisher import Publisher
from sidecast_adapters.task import ErrorText
from sidecast_adapters.turn import Turn, still_open
from sidecast_schemas.headers import PRINCIPAL, TENANT
from sidecast_schemas.subjects import InvalidId, decode_token

logger = logging.getLogger("sidecast_adapters")

_STRICT = hasattr(types.Task, "DESCRIPTOR")
"""a2a-sdk 1.x has protobuf types and checks what agents say; 0.3.x has pydantic models and lets it pass."""


def publishing(
    executor: AgentExecutor, publisher: Publisher, *, error_text: ErrorText = "type"
) -> PublishingExecutor:
    """Wrap an executor so that everything it says about tasks is published too.

    Args:
        executor: the agent's.
        publisher: where to; it is started with the first task where it isn't yet, and belongs to the caller,
        who
            closes it.
        error_text: what an exception of the executor says in the log: its `type`, or its text too (`full`;
        texts
            carry secrets).

    Raises:
        ValueError: `error_text` is neither.
    """
    if error_text not in ("type", "full"):
        raise ValueError(f"error_text is 'type' or 'full', not {error_text!r}")
    return PublishingExecutor(executor, publisher, error_text)


class PublishingExecutor(AgentExecutor):  # type: ignore[misc] # a2a-sdk is not installed with every agent
    """An executor that publishes what another one says. Made by `publishing`."""

    def __init__(self, executor: AgentExecutor, publisher: Publisher, error_text: ErrorText) -> None:
        self._executor = executor
        self._publisher = publisher
        self._error_text = error_text
        self._running: dict[str, _Tee] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    async def execute(self, context: Any, event_queue: Any) -> None:
        """Run the executor, and publish what it says and how it ends."""
        turn = self._open(context, context.message)
        if turn is None:
            await self._executor.execute(context, event_queue)
            return
        tee = self._running[turn.task.id] = _Tee(event_queue, turn, self, asyncio.Lock())
        self._safely(turn.begin)
        try:
            await self._executor.execute(context, tee)
        except asyncio.CancelledError:
            self._safely(turn.cancelled)
            raise
        except BaseException as error:
            self._safely(turn.failed, error)
            raise
        else:
            self._safely(turn.returned)
        finally:
            if self._running.get(turn.task.id) is tee:
                del self._running[turn.task.id]

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """Cancel at the executor, and publish what it says; the task is canceled where it doesn't say so."""
        running = self._running.get(context.task_id or "")
        turn = running.turn if running else self._open(context, None)
        if turn is None:
            await self._executor.cancel(context, event_queue)
            return
        if running is None:
            self._safely(turn.begin)
        lock = running.lock if running else asyncio.Lock()
        try:
            await self._executor.cancel(context, _Tee(event_queue, turn, self, lock))
        except Exception as error:
            # a2a-sdk 1.x fails the task then; in 0.3.x the task goes on.
            if _STRICT:
                self._safely(turn.cancel_failed, error)
            raise
        else:
            self._safely(turn.cancel_returned)
        finally:
            if running is None:
                turn.close()

    def _open(self, context: Any, message: Any) -> Turn | None:
        turn: Turn | None = None

        def make() -> None:
            nonlocal turn
            call = context.call_context
            owner, tenant = _asked_by(call)
            known = context.current_task and object_json(context.current_task)
            task = self._publisher.task(
                context.task_id,
                context_id=context.context_id,
                owner=owner,
                tenant=tenant,
            )
            turn = Turn(
                task,
                self._publisher.totals,
                message=message and object_json(message),
                known=known if still_open(known) else None,
                strict=_STRICT,
                error_text=self._error_text,
            )

        self._safely(make)
        return turn

    def _safely(self, publish: Callable[..., None], *arguments: Any) -> None:
        try:
            publish(*arguments)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            # An event that can't be published is the log's loss, never the agent's failure.
            self._publisher.totals.invalid_events += 1
            logger.error("an event can't be published: %s: %s", type(error).__name__, error)

    async def publish(self, event: Any, turn: Turn, enqueue: Callable[[Any], Any]) -> None:
        """Hand an event to the SDK, and where the SDK takes it publish it, as it is at this moment."""
        published: dict[str, Any] | None = None

        def translate() -> None:
            nonlocal published
            published = event_json(event)

        # Before the SDK has it: protobuf messages are mutable, and the SDK shares them.
        self._safely(translate)
        await enqueue(event)
        if published is not None:
            self._safely(turn.take, published)

    async def room(self) -> None:
        """Wait a moment where the buffer fills up and NATS takes events."""
        await self._publisher.room()


def _asked_by(call: Any) -> tuple[str | None, str | None]:
    """Give who asks, who will own what they begin, and their tenant; None where nothing says so.

    A broker that checks credentials says whom it takes the client for, and is believed before the SDK's own
    user: it is by this name that it lets watchers in.
    """
    user = getattr(call, "user", None)
    owner = user.user_name if user is not None and user.is_authenticated else None
    # Both generations keep the request's headers there; an agent may build its call contexts otherwise.
    headers = (getattr(call, "state", None) or {}).get("headers")
    told = (
        {str(name).lower(): value for name, value in headers.items()} if isinstance(headers, Mapping) else {}
    )
    tenant = getattr(call, "tenant", "")
    return (
        _id(told.get(PRINCIPAL.lower())) or owner or None,
        _id(told.get(TENANT.lower())) or tenant or None,
    )


def _id(token: Any) -> str | None:
    try:
        return decode_token(token) if isinstance(token, str) else None
    except InvalidId:
        return None


class _Tee:
    """An event queue that publishes, too, what is enqueued: in the same order, whoever enqueues."""

    def __init__(self, queue: Any, turn: Turn, executor: PublishingExecutor, lock: asyncio.Lock) -> None:
        self.turn = turn
        self.lock = lock
        self._queue = queue
        self._executor = executor

    async def enqueue_event(self, event: Any) -> None:
        async with self.lock:
            await self._executor.publish(event, self.turn, self._queue.enqueue_event)
        await self._executor.room()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)
