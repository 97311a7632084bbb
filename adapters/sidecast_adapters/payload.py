"""Payloads: the compact JSON of events, and the few changes made to a payload that is written already.

Must not know records, buffers or NATS.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from sidecast_schemas.events import (
    LOSS,
    Loss,
    Message,
    Part,
    Task,
    TaskArtifactUpdateEvent,
    TaskStatusUpdateEvent,
    Turn,
)

_encode = msgspec.json.Encoder(order="deterministic").encode


def encode(event: Struct | dict[str, Any]) -> bytes:
    """Encode an event as compact JSON, keys of objects in sorted order; lone surrogates become U+FFFD.

    Raises:
        ValueError: it holds something JSON has no word for, or is nested too deeply.
    """
    try:
        try:
            return _encode(event)
        except UnicodeEncodeError:
            return _encode(_mended(msgspec.to_builtins(event)))
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the event can't be written as JSON: {error}") from error


def mend(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates by U+FFFD, so that the text has a UTF-8 form."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, dict):
        return {mend(str(key)): _mended(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(each) for each in value]
    return value


def decode(payload: bytes) -> dict[str, Any]:
    """Decode a payload that is known to be the JSON of one object."""
    return msgspec.json.decode(payload, type=dict[str, Any])


def text_message(message_id: str, task_id: str, context_id: str, text: str) -> Message:
    """Give the message by which an agent says one text."""
    return Message(
        messageId=message_id,
        role="ROLE_AGENT",
        parts=[Part(text=text)],
        taskId=task_id,
        contextId=context_id,
    )


def with_loss(payload: bytes, loss: Loss) -> bytes:
    """Give a `statusUpdate` or `task` payload that says what was lost, added to what it says already.

    Args:
        payload: the JSON of a `statusUpdate` or `task`.
        loss: what was lost. Where the payload names another reason, this one stands.
    """
    event = decode(payload)
    (body,) = event.values()
    metadata = body.get("metadata") or {}
    named = metadata.get(LOSS)
    if isinstance(named, dict):
        loss = Loss(
            dropped_events=loss.dropped_events + _count(named.get("dropped_events")),
            dropped_bytes=loss.dropped_bytes + _count(named.get("dropped_bytes")),
            reason=loss.reason,
        )
    body["metadata"] = {**metadata, LOSS: msgspec.to_builtins(loss) | {"reason": loss.reason}}
    return encode(event)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


_MEMBERS: tuple[tuple[type[Struct], str], ...] = (
    (Task, "task"),
    (TaskStatusUpdateEvent, "statusUpdate"),
    (TaskArtifactUpdateEvent, "artifactUpdate"),
    (Message, "message"),
    (Turn, "turn"),
)


def wrapped(event: Struct) -> Struct | dict[str, Any]:
    """Give the StreamResponse of an event given without it; anything else as it is."""
    return next(({name: event} for member, name in _MEMBERS if isinstance(event, member)), event)
