"""Where the keys that verify tokens come from: a shared secret, a file, or the issuer's server.

Must not know tokens, nor who holds them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import aiohttp
import jwt
import msgspec
import structlog
from aiohttp import hdrs
from msgspec import Struct
from yarl import URL

from sidecast_broker.auth.key_set import KeySet, parse_key_set, secret_key_set
from sidecast_broker.auth.watched_file import WatchedFile
from sidecast_broker.background import Background
from sidecast_broker.setting_urls import is_key_url
from sidecast_broker.settings import KIB, Auth

logger = structlog.get_logger(__name__)

DOCUMENT_BYTES_MAX = 256 * KIB
FETCH_S = 5.0
"""Time for all of one fetch: requests with tokens of unknown keys wait for it."""
REDIRECTS_MAX = 3
DISCOVERY = "/.well-known/openid-configuration"
"""OpenID Connect Discovery 1.0, section 4."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class KeysAway(Exception):  # noqa: N818 - a state of the world
    """Whether a token is valid can't be told at the moment: its key may be one that can't be fetched."""


class Keys(Protocol):
    """Keys that are trusted."""

    async def start(self) -> None:
        """Get ready to find keys."""

    async def close(self) -> None:
        """Let go of what finding keys needs."""

    def generation(self) -> int:
        """Count the changes of the keys: what a key verified counts no longer when it may be gone."""

    async def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """Give the keys that may have signed a token with that `kid`, if any, and that `alg`.

        Raises:
            KeysAway: there may be one that isn't known.
        """


def keys_of(settings: Auth) -> Keys:
    """Give the keys that settings name."""
    algorithms = settings.jwt_algorithm_names
    if settings.jwt_secret:
        return SecretKeys(secret_key_set(settings.jwt_secret.encode(), algorithms))
    if settings.jwt_jwks_file:
        return FileKeys(settings.jwt_jwks_file, algorithms)
    return ServerKeys(settings)


class SecretKeys:
    """Keys that never change."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def start(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def generation(self) -> int:
        """Give always the same."""
        return 0

    async def find(self, _key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """Give the secret: issuers that share one may call it as they like."""
        return self._keys.find(None, algorithm)


class FileKeys:
    """Keys of a file, which is read again when it changes.

    Args:
        path: of a JWK set.
        algorithms: those that are allowed at all.
        clock: seconds, monotonic.
    """

    def __init__(
        self, path: str, algorithms: tuple[str, ...], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = WatchedFile(path, lambda content: parse_key_set(content, algorithms), clock=clock)

    async def start(self) -> None:
        """Read the file.

        Raises:
            UnusableFile: it can't be read, or is no JWK set of any use.
        """
        self._file.open()

    async def close(self) -> None:
        """Do nothing."""

    def generation(self) -> int:
        """Count the versions of the file."""
        self._file.look()
        return self._file.generation

    async def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """Give the file's keys that fit."""
        return self._file.look().find(key_id, algorithm)


class _Discovered(Struct):
    issuer: str
    jwks_uri: str


class _Unfetched(Exception):  # noqa: N818 - a state of the world
    """A document can't be had; the message says why, for the operator."""


