"""A2A v1.0 events and our extensions of them, as structs: what agents publish.

Source: A2A v1.0 (`a2a.proto`, ProtoJSON). Optional fields at their default stay off the wire, as there.
Must not know how events are stored or shown.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

TASK_STATE_PATTERN = r"TASK_STATE_[A-Z_]{1,64}"

SUBMITTED = "TASK_STATE_SUBMITTED"
WORKING = "TASK_STATE_WORKING"
COMPLETED = "TASK_STATE_COMPLETED"
FAILED = "TASK_STATE_FAILED"
CANCELED = "TASK_STATE_CANCELED"
REJECTED = "TASK_STATE_REJECTED"
INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
AUTH_REQUIRED = "TASK_STATE_AUTH_REQUIRED"

TERMINAL_STATES = frozenset({COMPLETED, FAILED, CANCELED, REJECTED})
INTERRUPTED_STATES = frozenset({INPUT_REQUIRED, AUTH_REQUIRED})
TASK_STATES = frozenset({SUBMITTED, WORKING}) | TERMINAL_STATES | INTERRUPTED_STATES

ACTIVITY = "urn:sidecast:activity:v1"
"""Key of `statusUpdate.metadata` that holds an `Activity`."""

LOSS = "urn:sidecast:loss:v1"
"""Key of `statusUpdate.metadata` that holds a `Loss`."""

CAPTURE = "urn:sidecast:capture:v1"
"""Key of an update's `metadata` in what a broker captured: `{"resynchronised": true}` where it was away from
the agent, so that one update stands for several the agent sent."""

TaskState = Annotated[str, Meta(pattern=f"^{TASK_STATE_PATTERN}$", examples=sorted(TASK_STATES))]

WholeNumber: TypeAlias = int | Annotated[float, Meta(multiple_of=1)]
"""A whole number in metadata: a2a-sdk carries that as a protobuf Struct, which makes 3.0 of 3."""


def kebab_state(state: str) -> str:
    """Give a state in the browser format's spelling: `TASK_STATE_INPUT_REQUIRED` → `input-required`."""
    return state.removeprefix("TASK_STATE_").lower().replace("_", "-")


def wire_state(name: str) -> str:
    """Give the wire's spelling of a state name: `input-required` → `TASK_STATE_INPUT_REQUIRED`.

    Raises:
        ValueError: there is no such state in A2A v1.0.
    """
    state = name if name.startswith("TASK_STATE_") else "TASK_STATE_" + name.upper().replace("-", "_")
    if state not in TASK_STATES:
        raise ValueError(f"{name!r} is not one of {', '.join(sorted(map(kebab_state, TASK_STATES)))}")
    return state


class Part(Struct, omit_defaults=True):
    """One piece of content: exactly one of `text`, `raw` (base64), `url`, `data` (any JSON value)."""

    text: str | UnsetType = UNSET
    raw: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    data: Any = UNSET
    mediaType: str = ""  # noqa: N815 - the wire's name, as all camelCase below
    filename: str = ""
    metadata: dict[str, Any] | UnsetType = UNSET


class Message(Struct, omit_defaults=True):
    """One message of a user or an agent."""

    messageId: str  # noqa: N815
    role: Literal["ROLE_USER", "ROLE_AGENT"]
    parts: Annotated[list[Part], Meta(min_length=1)]
    contextId: str = ""  # noqa: N815
    taskId: str = ""  # noqa: N815
    metadata: dict[str, Any] | UnsetType = UNSET
    extensions: list[str] = []
    referenceTaskIds: list[str] = []  # noqa: N815


class TaskStatus(Struct, omit_defaults=True):
    """The state of a task, and what the agent says about it."""

    state: TaskState
    message: Message | Raw | UnsetType = UNSET
    timestamp: str = ""


class Artifact(Struct, omit_defaults=True):
    """Something a task produces; `artifactId` is unique within the task."""

    artifactId: str  # noqa: N815
    parts: Annotated[list[Part], Meta(min_length=1)]
    name: str = ""
    description: str = ""
    metadata: dict[str, Any] | UnsetType = UNSET
    extensions: list[str] = []


class Task(Struct, omit_defaults=True):
    """A task as it stands; in a log at most once, as the first record."""

    id: str
    status: TaskStatus
    contextId: str = ""  # noqa: N815
    artifacts: list[Artifact] = []
    history: list[Message | Raw] = []
    metadata: dict[str, Any] | UnsetType = UNSET


class TaskStatusUpdateEvent(Struct, omit_defaults=True):
    """The task's status changed, or an activity is reported."""

    taskId: str  # noqa: N815
    status: TaskStatus
    contextId: str = ""  # noqa: N815
    metadata: dict[str, Any] | UnsetType = UNSET


class TaskArtifactUpdateEvent(Struct, omit_defaults=True):
    """An artifact, or with `append` a further piece of one."""

    taskId: str  # noqa: N815
    artifact: Artifact
    contextId: str = ""  # noqa: N815
    append: bool = False
    lastChunk: bool = False  # noqa: N815
    metadata: dict[str, Any] | UnsetType = UNSET


class StreamResponse(Struct, omit_defaults=True):
    """What a payload is: exactly one of its members."""

    task: Task | UnsetType = UNSET
    message: Message | UnsetType = UNSET
    statusUpdate: TaskStatusUpdateEvent | UnsetType = UNSET  # noqa: N815
    artifactUpdate: TaskArtifactUpdateEvent | UnsetType = UNSET  # noqa: N815


class Turn(Struct, omit_defaults=True):
    """The agent began or ended working on one message; `id` is that message's `messageId`."""

    id: str
    phase: Literal["begin", "end"]
    reason: str = ""
    message: Message | Raw | UnsetType = UNSET


class TurnRecord(Struct):
    """A control record: stored in the log, received by no client."""

    turn: Turn


class Step(Struct, omit_defaults=True):
    """One step of the agent's plan; `index` counts from 0, `duration_ms` is known when it has ended."""

    id: str
    title: str = ""
    state: Literal["running", "done", "failed", "skipped"] = "running"
    index: WholeNumber | UnsetType = UNSET
    total: WholeNumber | UnsetType = UNSET
    duration_ms: Annotated[float, Meta(ge=0)] | UnsetType = UNSET


class Activity(Struct, omit_defaults=True):
    """What an agent is doing, in `statusUpdate.metadata[ACTIVITY]`; A2A clients see a working status."""

    kind: Literal["progress", "step", "thought", "debug", "error"]
    progress: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    step: Step | UnsetType = UNSET
    code: str | UnsetType = UNSET
    recoverable: bool | UnsetType = UNSET
    component: str | UnsetType = UNSET


class Loss(Struct, omit_defaults=True):
    """What a publisher had to drop or cut, in `statusUpdate.metadata[LOSS]`."""

    dropped_events: Annotated[int, Meta(ge=0)] = 0
    dropped_bytes: Annotated[int, Meta(ge=0)] = 0
    reason: Literal["buffer", "message-too-large", "artifact-too-large", "stream-reset"] = "buffer"
