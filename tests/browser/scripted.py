"""A broker that serves the live page, and on its streams exactly what a test says, when it says it.

Must not know what the page makes of it. For what a real broker says only under load, or to streams that the
page never opens itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from yarl import URL

from sidecast_broker.core.views import events
from sidecast_broker.page import FOLDER, SECURITY

RETRY_MS = 300
NOW = "2026-01-01T01:00:00.000Z"
END = b""


class Scripted:
    """Its side of the streams.

    Attributes:
        url: where it answers.
        asked: the queries of the streams that were opened, oldest first.
        listed: what the list of tasks says beside them.
        watching: who watches a task.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, str]] = []
        self.listed: dict[str, Any] = {}
        self.watching: dict[str, Any] = {}
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._leaving = asyncio.Event()

    def say(self, *frames: bytes) -> None:
        """Have the stream that is open, or the next one, send frames."""
        for frame in frames:
            self._said.put_nowait(frame)

    def open(self, mode: str = "replay", epoch: str = "e") -> None:
        """Have it begin."""
        self.say(events.open_frame(mode, f"{epoch}-0", 15, RETRY_MS, named=False).data)  # type: ignore[arg-type]

    def end(self) -> None:
        """Have the response end."""
        self.say(END)

    def leave(self) -> None:
        """End what is open."""
        self._leaving.set()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        leaving = asyncio.create_task(self._leaving.wait())
        while not self._leaving.is_set():
            said = asyncio.create_task(self._said.get())
            await asyncio.wait({said, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not said.done():
                said.cancel()
                break
            if said.result() == END:
                break
            await response.write(said.result())
        leaving.cancel()
        return response

    async def file(self, request: web.Request) -> web.FileResponse:
        name = request.match_info["name"] or "index.html"
        return web.FileResponse(FOLDER / name, headers=SECURITY)

    async def tasks(self, _request: web.Request) -> web.Response:
        return web.json_response({"tenant": "", "agent": "agent", "tasks": [], "now": NOW} | self.listed)

    async def watchers(self, _request: web.Request) -> web.Response:
        return web.json_response(self.watching)


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    """Run one for the length of the block."""
    script = Scripted()
    app = web.Application()
    app.router.add_get("/ui/api/tasks", script.tasks)
    app.router.add_get("/ui/api/streams", script.watchers)
    app.router.add_get("/ui/{name:[a-z0-9.-]*}", script.file)
    app.router.add_get("/tasks/{task}/events", script.stream)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        script.url = str(URL.build(scheme="http", host=host, port=port))
        yield script
    finally:
        script.leave()
        await runner.cleanup()
