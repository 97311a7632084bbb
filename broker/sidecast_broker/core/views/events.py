"""The browser format, `events`: each record as one JSON object a page can use directly, in one SSE frame.

Must not know sockets, subscribers or pace. A frame depends on its record and on what never changes about the
task, so a replay gives the same bytes as the live stream did.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sidecast_broker.core.activity import read_activity
from sidecast_broker.core.cursor import format_cursor
from sidecast_broker.core.fold import Fold
from sidecast_broker.core.frame import CR, LF, frame
from sidecast_broker.core.resume import Mode
from sidecast_broker.core.views.record_shapes import activity_frame, artifact_frame, state_name, status_frame
from sidecast_broker.core.views.shapes import (
    ActivityFrame,
    Answer,
    Answers,
    BatchFrame,
    BusyFrame,
    DrainFrame,
    EndFrame,
    ExpiringFrame,
    FrameShape,
    GapFrame,
    HeartbeatFrame,
    LagFrame,
    MessageFrame,
    OpenFrame,
    RecordShape,
    SnapshotFrame,
    StreamGapReason,
    StreamShape,
)
from sidecast_schemas.codec import (
    ArtifactUpdateBody,
    Event,
    MessageBody,
    RawObject,
    StatusUpdateBody,
    TurnBody,
)
from sidecast_schemas.events import ACTIVITY, INTERRUPTED_STATES, TERMINAL_STATES, WORKING

REQUESTED_LENGTH_MAX = 128
"""Characters of a client's cursor that a gap repeats: any valid one fits, and no header is mirrored whole."""


class Record(Protocol):
    """A stored event at its position: `at` is when it was stored, RFC 3339 UTC with milliseconds and `Z`."""

    @property
    def sequence(self) -> int: ...
    @property
    def at(self) -> str: ...
    @property
    def event(self) -> Event: ...


class FrameKind(NamedTuple):
    """What a filter looks at: the frame's `type`, and whether no filter may hold it back."""

    type: str
    unfilterable: bool


class EncodedFrame(Struct, frozen=True, gc=False):
    """A frame ready to send, shared by every client of this view; its length is that of its bytes.

    Attributes:
        kind: its type, and whether a filter may hold it back.
        data: the bytes of the SSE block, blank line included.
    """

    kind: FrameKind
    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    @property
    def json(self) -> bytes:
        """The JSON of its `data:` line."""
        return self.data[self.data.index(b"data: ") + 6 : -2]


