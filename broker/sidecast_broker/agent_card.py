"""The agent's card: fetched, kept for a while, served as the broker's; without `agent.url`, one of our own.

Must not know what stands in a card.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import NamedTuple
from urllib.parse import quote

import structlog
from aiohttp import ETag, hdrs, web

from sidecast_broker.agent import Agent
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.core.a2a.card import Card, InvalidCard, etag, read, rewrite, watch_only
from sidecast_broker.core.a2a.security import declared
from sidecast_broker.core.auth.principal import Scheme
from sidecast_broker.paths import agent_segment, decode_segment
from sidecast_broker.refused import Refused
from sidecast_broker.router import Route, behind_agent, get_or_head
from sidecast_broker.settings import MIB, Settings

logger = structlog.get_logger(__name__)

PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Where cards are: of v1.0 and v0.3, and of v0.2 (A2A v1.0, section 8.2; C56)."""

CARD_BYTES_MAX = MIB
FETCH_S = 5.0
"""Time a card may take: clients wait for it, and the default of the Python clients is 5 s."""
RETRY_S = 2.0
"""How soon an agent that gave no card is asked again: not at every request, and not much after it is back."""
BASES_MAX = 64
"""Cards kept, one for each `Host` it was asked for under: clients choose it."""

_MISSING = frozenset({404, 405, 410})
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class _Found(NamedTuple):
    """A card as the agent gave it, and the tag by which it knows it."""

    body: bytes
    card: Card
    tag: str | None


