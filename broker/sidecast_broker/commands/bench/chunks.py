"""The head and the chunk framing of one response, taken off as its bytes come.

Must not know what the body is.
"""

from __future__ import annotations


class Chunks:
    """Takes the head and the chunk framing off a response (RFC 9112, section 7.1).

    Attributes:
        status: the response's status line, empty before it came.
        over: whether the body has ended.
    """

    def __init__(self) -> None:
        self.status = ""
        self.over = False
        self._rest = b""
        self._chunked: bool | None = None
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; give those of the body."""
        self._rest += data
        if self._chunked is None:
            head, blank, rest = self._rest.partition(b"\r\n\r\n")
            if not blank:
                return b""
            self.status = head.partition(b"\r\n")[0].decode("latin-1")
            self._chunked = b"\r\ntransfer-encoding: chunked" in head.lower()
            self._rest = rest
        if not self._chunked:
            body, self._rest = self._rest, b""
            return body
        pieces = []
        while self._rest and not self.over:
            if self._left:
                piece, self._rest = self._rest[: self._left], self._rest[self._left :]
                self._left -= len(piece)
                pieces.append(piece)
                continue
            size, line_end, rest = self._rest.removeprefix(b"\r\n").partition(b"\r\n")
            if not line_end:
                break
            self._rest = rest
            self._left = int(size.partition(b";")[0], 16)
            self.over = self._left == 0
        return b"".join(pieces)
