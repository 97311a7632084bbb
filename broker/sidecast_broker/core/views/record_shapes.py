"""What of a record the browser format says, as a shape to encode: the plain text of a message, its activity.

Must not know frames, positions' epochs or what a client asked for.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from sidecast_broker.core.activity import RawActivity
from sidecast_broker.core.views.shapes import (
    ArtifactFrame,
    DebugFrame,
    ErrorFrame,
    ProgressFrame,
    StatusFrame,
    StepFrame,
    ThoughtFrame,
)
from sidecast_schemas.codec import ArtifactUpdateBody, RawObject, StatusUpdateBody
from sidecast_schemas.events import ACTIVITY, TASK_STATES, TERMINAL_STATES, kebab_state

_ACTIVITY_SHAPES: dict[
    str, type[ProgressFrame] | type[StepFrame] | type[ThoughtFrame] | type[DebugFrame] | type[ErrorFrame]
] = {
    "progress": ProgressFrame,
    "step": StepFrame,
    "thought": ThoughtFrame,
    "debug": DebugFrame,
    "error": ErrorFrame,
}
_STATE_NAMES = {state: kebab_state(state) for state in TASK_STATES}
_PLAIN_MESSAGE = frozenset({"messageId", "role", "parts", "contextId", "taskId"})
_PLAIN_TEXT = frozenset({"text"})
_PLAIN_PIECE = frozenset({"text", "mediaType"})
_NOTHING = frozenset({b"null", b'""', b"[]", b"{}"})
_AGENT = Raw(b'"ROLE_AGENT"')
_encode = msgspec.json.Encoder().encode
_decode_parts = msgspec.json.Decoder(list[RawObject]).decode
_decode_str = msgspec.json.Decoder(str).decode


def status_frame(
    task_id: str, context_id: str, sequence: int, at: str, body: StatusUpdateBody
) -> StatusFrame:
    """Say what a status says."""
    state = body.status.state
    text, message = _text_and_message(body.status.message)
    return StatusFrame(
        taskId=task_id,
        contextId=context_id,
        seq=sequence,
        at=at,
        state=_STATE_NAMES.get(state) or kebab_state(state),
        text=text,
        message=message,
        final=state in TERMINAL_STATES,
        metadata=body.metadata or UNSET,
    )


def activity_frame(
    task_id: str, context_id: str, sequence: int, at: str, body: StatusUpdateBody, activity: RawActivity
) -> ProgressFrame | StepFrame | ThoughtFrame | DebugFrame | ErrorFrame:
    """Say what a status says that reports an activity."""
    text, message = _text_and_message(body.status.message)
    fields = activity.fields
    assert body.metadata is not None
    return _ACTIVITY_SHAPES[activity.known.kind](
        taskId=task_id,
        contextId=context_id,
        seq=sequence,
        at=at,
        kind=activity.known.kind,
        progress=fields.get("progress", UNSET),
        step=fields.get("step", UNSET),
        code=fields.get("code", UNSET),
        recoverable=fields.get("recoverable", UNSET),
        component=fields.get("component", UNSET),
        text=text,
        message=message,
        metadata={key: raw for key, raw in body.metadata.items() if key != ACTIVITY} or UNSET,
    )


def artifact_frame(
    task_id: str, context_id: str, sequence: int, at: str, body: ArtifactUpdateBody
) -> ArtifactFrame:
    """Say what a piece of an artifact says."""
    artifact = body.artifact
    parts = artifact.parts or []
    media_type: Raw | UnsetType = UNSET
    plain = False
    # Pieces of one text continue each other, so several text parts join without anything between.
    text = _text(parts, "")
    if len(parts) == 1 and text is not UNSET and not _holds_more(parts[0], _PLAIN_PIECE):
        media_type = parts[0].get("mediaType", UNSET)
        plain = media_type is UNSET or _is_text(media_type)
    return ArtifactFrame(
        taskId=task_id,
        contextId=context_id,
        seq=sequence,
        at=at,
        artifactId=artifact.artifactId,
        name=artifact.name or UNSET,
        text=text,
        mediaType=media_type if plain else UNSET,
        parts=UNSET if plain else parts,
        append=bool(body.append),
        lastChunk=bool(body.lastChunk),
        metadata=artifact.metadata or UNSET,
        eventMetadata=body.metadata or UNSET,
    )


def _text_and_message(message: RawObject | None) -> tuple[Raw | UnsetType, RawObject | UnsetType]:
    """Give the text of a message, and the message unless the text says it all."""
    if message is None:
        return UNSET, UNSET
    try:
        parts = _decode_parts(message["parts"])
    except (KeyError, msgspec.ValidationError):
        return UNSET, message
    text = _text(parts, "\n")
    if (
        text is UNSET
        or len(parts) != 1
        or _holds_more(parts[0], _PLAIN_TEXT)
        or message.get("role", _AGENT) != _AGENT
        or _holds_more(message, _PLAIN_MESSAGE)
    ):
        return text, message
    return text, UNSET


def _text(parts: list[RawObject], between: str) -> Raw | UnsetType:
    if len(parts) == 1:
        text = parts[0].get("text", UNSET)
        return text if text is UNSET or _is_text(text) else UNSET
    texts = [part["text"] for part in parts if "text" in part and _is_text(part["text"])]
    return (
        Raw(_encode(between.join(map(_decode_str, texts))))
        if len(texts) > 1
        else texts[0]
        if texts
        else UNSET
    )


def _is_text(raw: Raw) -> bool:
    return memoryview(raw)[0] == ord('"')


def _holds_more(fields: RawObject, plain: frozenset[str]) -> bool:
    """Tell whether an object holds anything under other keys; an empty value is none, as in ProtoJSON."""
    if fields.keys() <= plain:
        return False
    return any(key not in plain and bytes(raw) not in _NOTHING for key, raw in fields.items())


def state_name(state: str | None) -> str | None:
    """Give a state in the format's spelling."""
    return None if state is None else _STATE_NAMES.get(state) or kebab_state(state)
