"""What the internal listener of several workers makes of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from multidict import CIMultiDict
from shell.test_merged import shown, values

from sidecast_broker.metrics import Metrics
from sidecast_broker.overview import Answer, Overview
from sidecast_broker.workers import Running


class Crew:
    """Workers as far as they are asked."""

    def __init__(self, *running: Running) -> None:
        self.running = list(running)

    def __len__(self) -> int:
        return 2


class Asked(Overview):
    """Asks functions instead of sockets."""

    def __init__(self, crew: Crew, answers: dict[int, Callable[[], Any]]) -> None:
        super().__init__(crew, Metrics(), lambda: None)  # type: ignore[arg-type]
        self.answers = answers

    async def _ask(self, worker: Running, *_asked: Any) -> Answer:
        text = await self.answers[worker.number]()
        return Answer(worker, 200, CIMultiDict(), text.encode())

    async def seen(self) -> dict[str, float]:
        answer = await self._show_metrics(None)  # type: ignore[arg-type]
        assert isinstance(answer, web.Response)
        assert isinstance(answer.body, bytes)
        return values(answer.body)


async def test_what_a_worker_has_counted_that_dies_while_another_is_asked_counts_once() -> None:
    """A counter that falls is taken for one that begins anew."""
    first, second, again = Running(1, "1.1", 11), Running(2, "2.1", 12), Running(1, "1.2", 13)
    crew, slow = Crew(first, second), asyncio.Event()

    async def counted() -> str:
        return shown(3)

    async def begun() -> str:
        return shown(0)

    async def late() -> str:
        await slow.wait()
        return shown(4)

    overview = Asked(crew, {1: counted, 2: begun})
    name = "sidecast_streams_opened_total/events"
    assert (await overview.seen())[name] == 3
    overview.answers[2] = late
    asking = asyncio.create_task(overview.seen())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    crew.running[0] = again
    overview.bury(1)
    overview.answers[1] = begun
    slow.set()
    between = (await asking)[name]
    after = (await overview.seen())[name]
    assert (between, after) == (7, 7)
