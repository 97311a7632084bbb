"""Capture mode `proxy`: has what any answer of the agent says written to the logs of the tasks it names.

Must not know HTTP, A2A requests or versions. One captor per task does the work; this finds tasks that need
one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Callable
from functools import partial

import structlog

from sidecast_broker.answers import Away, TooManyResults
from sidecast_broker.background import Background
from sidecast_broker.captor import Captor, Periods
from sidecast_broker.core.log import Stored
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.voices import AgentTasks, Room, Turn, Voice
from sidecast_broker.writer import Writer
from sidecast_schemas import headers as names
from sidecast_schemas.codec import InvalidEvent, MessageBody, TurnBody, decode_event
from sidecast_schemas.events import INTERRUPTED_STATES, TERMINAL_STATES
from sidecast_schemas.subjects import InvalidId, TaskKey, events_subject, parse_subject

logger = structlog.get_logger(__name__)

WAITING_BYTES_MAX = 32 << 20
"""Payloads of events that wait for NATS, over all tasks."""
CLOSE_S_MAX = 2.0
RESULTS_MAX = 1024
"""Subjects one direct get answers for (nats-server 2.15)."""


class CapturedAnswer(Voice):
    """One answer of the agent to a client, streamed or not: what it says of a task is captured.

    Nothing here waits or raises: it stands in the way of a request. The client itself is served elsewhere.

    Args:
        capture: what it belongs to.
        tenant: of the request.
        turn: the message that is answered, if it is one.
        owner: the principal who asked, where known: the owner of a task this answer begins.
        streams: whether it comes event by event.

    Attributes:
        key: the task it is about, once that is known; None for a mere message (C67).
    """

    def __init__(
        self, capture: Capture, tenant: str, turn: Turn | None, owner: str | None, *, streams: bool
    ) -> None:
        super().__init__(turn, streams=streams)
        self.key: TaskKey | None = None
        self._capture = capture
        self._tenant = tenant
        self._owner = owner
        self._captor: Captor | None = None

    def about(self, task_id: str) -> None:
        """Know which task it is about before the agent says so."""
        if self._captor is None:
            self._captor = self._capture.captor(self._tenant, task_id, self._owner)
        if self._captor is not None:
            self.key = self._captor.key
            self._captor.hearing.join(self)

    def take(self, payload: bytes) -> TaskKey | None:
        """Take in what the agent says: one v1.0 StreamResponse; the result of a send looks the same.

        Returns:
            The task it is about, as far as known.
        """
        try:
            event = decode_event(payload)
        except InvalidEvent as invalid:
            self._capture.count("invalid")
            logger.warning("agent_event_invalid", reason=invalid.reason)
            return self.key
        if self._captor is None:
            if isinstance(event.body, MessageBody | TurnBody) or event.task_id is None:
                self._capture.count("message")
                return None
            self.about(event.task_id)
        if self._captor is not None:
            self._captor.hearing.hear(self, event)
        return self.key

    def end(self) -> None:
        """Know that the answer has ended in good order, or that the agent has answered with an error."""
        if self._captor is not None:
            self._captor.hearing.over(self, "ended")

    def broke(self) -> None:
        """Know that the answer broke off, or ended in an error while the task may go on."""
        if self._captor is not None:
            self._captor.hearing.over(self, "broke")


class Capture:
    """Captures the tasks of one agent.

    Args:
        stream: the connection to JetStream.
        hubs: the tasks in memory.
        agent: subscribes to tasks at the agent, and asks for them.
        name: the agent's name, as in subjects.
        metrics: where to count.
        periods: how long things may take.
        room: for payloads of events that wait for NATS, shared with other agents or None for its own; beyond
            it they are dropped, and the agent is asked anew.
        clock: seconds, monotonic.

    Attributes:
        producer: 128 random bits in hex that name this broker in what it captures.
    """

    def __init__(
        self,
        stream: JetStream,
        hubs: Hubs,
        agent: AgentTasks,
        name: str,
        metrics: Metrics,
        *,
        periods: Periods = Periods(),  # noqa: B008 - immutable
        room: Room | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.producer = secrets.token_hex(16)
        self._stream = stream
        self._hubs = hubs
        self._agent = agent
        self._name = name
        self._metrics = metrics
        self._periods = periods
        self._room = room or Room(WAITING_BYTES_MAX)
        self._clock = clock
        self._next_ordinal = partial(next, itertools.count(1))
        self._captors: dict[TaskKey, Captor] = {}
        self._running: dict[asyncio.Task[None], Captor] = {}
        self._looked_for_orphans = False
        self._watch = Background("capture", self._run)

    def __len__(self) -> int:
        return len(self._captors)

    def start(self) -> None:
        """Begin to look for tasks that need a captor."""
        self._watch.start()

    async def close(self) -> None:
        """Write what waits, within `CLOSE_S_MAX`, and let go of all tasks."""
        await self._watch.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await asyncio.gather(*(captor.hearing.written() for captor in self._captors.values()))
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def answer(
        self,
        tenant: str,
        *,
        message: bytes | None = None,
        task_id: str | None = None,
        owner: str | None = None,
        streams: bool = True,
    ) -> CapturedAnswer:
        """Begin to listen to an answer of the agent, before the request is forwarded.

        Args:
            tenant: of the request.
            message: the user's message as v1.0 JSON, for a send; what it begins is a turn.
            task_id: the task that the request names, if it names one.
            owner: the principal who asks, where known.
            streams: whether the answer comes event by event.
        """
        answer = CapturedAnswer(self, tenant, _turn(message), owner, streams=streams)
        if task_id:
            answer.about(task_id)
        return answer

    def hint(self, tenant: str, task: bytes) -> None:
        """Know that the agent has named a task in another answer (get, list, cancel).

        Such an answer may be cut (its history, its artifacts) and is of an unknown moment. So where it says
        another state than the log, the agent is asked for the whole.

        Args:
            tenant: of the request.
            task: v1.0 JSON of a Task.
        """
        try:
            event = decode_event(b'{"task":%b}' % task)
        except InvalidEvent:
            self.count("invalid")
            return
        assert event.task_id is not None
        assert event.state is not None
        hub = self._hubs.peek(TaskKey(tenant, self._name, event.task_id))
        if hub is not None and (hub.fold.terminal or hub.fold.state == event.state):
            return
        captor = self.captor(tenant, event.task_id, None)
        if captor is not None:
            captor.hearing.hint(event.state)

    async def adopt(self, tenant: str, task_id: str) -> bool:
        """Begin to capture a task that the log doesn't have; give whether the agent has it.

        Args:
            tenant: of the request.
            task_id: as somebody has made it up.

        Raises:
            AgentAway: it can't be asked.
        """
        task = await self._agent.find(task_id)
        if task is None:
            return False
        try:
            found = decode_event(b'{"task":%b}' % task).task_id
        except InvalidEvent:
            found = None
        if found != task_id:
            self.count("invalid" if found is None else "other-task")
            return False
        self.hint(tenant, task)
        return True

    def count(self, outcome: str) -> None:
        """Count an event that no captor has heard."""
        self._metrics.captured_events.labels(outcome).inc()

    def captor(self, tenant: str, task_id: str, owner: str | None) -> Captor | None:
        """Give the captor of a task; None where an id can't be part of a subject."""
        key = TaskKey(tenant, self._name, task_id)
        captor = self._captors.get(key)
        if captor is None:
            try:
                writer = Writer(key, self._stream, self._hubs, self.producer, self._next_ordinal)
            except InvalidId:
                self.count("invalid")
                return None
            writer.owner = owner
            captor = Captor(
                writer, self._stream, self._agent, self._room, self._metrics, self._periods, self._clock
            )
            self._captors[key] = captor
            task = asyncio.get_running_loop().create_task(self._capture(key, captor))
            self._running[task] = captor
            task.add_done_callback(self._running.pop)
        return captor

    async def _capture(self, key: TaskKey, captor: Captor) -> None:
        try:
            await captor.run(lambda: self._forget(key, captor))
        except Exception:
            self.count("failed")
            logger.exception("capture_failed", task=key.task)
        finally:
            self._forget(key, captor)
            await captor.close()

    def _forget(self, key: TaskKey, captor: Captor) -> None:
        if self._captors.get(key) is captor:
            del self._captors[key]

    # ------------------------------------------------------------------ tasks that need a captor

    async def _run(self) -> None:
        while True:
            if not self._looked_for_orphans:
                with contextlib.suppress(Away):
                    await self._find_orphans()
                    self._looked_for_orphans = True
            for hub in self._hubs.in_memory(self._name):
                key = hub.key
                open_here = hub.first is not None and not hub.ended
                if open_here and key not in self._captors and self._hubs.watchers(key):
                    self.captor(key.tenant, key.task, None)
            await asyncio.sleep(self._periods.check_s)

    async def _find_orphans(self) -> None:
        """Pursue tasks that were being captured when their broker, perhaps this one, went away.

        Raises:
            Away: NATS can't answer.
        """
        anything = events_subject(TaskKey("x", self._name, "x")).split(".")
        anything[-3] = anything[-1] = "*"
        for stored in await self._newest(".".join(anything)):
            state = stored.headers.get(names.STATE)
            if names.PRODUCER not in stored.headers or state is None:
                continue
            if state in TERMINAL_STATES or state in INTERRUPTED_STATES or _ends_turn(stored):
                continue
            with contextlib.suppress(InvalidId):
                key = parse_subject(stored.headers[names.SUBJECT])
                if (captor := self.captor(key.tenant, key.task, None)) is not None:
                    captor.pursue()

    async def _newest(self, pattern: str) -> list[Stored]:
        try:
            return await self._stream.last_of([pattern], 0)
        except TooManyResults:
            subjects = await self._stream.subjects(pattern)
        found: list[Stored] = []
        for start in range(0, len(subjects), RESULTS_MAX):
            found += await self._stream.last_of(subjects[start : start + RESULTS_MAX], 0)
        return found


def _turn(message: bytes | None) -> Turn | None:
    """Give the turn that a message begins; one without an id, or that is no message, begins none."""
    if message is None:
        return None
    try:
        event = decode_event(b'{"message":%b}' % message)
    except InvalidEvent:
        return None
    body = event.body
    assert isinstance(body, MessageBody)
    return Turn(body.messageId, event.payload[len(b'{"message":') : -1]) if body.messageId else None


def _ends_turn(stored: Stored) -> bool:
    try:
        body = decode_event(stored.payload).body
    except InvalidEvent:
        return False
    return isinstance(body, TurnBody) and body.phase == "end"
