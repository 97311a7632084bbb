"""What operators do to a running broker: revoke what somebody was given, and have the broker go away.

Must not know how streams end, nor who operators are.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import structlog
from aiohttp import web
from msgspec import Meta, Struct

from sidecast_broker.answers import Away
from sidecast_broker.auth.access import Access
from sidecast_broker.auth.revocations import Revocations
from sidecast_broker.bodies import read_json
from sidecast_broker.core.auth.claims import InvalidCredential, check_name, check_tenant
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.auth.revocation import Kind, Revocation
from sidecast_broker.cors import has_json
from sidecast_broker.refused import Refused
from sidecast_broker.router import Route, post
from sidecast_broker.settings import KIB, Settings
from sidecast_broker.streams import Streams
from sidecast_schemas.subjects import InvalidId, encode_token

logger = structlog.get_logger(__name__)

BODY_BYTES_MAX = 16 * KIB
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

Authorise = Callable[..., Awaitable[Principal]]


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /revoke` is sent."""

    token_id: str | None = None
    principal: str | None = None
    task: str | None = None
    tenant: str | None = None
    agent: str | None = None
    reason: Annotated[str, Meta(max_length=256)] = ""


class Administration:
    """Serves the operators' part of the internal listener.

    Args:
        settings: all settings.
        authorise: gives who sends a request, where they have one of the rights it is given.
        access: knows which tenants somebody reaches.
        streams: the open streams.
        revocations: what is revoked; None: no credential is needed here.
        stop: has the process drain and end, as SIGTERM does.
        clock: the time, seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        authorise: Authorise,
        access: Access,
        streams: Streams,
        revocations: Revocations | None,
        stop: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._authorise = authorise
        self._access = access
        self._streams = streams
        self._revocations = revocations
        self._stop = stop
        self._clock = clock

    def routes(self) -> list[Route]:
        """Give the routes."""
        return [post("/revoke", self._revoke), post("/drain", self._drain)]

    # ------------------------------------------------------------------ draining

    async def _drain(self, request: web.BaseRequest) -> web.Response:
        """Begin to go away; asked again, it goes on doing so."""
        principal = await self._authorise(request, "admin")
        if not has_json(request):
            # A page of any origin can have a browser send a form, but not this without being asked.
            raise Refused("unsupported-media-type", "the content type must be application/json")
        if principal.tenant is not None:
            raise Refused("forbidden", "a credential that is bound to a tenant can't drain the broker")
        # Before the answer: who has it can rely on it that no stream is opened here any more.
        self._streams.draining = True
        self._stop()
        body = {
            "status": "draining",
            "streams": len(self._streams),
            "drain_s": self._settings.stream.drain_s,
        }
        return web.json_response(body, status=202)

    # ------------------------------------------------------------------ revoking

    async def _revoke(self, request: web.BaseRequest) -> web.Response:
        principal = await self._authorise(request, "admin")
        revocation = self._read(await read_json(request, _Body, BODY_BYTES_MAX), principal)
        if self._revocations is None:
            raise Refused("bad-request", "no credential is needed here, so that nothing can be revoked")
        try:
            kept = await self._revocations.revoke(revocation)
        except Away as away:
            raise Refused("unavailable", str(away), retry_after_s=1) from away
        logger.info(
            "revoked",
            kind=revocation.kind,
            value=revocation.value,
            tenant=revocation.tenant,
            by=revocation.by,
            reason=revocation.reason,
            key=kept.key,
        )
        revoked: dict[str, Any] = {revocation.kind: revocation.value, "tenant": revocation.tenant}
        if revocation.kind == "task":
            revoked["agent"] = revocation.agent
        until_s = revocation.at_s + self._settings.auth.revocation_s
        body = {"revoked": revoked, "stored": kept._asdict(), "at_s": revocation.at_s, "until_s": until_s}
        return web.json_response(body)

    def _read(self, asked: _Body, principal: Principal) -> Revocation:
        """Read what is to be revoked, within what the operator's credential is bound to.

        Raises:
            Refused: it isn't clear what, or it is beyond that.
        """
        named: dict[Kind, str | None] = {
            "token_id": asked.token_id,
            "principal": asked.principal,
            "task": asked.task,
        }
        given = [(kind, value) for kind, value in named.items() if value is not None]
        if len(given) != 1:
            raise Refused("bad-request", f"name exactly one of {', '.join(named)}")
        if _CONTROLS.search(asked.reason):
            raise Refused("bad-request", "reason: must not hold control characters")
        kind, value = given[0]
        if kind != "task" and asked.agent is not None:
            raise Refused("bad-request", "agent: only a task has one")
        try:
            check_name(value, kind) if kind != "task" else encode_token(value)
            tenant = None if asked.tenant is None else check_tenant(asked.tenant)
            agent = "" if kind != "task" else asked.agent or self._settings.agent.name
            encode_token(agent or "_")
        except (InvalidCredential, InvalidId) as error:
            raise Refused("bad-request", str(error)) from error
        tenant = self._within(principal, kind, tenant)
        return Revocation(kind, value, self._clock(), tenant, agent, asked.reason, principal.name)

    def _within(self, principal: Principal, kind: Kind, named: str | None) -> str | None:
        """Give the tenant a revocation is bound to; None: to none."""
        if principal.tenant is not None and named not in (None, principal.tenant):
            raise Refused(
                "forbidden", "a credential that is bound to a tenant revokes within that tenant only"
            )
        if named is None and kind == "task":
            return self._access.tenant(principal)
        return principal.tenant if named is None else named
