"""The frames of the A2A wires: one event, one `data:` line, in both generations and bindings.

Must not know clients: where the id of a JSON-RPC request belongs, the bytes hold one NUL, which can't stand
in JSON, for whoever sends them to replace.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from sidecast_broker.core.a2a.errors import escape_line_ends
from sidecast_broker.core.a2a.translate import events
from sidecast_broker.core.a2a.wire import Wire
from sidecast_broker.core.frame import CR, LF
from sidecast_schemas.codec import RawObject

RPC_ID = b"\0"

LOG = "urn:sidecast:log:v1"
"""Metadata of a Task the broker has made: `cursor`, the event id it was folded at, and why it begins anew."""

EVENT_BYTES_MAX = (4 << 20) - 512
"""Longest frame: @a2a-js/sdk 1.3 takes 4 MiB; the rest is for the id of a request (C23)."""

TOO_LARGE = "An event is larger than the 4 MiB that A2A clients take"

_RPC_HEAD = b'{"jsonrpc":"2.0","id":' + RPC_ID + b',"result":'

_encode = msgspec.json.Encoder().encode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_object = msgspec.json.Decoder(RawObject).decode


def event_frame(wire: Wire, payload: bytes, event_id: str | None, *, final: bool | None = None) -> bytes:
    """Frame a stored event.

    Args:
        wire: the client's.
        payload: a v1.0 StreamResponse on one line.
        event_id: its position, where a client can resume from it.
        final: of a v0.3 status update: whether the stream ends with it; None: by its state (C34, C35).
    """
    if wire.version == "0.3":
        payload = events.response_to_v03(payload, rest=wire.binding == "rest", final=final)
    return _frame(wire, payload, event_id)


def task_frame(wire: Wire, task: bytes, event_id: str | None) -> bytes:
    """Frame a Task as the log folds to it at a position (C01, C31).

    Args:
        wire: the client's.
        task: v1.0 JSON.
        event_id: the position.
    """
    return event_frame(wire, b'{"task":' + task + b"}", event_id)


def marked(task: bytes, **fields: object) -> bytes:
    """Give a Task with what the broker says of it in its metadata.

    Args:
        task: v1.0 JSON.
        fields: under `LOG`.
    """
    members = _decode_object(task)
    raw = members.get("metadata")
    metadata = _decode_object(raw) if raw is not None and bytes(raw)[:1] == b"{" else {}
    members["metadata"] = Raw(_encode({**metadata, LOG: fields}))
    return _encode(members)


def with_history(task: bytes, length: int | None) -> bytes:
    """Give a Task with its newest messages only.

    Args:
        task: v1.0 JSON.
        length: how many; None: all of them; 0 or less: none (A2A 1.0, section 3.2.4).
    """
    if length is None:
        return task
    members = _decode_object(task)
    history = _decode_list(members.pop("history", Raw(b"[]")))
    if length > 0 and history:
        members["history"] = Raw(_encode(history[-length:]))
    return _encode(members)


def _frame(wire: Wire, result: bytes, event_id: str | None) -> bytes:
    if LF in result or CR in result or b'": ' in result:
        # Blanks between tokens, as a publisher without an adapter may write them (C23).
        result = msgspec.json.format(result, indent=-1)
    result = escape_line_ends(result)
    head = f"id: {event_id}\ndata: ".encode() if event_id is not None else b"data: "
    if wire.binding == "jsonrpc":
        return head + _RPC_HEAD + result + b"}\n\n"
    return head + result + b"\n\n"
