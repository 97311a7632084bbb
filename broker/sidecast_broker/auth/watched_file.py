"""A small file that may change while the broker runs: what it says now, or said when it last made sense.

Must not know what it says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

logger = structlog.get_logger(__name__)

T = TypeVar("T")

FILE_BYTES_MAX = 4 * 1024 * 1024
LOOK_S = 1.0
"""How often a file is looked at, at most."""
SETTLED_S = 2.0
"""A file younger than that is read at each look: its time of change can't tell two quick changes apart."""


class UnusableFile(ValueError):  # noqa: N818 - named as the message reads
    """A file that can't be read, or makes no sense."""


class WatchedFile(Generic[T]):
    """Reads a file, and again when it has changed; a version that makes no sense changes nothing.

    Attributes:
        generation: counts the versions that made sense.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[bytes], T],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch a file; nothing is read before it is opened.

        Args:
            path: of the file, or of a link to it that may be exchanged.
            parse: makes sense of its content, or raises ValueError with a message that holds no secret.
            clock: seconds, monotonic.
        """
        self.generation = 0
        self._path = path
        self._parse = parse
        self._clock = clock
        self._looked_at_s = 0.0
        self._version: tuple[int, ...] | None = None
        self._content = b""
        self._failing = False
        self._value: T | None = None

    def open(self) -> T:
        """Read it for the first time.

        Raises:
            UnusableFile: it can't be read, or makes no sense: better not to start than to let nobody in.
        """
        self._looked_at_s = self._clock()
        try:
            return self._read()
        except (OSError, ValueError) as error:
            raise UnusableFile(f"{self._path}: {_reason(error)}") from error

    def look(self) -> T:
        """Give what it says; at most once a second that costs looking whether it has changed."""
        assert self._value is not None, "a file is opened before it is looked at"
        now_s = self._clock()
        if now_s - self._looked_at_s < LOOK_S:
            return self._value
        self._looked_at_s = now_s
        try:
            self._read()
        except (OSError, ValueError) as error:
            if not self._failing:
                self._failing = True
                logger.warning(
                    "file_unusable",
                    file=self._path,
                    detail=_reason(error),
                    consequence="its last version counts",
                )
        return self._value

    def _read(self) -> T:
        """Read what has changed.

        Raises:
            OSError: it can't be read.
            ValueError: it makes no sense.
        """
        with Path(self._path).open("rb") as file:
            status = os.fstat(file.fileno())
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if version == self._version and self._value is not None:
                return self._value
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise ValueError(f"is larger than {FILE_BYTES_MAX} bytes")
        if self._value is None or content != self._content:
            self._value = self._parse(content)
            self.generation += 1
            self._content = content
            if self.generation > 1:
                logger.info("file_read", file=self._path)
        self._failing = False
        settled = time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_S
        self._version = version if settled else None
        return self._value


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
