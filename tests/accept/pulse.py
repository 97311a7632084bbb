"""A process that publishes timed and numbered events until it is told to stop, then ends its tasks.

Must not know who watches. Run as `python -m accept.pulse PLAN`; a line on standard input stops it; says
`published` with the count of each task as JSON on standard output.

Each event replaces one artifact, so that the task's fold stays as small as one event.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import msgspec
from e2e.check import label
from msgspec import Struct

from sidecast_adapters import Publisher


class Beat(Struct, frozen=True):
    """One task's events: how many per second, and how many characters beside label and time."""

    task: str
    rate: float
    padding: int


class Plan(Struct, frozen=True):
    """What is published, where, and as which agent."""

    url: str
    agent: str
    beats: list[Beat]


async def publish(publisher: Publisher, beat: Beat, stop: asyncio.Event) -> int:
    """Publish a task's events at an even pace; give how many there were."""
    padding = "x" * beat.padding
    number = 0
    began_s = time.monotonic()
    async with publisher.task(beat.task, context_id="pulse") as task:
        while not stop.is_set():
            number += 1
            text = f"{label(beat.task, number)} at={time.time():.6f} {padding}"
            artifact = {"artifactId": "pulse", "parts": [{"text": text}]}
            await task.publish({"artifactUpdate": {"artifact": artifact, "append": False}})
            left = began_s + number / beat.rate - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)
        number += 1
        await task.status("completed", label(beat.task, number))
    return number


async def run(plan: Plan) -> None:
    """Publish until a line comes in."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(None, sys.stdin.readline)
    reading.add_done_callback(lambda _line: stop.set())
    async with Publisher(plan.url, agent=plan.agent) as publisher:
        counts = await asyncio.gather(*(publish(publisher, beat, stop) for beat in plan.beats))
        await publisher.flush(30)
        assert publisher.counts.dropped_events == 0
    tasks = [beat.task for beat in plan.beats]
    print(msgspec.json.encode(dict(zip(tasks, counts, strict=True))).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)))