class UnknownType(ValueError):  # noqa: N818 - named as the answer reads: the type is unknown
    """A type in `?types=` that the format does not have.

    Attributes:
        name: the type as it was asked for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:80]!r} is no event type; there are {', '.join(sorted(_TASK_TYPES))}")
        self.name = name


class Filter(Struct, frozen=True):
    """Which frames a client asked for; equal filters form one group.

    Attributes:
        types: the full names asked for, or None for all.
        debug: whether `task.debug` is sent, where `types` admits it.
    """

    types: frozenset[str] | None = None
    debug: bool = False

    def admits(self, kind: FrameKind) -> bool:
        """Tell whether the client gets a frame of this kind."""
        if kind.unfilterable:
            return True
        if kind.type == "task.debug" and not self.debug:
            return False
        return self.types is None or kind.type in self.types


_ACTIVITY_FIELDS = frozenset(ActivityFrame.__struct_fields__) | {"type"}
_KINDS = {
    shape: FrameKind(str(shape.__struct_config__.tag), shape in (SnapshotFrame, *get_args(StreamShape)))
    for shape in get_args(FrameShape)
}
_DECISIVE_STATUS = FrameKind("task.status", True)
# A batch holds frames, each of which has passed the filter: asking for it is right and changes nothing.
_TASK_TYPES = frozenset(_KINDS[shape].type for shape in get_args(RecordShape)) | {"task.batch"}
_KNOWN_TYPES = _TASK_TYPES | {kind.type for kind in _KINDS.values()}
_DECISIVE_STATES = TERMINAL_STATES | INTERRUPTED_STATES


class _MessagePayload(Struct):
    message: Raw


_encode = msgspec.json.Encoder().encode
_decode_message = msgspec.json.Decoder(_MessagePayload).decode


def parse_filter(types: str | None, debug: str | None = None) -> Filter:
    """Read `?types=` and `?debug=`.

    Args:
        types: comma-separated names, `status` or `task.status`; None or empty for all. `stream.*` frames,
            snapshots and interrupted or terminal statuses come in any case.
        debug: `1` or `true` to get `task.debug`.

    Raises:
        UnknownType: a name is no type of this format.
    """
    names = set()
    for part in (types or "").split(","):
        name = part.strip()
        if not name:
            continue
        full = name if "." in name else f"task.{name}"
        if full not in _KNOWN_TYPES:
            raise UnknownType(name)
        names.add(full)
    return Filter(frozenset(names) if names else None, debug in ("1", "true"))


def encode(record: Record, fold: Fold, epoch: str, *, named: bool = True) -> EncodedFrame | None:
    """Encode a deliverable record as its one frame.

    Args:
        record: what to encode; that it is deliverable says `Fold.apply`.
        fold: the fold of the record's task, of this position or a later one.
        epoch: the stream's epoch.
        named: whether the frame has an `event:` line.

    Returns:
        The frame, or None for a control record.
    """
    event = record.event
    body = event.body
    sequence = record.sequence
    if isinstance(body, TurnBody):
        return None
    context_id = body.contextId or fold.context_id
    kind: FrameKind | None = None
    more: RawObject | None = None
    shape: RecordShape
    if isinstance(body, StatusUpdateBody):
        state = body.status.state
        activity = read_activity(event) if state == WORKING and ACTIVITY in (body.metadata or ()) else None
        if activity is None:
            kind = _DECISIVE_STATUS if state in _DECISIVE_STATES else None
            shape = status_frame(fold.task_id, context_id, sequence, record.at, body)
        else:
            shape = activity_frame(fold.task_id, context_id, sequence, record.at, body, activity)
            more = {key: raw for key, raw in activity.fields.items() if key not in _ACTIVITY_FIELDS}
    elif isinstance(body, ArtifactUpdateBody):
        shape = artifact_frame(fold.task_id, context_id, sequence, record.at, body)
    elif isinstance(body, MessageBody):
        message = _decode_message(event.payload).message
        shape = MessageFrame(
            taskId=fold.task_id, contextId=context_id, seq=sequence, at=record.at, message=message
        )
    else:
        shape = SnapshotFrame(
            taskId=fold.task_id,
            contextId=context_id,
            seq=sequence,
            at=record.at,
            task=Raw(_opening(record, fold)),
            state=state_name(body.status.state),
            progress=None,
            steps=[],
            partial=False,
        )
    return _frame(shape, named, format_cursor(epoch, sequence), kind=kind, more=more)


def snapshot(
    fold: Fold, sequence: int, at: str, epoch: str, *, partial: bool, named: bool = True
) -> EncodedFrame:
    """Encode the task as it stands.

    Args:
        fold: the task's fold at `sequence`.
        sequence: the position a client that has this snapshot continues from.
        at: when the record there was stored.
        epoch: the stream's epoch.
        partial: whether the log no longer holds the task's start.
        named: whether the frame has an `event:` line.
    """
    shape = SnapshotFrame(
        taskId=fold.task_id,
        contextId=fold.context_id,
        seq=sequence,
        at=at,
        task=Raw(fold.task()),
        state=state_name(fold.state),
        progress=fold.progress,
        steps=fold.steps,
        partial=partial,
    )
    return _frame(shape, named, format_cursor(epoch, sequence))


def answer(fold: Fold, sequence: int, epoch: str, *, partial: bool) -> bytes:
    """Encode the one answer to `Accept: application/json`; `partial` is in it only where it is true."""
    return _encode(
        Answer(
            task=Raw(fold.task()),
            state=state_name(fold.state),
            progress=fold.progress,
            steps=fold.steps,
            cursor=format_cursor(epoch, sequence),
            partial=partial,
        )
    )


def answers(found: list[bytes], sequence: int, epoch: str, left_out: int) -> bytes:
    """Encode the one answer about several tasks, each as `answer` gave it."""
    return _encode(
        Answers(tasks=list(map(Raw, found)), cursor=format_cursor(epoch, sequence), left_out=left_out)
    )


def encode_shape(shape: RecordShape, epoch: str, *, named: bool = True) -> EncodedFrame:
    """Encode the frame of a record, or of several joined into one, with the id of its `seq`."""
    return _frame(shape, named, format_cursor(epoch, shape.seq))


def without_id(encoded: EncodedFrame, *, named: bool = True) -> EncodedFrame:
    """Give a frame again as one that is no resume point."""
    return EncodedFrame(encoded.kind, frame(encoded.json, encoded.kind.type if named else None))


def batch_frame(
    task_id: str | None, objects: list[bytes], sequence: int, epoch: str, *, named: bool = True
) -> EncodedFrame:
    """Encode `task.batch`: the JSON of several frames as one, with the id of the last."""
    shape = BatchFrame(taskId=_or_unset(task_id), events=list(map(Raw, objects)))
    return _frame(shape, named, format_cursor(epoch, sequence))


def open_frame(
    mode: Mode,
    cursor: str | None,
    heartbeat_s: float,
    retry_ms: int,
    *,
    named: bool = True,
    task_id: str | None = None,
    left_out: int = 0,
) -> EncodedFrame:
    """Encode `stream.open`, with its `retry:`.

    Only in mode `live` it has an id: there everything up to the cursor is behind the client, while a snapshot
    or replay has yet to come.
    """
    shape = OpenFrame(
        taskId=_or_unset(task_id),
        mode=mode,
        cursor=cursor,
        heartbeat_s=heartbeat_s,
        retry_ms=retry_ms,
        left_out=left_out or UNSET,
    )
    return _frame(shape, named, cursor if mode == "live" else None, retry_ms)


def gap_frame(
    reason: StreamGapReason,
    requested: str | None,
    oldest: str | None,
    *,
    named: bool = True,
    task_id: str | None = None,
) -> EncodedFrame:
    """Encode `stream.gap`; of `requested`, a client's text, 128 characters are repeated."""
    if requested is not None:
        # A header decoded with surrogateescape holds what JSON can't.
        requested = requested[:REQUESTED_LENGTH_MAX].encode(errors="replace").decode()
    shape = GapFrame(taskId=_or_unset(task_id), reason=reason, requested=requested, oldest=oldest)
    return _frame(shape, named)


