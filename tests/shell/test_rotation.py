"""Tokens over changes of the issuer's keys and outages of its server; the clock is turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from aiohttp import hdrs, web
from aiohttp.test_utils import make_mocked_request
from issuer import NOW_S, Clock, auth_settings, claims, jwk, jwks, raw_token, token
from key_server import Answer, KeyServer

from sidecast_broker.auth.credentials import Credentials
from sidecast_broker.auth.keys import ServerKeys
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.refused import Refused

INTERVAL_S = 10
PERIOD_S = 300
OUTAGE_S = 600


class Hand(Clock):
    """A clock, and pauses that end when it is turned past them; whoever pauses fetches keys in between."""

    def __init__(self) -> None:
        super().__init__()
        self._pauses: list[tuple[float, asyncio.Future[None]]] = []
        self._paused = asyncio.Event()

    async def pause(self, delay_s: float) -> None:
        """Wait until so many seconds have been turned."""
        ended = asyncio.get_running_loop().create_future()
        self._pauses.append((self.now_s + delay_s, ended))
        self._paused.set()
        await ended

    async def turn(self, by_s: float) -> None:
        """Turn, and wait until what that woke pauses again."""
        self.now_s += by_s
        due = [each for each in self._pauses if each[0] <= self.now_s]
        if due:
            self._paused.clear()
            for each in due:
                self._pauses.remove(each)
                each[1].set_result(None)
        await self._paused.wait()


class Gate:
    """Credentials of a broker whose issuer's server is a test's."""

    def __init__(self, server: KeyServer, hand: Hand, credentials: Credentials) -> None:
        self.server = server
        self.hand = hand
        self._credentials = credentials
        self._made = 0

    async def ask(self, text: str) -> Principal:
        """Give whom a request with a token is from."""
        request = make_mocked_request("GET", "/", headers={hdrs.AUTHORIZATION: f"Bearer {text}"})
        return await self._credentials.principal(request)

    def made(self, kind: str, **members: Any) -> str:
        """Give a token that was never seen before."""
        self._made += 1
        return token(kind, exp=NOW_S + 86_400, jti=f"id-{self._made}", **members)

    async def lets_in(self, *kinds: str) -> None:
        """Check that tokens of these keys, never seen before, are taken."""
        for kind in kinds:
            assert (await self.ask(self.made(kind))).name == "alice"

    async def refuses(self, text: str) -> str:
        """Give with which code a token is refused."""
        with pytest.raises(Refused) as refused:
            await self.ask(text)
        return refused.value.code


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep what is logged of thousands of refusals from being written."""
    with structlog.testing.capture_logs():
        yield


@asynccontextmanager
async def gate(**settings: Any) -> AsyncIterator[Gate]:
    hand = Hand()
    async with KeyServer().serving() as server:
        server.keys = jwks("p256")
        given = auth_settings(**{"jwt_jwks_url": server.url + "/keys", **settings})
        assert (given.jwks_interval_s, given.jwks_s) == (INTERVAL_S, PERIOD_S)
        keys = ServerKeys(given, clock=hand, pause=hand.pause)
        credentials = Credentials(given, keys=keys, clock=hand, monotonic=hand)
        await credentials.start()
        try:
            await hand.turn(0)
            yield Gate(server, hand, credentials)
        finally:
            await credentials.close()


def says(status: int, body: bytes = b"") -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    return answer


async def _cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


OUTAGES: dict[str, Answer] = {
    "503": says(503),
    "404": says(404),
    "no keys": says(200, b'{"keys": []}'),
    "a page": says(200, b"<html>Back soon</html>"),
    "cut off": _cut_off,
}


STEP_S = 5


