"""What a test agent tells the test, and what the test tells it: requests seen, messages taken, gates opened.

Must not know the SDK the agent is built on. Runs in the agent's process, beside its A2A routes, and on each
a2a-sdk's Starlette.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class Control:
    """One agent's notebook.

    Attributes:
        messages: what its executor was asked, in order: `messageId`, `text`, `taskId`.
        canceled: the tasks its executor was told to cancel.
        requests: each A2A request that arrived: `method`, `path`, `query`, `headers` in lower case.
        gone: how many of them ended before they were answered to the end.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.canceled: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.gone = 0
        self._open: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._reached: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def wait(self, name: str) -> None:
        """Say that a script has reached a gate, and wait until the test opens it."""
        self._reached[name].set()
        await self._open[name].wait()

    def routes(self) -> list[Route]:
        """Give the routes of the test; they come before those of A2A."""
        return [
            Route("/control/seen", self._seen),
            Route("/control/open/{name}", self._on_open, methods=["POST"]),
            Route("/control/reached/{name}", self._on_reached),
        ]

    async def _seen(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "messages": self.messages,
                "canceled": self.canceled,
                "requests": self.requests,
                "gone": self.gone,
            }
        )

    async def _on_open(self, request: Request) -> Response:
        self._open[request.path_params["name"]].set()
        return Response(status_code=204)

    async def _on_reached(self, request: Request) -> Response:
        await self._reached[request.path_params["name"]].wait()
        return Response(status_code=204)


class Notes:
    """ASGI middleware that writes down A2A requests."""

    def __init__(self, app: Any, control: Control) -> None:
        self._app = app
        self._control = control

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Note the request, and serve it."""
        if scope["type"] != "http" or scope["path"].startswith("/control/"):
            await self._app(scope, receive, send)
            return
        self._control.requests.append(
            {
                "method": scope["method"],
                "path": scope["raw_path"].decode(),
                "query": scope["query_string"].decode(),
                "headers": {name.decode().lower(): value.decode() for name, value in scope["headers"]},
            }
        )

        async def watched() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect" and not complete:
                self._control.gone += 1
            return message

        complete = False

        async def noted(message: Any) -> None:
            nonlocal complete
            complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        await self._app(scope, watched, noted)


class Folder:
    """The tasks of an agent as files, one JSON object each: what a restarted agent still knows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, task_id: str, task: dict[str, Any]) -> None:
        """Keep a task; a reader never sees half of it."""
        draft = self._path / f"{task_id}.draft"
        draft.write_text(json.dumps(task))
        draft.rename(self._path / f"{task_id}.json")

    def read(self) -> list[dict[str, Any]]:
        """Give all tasks."""
        return [json.loads(file.read_text()) for file in sorted(self._path.glob("*.json"))]


async def serve(app: Starlette, control: Control, port: int) -> None:
    """Serve until the process is told to end."""
    config = uvicorn.Config(
        Notes(app, control), port=port, log_level="warning", timeout_graceful_shutdown=1, lifespan="off"
    )
    await uvicorn.Server(config).serve()
