"""The bytes of one server-sent event, and of the HTTP/1.1 chunk that carries several.

Must not know what the data says, nor which position an id stands for.
Source: WHATWG HTML, section 9.2 "Server-sent events"; RFC 9112, section 7.1 "Chunked Transfer Coding".
"""

from __future__ import annotations

HEARTBEAT = b":\n"
"""A comment line without a blank line: keeps connections open and touches no client's parser state."""

LF, CR, NUL = b"\n\r\x00"
"""As integers: `10 in data` is nine times as fast as `b"\\n" in data`, and each event is looked through."""


def frame(
    data: bytes, event: str | None = None, event_id: str | None = None, retry_ms: int | None = None
) -> bytes:
    """Frame one event: a block of LF-ended lines with exactly one `data:` line, the last.

    Args:
        data: one line of UTF-8, usually JSON.
        event: the event's name; None leaves the line out, so that clients take it as `message`.
        event_id: what a client sends back as `Last-Event-ID`; None leaves the client's last id as it is.
        retry_ms: how long a client waits before it reconnects; it stands in a block with data because one of
            the A2A clients fails on a block without.

    Raises:
        ValueError: a field holds CR, LF or NUL. They would end its line, and so let text forge a field, or
            make a client ignore the id.
    """
    if LF in data or CR in data or NUL in data:
        raise ValueError("the data of an event must be one line without CR, LF and NUL")
    head = ""
    if event is not None:
        if not event.isprintable():
            _refuse_breaks("name", event)
        head = f"event: {event}\n"
    if event_id is not None:
        if not event_id.isprintable():
            _refuse_breaks("id", event_id)
        head += f"id: {event_id}\n"
    if retry_ms is not None:
        if retry_ms < 0:
            raise ValueError(f"retry_ms is {retry_ms}, clients ignore what is not all digits")
        head += f"retry: {retry_ms:d}\n"
    return head.encode() + b"data: " + data + b"\n\n"


def with_id(block: bytes, event_id: str | None) -> bytes:
    """Give one framed event with another id, or without one.

    Args:
        block: what `frame` gave.
        event_id: the id; None for none.
    """
    lines = [line for line in block[:-2].split(b"\n") if not line.startswith(b"id: ")]
    if event_id is not None:
        lines.insert(-1, b"id: " + event_id.encode())
    return b"\n".join(lines) + b"\n\n"


def _refuse_breaks(field: str, value: str) -> None:
    if "\n" in value or "\r" in value or "\x00" in value:
        raise ValueError(f"the {field} of an event must not hold CR, LF or NUL: {value[:80]!r}")


def chunk(data: bytes) -> bytes:
    """Wrap bytes, usually joined frames, as one HTTP/1.1 chunk.

    No bytes give no chunk: a chunk of length 0 would end the response.
    """
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
