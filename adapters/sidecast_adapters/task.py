"""A task as the agent's code reports it: statuses, activities, messages, artifacts.

Must not know NATS: records go to the task's log. Nothing here raises because of NATS, or waits for it longer
than the publisher's patience.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sidecast_adapters.artifact import Artifact
from sidecast_adapters.classify import LOOSE_ACTIVITIES, record_of
from sidecast_adapters.flight import timestamp
from sidecast_adapters.payload import decode, encode, text_message, wrapped
from sidecast_adapters.record import Rank, Record
from sidecast_adapters.step import Step, StepState
from sidecast_adapters.trace import checked_traceparent, current_traceparent
from sidecast_schemas import headers
from sidecast_schemas.codec import decode_event
from sidecast_schemas.events import (
    ACTIVITY,
    CANCELED,
    COMPLETED,
    FAILED,
    INTERRUPTED_STATES,
    SUBMITTED,
    TERMINAL_STATES,
    WORKING,
    Activity,
    StreamResponse,
    TaskStatus,
    TaskStatusUpdateEvent,
    wire_state,
)
from sidecast_schemas.events import Message as MessageEvent
from sidecast_schemas.events import Step as StepBody
from sidecast_schemas.events import Task as TaskEvent
from sidecast_schemas.subjects import TaskKey, encode_token

if TYPE_CHECKING:
    from sidecast_adapters.log import Log
    from sidecast_adapters.publisher import Publisher

logger = logging.getLogger("sidecast_adapters")

ErrorText = Literal["type", "full"]


def described(error: BaseException, error_text: ErrorText) -> str:
    """Name an exception: its type, and with `full` its text, which may carry secrets."""
    name = type(error).__name__
    return f"{name}: {error}" if error_text == "full" else name


class Task:
    """One task; an async context manager that completes it, or fails or cancels it where the block raises.

    A new task begins with a `task` record in state submitted. Where the log has records already (the agent
    was restarted, or this is a further turn), it is continued. A block that leaves the task in an interrupted
    state (input-required, auth-required) leaves it there.

    Made by `Publisher.task`. Methods raise `ValueError` for arguments that can't be published, never because
    of NATS.

    Attributes:
        id: the task's id.
        context_id: its context's.
    """

    def __init__(
        self,
        publisher: Publisher,
        key: TaskKey,
        *,
        context_id: str,
        owner: str | None,
        error_text: ErrorText,
        traceparent: str | None,
    ) -> None:
        if error_text not in ("type", "full"):
            raise ValueError(f"error_text is 'type' or 'full', not {error_text!r}")
        self.id = key.task
        self.context_id = context_id
        self._publisher = publisher
        self._key = key
        self._headers = {headers.OWNER: encode_token(owner)} if owner is not None else {}
        self._error_text = error_text
        self._traceparent = checked_traceparent(traceparent) if traceparent is not None else None
        self._log: Log | None = None
        self._is_open = False

    @property
    def state(self) -> str:
        """The task's A2A state by what was published, `TASK_STATE_WORKING` say; empty while unknown."""
        return self._opened.state

    @property
    def ended(self) -> bool:
        """Whether the task has a terminal state; what is published after that is dropped."""
        return self._opened.ended

    @property
    def fenced(self) -> bool:
        """Whether another publisher has taken the task over; what is published after that is dropped."""
        return self._opened.fenced

    @property
    def _opened(self) -> Log:
        if self._log is None:
            raise RuntimeError("a task is used inside 'async with publisher.task(...)'")
        return self._log

    def open(self) -> Log:
        """Open the task's log without publishing anything; `async with` does it and announces the task."""
        if self._log is None or not self._is_open:
            self._log = self._publisher.open_log(self._key, self.context_id, self._headers)
            self._is_open = True
        return self._log

    def close(self) -> None:
        """Let go of the log; what waits is still sent, and closing again does nothing."""
        if self._log is not None and self._is_open:
            self._is_open = False
            self._publisher.close_log(self._log)

    async def __aenter__(self) -> Self:
        self.open()
        self.announce()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.ended:
            if error is None:
                if self.state not in INTERRUPTED_STATES:
                    self._status(COMPLETED)
            elif isinstance(error, asyncio.CancelledError):
                self._status(CANCELED)
            else:
                self._status(FAILED, described(error, self._error_text))
        self.close()

    def announce(self) -> None:
        """Publish the `task` record of a new task; it is left out where the log has records already."""
        status = TaskStatus(state=SUBMITTED, timestamp=timestamp())
        event = StreamResponse(task=TaskEvent(id=self.id, contextId=self.context_id, status=status))
        self._append("task", event, Rank.KEPT, SUBMITTED if not self.state else "")

    async def status(
        self, state: str, text: str | None = None, *, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Publish a status.

        Args:
            state: `working`, `input-required`, `completed`, … or the wire's `TASK_STATE_…`. A terminal state
                ends the task.
            text: what the agent says about it.
            metadata: of the status update.

        Raises:
            ValueError: there is no such state, or the metadata is not JSON.
        """
        self._status(wire_state(state), text, metadata=dict(metadata) if metadata else UNSET)
        await self._publisher.room()

    async def progress(self, fraction: float, text: str | None = None) -> None:
        """Publish how far the task is, from 0 to 1.

        Raises:
            ValueError: the fraction is not between 0 and 1.
        """
        if not (math.isfinite(fraction) and 0 <= fraction <= 1):
            raise ValueError(f"progress is between 0 and 1, not {fraction!r}")
        await self._activity(Activity(kind="progress", progress=float(fraction)), text)

    def step(
        self,
        step_id: str,
        title: str | None = None,
        *,
        state: StepState = "running",
        index: int | None = None,
        total: int | None = None,
        duration_ms: float | None = None,
    ) -> Step:
        """Publish a step of the plan: `await task.step("read", state="done")`, or as a block.

        `async with task.step("Read the trades"):` publishes it as running, then as done or failed with its
        duration.

        Args:
            step_id: names the step within the task; a further event with this id is about the same step.
            title: shown to people; the id where left out.
            state: `running`, `done`, `failed` or `skipped`; a block sets it itself.
            index: its place, from 0.
            total: how many steps there are.
            duration_ms: how long it took; a block measures it.

        Raises:
            ValueError: the id is empty, the state is none of these, or a number is negative.
        """
        body = StepBody(
            id=step_id,
            title=step_id if title is None else title,
            state=state,
            index=UNSET if index is None else index,
            total=UNSET if total is None else total,
            duration_ms=UNSET if duration_ms is None else duration_ms,
        )
        return Step(body, self._step)

    async def _step(self, body: StepBody) -> None:
        await self._activity(Activity(kind="step", step=body), None)

    async def thought(self, text: str) -> None:
        """Publish what the agent thinks."""
        await self._activity(Activity(kind="thought"), text)

    async def debug(self, text: str) -> None:
        """Publish a line for developers; watchers see it only where they ask for it."""
        await self._activity(Activity(kind="debug"), text)

    async def error(
        self,
        text: str,
        *,
        code: str | None = None,
        recoverable: bool | None = None,
        component: str | None = None,
    ) -> None:
        """Publish an error that doesn't end the task.

        Args:
            text: what happened.
            code: a short name for it.
            recoverable: whether the agent goes on.
            component: where it happened.
        """
        activity = Activity(
            kind="error",
            code=UNSET if code is None else code,
            recoverable=UNSET if recoverable is None else recoverable,
            component=UNSET if component is None else component,
        )
        await self._activity(activity, text)

    async def message(self, text: str) -> None:
        """Publish a message of the agent that is no status."""
        self._append("message", StreamResponse(message=self._message(text)), Rank.FIRM)
        await self._publisher.room()

    def artifact(
        self,
        name: str,
        *,
        media_type: str | None = None,
        artifact_id: str | None = None,
        description: str = "",
    ) -> Artifact:
        """Make an artifact, written piece by piece: `async with task.artifact("report.md") as report`.

        Args:
            name: its name, and where no `artifact_id` is given its id. Opening a name again replaces what the
                artifact held, like a file opened for writing.
            media_type: of its text, for example `text/markdown`.
            artifact_id: unique within the task.
            description: shown to people.

        Raises:
            ValueError: the name is empty.
        """
        if not name:
            raise ValueError("an artifact needs a name")
        return Artifact(
            self,
            artifact_id=artifact_id or name,
            name=name,
            media_type=media_type or "",
            description=description,
        )

    async def publish(self, event: Struct | Mapping[str, Any] | bytes | str) -> None:
        """Publish an event as it is: A2A v1.0 JSON of one StreamResponse, or one of the structs.

        A Task object that isn't the first thing said about the task is published as the artifact and status
        updates that lead there. `taskId` and `contextId` may be left out of a mapping.

        Raises:
            ValueError: it is no event, is about another task, or is too large.
        """
        self.put(event)
        await self._publisher.room()

    def put(self, event: Struct | Mapping[str, Any] | bytes | str) -> None:
        """Publish an event like `publish`, but without making room where the buffer fills up."""
        payload = self._payload(event)
        decoded = decode_event(payload)
        if decoded.task_id not in (None, "", self.id):
            raise ValueError(f"the event is about task {decoded.task_id!r}, not {self.id!r}")
        log = self._opened
        body = decode(decoded.payload)
        if decoded.kind != "turn":
            if decoded.kind == "task" and log.outline.has_task:
                for update in log.outline.updates(body["task"]):
                    self._put(log, update, encode(update))
                return
            body = {decoded.kind: body[decoded.kind]}
        self._put(log, body, decoded.payload)

    def _put(self, log: Log, event: dict[str, Any], payload: bytes) -> None:
        log.append(record_of(event, payload, log.state, self._trace()))
        log.outline.observe(event)

    def _payload(self, event: Struct | Mapping[str, Any] | bytes | str) -> bytes:
        if isinstance(event, bytes):
            return event
        if isinstance(event, str):
            return event.encode("utf-8", "surrogatepass")
        if isinstance(event, Struct):
            return encode(wrapped(event))
        filled: dict[str, Any] = dict(event)
        for kind in filled:
            if isinstance(filled[kind], Mapping) and kind != "turn":
                names = {"id" if kind == "task" else "taskId": self.id, "contextId": self.context_id}
                filled[kind] = names | {name: value for name, value in filled[kind].items() if value != ""}
        return encode(filled)

    async def _activity(self, activity: Activity, text: str | None) -> None:
        rank = Rank.LOOSE if activity.kind in LOOSE_ACTIVITIES else Rank.FIRM
        self._status(WORKING, text, metadata={ACTIVITY: activity}, rank=rank)
        await self._publisher.room()

    def _status(
        self,
        state: str,
        text: str | None = None,
        *,
        metadata: dict[str, Any] | UnsetType = UNSET,
        rank: Rank = Rank.REPEATED,
    ) -> None:
        message = UNSET if text is None else self._message(text)
        status = TaskStatus(state=state, message=message, timestamp=timestamp())
        update = TaskStatusUpdateEvent(
            taskId=self.id, contextId=self.context_id, status=status, metadata=metadata
        )
        changes = state != self.state or state in TERMINAL_STATES
        self._append(
            "statusUpdate", StreamResponse(statusUpdate=update), Rank.KEPT if changes else rank, state
        )

    def _message(self, text: str) -> MessageEvent:
        if not isinstance(text, str):
            raise ValueError(f"a text is a str, not {type(text).__name__}")
        return text_message(uuid.uuid4().hex, self.id, self.context_id, text)

    def _append(
        self,
        kind: Literal["task", "statusUpdate", "message"],
        event: StreamResponse,
        rank: Rank,
        state: str = "",
    ) -> None:
        self._opened.append(Record(kind, encode(event), rank, state, traceparent=self._trace()))
        if kind == "task":
            self._opened.outline.observe(msgspec.to_builtins(event))

    def append_chunk(self, event: StreamResponse, artifact_id: str, *, append: bool, last: bool) -> None:
        """Publish a piece of an artifact."""
        rank = Rank.LOOSE if append and not last else Rank.FIRM
        record = Record(
            "artifactUpdate",
            encode(event),
            rank,
            artifact_id=artifact_id,
            append=append,
            traceparent=self._trace(),
        )
        self._opened.append(record)

    async def room(self) -> None:
        """Wait a moment where the buffer fills up and NATS takes events."""
        await self._publisher.room()

    def _trace(self) -> str:
        return current_traceparent() if self._traceparent is None else self._traceparent
