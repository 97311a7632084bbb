"""An agent in memory whose answers are captured, and the part of a broker that captures them.

Must not know what is tested.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, Self

from brokers import Backend, FakeBackend, RealBackend, settings_of, subject_of
from nats_server import read_records

from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.captor import Periods
from sidecast_broker.capture import Capture, CapturedAnswer
from sidecast_broker.core.fold import Fold
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.metrics import Metrics
from sidecast_broker.positioner import Positioner
from sidecast_broker.voices import NoStream, Room
from sidecast_schemas.codec import decode_event
from sidecast_schemas.subjects import TaskKey

PERIODS = Periods(check_s=0.05, fresh_s=5.0, settle_s=0.3, retry_s=0.01, retry_s_max=0.05)

_END = b""
_BREAK = b"\0"


class FakeAgent:
    """Folds what it says, and says it to all who listen, as A2A demands.

    Attributes:
        away: whether it can't be reached.
        streams: whether it lets itself be subscribed to.
        leads: whether a subscription begins with the Task.
        doubles: whether a piece is saved once for each stream that is open, as a2a-sdk 0.3 does.
        repeats: so many events of before are repeated behind it.
        subscriptions: how often it was subscribed to.
        gets: how often it was asked for a Task.
    """

    def __init__(self) -> None:
        self.away = False
        self.streams = True
        self.leads = True
        self.doubles = False
        self.repeats = 0
        self.subscriptions = 0
        self.gets = 0
        self.said: defaultdict[str, list[bytes]] = defaultdict(list)
        self._tasks: dict[str, Fold] = {}
        self._queues: defaultdict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)
        self._answers: defaultdict[str, list[CapturedAnswer]] = defaultdict(list)

    def answers(self, task: str, answer: CapturedAnswer) -> CapturedAnswer:
        """Say what is said of a task to an answer, too."""
        self._answers[task].append(answer)
        return answer

    def hang_up(self, task: str, *, broken: bool = False) -> None:
        """End the answers about a task."""
        for answer in self._answers.pop(task, []):
            answer.broke() if broken else answer.end()

    def say(self, *payloads: bytes, task: str = "task-1") -> None:
        """Say events of a task."""
        fold = self._tasks.setdefault(task, Fold(task))
        for payload in payloads * (1 + len(self._queues[task]) * self.doubles):
            fold.apply(decode_event(payload), fold.sequence + 1)
        for payload in payloads:
            self.said[task].append(payload)
            for answer in self._answers[task]:
                answer.take(payload)
            for queue in self._queues[task]:
                queue.put_nowait(payload)

    def task(self, task: str = "task-1") -> bytes:
        """Give the Task as it stands."""
        return self._tasks[task].task()

    def truth(self, task: str = "task-1") -> Fold:
        """Fold what was said, each event once."""
        fold = Fold(task)
        for sequence, payload in enumerate(self.said[task], 1):
            fold.apply(decode_event(payload), sequence)
        return fold

    def break_off(self, task: str = "task-1", *, ended: bool = False) -> None:
        """End all subscriptions to a task, in good order or not."""
        for queue in self._queues.pop(task, set()):
            queue.put_nowait(_END if ended else _BREAK)

    def forget(self) -> None:
        """Restart without a memory."""
        for task in list(self._queues):
            self.break_off(task)
        self._tasks.clear()

    def subscribed(self, task: str = "task-1") -> int:
        """Tell how many are subscribed to a task."""
        return len(self._queues[task])

    async def subscribe(self, task_id: str) -> AsyncIterator[bytes]:
        self.subscriptions += 1
        await asyncio.sleep(0)
        if self.away:
            raise AgentAway("broken", "connection refused")
        fold = self._tasks.get(task_id)
        if fold is None or fold.terminal or not self.streams:
            raise NoStream
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queues = self._queues[task_id]
        queues.add(queue)
        try:
            if self.leads:
                repeated = self.said[task_id][-self.repeats :] if self.repeats else []
                yield b'{"task":%b}' % fold.task()
                for payload in repeated:
                    yield payload
            while (payload := await queue.get()) != _END:
                if payload == _BREAK:
                    raise AgentAway("broken", "broken off")
                yield payload
        finally:
            queues.discard(queue)

    async def find(self, task_id: str) -> bytes | None:
        return await self.get(task_id)

    async def get(self, task_id: str) -> bytes | None:
        self.gets += 1
        await asyncio.sleep(0)
        if self.away:
            raise AgentAway("broken", "connection refused")
        fold = self._tasks.get(task_id)
        return None if fold is None else fold.task()


class Capturing:
    """The part of a broker that captures.

    Attributes:
        capture: itself.
        hubs: the tasks in memory.
    """

    def __init__(
        self,
        backend: Backend,
        agent: FakeAgent,
        *,
        periods: Periods = PERIODS,
        waiting_bytes_max: int = 1 << 20,
    ) -> None:
        settings = settings_of(backend)
        self.metrics = Metrics()
        self.stream = backend.connect(settings.nats, lambda reason: self.positioner.doubt(reason))
        self.positioner = Positioner(self.stream, settings.nats.verify_s)
        self.hubs = Hubs(self.stream, self.positioner, settings.log, self.metrics)
        self.agent = agent
        self.capture = Capture(
            self.stream,
            self.hubs,
            agent,
            "agent",
            self.metrics,
            periods=periods,
            room=Room(waiting_bytes_max),
        )
        self._watched: list[Hub] = []

    async def start(self, *, known: bool = True) -> Self:
        self.stream.start()
        self.positioner.start()
        self.hubs.start()
        if known:
            await asyncio.wait_for(self.positioner.known.wait(), 5)
        self.capture.start()
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.capture.close()
        await self._leave()

    async def kill(self) -> None:
        """Go away without a word: what waits is lost."""
        await self.stream.close()
        await self.capture._watch.close()
        for task in list(self.capture._running):
            task.cancel()
        await asyncio.gather(*self.capture._running, return_exceptions=True)
        await self._leave()

    async def _leave(self) -> None:
        for hub in self._watched:
            self.hubs.release(hub)
        await self.hubs.close()
        await self.positioner.close()
        await self.stream.close()

    async def watch(self, task: str = "task-1") -> Hub:
        """Use a task's hub, as a stream does."""
        hub = await self.hubs.acquire(TaskKey("", "agent", task))
        self._watched.append(hub)
        return hub

    def answer(self, task: str = "task-1", message: str | None = None, **fields: Any) -> CapturedAnswer:
        """Have the agent answer a client of this broker."""
        sent = user_message(message) if message else None
        answer = self.capture.answer("", message=sent, **fields)
        return self.agent.answers(task, answer)

    async def written(self) -> None:
        """Wait until what was heard is written."""
        async with asyncio.timeout(10):
            await asyncio.gather(*(c.hearing.written() for c in list(self.capture._captors.values())))

    async def idle(self) -> None:
        """Wait until nothing is captured any more."""
        async with asyncio.timeout(10):
            while len(self.capture) or self.capture._running:
                await asyncio.sleep(0.005)

    def counted(self, outcome: str) -> float:
        """Tell how many events had an outcome."""
        value = self.metrics.registry.get_sample_value("sidecast_captured_events_total", {"outcome": outcome})
        return value or 0.0