class AgentCards:
    """Keeps the agent's card, and serves what the broker makes of it.

    Args:
        agent: whom to ask.
        settings: all settings.
        clock: seconds that never go backwards.
        schemes: the kinds of credential clients need here, any one of them; None: what the agent says stands.
    """

    def __init__(
        self,
        agent: Agent,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        *,
        schemes: Sequence[Scheme] | None = None,
    ) -> None:
        self._schemes = None if schemes is None else declared(schemes)
        self._agent = agent
        self._name = settings.agent.name
        self._keep_s = settings.agent.card_s
        self._public_url = settings.server.public_url.rstrip("/")
        self._clock = clock
        self._found: _Found | None = None
        if not agent.configured:
            own = watch_only(settings.agent.name, version("sidecast"))
            self._found = _Found(own, read(own), None)
        self._fetched_at = 0.0
        self._retry_at = 0.0
        self._fault: AgentAway | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._served: dict[str, tuple[bytes, str]] = {}

    async def close(self) -> None:
        """Stop asking."""
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetching

    def routes(self) -> list[Route]:
        """Give the routes of the card, at the root and behind the agent's prefix."""
        behind = partial(self.serve, prefixed=True)
        return [
            *(route for path in PATHS for route in get_or_head(path, self.serve)),
            *behind_agent(route for path in PATHS for route in get_or_head(path, behind)),
        ]

    async def card(self) -> Card:
        """Give what the agent's card says: the last one it gave, where it is away.

        Raises:
            AgentAway: it has given none.
        """
        return (await self._current()).card

    @property
    def known(self) -> Card | None:
        """What the last card said that the agent gave, or None."""
        return None if self._found is None else self._found.card

    def rewritten(self, request: web.BaseRequest, card: bytes, *, prefixed: bool = False) -> bytes:
        """Give another card of the agent's, for example its extended one, as the broker serves it.

        Args:
            request: the client's; by it the client's address of this broker is known.
            card: as the agent gave it.
            prefixed: the client asks under `/agents/{agent}`.

        Raises:
            InvalidCard: it is no card.
            Refused: the request's `Host` is none.
        """
        return rewrite(card, self._base_url(request, prefixed=prefixed), self._schemes)

    async def serve(self, request: web.BaseRequest, *, prefixed: bool = False) -> web.Response:
        """Answer a request for the card (C56 to C59).

        A card that could not be fetched again is served on, marked with its age: the broker's streams go on
        without the agent, and clients need the card to open them.

        Args:
            request: a GET or HEAD.
            prefixed: the path begins with `/agents/{agent}`.

        Raises:
            Refused: there is no card to serve, or no such agent.
        """
        if prefixed and decode_segment(agent_segment(request.raw_path)) != self._name:
            raise Refused("not-found", "there is no such agent")
        base_url = self._base_url(request, prefixed=prefixed)
        try:
            found = await self._current()
        except AgentAway as away:
            raise _refusal(away) from away
        body, tag = self._serving(found, base_url)
        age_s = self._clock() - self._fetched_at
        headers = {"ETag": f'"{tag}"', "Cache-Control": f"public, max-age={max(1, int(self._keep_s))}"}
        if self._fault is not None:
            headers |= {"Age": str(int(age_s)), "Cache-Control": "no-cache", "Sidecast-Card": "stale"}
        if _matches(request.if_none_match, tag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="application/json", headers=headers)

    def _base_url(self, request: web.BaseRequest, *, prefixed: bool) -> str:
        prefix = f"/agents/{quote(self._name, safe='')}" if prefixed else ""
        if self._public_url:
            return self._public_url + prefix
        hosts = request.headers.getall(hdrs.HOST, [])
        if not hosts and request.transport is not None:
            address = request.transport.get_extra_info("sockname")
            hosts = [f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"]
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            raise Refused("bad-request", "the request needs one Host, a name or an address")
        return f"{'https' if request.secure else 'http'}://{hosts[0].lower()}{prefix}"

    def _serving(self, found: _Found, base_url: str) -> tuple[bytes, str]:
        if base_url not in self._served:
            if len(self._served) >= BASES_MAX:
                self._served.clear()
            body = rewrite(found.body, base_url, self._schemes)
            self._served[base_url] = body, etag(body)
        return self._served[base_url]

    # ------------------------------------------------------------------ fetching

    async def _current(self) -> _Found:
        now = self._clock()
        due = self._found is None or now - self._fetched_at >= self._keep_s
        if self._agent.configured and due and (self._fault is None or now >= self._retry_at):
            if self._fetching is None or self._fetching.done():
                self._fetching = asyncio.get_running_loop().create_task(self._refresh())
            # All who come meanwhile wait for the same; one who leaves doesn't end it for the others.
            await asyncio.shield(self._fetching)
        if self._found is None:
            raise self._fault or AgentAway("broken", "the agent has given no card")
        return self._found

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                found = await self._fetch()
        except (AgentAway, InvalidCard, TimeoutError) as error:
            self._fail(error)
            return
        if self._fault is not None or self._found is None:
            logger.info("agent_card_fetched", agent=self._name, bytes=len(found.body))
        if self._found is None or found.body != self._found.body:
            self._served.clear()
        self._found = found
        self._fetched_at = self._clock()
        self._fault = None

    def _fail(self, error: AgentAway | InvalidCard | TimeoutError) -> None:
        if isinstance(error, TimeoutError):
            away = AgentAway("timeout", f"the agent gave no card within {FETCH_S:g} s")
        elif isinstance(error, InvalidCard):
            away = AgentAway("broken", f"the agent's card can't be read: {error}")
        else:
            away = error
        if self._fault is None:
            logger.warning("agent_card_unavailable", agent=self._name, reason=away.reason, detail=str(away))
        self._fault = away
        self._retry_at = self._clock() + RETRY_S

    async def _fetch(self) -> _Found:
        for path in PATHS:
            known = self._found
            headers = {"If-None-Match": known.tag} if known is not None and known.tag else {}
            reply = await self._agent.fetch(path, headers, CARD_BYTES_MAX)
            if reply.status == 304 and known is not None:
                return known
            if reply.status == 200:
                card = read(reply.body)
                rewrite(reply.body, "http://checked")
                return _Found(reply.body, card, reply.headers.get(hdrs.ETAG))
            if reply.status not in _MISSING:
                break
        raise AgentAway("broken", f"the agent answered with status {reply.status} instead of its card")


def _refusal(away: AgentAway) -> Refused:
    if away.reason == "broken":
        return Refused("bad-gateway", str(away))
    return Refused("unavailable", str(away), retry_after_s=RETRY_S)


def _matches(asked: tuple[ETag, ...] | None, tag: str) -> bool:
    return asked is not None and any(each.value in (tag, "*") for each in asked)
