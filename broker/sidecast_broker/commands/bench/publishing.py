"""Publishes the events that are watched, over HTTP, at a rate.

Must not know who watches.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable

import aiohttp
import msgspec

from sidecast_schemas.events import COMPLETED, SUBMITTED, WORKING

LANES = 16
"""Requests that publish at once; a task's are one after the other."""
TEXT = "x" * 165


class BenchFailed(Exception):  # noqa: N818 - named as the message reads
    """The broker refused to be measured, or went away."""


def opening(task: str) -> bytes:
    """Write the event that begins a task."""
    return msgspec.json.encode({"task": {"id": task, "contextId": "bench", "status": {"state": SUBMITTED}}})


def _status(task: str, state: str, text: str = "", mark: dict[str, int] | None = None) -> bytes:
    status: dict[str, object] = {"state": state}
    if text:
        status["message"] = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}
    update: dict[str, object] = {"taskId": task, "contextId": "bench", "status": status}
    if mark is not None:
        update["metadata"] = mark
    return msgspec.json.encode({"statusUpdate": update})


def ending(task: str) -> bytes:
    """Write the event that completes a task."""
    return _status(task, COMPLETED)


class Publisher:
    """Publishes to some tasks over HTTP, and knows how many events each has had."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tasks: list[str]) -> None:
        self.sent = [0] * len(tasks)
        self._session = session
        self._url = url
        self._tasks = tasks

    async def post(self, task: int, lines: Iterable[bytes]) -> None:
        """Publish events to a task, named by its index.

        Raises:
            BenchFailed: they were refused, or the broker can't be reached.
        """
        url = f"{self._url}/publish/{self._tasks[task]}"
        headers = {"Content-Type": "application/x-ndjson"}
        try:
            async with self._session.post(url, data=b"\n".join(lines), headers=headers) as response:
                if response.status != 200:
                    answer = (await response.content.read(500)).decode(errors="replace")
                    raise BenchFailed(f"publishing was answered with {response.status}: {answer}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BenchFailed(f"can't publish at {self._url}: {error or 'no answer'}") from error

    async def everywhere(self, event: Callable[[str], bytes]) -> None:
        """Publish one event to every task, made from its name."""

        async def lane(first: int) -> None:
            for task in range(first, len(self._tasks), LANES):
                await self.post(task, [event(self._tasks[task])])

        await asyncio.gather(*(lane(first) for first in range(LANES)))

    async def run(self, rate: float, seconds: float) -> float:
        """Publish at a rate, to all tasks in turn; give the seconds it took."""
        began_s, each = time.monotonic(), rate / len(self._tasks)

        async def lane(first: int) -> None:
            mine = range(first, len(self._tasks), LANES)
            while mine and (elapsed := time.monotonic() - began_s) < seconds:
                for task in mine:
                    # Tasks take turns within their common period.
                    due = math.floor(elapsed * each + 1 - task / len(self._tasks))
                    if due > self.sent[task]:
                        numbers = range(self.sent[task] + 1, due + 1)
                        self.sent[task] = due
                        await self.post(task, [self._event(task, n) for n in numbers])
                await asyncio.sleep(min(0.002, 1 / rate))

        await asyncio.gather(*(lane(first) for first in range(LANES)))
        return time.monotonic() - began_s

    def _event(self, task: int, n: int) -> bytes:
        return _status(self._tasks[task], WORKING, TEXT, {"n": n, "ts": time.time_ns()})