def user_message(message_id: str) -> bytes:
    """Give a message of a user."""
    return json.dumps(
        {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "do it"}]}, separators=(",", ":")
    ).encode()


class Written(NamedTuple):
    """A stored record."""

    headers: dict[str, str]
    payload: bytes


async def log_of(backend: Backend, task: str = "task-1") -> list[Written]:
    """Read a task's log."""
    if isinstance(backend, FakeBackend):
        return [Written(m.headers, m.payload) for m in backend.server.of(subject_of(task))]
    assert isinstance(backend, RealBackend)
    records = await read_records(backend.server.url, subject_of(task))
    return [Written(headers, payload) for headers, payload in records]


async def payloads_of(backend: Backend, task: str = "task-1") -> list[bytes]:
    """Read the payloads of a task's log, without those of turns."""
    return [each.payload for each in await log_of(backend, task) if not each.payload.startswith(b'{"turn"')]


async def outline(backend: Backend, task: str = "task-1") -> list[str]:
    """Say what a log holds, one word a record."""
    return [_word(json.loads(each.payload)) for each in await log_of(backend, task)]


def _word(payload: dict[str, Any]) -> str:
    ((kind, body),) = payload.items()
    if kind == "turn":
        return f"{body['phase']} {body['id']}"
    if kind == "artifactUpdate":
        text = "".join(part.get("text", "?") for part in body["artifact"]["parts"])
        return f"{'+' if body.get('append') else '='}{text}"
    state = body["status"]["state"].removeprefix("TASK_STATE_").lower()
    message = body["status"].get("message")
    return (f"task {state}" if kind == "task" else state) + (f" {message['messageId']}" if message else "")


def marked(records: list[Written]) -> list[bool]:
    """Tell which records say that deltas were lost."""
    return [b'"urn:sidecast:capture:v1":{"resynchronised":true}' in each.payload for each in records]


def folded(records: list[Written], task: str = "task-1") -> Fold:
    """Fold a log, and check that it keeps the rules of logs."""
    fold = Fold(task)
    for sequence, each in enumerate(records, 1):
        fold.apply(decode_event(each.payload), sequence)
    assert fold.surplus_tasks == fold.after_terminal == 0
    assert fold.opening_sequence is not None
    return fold


async def until_log(
    backend: Backend, condition: Callable[[list[str]], Any], task: str = "task-1", timeout_s: float = 10
) -> list[str]:
    """Wait until a log's outline is as wanted; give it."""
    found: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            while not condition(found := await outline(backend, task)):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"the log is {found}") from None
    return found