def lag_frame(behind_events: int, policy: str, *, named: bool = True) -> EncodedFrame:
    """Encode `stream.lag`."""
    return _frame(LagFrame(behind_events=behind_events, policy=policy), named)


def expiring_frame(expires_in_s: float, *, named: bool = True) -> EncodedFrame:
    """Encode `stream.expiring`."""
    return _frame(ExpiringFrame(expires_in_s=expires_in_s), named)


def drain_frame(reconnect_in_ms: int, *, named: bool = True) -> EncodedFrame:
    """Encode `stream.drain`; its `retry:` makes an EventSource wait as long."""
    return _frame(DrainFrame(reconnect_in_ms=reconnect_in_ms), named, retry_ms=reconnect_in_ms)


def busy_frame(reason: str, reconnect_in_ms: int, *, named: bool = True) -> EncodedFrame:
    """Encode `stream.busy`; its `retry:` makes an EventSource wait as long."""
    return _frame(BusyFrame(reason=reason, reconnect_in_ms=reconnect_in_ms), named, retry_ms=reconnect_in_ms)


def end_frame(
    state: str | None, reason: str, *, named: bool = True, task_id: str | None = None
) -> EncodedFrame:
    """Encode `stream.end`; the state comes in the wire's spelling."""
    return _frame(EndFrame(taskId=_or_unset(task_id), state=state_name(state), reason=reason), named)


def heartbeat_frame(*, named: bool = True) -> EncodedFrame:
    """Encode `stream.heartbeat`."""
    return _frame(HeartbeatFrame(), named)


def _frame(
    shape: FrameShape,
    named: bool,
    event_id: str | None = None,
    retry_ms: int | None = None,
    *,
    kind: FrameKind | None = None,
    more: RawObject | None = None,
) -> EncodedFrame:
    kind = kind or _KINDS[type(shape)]
    data = _encode(shape)
    if more:
        data = data[:-1] + b"," + _encode(more)[1:]
    if LF in data or CR in data or b'": ' in data:
        # Raw values are slices of a payload as it was published, perhaps with blanks between its tokens.
        data = msgspec.json.format(data, indent=-1)
    return EncodedFrame(kind, frame(data, kind.type if named else None, event_id, retry_ms))


def _opening(record: Record, fold: Fold) -> bytes:
    if fold.opening is None:
        fold = Fold(fold.task_id)
        fold.apply(record.event, record.sequence)
    assert fold.opening is not None
    return fold.opening


def _or_unset(task_id: str | None) -> str | UnsetType:
    return UNSET if task_id is None else task_id
