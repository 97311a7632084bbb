"""What a terminal can show, and how text of others gets onto it without controlling it.

Must not know what is shown.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from typing import IO, Any

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_C1_IN_JSON = re.compile("[\x7f-\x9f]")

BOLD, DIM, ITALIC, RED, GREEN, YELLOW, CYAN = "1", "2", "3", "31", "32", "33", "36"


def printable(text: str) -> str:
    """Take out of a text what a terminal would obey: C0 and C1 controls except newline and tab."""
    return _CONTROLS.sub("", text)


def printable_json(text: str) -> str:
    """Escape what JSON allows unescaped in strings and a terminal would obey; it stays the same JSON."""
    return printable(_C1_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def one_line(text: str, length_max: int = 160) -> str:
    """Give a text as one printable line, cut with an ellipsis."""
    line = " ".join(printable(text).split())
    return line if len(line) <= length_max else line[: length_max - 1] + "…"


class Terminal:
    """An output stream that may be a terminal.

    Attributes:
        interactive: whether it can redraw a line.
        colored: whether it shows colours; `NO_COLOR` (no-color.org) turns them off.
        midline: whether what was written last ended in the middle of a line.
    """

    def __init__(self, output: IO[str], environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self.midline = False
        self._output = output
        self._line = ""
        self.interactive = output.isatty() and environ.get("TERM") != "dumb"
        self.colored = self.interactive and not environ.get("NO_COLOR")

    def style(self, text: str, *codes: str) -> str:
        """Give text with SGR codes around it, or as it is where there are no colours."""
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colored and text else text

    def write(self, text: str) -> None:
        """Write text, which may end in the middle of a line; the status line gives way to it."""
        if not text:
            return
        self._output.write(self._erase() + text)
        plain = re.sub("\x1b\\[[0-9;]*m", "", text)
        self.midline = not plain.endswith("\n") if plain else self.midline
        self._draw()

    def line(self, text: str = "") -> None:
        """Write a whole line, on a line of its own."""
        self.write(("\n" if self.midline else "") + text + "\n")

    def status(self, text: str) -> None:
        """Keep a line below everything else, as far as the terminal can; empty takes it away."""
        erase = self._erase()
        # A line that wraps could not be erased again.
        self._line = self.style(text[: shutil.get_terminal_size().columns - 1], DIM)
        self._output.write(erase)
        self._draw()

    def _erase(self) -> str:
        return "\r\x1b[K" if self._line and self.interactive and not self.midline else ""

    def _draw(self) -> None:
        # In the middle of a line there is no room for it: it comes back with the next line's start.
        if self._line and self.interactive and not self.midline:
            self._output.write(self._line)
        self._output.flush()


def open_terminal(output: IO[str]) -> Terminal:
    """Give a terminal on a standard stream; what its encoding lacks becomes question marks."""
    reconfigure: Any = getattr(output, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return Terminal(output)
