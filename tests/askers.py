"""Principals to ask as: each is known by a bearer token that is their name.

Must not know how real credentials are checked, nor what is tested.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    async def principal(self, request: web.BaseRequest) -> Principal:
        scheme, _, name = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or name not in self._known:
            raise Refused("unauthenticated", "a credential is required")
        return self._known[name]


def bearer(name: str) -> dict[str, str]:
    """Give the header by which somebody is known."""
    return {"Authorization": f"Bearer {name}"}


EVERYTHING = Grant(None, None, None)
