"""What fits into one NATS message: splitting text, and making statuses and tasks smaller.

Must not know connections or buffers: the limit comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import structs

from sidecast_adapters.payload import decode, encode, with_loss
from sidecast_adapters.record import Rank, Record
from sidecast_schemas.events import ACTIVITY, LOSS, Loss

EVENT_BYTES_MAX = 4_000_000
"""No event is larger than this, whatever the server allows: A2A clients give up at 4 MiB per SSE event."""


class TooLarge(ValueError):  # noqa: N818 - named as the answer reads: the event is too large
    """An event that fits into no message and can't be split.

    Attributes:
        size: bytes of its JSON.
        limit: bytes it may have.
    """

    def __init__(self, kind: str, size: int, limit: int) -> None:
        super().__init__(f"{kind} of {size} bytes is larger than the {limit} bytes one message may have")
        self.size = size
        self.limit = limit


def fit(record: Record, limit: int) -> list[Record]:
    """Give the records that say what a record says, each small enough for one message.

    A status goes without its message, and a task without its history, marked as a `Loss`; an artifact that is
    one text becomes several chunks, cut between characters.

    Args:
        record: what shall be published.
        limit: bytes a payload may have.

    Raises:
        TooLarge: it is something else.
    """
    size = len(record.payload)
    if size <= limit:
        return [record]
    if record.kind == "artifactUpdate":
        pieces = _split(record, limit)
    elif record.kind in ("statusUpdate", "task", "turn"):
        pieces = [structs.replace(record, payload=_shortened(record.payload, limit))]
    else:
        pieces = []
    if not pieces or any(len(piece.payload) > limit for piece in pieces):
        raise TooLarge(record.kind, size, limit)
    return pieces


_DISPENSABLE: dict[str, tuple[tuple[str, ...], ...]] = {
    # What goes first is what a later event can say again.
    "statusUpdate": (("status", "message"), ("metadata",)),
    "task": (("history",), ("artifacts",), ("status", "message"), ("metadata",)),
    "turn": (("message",),),
}


def _shortened(payload: bytes, limit: int) -> bytes:
    event = decode(payload)
    ((kind, body),) = event.items()
    for *path, key in _DISPENSABLE[kind]:
        inner = body
        for step in path:
            inner = inner[step]
        if key not in inner:
            continue
        removed = len(payload)
        if key == "metadata":
            inner[key] = {name: value for name, value in inner[key].items() if name in (ACTIVITY, LOSS)}
        else:
            del inner[key]
        payload = encode(event)
        if kind != "turn":
            removed -= len(payload)
            payload = with_loss(payload, Loss(dropped_bytes=removed, reason="message-too-large"))
            event = decode(payload)
            body = event[kind]
        if len(payload) <= limit:
            break
    return payload


def _split(record: Record, limit: int) -> list[Record]:
    event = decode(record.payload)
    update: dict[str, Any] = event["artifactUpdate"]
    artifact: dict[str, Any] = update["artifact"]
    parts = artifact.get("parts") or []
    if len(parts) != 1 or not isinstance(parts[0].get("text"), str):
        return []
    part: dict[str, Any] = parts[0]
    text: str = part["text"]
    last = update.pop("lastChunk", False)
    overhead = len(encode(event | {"artifactUpdate": update | {"append": True, "lastChunk": True}}))
    budget = limit - (overhead - _encoded_length(text))
    if budget < 16:
        return []
    pieces: list[Record] = []
    for chunk in cut(text, budget):
        part["text"] = chunk
        payload = encode(event)
        pieces.append(
            structs.replace(
                record,
                payload=payload,
                append=bool(update.get("append")),
                rank=Rank.LOOSE if pieces else record.rank,
            )
        )
        update["append"] = True
        # The first piece has named and described the artifact.
        update["artifact"] = {"artifactId": artifact["artifactId"], "parts": parts}
    if last:
        update["lastChunk"] = True
        part["text"] = chunk
        update["append"] = pieces[-1].append
        if len(pieces) == 1:
            update["artifact"] = artifact
        pieces[-1] = structs.replace(pieces[-1], payload=encode(event))
    return pieces


def cut(text: str, budget: int) -> Iterator[str]:
    """Cut a text between characters into pieces whose JSON has at most `budget` bytes without its quotes.

    Args:
        text: without lone surrogates.
        budget: at least 6, the length of the longest escape.
    """
    start = 0
    while start < len(text):
        piece = text[start : start + budget]
        while (length := _encoded_length(piece)) > budget:
            piece = piece[: max(1, len(piece) * budget // length)]
        yield piece
        start += len(piece)


def _encoded_length(text: str) -> int:
    return len(msgspec.json.encode(text)) - 2
