from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from issuer import SECRET, Clock, auth_settings, jwk, jwks
from key_server import Answer, KeyServer
from msgspec.structs import replace
from yarl import URL

from sidecast_broker.auth import keys as keys_module
from sidecast_broker.auth.key_set import secret_key_set
from sidecast_broker.auth.keys import DISCOVERY, FileKeys, KeysAway, SecretKeys, ServerKeys, keys_of
from sidecast_broker.auth.watched_file import UnusableFile
from sidecast_broker.settings import ALGORITHMS


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with KeyServer().serving() as server:
        yield server


@asynccontextmanager
async def fetched(server: KeyServer, clock: Clock, **settings: Any) -> AsyncIterator[ServerKeys]:
    """Give keys that only the test fetches: their own loop waits for ever after its first round."""

    async def forever(_delay_s: float) -> None:
        await asyncio.Event().wait()

    given = auth_settings(**{"jwt_jwks_url": server.url + "/keys", **settings})
    keys = ServerKeys(given, clock=clock, pause=forever)
    await keys.start()
    try:
        yield keys
    finally:
        await keys.close()


async def has(keys: ServerKeys | FileKeys, kid: str, algorithm: str) -> bool:
    return bool(await keys.find(kid, algorithm))


@pytest.fixture
def clock() -> Clock:
    return Clock(1000)


# --- which source


def test_settings_name_the_source(tmp_path: Path) -> None:
    assert isinstance(keys_of(auth_settings(jwt_secret=SECRET)), SecretKeys)
    assert isinstance(keys_of(auth_settings(jwt_jwks_file="/x")), FileKeys)
    assert isinstance(keys_of(auth_settings(jwt_jwks_url="https://h/keys")), ServerKeys)
    assert isinstance(keys_of(auth_settings()), ServerKeys)


async def test_a_secret_is_found_under_any_id() -> None:
    keys = SecretKeys(secret_key_set(SECRET.encode(), ALGORITHMS))
    assert len(await keys.find("anything", "HS256")) == 1
    assert await keys.find(None, "RS256") == []


# --- files


async def test_a_file_of_keys_is_read_again_while_in_use(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks("rsa"))
    keys = FileKeys(str(path), ALGORITHMS, clock=clock)
    await keys.start()
    generation = keys.generation()
    assert await has(keys, "rsa", "RS256")
    path.write_bytes(jwks("rsa", "p256"))
    clock.now_s += 1
    assert await has(keys, "p256", "ES256")
    assert keys.generation() > generation
    path.write_bytes(b'{"keys": []}')
    clock.now_s += 1
    assert await has(keys, "rsa", "RS256")
    path.write_bytes(jwks("p256"))
    clock.now_s += 1
    assert not await has(keys, "rsa", "RS256")


async def test_a_file_without_keys_is_no_start(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_bytes(b"{}")
    with pytest.raises(UnusableFile):
        await FileKeys(str(tmp_path / "jwks.json"), ALGORITHMS).start()


# --- a server


async def test_keys_are_found_by_url(server: KeyServer, clock: Clock) -> None:
    async with fetched(server, clock) as keys:
        assert await has(keys, "rsa", "RS256")
    assert server.requests == ["/keys"]


async def test_keys_are_found_by_discovery(server: KeyServer, clock: Clock) -> None:
    async with fetched(server, clock, jwt_jwks_url=None, jwt_issuer=server.url) as keys:
        assert await has(keys, "rsa", "RS256")
        clock.now_s += 300
        await keys.fetch()
    assert server.requests == [DISCOVERY, "/keys", "/keys"]


async def test_a_server_that_moved_its_keys_is_asked_where_they_are(server: KeyServer, clock: Clock) -> None:
    async with fetched(server, clock, jwt_jwks_url=None, jwt_issuer=server.url) as keys:
        await keys.find("rsa", "RS256")
        server.broken = lambda _request: _status(404)
        clock.now_s += 300
        await keys.fetch()
        server.broken, server.discovered, server.keys = (
            None,
            {"jwks_uri": server.url + "/moved"},
            jwks("p256"),
        )
        clock.now_s += 10
        await keys.fetch()
        assert await has(keys, "p256", "ES256")
    assert server.requests[-2:] == [DISCOVERY, "/moved"]


async def _status(status: int) -> web.Response:
    return web.Response(status=status, body=jwks("p256"))


@pytest.mark.parametrize(
    "discovered",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"issuer": "URL/"},
        {"jwks_uri": "http://keys.example/keys"},
        {"jwks_uri": "file:///etc/keys"},
        {"jwks_uri": "https://u:p@h/keys"},
        {"jwks_uri": ""},
        {"jwks_uri": None},
        {"jwks_uri": ["URL/keys"]},
        {"jwks_uri": "https://h\\@g/keys"},
    ],
    ids=repr,
)
async def test_a_configuration_that_can_not_be_trusted(
    server: KeyServer, clock: Clock, discovered: dict[str, Any]
) -> None:
    server.discovered = {
        name: value.replace("URL", server.url) if isinstance(value, str) else value
        for name, value in discovered.items()
    }
    async with fetched(server, clock, jwt_jwks_url=None, jwt_issuer=server.url) as keys:
        with pytest.raises(KeysAway):
            await keys.find("rsa", "RS256")
    assert set(server.requests) == {DISCOVERY}


