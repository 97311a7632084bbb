"""What one process makes of what it hears of the others about who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from aiohttp import web

from sidecast_broker import onlookers
from sidecast_broker.onlookers import Counts, Onlookers, Watching
from sidecast_schemas.subjects import TaskKey

KEY = TaskKey("acme & co", "agent", "täsk #1")
OWN: tuple[int, list[dict[str, Any]]] = (1, [{"peer": "own"}])
Answer = Callable[[web.Request], Awaitable[web.Response]]


def processes(path: str) -> Onlookers:
    """Give what is asked, with one stream of its own."""
    streams, hubs = Mock(), Mock()
    streams.watching.return_value = OWN
    hubs.watched.return_value = {"t": 1}
    return Onlookers(streams, hubs, path)


@asynccontextmanager
async def overview(folder: Path, answer: Answer) -> AsyncIterator[Onlookers]:
    """Answer in place of the process above the workers."""
    app = web.Application()
    app.router.add_get("/watching/{what}", answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        path = str(folder / "overview")
        await web.UnixSite(runner, path).start()
        yield processes(path)
    finally:
        await runner.cleanup()


def says(bodies: dict[int, Any], silent: tuple[int, ...] = ()) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        named = KEY._asdict() if request.path.endswith("task") else {"tenant": KEY.tenant, "agent": KEY.agent}
        assert dict(request.query) == named
        said = [{"worker": worker, "body": body} for worker, body in bodies.items()]
        return web.json_response({"said": said, "silent": silent})

    return answer


def stream(position: int, epoch: str = "e-1") -> dict[str, Any]:
    return {"cursor": f"{epoch}-{position}"}


async def test_of_all_those_furthest_behind_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onlookers, "STREAMS_MAX", 3)
    bodies = {
        1: {"watching": 2, "streams": [stream(9), stream(30)]},
        3: {"watching": 40, "streams": [stream(8), stream(10), stream(11)]},
    }
    async with overview(tmp_path, says(bodies, (2,))) as asked:
        found = await asked.of_task(KEY)
    assert (found.watching, found.silent, found.alone) == (42, [2], False)
    assert found.streams == [
        {"worker": 3, "cursor": "e-1-8"},
        {"worker": 1, "cursor": "e-1-9"},
        {"worker": 3, "cursor": "e-1-10"},
    ]


async def test_counts_are_added_up(tmp_path: Path) -> None:
    async with overview(tmp_path, says({1: {"a": 2, "b": 1}, 2: {}, 3: {"a": 5}}, (4, 5))) as asked:
        assert await asked.of_agent(KEY.tenant, KEY.agent) == Counts({"a": 7, "b": 1}, [4, 5])


async def _refuses(_request: web.Request) -> web.Response:
    return web.Response(status=503)


async def _hangs(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def _hangs_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("answer", [_refuses, _hangs, _hangs_up])
async def test_who_gets_no_answer_tells_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(onlookers, "ASK_S_MAX", 0.1)
    async with overview(tmp_path, answer) as asked:
        assert await asked.of_task(KEY) == Watching(*OWN, alone=True)
        assert (await asked.of_agent(KEY.tenant, KEY.agent)).of == {"t": 1}


async def test_so_does_who_finds_nobody(tmp_path: Path) -> None:
    assert (await processes(str(tmp_path / "nobody")).of_task(KEY)).alone


async def test_one_process_asks_nobody() -> None:
    asked = processes("")
    assert await asked.of_task(KEY) == Watching(*OWN)
    assert await asked.of_agent("", "agent") == Counts({"t": 1})


@pytest.mark.parametrize("task", ["", "x" * 257, "\udcff"])
async def test_of_what_can_be_no_task_nobody_is_asked(tmp_path: Path, task: str) -> None:
    async with overview(tmp_path, _refuses) as asked:
        assert await asked.of_task(TaskKey("", "agent", task)) == Watching(0, [])


def test_what_workers_say_arrives_as_they_said_it() -> None:
    said = Watching(2, [{"cursor": "e-1"}], [3])
    assert msgspec.json.decode(msgspec.json.encode(said), type=Watching) == said
