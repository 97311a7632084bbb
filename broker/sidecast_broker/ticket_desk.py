"""Where tickets are made: a credential goes in by a header, and what opens streams without one comes out.

Must not know how a ticket is written, nor what opens with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Annotated
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from msgspec import Meta, Struct

from sidecast_broker.auth.access import Access
from sidecast_broker.auth.credentials import TICKET_COOKIE
from sidecast_broker.auth.tickets import Made, Tickets
from sidecast_broker.bodies import read_json
from sidecast_broker.core.auth.tickets import TASKS_MAX, TicketTooLong
from sidecast_broker.limits import Limits
from sidecast_broker.paths import query_value
from sidecast_broker.refused import Refused
from sidecast_broker.router import Route, post
from sidecast_broker.settings import Settings
from sidecast_schemas.subjects import InvalidId, TaskKey, encode_token

PATH = "/tickets"
BODY_BYTES_MAX = 256 * 1024
"""A hundred ids of 256 bytes, each escaped as JSON allows."""
COOKIE_CHARACTERS_MAX = 4000
"""Browsers drop a cookie whose name and value exceed 4,096 (RFC 6265bis, section 5.6)."""


class _Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    tasks: Annotated[list[str], Meta(min_length=1, max_length=TASKS_MAX)]
    ttl_s: Annotated[float, Meta(ge=1)] | None = None


class TicketDesk:
    """Makes tickets for who may watch the tasks they name.

    Args:
        settings: whose tasks there are, and the URL clients use.
        access: who may watch what.
        tickets: makes them.
        limits: how many somebody may ask for.
        clock: the time, seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        access: Access,
        tickets: Tickets,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._access = access
        self._tickets = tickets
        self._limits = limits
        self._clock = clock

    def routes(self) -> list[Route]:
        """Give the routes."""
        return [post(PATH, self._make)]

    async def _make(self, request: web.BaseRequest) -> web.Response:
        access = self._access
        principal = await access.who(request)
        if principal.scheme == "ticket":
            # Else one could be renewed for ever, and a browser sends its cookie along unasked.
            raise Refused(
                "forbidden", "a ticket only opens streams: tickets are made with another credential"
            )
        if not principal.anybody:
            self._limits.ticket(principal)
        wants_cookie = _wants_cookie(request)
        wanted = await read_json(request, _Wanted, BODY_BYTES_MAX)
        arrived_s = access.now()
        tenant = access.tenant(principal)
        assert tenant is not None, "the path names no tenant that could be out of reach"
        keys = [self._key(tenant, task) for task in dict.fromkeys(wanted.tasks)]
        for key in keys:
            await access.require(principal, key, arrived_s)
        try:
            made = self._tickets.make(principal, keys, self._clock(), wanted.ttl_s)
        except TicketTooLong as error:
            raise Refused("bad-request", f"tasks: too many with ids as long as these: {error}") from error
        response = web.json_response(
            {"ticket": made.text, "expires_in_s": made.expires_in_s}, headers={hdrs.CACHE_CONTROL: "no-store"}
        )
        if wants_cookie:
            response.headers[hdrs.SET_COOKIE] = self._cookie(request, made)
        return response

    def _key(self, tenant: str, task: str) -> TaskKey:
        try:
            encode_token(task)
        except InvalidId as error:
            raise Refused("bad-request", f"tasks: {error}") from error
        return TaskKey(tenant, self._settings.agent.name, task)

    def _cookie(self, request: web.BaseRequest, made: Made) -> str:
        """Give the cookie that carries a ticket: no script sees it, and no other site's page has it sent."""
        if len(made.text) > COOKIE_CHARACTERS_MAX:
            raise Refused("bad-request", "tasks: too many with ids as long as these for a cookie")
        public_url = urlsplit(self._settings.server.public_url)
        cookies: SimpleCookie = SimpleCookie({TICKET_COOKIE: made.text})
        cookie = cookies[TICKET_COOKIE]
        cookie["path"] = public_url.path.rstrip("/") or "/"
        cookie["max-age"] = made.expires_in_s
        cookie["httponly"] = True
        cookie["samesite"] = "Strict"
        cookie["secure"] = public_url.scheme == "https" or _is_tls(request)
        return cookie.OutputString()


def _is_tls(request: web.BaseRequest) -> bool:
    return request.transport is not None and request.transport.get_extra_info("sslcontext") is not None


def _wants_cookie(request: web.BaseRequest) -> bool:
    query = request.raw_path.partition("?")[2]
    if not any(pair.partition("=")[0] == "cookie" for pair in query.split("&")):
        return False
    value = query_value(request, "cookie")
    if value not in ("0", "1"):
        raise Refused("bad-request", "cookie must be 0 or 1")
    return value == "1"
