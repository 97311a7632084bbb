"""A stage: a broker, the agent it stands beside, and the log of their tasks.

Must not know what a test looks at. Stages share one NATS server; each has an agent name of its own, so no
stage sees the tasks of another.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import nats
from a2a_rig.processes import Agent, Generation
from brokers import artifact, task_record
from e2e.broker import Broker
from nats_server import NatsServer, read_records

from sidecast_schemas.subjects import TaskKey, events_subject

Capture = Literal["adapter", "proxy"]

HEARTBEAT_S = 0.3
"""Beats of the stages' brokers: short, so that a test sees some."""

_numbers = itertools.count(1)


class Stage:
    """One broker with its agent; a context manager that starts and stops both.

    Args:
        folder: of logs and of the agent's tasks.
        server: where events go.
        generation: the a2a-sdk of the agent; None for a broker whose agent is elsewhere, or that has none.
        capture: who publishes: the agent through its adapter, or the broker.
        options: further words of the agent's command line.
        sdk: the version of the agent's a2a-sdk; empty for the newest of its generation.
        settings: further ones of the broker, with `__` for the dot.

    Attributes:
        agent: the running agent.
        broker: the running broker.
        name: the agent's name in the log.
    """

    def __init__(
        self,
        folder: Path,
        server: NatsServer,
        generation: Generation | None = None,
        capture: Capture = "adapter",
        *,
        options: tuple[str, ...] = (),
        sdk: str = "",
        **settings: object,
    ) -> None:
        self.name = f"agent{next(_numbers)}"
        self.capture = capture
        self.generation = generation
        self._server = server
        self._agent: Agent | None = None
        effective: dict[str, object] = {
            "agent.name": self.name,
            "agent.capture": capture,
            "stream.a2a_heartbeat_s": HEARTBEAT_S,
            "nats.verify_s": 0.5,
            "stream.drain_s": 0.2,
        }
        if generation is not None:
            own = ("--agent", self.name, *(("--compat",) if generation == "v1" else ()), *options)
            publishes = server.url if capture == "adapter" else ""
            self._agent = Agent(folder, generation, nats_url=publishes, options=own, sdk=sdk)
            effective["agent.url"] = self._agent.url
        effective |= {name.replace("__", "."): value for name, value in settings.items()}
        self.broker = Broker(folder, [server.url], effective)

    @property
    def agent(self) -> Agent:
        """The agent of this stage."""
        assert self._agent is not None
        return self._agent

    @property
    def url(self) -> str:
        """Where the broker serves."""
        return self.broker.url

    def new_task(self) -> str:
        """Give an id that no task has."""
        return f"task-{uuid.uuid4()}"

    def subject(self, task: str, tenant: str = "") -> str:
        """Give the subject of a task."""
        return events_subject(TaskKey(tenant, self.name, task))

    async def publish(
        self, task: str, *payloads: bytes, tenant: str = "", headers: dict[str, str] | None = None
    ) -> int:
        """Store events of a task as a program in any language would; give the last one's sequence."""
        connection = await nats.connect(self._server.url, allow_reconnect=False)
        try:
            for payload in payloads:
                answer = await connection.request(
                    self.subject(task, tenant), payload, timeout=5, headers=headers
                )
        finally:
            await connection.close()
        decoded: dict[str, Any] = msgspec.json.decode(answer.data)
        assert "error" not in decoded, decoded
        return int(decoded["seq"])

    async def known(self, task: str) -> None:
        """Wait until something of a task is stored: an adapter publishes beside its agent's answers."""
        while not await self.records(task):
            await asyncio.sleep(0.02)

    async def records(self, task: str) -> list[dict[str, Any]]:
        """Give everything that is stored of a task, oldest first."""
        found = await read_records(self._server.url, self.subject(task))
        return [msgspec.json.decode(payload) for _, payload in found]

    def __enter__(self) -> Self:
        if self._agent is not None:
            self._agent.start()
        try:
            self.broker.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.broker.stop()
        if self._agent is not None:
            self._agent.stop()


def events_in(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the records that are events: not those of turns."""
    return [record for record in records if "turn" not in record]


def begin(task: str, **fields: Any) -> bytes:
    """Give the record that begins a task."""
    return task_record(task, **fields)


def chunks(task: str, first: int, last: int, pad: int = 0) -> list[bytes]:
    """Give pieces of the artifact `out`, as the script step of that name says them."""
    tail = "x" * (pad - 1) + " " if pad else ""
    return [artifact(f"{number} {tail}", task, "out", append=number > 1) for number in range(first, last + 1)]
