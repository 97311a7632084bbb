"""Principals to ask as, each known by a bearer token that is their name; and an operator's webhook.

Must not know how real credentials are checked, nor what is tested.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from sidecast_broker.core.auth.principal import Grant, Principal, Scheme
from sidecast_broker.refused import Refused


class Askers:
    """Credentials that know some principals.

    Args:
        principals: those there are.

    Attributes:
        schemes: the kinds of credential there are.
    """

    def __init__(self, *principals: Principal) -> None:
        self.schemes: Sequence[Scheme] = ("jwt", "api_key", "ticket")
        self._known = {principal.name: principal for principal in principals}

    def know(self, name: str, principal: Principal) -> None:
        """Know a principal by another name than theirs."""
        self._known[name] = principal

    async def principal(self, request: web.BaseRequest) -> Principal:
        scheme, _, name = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or name not in self._known:
            raise Refused("unauthenticated", "a credential is required")
        return self._known[name]


def bearer(name: str) -> dict[str, str]:
    """Give the header by which somebody is known."""
    return {"Authorization": f"Bearer {name}"}


EVERYTHING = Grant(None, None, None)


Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse] | web.StreamResponse]


def says(allow: object) -> Answer:
    return lambda _asked: web.json_response({"allow": allow})


class Service:
    """The service behind `auth.webhook_url`.

    Attributes:
        answer: what it answers.
        asked: what it was asked.
        headers: of the newest question.
    """

    def __init__(self) -> None:
        self.answer: Answer = says(True)
        self.asked: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.url = ""

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.method == "POST"
        asked = json.loads(await request.read())
        self.asked.append(asked)
        self.headers = dict(request.headers)
        answer = self.answer(asked)
        return answer if isinstance(answer, web.StreamResponse) else await answer

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Service]:
        runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/may?x=1"
        try:
            yield self
        finally:
            await runner.cleanup()
