"""Payload bytes to an `Event`: the checks every stored payload passes, and the few fields we look at.

Must not know subjects, headers or positions. Parts, metadata and whole messages stay raw JSON, so unknown
fields and numbers survive untouched.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import astuple

from sidecast_schemas.events import SUBMITTED, TASK_STATE_PATTERN, TASK_STATES, TERMINAL_STATES

EventKind = Literal["task", "message", "statusUpdate", "artifactUpdate", "turn"]
RawObject: TypeAlias = dict[str, Raw]

InvalidReason = Literal["encoding", "json", "shape", "kind", "state", "depth"]

DEPTH_MAX = 256
"""Deepest nesting of a payload: a quarter of the interpreter's recursion limit, so that a payload taken here
can be walked again by any code at any depth of calls."""

_DETAIL_CHARACTERS_MAX = 200
"""Errors quote the payload (an unknown `phase`, whole): bounds what a log line or an answer shows of it."""


class InvalidEvent(ValueError):  # noqa: N818 - named as the answer reads: the event is invalid
    """A payload that is not exactly one event.

    Attributes:
        reason: a short word fit for a metric label.
    """

    def __init__(self, reason: InvalidReason, detail: str) -> None:
        super().__init__(detail[:_DETAIL_CHARACTERS_MAX])
        self.reason = reason


class StatusBody(Struct, frozen=True, gc=False):
    """`TaskStatus`: `message` is raw JSON."""

    state: str
    message: RawObject | None = None
    timestamp: str | None = None


class TaskBody(Struct, frozen=True, gc=False):
    """The looked-at fields of a `Task`."""

    id: str
    status: StatusBody
    contextId: str | None = None  # noqa: N815 - the wire's name


class MessageBody(Struct, frozen=True, gc=False):
    """The looked-at fields of a `Message`."""

    messageId: str = ""  # noqa: N815
    taskId: str | None = None  # noqa: N815
    contextId: str | None = None  # noqa: N815
    parts: list[RawObject] | None = None


class StatusUpdateBody(Struct, frozen=True, gc=False):
    """A `TaskStatusUpdateEvent`."""

    taskId: str  # noqa: N815
    status: StatusBody
    contextId: str | None = None  # noqa: N815
    metadata: RawObject | None = None


class ArtifactBody(Struct, frozen=True, gc=False):
    """An `Artifact`; `fields` of it beyond these are read from the raw payload by the fold."""

    artifactId: str  # noqa: N815
    name: str | None = None
    parts: list[RawObject] | None = None
    metadata: RawObject | None = None


class ArtifactUpdateBody(Struct, frozen=True, gc=False):
    """A `TaskArtifactUpdateEvent`."""

    taskId: str  # noqa: N815
    artifact: ArtifactBody
    contextId: str | None = None  # noqa: N815
    append: bool | None = None
    lastChunk: bool | None = None  # noqa: N815
    metadata: RawObject | None = None


class TurnBody(Struct, frozen=True, gc=False):
    """A control record: the agent began or ended working on one message; no client receives it."""

    id: str
    phase: Literal["begin", "end"]
    reason: str | None = None
    message: RawObject | None = None


Body: TypeAlias = TaskBody | MessageBody | StatusUpdateBody | ArtifactUpdateBody | TurnBody


class _Envelope(Struct, frozen=True, gc=False):
    task: TaskBody | None = None
    message: MessageBody | None = None
    statusUpdate: StatusUpdateBody | None = None  # noqa: N815
    artifactUpdate: ArtifactUpdateBody | None = None  # noqa: N815
    turn: TurnBody | None = None


class Event(Struct, frozen=True, gc=False):
    """One decoded payload.

    Attributes:
        kind: which member of the StreamResponse it is, or `turn`.
        payload: its JSON on one line, UTF-8; what is stored, forwarded and encoded into frames.
        body: the looked-at fields of that member.
        repaired: lone surrogates that were replaced by U+FFFD.
    """

    kind: EventKind
    payload: bytes
    body: Body
    repaired: int = 0

    @property
    def task_id(self) -> str | None:
        """The id of the task the payload names; a message or turn may name none."""
        body = self.body
        if isinstance(body, (StatusUpdateBody, ArtifactUpdateBody)):
            return body.taskId
        if isinstance(body, TaskBody):
            return body.id
        # ProtoJSON may spell an unset string as "".
        return body.taskId or None if isinstance(body, MessageBody) else None

    @property
    def context_id(self) -> str | None:
        """The context the payload names, if any."""
        return None if isinstance(self.body, TurnBody) else self.body.contextId or None

    @property
    def state(self) -> str | None:
        """The A2A state the task has by this event, or None where the event doesn't set one."""
        body = self.body
        # A tuple: a union is made anew at each call, and this is called five times for every event.
        return body.status.state if isinstance(body, (StatusUpdateBody, TaskBody)) else None

    @property
    def terminal(self) -> bool:
        """Whether the task is over with this event."""
        return self.state in TERMINAL_STATES


