"""The server of an issuer of tokens, which gives its keys, breaks and comes back as a test says.

Must not know who asks, nor what tokens are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer
from issuer import jwks

from sidecast_broker.auth.keys import DISCOVERY

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KeyServer:
    """An issuer's server: what it answers can be changed while it runs."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.keys = jwks("rsa")
        self.discovered: dict[str, Any] = {}
        self.broken: Answer | None = None
        self.waiting: asyncio.Event | None = None
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        if self.waiting is not None:
            await self.waiting.wait()
        if self.broken is not None:
            return await self.broken(request)
        if request.path.endswith(DISCOVERY):
            return web.json_response({"issuer": self.url, "jwks_uri": self.url + "/keys", **self.discovered})
        return web.Response(body=self.keys)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Serve on a free port."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        async with TestServer(app, host="127.0.0.1") as running:
            self.url = str(running.make_url("")).rstrip("/")
            yield self