async def test_a_redirect_within_the_origin_is_followed(server: KeyServer, clock: Clock) -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        if request.path == "/keys":
            raise web.HTTPFound("/v2/keys")
        return web.Response(body=jwks("rsa"))

    server.broken = redirect
    async with fetched(server, clock) as keys:
        assert await has(keys, "rsa", "RS256")


@pytest.mark.parametrize(
    "target", ["http://localhost:PORT/keys", "https://127.0.0.1:PORT/k", "/keys", "", "http://["]
)
async def test_a_redirect_elsewhere_or_in_circles_is_not(
    server: KeyServer, clock: Clock, target: str
) -> None:
    async def redirect(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=302, headers={"Location": target.replace("PORT", str(URL(server.url).port))}
        )

    server.broken = redirect
    async with fetched(server, clock) as keys:
        with pytest.raises(KeysAway):
            await keys.find("rsa", "RS256")
    assert 0 < len(server.requests) <= 4


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b'{"keys": [' + b" " * 65536)
    except ConnectionResetError:
        return response


async def _packed(_request: web.Request) -> web.StreamResponse:
    packed = gzip.compress(b'{"keys": [' + b" " * 20_000_000)
    return web.Response(body=packed, headers={"Content-Encoding": "gzip"})


async def _cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    "answer",
    [
        _endless,
        _packed,
        _cut_off,
        lambda _request: _status(500),
        lambda _request: _status(404),
        lambda _request: _status(204),
        lambda _request: _body(b""),
        lambda _request: _body(b'{"keys": []}'),
        lambda _request: _body(b"[" * 100_000),
        lambda _request: _body(b"<html>"),
        lambda _request: _body(json.dumps({"keys": [{"kty": "oct", "k": "AAAA"}]}).encode()),
    ],
)
async def test_whatever_a_server_answers_known_keys_stay(
    server: KeyServer, clock: Clock, answer: Answer
) -> None:
    async with fetched(server, clock) as keys:
        assert await has(keys, "rsa", "RS256")
        generation = keys.generation()
        server.broken = answer
        clock.now_s += 300
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                clock.now_s += 10
                await keys.fetch()
        assert await has(keys, "rsa", "RS256")
        assert keys.generation() == generation
        with pytest.raises(KeysAway):
            await keys.find("new", "RS256")
    assert [line["event"] for line in logs] == ["keys_unavailable"]


async def _body(content: bytes) -> web.Response:
    return web.Response(body=content)


async def test_a_server_that_does_not_answer_is_given_up(
    server: KeyServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "FETCH_S", 0.05)
    server.waiting = asyncio.Event()
    async with fetched(server, clock) as keys:
        with pytest.raises(KeysAway):
            await keys.find("rsa", "RS256")
        server.waiting.set()


