"""A process that publishes numbered events on many tasks with the adapter, at a steady rate.

Must not know faults: NATS may go away as it likes. Run by `faults` as `python -m e2e.load PLAN`; says on
standard output, one JSON object a line, how far it is.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

import msgspec
from e2e.check import label
from msgspec import Struct

from sidecast_adapters import Publisher

TICK_S = 0.1
FLUSH_S_MAX = 60.0


class Plan(Struct, frozen=True):
    """What is published.

    Attributes:
        urls: of NATS.
        agent: the agent's name.
        tasks: their names; each begins and ends at a moment of its own.
        events: of each task.
        rate: events per second over all tasks.
        padding: characters of each event's text beside its label.
        seed: of all that is random.
    """

    urls: list[str]
    agent: str
    tasks: list[str]
    events: int
    rate: float
    padding: int
    seed: int


class Said(Struct, frozen=True):
    """How far the publisher is.

    Attributes:
        published: events handed to the adapter.
        stored: events JetStream has acknowledged.
        over: everything is published and acknowledged, or the patience is at its end.
        dropped: events the adapter gave up.
        fenced: tasks taken over by another publisher.
    """

    published: int
    stored: int
    over: bool = False
    dropped: int = 0
    fenced: int = 0


class Load:
    """Publishes by the plan."""

    def __init__(self, plan: Plan, publisher: Publisher) -> None:
        self.published = 0
        self._plan = plan
        self._publisher = publisher
        self._random = random.Random(plan.seed)
        self._duration_s = len(plan.tasks) * plan.events / plan.rate
        self._began_s = time.monotonic()

    async def run(self) -> None:
        """Publish all tasks."""
        async with asyncio.TaskGroup() as group:
            for task in self._plan.tasks:
                group.create_task(self._task(task, self._moments()))

    def _moments(self) -> list[float]:
        """Give the moments of a task's events: within a window of its own, most open at once."""
        begin = self._random.uniform(0, 0.2)
        end = self._random.choice([self._random.uniform(0.5, 0.9), 1.0, 1.0])
        inner = sorted(self._random.uniform(begin, end) for _ in range(self._plan.events - 2))
        return [moment * self._duration_s for moment in (begin, *inner, end)]

    async def _task(self, name: str, moments: list[float]) -> None:
        padding = "x" * self._plan.padding
        await self._until(moments[0])
        async with self._publisher.task(name, context_id="load") as task:
            report = task.artifact("report.md", media_type="text/markdown")
            for number, moment in enumerate(moments, 1):
                await self._until(moment)
                text = f"{label(name, number)} {padding}"
                if number == len(moments):
                    await task.status("completed", text)
                elif number % 5 == 1:
                    await task.status("working", text)
                elif number % 5 == 2:
                    await task.progress(number / len(moments), text)
                elif number % 5 == 3:
                    await task.thought(text)
                else:
                    await report.write(text)
                self.published += 1

    async def _until(self, moment: float) -> None:
        left = self._began_s + moment - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)


async def run(plan: Plan) -> None:
    """Publish by the plan, and wait until all is acknowledged."""
    async with Publisher(plan.urls, agent=plan.agent) as publisher:
        load = Load(plan, publisher)

        def say(over: bool = False) -> None:
            counts = publisher.counts
            said = Said(
                load.published, counts.stored_events, over, counts.dropped_events, counts.fenced_tasks
            )
            print(msgspec.json.encode(said).decode(), flush=True)

        publishing = asyncio.create_task(load.run())
        while not publishing.done():
            await asyncio.wait([publishing], timeout=TICK_S)
            say()
        await publishing
        await publisher.flush(FLUSH_S_MAX)
        say(over=True)


def main() -> None:
    """Read the plan and publish."""
    asyncio.run(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)))


if __name__ == "__main__":
    main()
