"""Which event id a stream of server-sent events has come to, read off its bytes on their way to an SDK.

Must not know HTTP or A2A. The SDKs drop event ids, so whoever wants to resume has to read them beside.
"""

from __future__ import annotations


class Ids:
    """Reads ids from the bytes of one stream.

    Attributes:
        last: the id of the last block that has ended, empty before the first.
    """

    def __init__(self) -> None:
        self.last = ""
        self._pending = ""
        self._line = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; a block counts once its blank line has come: half of it reaches nobody."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r").decode(errors="replace")
            if not text:
                self.last = self._pending
            elif text.startswith("id:"):
                self._pending = text[3:].strip()
