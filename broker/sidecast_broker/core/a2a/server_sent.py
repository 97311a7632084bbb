"""Reads an event stream as it arrives: bytes, cut anywhere, become events.

Must not know connections, nor what the data says.
Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sidecast_broker.core.frame import CR, LF, NUL

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):  # noqa: N818 - named as the log line reads: the event is too large
    """An event, or one line, longer than its reader allows; nothing after it can be read."""


class Received(NamedTuple):
    """One event of a stream.

    Attributes:
        event: its name, `message` where the stream gives none.
        data: its `data` lines, joined by LF; UTF-8 is for the reader of the data to check.
        id: the last event id of the stream up to here, empty where there was none.
    """

    event: str
    data: bytes
    id: str


class Parser:
    """Parses one event stream.

    Lines end in LF, CR or CRLF, mixed as they come; comments, `retry` and unknown fields are skipped; what
    stands after the last blank line is no event. However the bytes are cut, the events are the same.

    Args:
        event_bytes_max: longest event, in bytes of its `data`, and longest line of any kind.
    """

    def __init__(self, event_bytes_max: int) -> None:
        self._bytes_max = event_bytes_max
        self._line = bytearray()  # of a line that has not ended
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._id = ""

    def feed(self, received: bytes) -> Iterator[Received]:
        """Give the events that end in the next bytes of the stream.

        Iterate to the end before the next bytes are fed: the bytes are taken in as the events are given.

        Args:
            received: any bytes, also none.

        Raises:
            EventTooLarge: the bound is passed, after all events before have been given.
        """
        if self._after_cr and received:
            # CRLF is one line end, also where it was cut in two.
            received = received.removeprefix(b"\n")
            self._after_cr = False
        if CR in received:
            self._after_cr = received.endswith(b"\r")
            received = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if LF not in received:
            self._hold(received)
            return
        first, *lines, rest = received.split(b"\n")
        self._hold(first)
        lines.insert(0, bytes(self._line))
        self._line.clear()
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if not line:
                if self._data:
                    yield Received(self._event or "message", b"\n".join(self._data), self._id)
                    self._data.clear()
                    self._data_bytes = 0
                self._event = ""
            else:
                self._take(line)
        self._hold(rest)

    def _hold(self, piece: bytes) -> None:
        self._line += piece
        self._check(len(self._line))

    def _take(self, line: bytes) -> None:
        self._check(len(line))
        field, _colon, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check(self._data_bytes - 1)
        elif field == b"event":
            self._event = value.removeprefix(b" ").decode("utf-8", "replace")
        elif field == b"id" and NUL not in value:
            self._id = value.removeprefix(b" ").decode("utf-8", "replace")

    def _check(self, length: int) -> None:
        if length > self._bytes_max:
            raise EventTooLarge(f"an event or line of the stream is longer than {self._bytes_max} bytes")
