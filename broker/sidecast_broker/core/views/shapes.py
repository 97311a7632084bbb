"""The frames of the browser format as structs, one per type: what a page can rely on.

Must not know how a record becomes one. The format's JSON Schema is generated from `FrameShape`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from sidecast_broker.core.resume import Mode
from sidecast_schemas.codec import RawObject

StreamGapReason = Literal["expired", "epoch", "malformed", "ahead", "slow"]
StateName = Annotated[str, Meta(description="a task state in kebab case", examples=["input-required"])]
RawText = Annotated[Raw, Meta(extra_json_schema={"type": "string"})]
RawNumber = Annotated[Raw, Meta(extra_json_schema={"type": "number"})]
RawTruth = Annotated[Raw, Meta(extra_json_schema={"type": "boolean"})]
RawAnyObject = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]


class RecordFrame(Struct, tag_field="type", kw_only=True):
    """What every frame of a record carries."""

    taskId: str  # noqa: N815 - the wire's names, here and below
    contextId: str  # noqa: N815
    seq: int
    at: str


class SnapshotFrame(RecordFrame, tag="task.snapshot", kw_only=True):
    """The A2A v1.0 Task folded up to and with `seq`; `partial`: the log no longer holds the task's start."""

    task: RawAnyObject
    state: StateName | None
    progress: float | None
    steps: list[RawAnyObject]
    partial: bool


class StatusFrame(RecordFrame, tag="task.status", kw_only=True):
    """A status; `message` is there unless it is the agent's, and one text part without anything else."""

    state: StateName
    text: RawText | UnsetType = UNSET
    message: RawObject | UnsetType = UNSET
    final: bool
    metadata: RawObject | UnsetType = UNSET


class ActivityFrame(RecordFrame, kw_only=True):
    """What every frame of an activity carries."""

    kind: str
    progress: RawNumber | UnsetType = UNSET
    step: RawAnyObject | UnsetType = UNSET
    code: RawText | UnsetType = UNSET
    recoverable: RawTruth | UnsetType = UNSET
    component: RawText | UnsetType = UNSET
    text: RawText | UnsetType = UNSET
    message: RawObject | UnsetType = UNSET
    metadata: RawObject | UnsetType = UNSET


class ProgressFrame(ActivityFrame, tag="task.progress", kw_only=True):
    """How far a working task has come, 0 to 1."""


class StepFrame(ActivityFrame, tag="task.step", kw_only=True):
    """A step of a working task's plan began or changed."""


class ThoughtFrame(ActivityFrame, tag="task.thought", kw_only=True):
    """What a working agent thinks."""


class DebugFrame(ActivityFrame, tag="task.debug", kw_only=True):
    """A detail for developers, only for who asked for it."""


class ErrorFrame(ActivityFrame, tag="task.error", kw_only=True):
    """An error that did not end the task."""


class ArtifactFrame(RecordFrame, tag="task.artifact", kw_only=True):
    """An artifact or, with `append`, a further piece of it.

    `parts` is there unless it is one text part with nothing else but its media type. `metadata` is the
    artifact's, `eventMetadata` that of the update.
    """

    artifactId: str  # noqa: N815
    name: str | UnsetType = UNSET
    text: RawText | UnsetType = UNSET
    mediaType: RawText | UnsetType = UNSET  # noqa: N815
    parts: list[RawObject] | UnsetType = UNSET
    append: bool
    lastChunk: bool  # noqa: N815
    metadata: RawObject | UnsetType = UNSET
    eventMetadata: RawObject | UnsetType = UNSET  # noqa: N815


class MessageFrame(RecordFrame, tag="task.message", kw_only=True):
    """A message that stands for itself, outside of a status."""

    message: RawAnyObject


class BatchFrame(Struct, tag_field="type", tag="task.batch", kw_only=True):
    """What went out together, for a client that asked for it: the frames' objects, oldest first.

    On a stream of several tasks each object names its own.
    """

    taskId: str | UnsetType = UNSET  # noqa: N815
    events: list[RawAnyObject]


class StreamFrame(Struct, tag_field="type", kw_only=True):
    """What every frame about the stream itself carries."""

    taskId: str | UnsetType = UNSET  # noqa: N815


class OpenFrame(StreamFrame, tag="stream.open", kw_only=True):
    """The first frame: what follows, and the position it follows from.

    `left_out`: so many tasks of a stream of several are there without a snapshot.
    """

    mode: Mode
    cursor: str | None
    heartbeat_s: float
    retry_ms: int
    left_out: int | UnsetType = UNSET


class GapFrame(StreamFrame, tag="stream.gap", kw_only=True):
    """Events are missing here; `oldest` is the oldest cursor that could have been continued."""

    reason: StreamGapReason
    requested: str | None
    oldest: str | None


class LagFrame(StreamFrame, tag="stream.lag", kw_only=True):
    """The client does not keep up, and what is done about it."""

    behind_events: int
    policy: str


class ExpiringFrame(StreamFrame, tag="stream.expiring", kw_only=True):
    """The credential of this stream ends soon."""

    expires_in_s: float


class DrainFrame(StreamFrame, tag="stream.drain", kw_only=True):
    """The broker ends this stream, because it stops or the stream is old; it continues after a reconnect."""

    reconnect_in_ms: int


class BusyFrame(StreamFrame, tag="stream.busy", kw_only=True):
    """No stream for the moment."""

    reason: str
    reconnect_in_ms: int


class EndFrame(StreamFrame, tag="stream.end", kw_only=True):
    """Nothing follows: of the task `taskId` names, then of the whole response."""

    state: StateName | None
    reason: str


class HeartbeatFrame(StreamFrame, tag="stream.heartbeat", kw_only=True):
    """Nothing happened, and the stream is alive."""


RecordShape: TypeAlias = (
    SnapshotFrame
    | StatusFrame
    | ProgressFrame
    | StepFrame
    | ThoughtFrame
    | DebugFrame
    | ErrorFrame
    | ArtifactFrame
    | MessageFrame
)
StreamShape: TypeAlias = (
    OpenFrame | GapFrame | LagFrame | ExpiringFrame | DrainFrame | BusyFrame | EndFrame | HeartbeatFrame
)
FrameShape: TypeAlias = RecordShape | BatchFrame | StreamShape


class Answers(Struct):
    """The same for several tasks; what `cursor` would bring again of a task, its own cursor tells apart."""

    tasks: list[RawAnyObject]
    cursor: str
    left_out: int = 0


class Answer(Struct, omit_defaults=True):
    """The same for a request that accepts JSON: the task as it stands, and the cursor to stream from."""

    task: RawAnyObject
    state: StateName | None
    progress: float | None
    steps: list[RawAnyObject]
    cursor: str
    partial: bool = False
