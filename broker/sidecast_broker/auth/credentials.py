"""Who asks: the one credential a request carries, and whom it names.

Must not know what anybody may do, nor tasks or NATS.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import structlog
from aiohttp import hdrs, web

from sidecast_broker.auth.api_keys import ApiKeys
from sidecast_broker.auth.certificates import Certificates
from sidecast_broker.auth.keys import Keys, KeysAway
from sidecast_broker.auth.tokens import Tokens, looks_like_token
from sidecast_broker.core.auth.claims import InvalidCredential
from sidecast_broker.core.auth.principal import Principal, Scheme
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Auth

logger = structlog.get_logger(__name__)

API_KEY_HEADER = "X-API-Key"
TICKET_NAME = "ticket"
"""Of the query."""
TICKET_COOKIE = "sidecast_ticket"
RETRY_KEYS_S = 5.0


class Tickets(Protocol):
    """Makes sense of tickets."""

    def ticket(self, text: str, now_s: float) -> Principal | None:
        """Give whom a ticket names; None where it isn't one that is valid at that time (s since 1970)."""


class _Presented(NamedTuple):
    """A credential as a request carries it: where, and the text."""

    where: str
    text: str


class Credentials:
    """Tells who asks.

    Every request is judged by exactly one credential. One that carries two is refused: what one check lets
    through must not depend on what another saw. Only a ticket's cookie gives way, because browsers send it
    unasked.

    Args:
        settings: which credentials are accepted.
        tickets: makes sense of tickets; None: there are none.
        keys: those that verify tokens; by default the ones the settings name.
        clock: the time, seconds since 1970.
        monotonic: seconds, monotonic.
    """

    def __init__(
        self,
        settings: Auth,
        *,
        tickets: Tickets | None = None,
        keys: Keys | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        configured = settings.schemes
        self._clock = clock
        self._tickets = tickets
        self._tokens = Tokens(settings, keys=keys, clock=clock) if "jwt" in configured else None
        self._api_keys: ApiKeys | None = None
        if settings.api_keys_file:
            self._api_keys = ApiKeys(settings.api_keys_file, clock=clock, monotonic=monotonic)
        self._certificates: Certificates | None = None
        if settings.mtls_principal != "none":
            self._certificates = Certificates(settings.mtls_principal)
        self._schemes: tuple[Scheme, ...] = configured + (("ticket",) if configured and tickets else ())

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The kinds of credential that are accepted, for the agent's card; none: no request is."""
        return self._schemes

    async def start(self) -> None:
        """Read what verifying needs; keys of a server come later, and are waited for by the first tokens.

        Raises:
            UnusableFile: a file of keys can't be used.
        """
        if self._api_keys is not None:
            self._api_keys.start()
        if self._tokens is not None:
            await self._tokens.start()

    async def close(self) -> None:
        """Let go of what `start` took."""
        if self._tokens is not None:
            await self._tokens.close()

    async def principal(self, request: web.BaseRequest) -> Principal:
        """Give who asks.

        Nothing about tasks is looked at, and nothing is awaited for a credential that was seen before.

        Raises:
            Refused: `unauthenticated`: the request carries no valid credential, or more than one;
                `unavailable`: its token may be valid, but the issuer's keys can't be fetched.
        """
        try:
            return await self._principal(request)
        except InvalidCredential as invalid:
            # For the operator: the client is told as little as helps.
            logger.debug("credential_refused", detail=str(invalid))
            end = "has expired" if invalid.expired else "is not valid"
            raise Refused("unauthenticated", f"the credential {end}") from invalid
        except KeysAway as away:
            raise Refused(
                "unavailable", "credentials can't be checked at the moment", retry_after_s=RETRY_KEYS_S
            ) from away

    async def _principal(self, request: web.BaseRequest) -> Principal:
        presented = _explicit(request)
        tls = self._certificates.presented(request) if self._certificates is not None else None
        if len(presented) + (tls is not None) > 1:
            raise Refused("unauthenticated", "the request carries more than one credential")
        if tls is not None:
            assert self._certificates is not None
            return self._certificates.principal(tls, self._clock())
        if not presented:
            presented = _cookies(request)
        if not presented:
            raise Refused("unauthenticated", "a credential is required")
        if len(presented) > 1:
            raise Refused("unauthenticated", "the request carries more than one credential")
        where, text = presented[0]
        if where == hdrs.AUTHORIZATION:
            return await self._bearer(text)
        return self._api_key(text) if where == API_KEY_HEADER else self._ticket(text)

    async def _bearer(self, value: str) -> Principal:
        """Tell a token from an API key by its form alone: what is no valid token is not tried as a key."""
        scheme, _space, text = value.partition(" ")
        if scheme.lower() != "bearer":  # RFC 9110, section 11.1: in any case
            raise InvalidCredential("not a bearer credential")
        text = text.lstrip(" ")
        if self._tokens is not None and looks_like_token(text):
            return await self._tokens.principal(text)
        return self._api_key(text)

    def _api_key(self, text: str) -> Principal:
        if self._api_keys is None:
            raise InvalidCredential("API keys are not accepted")
        return self._api_keys.principal(text)

    def _ticket(self, text: str) -> Principal:
        principal = None if self._tickets is None else self._tickets.ticket(text, self._clock())
        if principal is None:
            raise InvalidCredential("not a valid ticket")
        return principal


def _explicit(request: web.BaseRequest) -> list[_Presented]:
    """Give every credential that a client has put into a request itself, also the same one twice."""
    headers = request.headers
    found = [_Presented(hdrs.AUTHORIZATION, value) for value in headers.getall(hdrs.AUTHORIZATION, ())]
    found += [_Presented(API_KEY_HEADER, value) for value in headers.getall(API_KEY_HEADER, ())]
    query = request.raw_path.partition("?")[2]
    if TICKET_NAME in query:
        found += _named(TICKET_NAME, query.split("&"))
    return found


def _cookies(request: web.BaseRequest) -> list[_Presented]:
    """Give the tickets among a request's cookies: all of them, where `http.cookies` would keep the last."""
    headers = request.headers.getall(hdrs.COOKIE, ())
    return [found for value in headers for found in _named(TICKET_COOKIE, value.split(";"))]


def _named(name: str, pairs: list[str]) -> list[_Presented]:
    # A ticket is base64url: nothing in it needs an encoding, so none is undone.
    split = (pair.strip().partition("=") for pair in pairs)
    return [_Presented(name, value) for key, _equals, value in split if key == name]