_decode = msgspec.json.Decoder(_Envelope).decode
_KINDS: dict[type[Body], EventKind] = {
    TaskBody: "task",
    MessageBody: "message",
    StatusUpdateBody: "statusUpdate",
    ArtifactUpdateBody: "artifactUpdate",
    TurnBody: "turn",
}
_STATE = re.compile(TASK_STATE_PATTERN)

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|u([dD][c-fC-F][0-9a-fA-F]{2})|[^u]|u)"
)


def replace_lone_surrogates(payload: bytes) -> tuple[bytes, int]:
    """Replace `\\ud800`-like escapes without a partner by `\\ufffd`; give the bytes and how many there were.

    JavaScript can send them, and no strict reader takes them (RFC 8259, section 8.2).
    """
    count = 0

    def mend(match: re.Match[bytes]) -> bytes:
        nonlocal count
        text = match.group(0)
        if match.group(1) is None and (match.group(2) is not None or len(text) == 6):
            count += 1
            return b"\\ufffd"
        return text

    return _ESCAPE.sub(mend, payload), count


def one_line(payload: bytes) -> bytes:
    """Squeeze line ends out of valid JSON: they can only stand between tokens there."""
    return payload.replace(b"\r", b"").replace(b"\n", b"")


_QUOTED = re.compile(rb'"[^"]*"')
_NOT_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = bytes(1 if byte in b"[{" else 0xFF for byte in range(256))


def nests_deeper(payload: bytes, depth_max: int) -> bool:
    """Whether valid JSON nests arrays and objects deeper than `depth_max`.

    Brackets in strings go before the rest is counted; 5 to 20 ms for a megabyte, all of it in C.
    """
    # Each level opens and closes, so what is short can't be deep.
    if len(payload) <= 2 * depth_max or payload.count(b"{") + payload.count(b"[") <= depth_max:
        return False
    if b"\\" in payload:
        payload = payload.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = payload.translate(None, _NOT_MARKS).replace(b'""', b"")
    steps = _QUOTED.sub(b"", marks).translate(_STEPS)
    return max(accumulate(memoryview(steps).cast("b"))) > depth_max


def decode_event(payload: bytes) -> Event:
    """Decode one payload: a v1.0 StreamResponse, or a `turn` control record.

    Strict UTF-8; newlines between tokens are squeezed out, so that a payload always fits one SSE `data:`
    line; lone surrogates become U+FFFD. Fields that aren't looked at are passed through as they are.

    Args:
        payload: the bytes of a NATS message or of a request line.

    Raises:
        InvalidEvent: not UTF-8, not JSON, not an object, not exactly one kind, or a looked-at field of the
            wrong type, an unlikely state, or nested deeper than `DEPTH_MAX`.
    """
    repaired = 0
    try:
        if not payload.isascii():
            payload.decode()
        try:
            envelope = _decode(payload)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            payload, repaired = replace_lone_surrogates(payload)
            if not repaired:
                raise
            envelope = _decode(payload)
        if 10 in payload or 13 in payload:
            payload = one_line(payload)
            envelope = _decode(payload)  # raw fields are slices of what was decoded
        kind, body = _only_member(envelope)
        if isinstance(body, (StatusUpdateBody, TaskBody)) and body.status.state not in TASK_STATES:
            _check_state(body.status.state)
        if nests_deeper(payload, DEPTH_MAX):
            raise InvalidEvent("depth", f"nested deeper than {DEPTH_MAX}")
    except UnicodeDecodeError as error:
        raise InvalidEvent("encoding", f"not valid UTF-8 at byte {error.start}") from error
    except msgspec.ValidationError as error:
        raise InvalidEvent("shape", str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidEvent("json", str(error)) from error
    except RecursionError as error:
        raise InvalidEvent("depth", "nested too deeply") from error
    return Event(kind, payload, body, repaired)


def _only_member(envelope: _Envelope) -> tuple[EventKind, Body]:
    members = [*filter(None, astuple(envelope))]
    if len(members) != 1:
        raise InvalidEvent(
            "kind", f"exactly one of {', '.join(_KINDS.values())} is needed, not {len(members)}"
        )
    body = members[0]
    return _KINDS[type(body)], body


def _check_state(state: str) -> None:
    # A state of a later A2A version passes: it is neither terminal nor interrupted to us.
    if not _STATE.fullmatch(state):
        raise InvalidEvent("state", f"{state[:80]!r} is not a task state such as {SUBMITTED}")
