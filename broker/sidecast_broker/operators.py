"""Who may operate a broker, or see who uses it: by a right, or without a scheme on loopback alone.

Must not know what operators do.
"""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from sidecast_broker.auth.access import Access
from sidecast_broker.core.auth.principal import Principal, Right
from sidecast_broker.core.origins import origins_of
from sidecast_broker.cors import is_foreign
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Settings, is_loopback


class Operators:
    """Lets operators in, at one of the listeners.

    Args:
        settings: the addresses, and whether a credential can be done without.
        access: who has which right.
        public: whether it is the public listener, whose name is any that its clients know it by.
    """

    def __init__(self, settings: Settings, access: Access, *, public: bool = False) -> None:
        server = settings.server
        self._access = access
        self._public = public
        self._host = server.internal_host
        self._open = settings.internal.open and is_loopback(server.internal_host)
        if public:
            self._open = self._open and is_loopback(server.host)
        # Whoever lets every page read streams has not let every page operate the broker.
        self._origins = replace(origins_of(server.cors_origin_names, server.public_url), every=False)

    async def authorise(self, request: web.BaseRequest, *rights: Right) -> Principal:
        """Let in who has one of these rights; without a scheme everybody on loopback, unless that is off.

        Raises:
            Refused: not let in; or a browser was led here under another host's name (DNS rebinding), or by a
                page of another origin, whatever credential it sends along.
        """
        self._check_page(request)
        principal = await self._access.who(request)
        self._check_right(request, principal, rights)
        return principal

    def admits(self, request: web.BaseRequest, principal: Principal, *rights: Right) -> bool:
        """Tell whether `authorise` would let this principal in."""
        try:
            self._check_page(request)
            self._check_right(request, principal, rights)
        except Refused:
            return False
        return True

    def _check_page(self, request: web.BaseRequest) -> None:
        # By a credential that no page has unasked, a stranger's name for the public listener gains nothing.
        any_name = self._public and self._access.on
        if not any_name and not self._is_named(request.headers.get("Host", "")):
            raise Refused("bad-host", "the Host of the request is neither loopback nor configured")
        if is_foreign(request, self._origins):
            raise Refused("forbidden", "pages of other origins may not do this")

    def _is_named(self, named: str) -> bool:
        host = named.rpartition(":")[0] if ":" in named and not named.endswith("]") else named
        host = host.strip("[]")
        return host == "localhost" or is_loopback(host) or (host == self._host and not self._public)

    def _check_right(self, request: web.BaseRequest, principal: Principal, rights: tuple[Right, ...]) -> None:
        if self._access.on:
            self._access.require_right(principal, *rights)
            return
        # Behind a proxy that says whom it speaks for, strangers are not on loopback.
        near = not self._public or is_loopback(request.remote or "")
        if not (self._open and near):
            raise Refused("unauthenticated", "a credential is required")