async def test_an_outage_of_ten_minutes_and_a_rotation_refuse_no_key(server: KeyServer, clock: Clock) -> None:
    async with fetched(server, clock) as keys:
        assert await has(keys, "rsa", "RS256")
        server.broken = lambda _request: _status(503)
        clock.now_s += 10
        for _ in range(600):
            clock.now_s += 1
            await keys.fetch()
            assert await has(keys, "rsa", "RS256")
            with pytest.raises(KeysAway):
                await keys.find("p256", "ES256")
        assert len(server.requests) <= 1 + 61
        server.broken, server.keys = None, jwks("rsa", "p256")
        clock.now_s += 10
        assert await has(keys, "p256", "ES256")
        assert await has(keys, "rsa", "RS256")
        server.keys = jwks("p256")
        clock.now_s += 300
        await keys.fetch()
        assert not await has(keys, "rsa", "RS256")  # taken out by its issuer
        assert await has(keys, "p256", "ES256")


async def test_a_storm_of_unknown_ids_fetches_once_in_an_interval(server: KeyServer, clock: Clock) -> None:
    async with fetched(server, clock) as keys:
        assert await has(keys, "rsa", "RS256")
        assert len(server.requests) == 1
        for number in range(1000):
            assert not await has(keys, f"unknown-{number}", "RS256")
        assert len(server.requests) == 1
        clock.now_s += 10
        found = await asyncio.gather(*(keys.find(f"unknown-{number}", "RS256") for number in range(1000)))
        assert not any(found)
        assert len(server.requests) == 2
        for _ in range(100):
            clock.now_s += 1
            await asyncio.gather(*(keys.find(f"unknown-{number}", "RS256") for number in range(10)))
        assert len(server.requests) == 12


async def test_known_ids_never_wait_for_the_server(server: KeyServer, clock: Clock) -> None:
    async with fetched(server, clock) as keys:
        assert await has(keys, "rsa", "RS256")
        server.waiting = asyncio.Event()
        clock.now_s += 10
        asking = asyncio.ensure_future(keys.find("new", "RS256"))
        while len(server.requests) < 2:
            await asyncio.sleep(0)
        assert await has(keys, "rsa", "RS256")
        assert not await has(keys, "rsa", "ES256")  # known, and no key for that
        assert not asking.done()
        server.keys = jwks("rsa", jwk("rsa-new", kid="new"))
        server.waiting.set()
        assert len(await asking) == 1


async def test_a_client_that_leaves_takes_the_answer_from_nobody(server: KeyServer, clock: Clock) -> None:
    server.waiting = asyncio.Event()
    async with fetched(server, clock) as keys:
        impatient = asyncio.ensure_future(keys.find("rsa", "RS256"))
        patient = asyncio.ensure_future(keys.find("rsa", "RS256"))
        while not server.requests:
            await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        server.waiting.set()
        assert len(await patient) == 1
    assert len(server.requests) == 1


async def test_keys_are_fetched_again_by_themselves(server: KeyServer, clock: Clock) -> None:
    paused: list[float] = []
    go_on = asyncio.Queue[None]()

    async def pause(delay_s: float) -> None:
        paused.append(delay_s)
        await go_on.get()
        clock.now_s += delay_s

    keys = ServerKeys(replace(auth_settings(), jwt_jwks_url=server.url), clock=clock, pause=pause)
    await keys.start()
    try:
        await keys.find("rsa", "RS256")
        server.broken = lambda _request: _status(500)
        for requests in (2, 3, 4):
            if requests == 4:
                server.broken = None
            go_on.put_nowait(None)
            while len(server.requests) < requests or len(paused) < requests:
                await asyncio.sleep(0)
    finally:
        await keys.close()
    assert paused == [300, 10, 10, 300]


async def test_no_query_of_a_url_is_logged(clock: Clock) -> None:
    settings = auth_settings(jwt_jwks_url="http://127.0.0.1:1/keys?token=hunter2")
    with structlog.testing.capture_logs() as logs:
        keys = ServerKeys(settings, clock=clock)
        await keys.start()
        with pytest.raises(KeysAway):
            await keys.find("rsa", "RS256")
        await keys.close()
    assert logs
    assert "hunter2" not in str(logs)
