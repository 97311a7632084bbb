"""Server-sent events from bytes, as the WHATWG HTML standard parses them (section 9.2.6).

Must not know where the bytes come from, nor what the events mean.
"""

from __future__ import annotations

import codecs
import re

from msgspec import Struct

_LINE_END = re.compile(r"\r\n|\n|\r")
_DIGITS = re.compile(r"[0-9]+")
_RETRY_DIGITS_MAX = 9

RETRY_MS_MAX = 3_600_000
"""Longest reconnection time that is believed."""


class ServerSentEvent(Struct, frozen=True):
    """One dispatched event; `id` is the last event id at that point, which an event need not set itself."""

    type: str
    data: str
    id: str


class EventSourceParser:
    """Turns the body of a `text/event-stream` into events, however it is cut into pieces.

    Attributes:
        last_event_id: what a reconnect sends as `Last-Event-ID`; it outlives `restart`.
        retry_ms: the reconnection time the server last asked for, None until it did.
    """

    def __init__(self) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.restart()

    def restart(self) -> None:
        """Begin a new response: an event the last one left unfinished is dropped, as the standard says."""
        # utf-8-sig drops one byte order mark at the start of the stream, and only there.
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._after_cr = False
        self._line: list[str] = []
        self._type = ""
        self._data: list[str] = []
        self._id = self.last_event_id

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes and give the events they complete."""
        text = self._decode(chunk)
        if self._after_cr and text:
            # CR LF is one line end even in two pieces; the CR has ended the line already.
            text = text.removeprefix("\n")
            self._after_cr = False
        if not text:
            return []
        self._after_cr = text.endswith("\r")
        first, *rest = _LINE_END.split(text)
        self._line.append(first)
        events = []
        for piece in rest:
            line = "".join(self._line)
            self._line = [piece]
            if line:
                self._take(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            self.retry_ms = min(int(value[:_RETRY_DIGITS_MAX]), RETRY_MS_MAX)

    def _dispatch(self) -> ServerSentEvent | None:
        # The id counts from here even when there is no event to dispatch.
        self.last_event_id = self._id
        type_, self._type = self._type, ""
        data, self._data = self._data, []
        if not data:
            return None
        return ServerSentEvent(type_ or "message", "\n".join(data), self.last_event_id)