async def step_by_step(it: Gate, seconds: int, check: Callable[[], Awaitable[None]]) -> None:
    """Turn the clock step by step, and check after each."""
    for _ in range(seconds // STEP_S):
        await it.hand.turn(STEP_S)
        await check()


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_of_ten_minutes_refuses_no_token_that_was_verifiable_before(outage: str) -> None:
    async with gate() as it:
        seen, unseen = it.made("p256"), [it.made("p256") for _ in range(OUTAGE_S // STEP_S)]
        await it.ask(seen)
        it.server.broken = OUTAGES[outage]
        await it.hand.turn(PERIOD_S - 1)

        async def check() -> None:
            assert await it.ask(seen)
            assert await it.ask(unseen.pop())

        asked = len(it.server.requests)
        await step_by_step(it, OUTAGE_S, check)
        assert not unseen
        tried = len(it.server.requests) - asked
        # Where a connection breaks, aiohttp asks once more on another one: that is part of the same fetch.
        tried //= 2 if outage == "cut off" else 1
        assert OUTAGE_S / INTERVAL_S - 1 <= tried <= OUTAGE_S / INTERVAL_S + 1
        # One with a key that may be new is neither taken nor called invalid.
        assert await it.refuses(it.made("ed")) == "unavailable"
        assert await it.refuses(it.made("p256-other", headers={"kid": "p256"})) == "unauthenticated"
        it.server.broken, it.server.keys = None, jwks("p256", "ed")
        await it.hand.turn(INTERVAL_S)
        await it.lets_in("p256", "ed")
        assert await it.ask(seen)


async def test_a_rotation_refuses_neither_tokens_of_before_nor_of_after() -> None:
    async with gate() as it:
        old, seen = [it.made("p256") for _ in range(2 * PERIOD_S // STEP_S)], it.made("p256")
        await it.ask(seen)
        it.server.keys = jwks("p256", "ed")
        await it.hand.turn(INTERVAL_S)
        asked = len(it.server.requests)
        await it.lets_in("ed", "ed", "p256")
        assert len(it.server.requests) == asked + 1, "the first with a new key has the keys fetched"

        async def check() -> None:
            assert await it.ask(seen)
            assert await it.ask(old.pop())
            await it.lets_in("ed")

        await step_by_step(it, 2 * PERIOD_S, check)
        it.server.keys = jwks("ed")
        await it.hand.turn(PERIOD_S)
        for text in (seen, it.made("p256")):
            assert await it.refuses(text) == "unauthenticated", "its issuer has taken the key out"
        await it.lets_in("ed")


async def test_a_rotation_in_an_outage_is_caught_up_with() -> None:
    async with gate() as it:
        it.server.broken, it.server.keys = says(503), jwks("p256", "ed")
        await it.hand.turn(PERIOD_S)
        for _ in range(OUTAGE_S // INTERVAL_S):
            await it.hand.turn(INTERVAL_S)
            assert await it.refuses(it.made("ed")) == "unavailable"
            await it.lets_in("p256")
        it.server.broken = None
        await it.hand.turn(INTERVAL_S)
        await it.lets_in("ed", "p256")


async def test_an_id_that_is_given_to_another_key_counts_from_when_it_is_fetched() -> None:
    async with gate() as it:
        old = it.made("p256")
        await it.ask(old)
        it.server.keys = jwks(jwk("p256-next", kid="p256"))
        await it.hand.turn(PERIOD_S)
        assert await it.refuses(old) == "unauthenticated"
        await it.ask(it.made("p256-next", headers={"kid": "p256"}))


@pytest.mark.parametrize("away", [False, True], ids=["there", "away"])
async def test_a_storm_of_unknown_ids_makes_one_fetch_in_an_interval_at_most(away: bool) -> None:
    async with gate() as it:
        await it.lets_in("p256")
        if away:
            it.server.broken = says(503)
        began_s, asked, number = it.hand.now_s, len(it.server.requests), 0
        for _ in range(6 * INTERVAL_S):
            await it.hand.turn(1)
            before = len(it.server.requests)
            storm = [
                raw_token({"alg": "ES256", "kid": f"unknown-{number + each}"}, claims(exp=NOW_S + 86_400))
                for each in range(10)
            ]
            number += len(storm)
            codes = set(await asyncio.gather(*map(it.refuses, storm)))
            await it.lets_in("p256")
            assert len(it.server.requests) <= before + 1
        fetched = len(it.server.requests) - asked
        assert 1 < fetched <= (it.hand.now_s - began_s) / INTERVAL_S + 1
        assert codes == {"unavailable" if away else "unauthenticated"}
