"""A counted use of something: it ends with the block it is made for, unless the block hands it on.

Must not know what is used.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self


class Use:
    """A context manager: leaving its block ends the use, in whatever way it is left.

    A class, not a generator: the block lasts as long as a stream, and each of those would hold a frame more.

    Args:
        end: ends the use; called once, or never after `keep`.
    """

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end

    def keep(self) -> None:
        """Let the use outlive the block: who the block gives its result to ends it."""
        self._end = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end is not None:
            self._end()
