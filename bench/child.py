"""A child process that is talked to in lines: one command, one line of JSON back.

Must not know what the lines say.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sidecast_broker.embedded import start_child, stop_child

ANSWER_S_MAX = 120.0
LINE_BYTES_MAX = 1 << 20


class ChildFailed(RuntimeError):  # noqa: N818 - named as the message reads
    """A process of the benchmark ended, or doesn't answer."""


class Child:
    """A running child.

    Attributes:
        name: for messages.
        process: the process.
        log: where its standard error goes.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    async def answer(self, seconds_max: float = ANSWER_S_MAX) -> Any:
        """Give the next line, decoded.

        Raises:
            ChildFailed: it ended, or said nothing for so long.
        """
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(seconds_max):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise ChildFailed(f"{self.name} does not answer{_end_of(self.log)}") from None
        if not line:
            raise ChildFailed(f"{self.name} ended{_end_of(self.log)}")
        return json.loads(line)

    async def ask(self, line: str) -> Any:
        """Send a line and give the answer.

        Raises:
            ChildFailed: see `answer`.
        """
        self.tell(line)
        return await self.answer()

    async def logged(self, event: str, seconds_max: float = 20.0) -> dict[str, Any]:
        """Wait until a line of its log, one JSON object, has this `event`, and give it.

        Raises:
            ChildFailed: it ended, or didn't log that in time.
        """
        try:
            async with asyncio.timeout(seconds_max):
                while (found := _find(self.log, event)) is None:
                    if self.process.returncode is not None:
                        raise ChildFailed(f"{self.name} ended{_end_of(self.log)}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise ChildFailed(f"{self.name} never came to {event!r}{_end_of(self.log)}") from None
        return found


@asynccontextmanager
async def child(
    name: str, argv: list[str], folder: Path, environ: dict[str, str] | None = None
) -> AsyncIterator[Child]:
    """Run a program for the length of the block; it dies with this process.

    Args:
        name: for messages, and of its log file.
        argv: the program's absolute path, and its arguments.
        folder: where its log is written.
        environ: added to what is there; the broker's own variables are not passed on.
    """
    log = folder / f"{name}.log"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SIDECAST_")}
    with _emptied(log) as errors:
        process = await start_child(
            argv,
            env=clean | (environ or {}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LINE_BYTES_MAX,
        )
    try:
        yield Child(name, process, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await stop_child(process)


def _emptied(path: Path) -> BinaryIO:
    return path.open("wb")


def _find(log: Path, event: str) -> dict[str, Any] | None:
    for line in log.read_text(errors="replace").splitlines():
        if f'"{event}"' in line and line.startswith("{") and line.endswith("}"):
            fields: dict[str, Any] = json.loads(line)
            if fields.get("event") == event:
                return fields
    return None


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()[-5:]
    return f": {' | '.join(lines)}" if lines else ""