class ServerKeys:
    """Keys of the issuer's server, fetched again every `auth.jwks_s`, and for tokens that name unknown ones.

    Whatever that server answers or doesn't: keys that are known stay, until it has given others.

    Args:
        settings: where the keys are, and how often they may be fetched.
        clock: seconds, monotonic.
        pause: waits that many seconds.
    """

    def __init__(
        self,
        settings: Auth,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._pause = pause
        self._algorithms = settings.jwt_algorithm_names
        self._discovered = ""
        self._keys: KeySet | None = None
        self._generation = 0
        self._failing = False
        self._fetched_at_s: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._refresh = Background("keys", self._keep_fresh)

    async def start(self) -> None:
        """Begin to fetch; nothing waits for the first answer but the first tokens."""
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # What is read piece by piece is bounded; what is unpacked would have to be bounded twice.
            auto_decompress=False,
            headers={hdrs.ACCEPT_ENCODING: "identity", hdrs.ACCEPT: "application/json"},
        )
        self._refresh.start()

    async def close(self) -> None:
        """End fetching."""
        await self._refresh.close()
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def generation(self) -> int:
        """Count the answers with other keys than before."""
        return self._generation

    async def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """Give the keys that fit; where that id is unknown, those the server has, if it may be asked again.

        Raises:
            KeysAway: none were ever fetched, or the id is unknown and the server gave no answer to the last
                question.
        """
        if self._keys is None or not self._keys.knows(key_id):
            await self.fetch()
            if self._keys is None or (self._failing and not self._keys.knows(key_id)):
                raise KeysAway("the issuer's keys can't be fetched")
        return self._keys.find(key_id, algorithm)

    async def fetch(self) -> None:
        """Fetch the keys, with all others who want that now, unless it was done within the interval."""
        if self._fetching is None:
            if self._may_fetch_in_s() > 0:
                return
            self._fetched_at_s = self._clock()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
            self._fetching.add_done_callback(self._forget)
        # A client that leaves takes the answer from nobody else.
        await asyncio.shield(self._fetching)

    def _forget(self, _task: asyncio.Task[None]) -> None:
        self._fetching = None

    def _may_fetch_in_s(self) -> float:
        if self._fetched_at_s is None:
            return 0
        return self._fetched_at_s + self._settings.jwks_interval_s - self._clock()

    async def _keep_fresh(self) -> None:
        while True:
            await self.fetch()
            period_s = self._settings.jwks_interval_s if self._failing else self._settings.jwks_s
            due_s = (self._fetched_at_s or 0) + period_s - self._clock()
            # Never less: where a fetch was not due yet, the loop would spin until it is.
            await self._pause(max(due_s, 0.1))

    # ------------------------------------------------------------------ one fetch

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                keys = await self._fetch_keys()
        except TimeoutError:
            self._note_failure(f"no answer within {FETCH_S:g} s")
        except (_Unfetched, aiohttp.ClientError, OSError, ValueError) as error:
            self._note_failure(str(error)[:200] or type(error).__name__)
        else:
            if self._failing:
                logger.info("keys_back", issuer=self._settings.jwt_issuer)
            self._failing = False
            if self._keys is None or self._keys.identity != keys.identity:
                self._generation += 1
                logger.info("keys_fetched", issuer=self._settings.jwt_issuer, keys=len(keys.identity))
            self._keys = keys

    def _note_failure(self, detail: str) -> None:
        # The next time the server is asked where its keys are: they may have moved.
        self._discovered = ""
        if not self._failing:
            self._failing = True
            known = "those known count" if self._keys else "no token can be verified"
            logger.warning(
                "keys_unavailable", issuer=self._settings.jwt_issuer, detail=detail, consequence=known
            )

    async def _fetch_keys(self) -> KeySet:
        url = self._settings.jwt_jwks_url or self._discovered or await self._discover()
        keys = parse_key_set(await self._get(url), self._algorithms)
        self._discovered = "" if self._settings.jwt_jwks_url else url
        return keys

    async def _discover(self) -> str:
        issuer = self._settings.jwt_issuer
        try:
            found = msgspec.json.decode(await self._get(issuer.rstrip("/") + DISCOVERY), type=_Discovered)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _Unfetched("the issuer's configuration names no keys") from error
        # Section 4.3: else one issuer of a server could speak for another.
        if found.issuer != issuer:
            raise _Unfetched("the issuer's configuration is that of another issuer")
        near = URL(issuer).scheme == "http"
        if not is_key_url(found.jwks_uri) or (not near and URL(found.jwks_uri).scheme == "http"):
            raise _Unfetched("the issuer's configuration names keys at an address that can't be trusted")
        return found.jwks_uri

    async def _get(self, address: str) -> bytes:
        """Get one document, following redirects within its origin.

        Raises:
            _Unfetched: there is none, it is too large, or lies elsewhere.
        """
        assert self._session is not None, "keys are started before they are fetched"
        url = URL(address)
        for _ in range(REDIRECTS_MAX + 1):
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status in _REDIRECTS:
                    url = _redirected(url, answer)
                elif answer.status != 200:
                    raise _Unfetched(f"{url.origin()} answered {answer.status}")
                else:
                    return await _body(answer)
        raise _Unfetched(f"{url.origin()} redirects too often")


def _redirected(url: URL, answer: aiohttp.ClientResponse) -> URL:
    try:
        target = url.join(URL(answer.headers.get(hdrs.LOCATION, "")))
        same = target.origin() == url.origin()
    except ValueError as error:
        raise _Unfetched(f"{url.origin()} redirects to no address") from error
    if not same:
        raise _Unfetched(f"{url.origin()} redirects to another origin")
    return target


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    pieces: list[Any] = []
    size = 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > DOCUMENT_BYTES_MAX:
            raise _Unfetched(f"the answer is larger than {DOCUMENT_BYTES_MAX} bytes")
    return b"".join(pieces)
