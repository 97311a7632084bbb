"""The life of a stream's credential, over brokers, formats, and a NATS that is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import nats
import pytest
from a2a_rig.wire import WIRES, Door, Stream, Wire
from askers import EVERYTHING, Askers, bearer
from brokers import (
    OTHER,
    TASK,
    Backend,
    OwnBroker,
    RealBackend,
    broker,
    child_broker,
    done,
    numbered,
    numbers,
    status,
    task_record,
    texts,
    until,
)
from e2e.proxy import Proxy
from issuer import AUDIENCE, ISSUER, SECRET
from nats_server import request_api
from sse import TIMEOUT_S, Stalled, Watch, kinds

from sidecast_broker import lifetimes
from sidecast_broker.core.auth.life import Life
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.auth.revocation import Revoked

JSON = {"Content-Type": "application/json"}
AS_JSON = {"Accept": "application/json"}
WITHIN_S = 5.0
PATH = f"/tasks/{TASK}/events"

ROOT = Principal("root", "jwt", grants=(EVERYTHING,), rights=frozenset({"admin"}))
ALICE = Principal("alice", "jwt", grants=(EVERYTHING,), credential_id="t-1")
BOB = Principal("bob", "jwt", grants=(EVERYTHING,), credential_id="t-2")

CHECKED: dict[str, Any] = {
    "auth__required": "true",
    "auth__refusal_floor_ms": 0,
    "authenticator": Askers(ROOT, ALICE, BOB),
}


def ending(in_s: float) -> dict[str, Any]:
    """Give a broker's settings with a carol whose credential ends soon."""
    carol = Principal("carol", "jwt", grants=(EVERYTHING,), ends_at_s=time.time() + in_s)
    return CHECKED | {"authenticator": Askers(ROOT, ALICE, BOB, carol)}


async def revoke(running: OwnBroker, **body: str) -> None:
    status, answer = await running.internal(
        "/revoke", "POST", json.dumps(body).encode(), bearer("root") | JSON
    )
    assert status == 200, answer


@asynccontextmanager
async def opened(running: OwnBroker, who: str) -> AsyncIterator[tuple[Watch, dict[Wire, Stream]]]:
    """Open a stream of each of the five formats, and take its first frames."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=bearer(who)))
        door = Door(session, running.url)
        browser = await running.watch(headers=bearer(who))
        assert kinds(await browser.take(2)) == ["stream.open", "task.snapshot"]
        streams = {}
        for wire in WIRES:
            streams[wire] = await stack.enter_async_context(door.open(wire, "subscribe", task=TASK))
            await streams[wire].take(1)
        yield browser, streams


async def assert_broken_off(wire: Wire, stream: Stream, status: int, grpc: str) -> None:
    """Check that a stream ends by an error, so that nobody takes it for the end of the task."""
    (error,) = await stream.rest()
    assert error.id is None
    assert error.event == ("error" if wire.version == "1.0" else None)
    said = error.json.get("error", error.json)
    assert said["code"] == (status if wire == ("1.0", "rest") else -32000)
    assert said.get("status", grpc) == grpc


# --- the end of a credential


async def test_streams_of_all_formats_end_with_their_credential(backend: Backend) -> None:
    await backend.publish(task_record())
    ends_in_s = 2.5
    settings = ending(ends_in_s) | {"auth__expiring_s": 1.4}
    began_s = time.monotonic()
    async with broker(backend, **settings) as running:
        async with opened(running, "carol") as (browser, streams):
            other = await running.watch(headers=bearer("alice"))
            await other.take(2)
            (expiring,) = await browser.take(1)
            assert (expiring.kind, expiring.id, expiring.json.keys()) == (
                "stream.expiring",
                None,
                {"type", "expires_in_s"},
            )
            assert 0 < expiring["expires_in_s"] <= 1.4
            (end,) = await browser.rest()
            lived_s = time.monotonic() - began_s
            assert (end.kind, end["reason"], end["state"], end.id) == (
                "stream.end",
                "expired",
                "submitted",
                None,
            )
            assert ends_in_s <= lived_s < ends_in_s + 2
            assert not browser.broken
            for wire, stream in streams.items():
                await assert_broken_off(wire, stream, 401, "UNAUTHENTICATED")
        await running.until_metric("sidecast_streams_closed_total", 5, reason="expired")
        # Somebody else's goes on.
        await backend.publish(*numbered(2))
        assert texts(await other.take(2)) == numbers(2)


async def test_who_comes_again_is_authorised_afresh_and_misses_nothing(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, **ending(1.5)) as running:
        stream = await running.watch(headers=bearer("carol"))
        await stream.take(2)
        await backend.publish(*numbered(2))
        frames = await stream.rest()
        assert texts(frames) == numbers(2)
        assert frames[-1]["reason"] == "expired"
        await backend.publish(*numbered(2, 2), done())
        again = await running.watch(cursor=stream.last_id, headers=bearer("alice"))
        assert texts(await again.rest()) == numbers(2, 2)


async def test_one_who_waits_for_a_task_waits_no_longer_than_that(backend: Backend) -> None:
    async with broker(backend, **ending(1.5)) as running:
        waiting = await running.watch(headers=bearer("carol"), wait_s=30)
        frames = await waiting.rest()
        assert kinds(frames) == ["stream.expiring", "stream.end"]
        assert (frames[1]["reason"], frames[1]["state"]) == ("expired", None)


async def test_a_client_that_takes_nothing_gets_nothing_more(backend: Backend) -> None:
    await backend.publish(task_record())
    small = {"stream__send_buffer_bytes": 4096, "stream__buffer_bytes_max": 4096}
    async with broker(backend, **CHECKED | small) as running:
        async with Stalled(running.url, PATH, "Authorization: Bearer alice") as stalled:
            await stalled.read_until(b"task.snapshot")
            for number in range(100):
                await backend.publish(status(str(number), metadata={"padding": "x" * 4000}))
            await until(lambda: any(s["unsent_bytes"] for s in running.listening.streams.describe()))
            began_s = time.monotonic()
            await revoke(running, token_id="t-1")
            await until(lambda: not len(running.listening.streams))
            assert time.monotonic() - began_s < WITHIN_S
            with contextlib.suppress(ConnectionError):
                while await stalled.read():
                    pass
            assert b"stream.end" not in stalled.received
            assert not stalled.received.endswith(b"0\r\n\r\n")
        assert await running.metric("sidecast_streams_closed_total", reason="revoked") == 1


async def test_an_event_costs_nothing_more(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at a stream nothing is asked of its credential, however many events it gets."""
    await backend.publish(task_record())
    rarely = {"stream__heartbeat_s": 300, "stream__a2a_heartbeat_s": 300, "stream__lag_s_max": 3600}
    monkeypatch.setattr("sidecast_broker.streams.CHECK_S", 3600.0)
    calls: list[str] = []

    def counted(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def count(self: object, *arguments: object) -> object:
            calls.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(owner, name, count)

    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(broker(backend, **ending(3600) | rarely))
        browser, streams = await stack.enter_async_context(opened(running, "carol"))
        for owner, name in (
            (lifetimes.Lifetimes, "look"),
            (lifetimes.Lifetimes, "begin"),
            (Life, "step"),
            (Life, "left_s"),
            (Revoked, "covers_credential"),
            (Revoked, "covers_task"),
            (Askers, "principal"),
        ):
            counted(owner, name)
        for payload in numbered(200):
            await backend.publish(payload)
        assert texts(await browser.take(200)) == numbers(200)
        for stream in streams.values():
            await stream.take(200)
        assert calls == []
        await running.watch(headers=bearer("carol"))
        assert calls != []


# --- revocation


@pytest.mark.parametrize(
    "body",
    [{"token_id": "t-1"}, {"principal": "alice"}, {"task": TASK}],
    ids=lambda body: next(iter(body)),
)
async def test_what_is_revoked_at_one_broker_ends_at_all(backend: Backend, body: dict[str, str]) -> None:
    await backend.publish(task_record())
    await backend.publish(task_record(OTHER), task=OTHER)
    async with broker(backend, **CHECKED) as one, broker(backend, **CHECKED) as other:
        async with opened(other, "alice") as (browser, streams), opened(one, "alice") as (here, _):
            bobs = await other.watch(OTHER, headers=bearer("bob"))
            await bobs.take(2)
            began_s = time.monotonic()
            await revoke(one, **body)
            for stream in (browser, here):
                (end,) = await stream.rest()
                assert (end.kind, end["reason"], end["state"]) == ("stream.end", "revoked", None)
            for wire, stream in streams.items():
                await assert_broken_off(wire, stream, 403, "PERMISSION_DENIED")
            assert time.monotonic() - began_s < WITHIN_S
        await other.until_metric("sidecast_streams_closed_total", 5, reason="revoked")
        refused = 404 if "task" in body else 401
        for running in (one, other):
            assert (await running.get(PATH, bearer("alice") | AS_JSON))[0] == refused
            wanted = 404 if "task" in body else 200
            assert (await running.get(PATH, bearer("bob") | AS_JSON))[0] == wanted
        await backend.publish(done(OTHER), task=OTHER)
        assert kinds(await bobs.rest()) == ["task.status", "stream.end"]


async def test_one_that_was_away_from_nats_when_it_was_made(real: RealBackend) -> None:
    await real.publish(task_record())
    async with Proxy(real.server.url) as proxy:
        away = broker(real, nats__url=proxy.url, **CHECKED)
        async with broker(real, **CHECKED) as one, away as other:
            stream = await other.watch(headers=bearer("alice"))
            await stream.take(2)
            await proxy.cut()
            await until_connected(other, False)
            await revoke(one, principal="alice")
            assert (await one.get(PATH, bearer("alice") | AS_JSON))[0] == 401
            # It can't know, and nobody is cut off for NATS being away.
            assert (await other.get(PATH, bearer("alice") | AS_JSON))[0] == 200
            began_s = time.monotonic()
            await proxy.open()
            (end,) = await stream.rest()
            assert end["reason"] == "revoked"
            assert time.monotonic() - began_s < WITHIN_S
            assert (await other.get(PATH, bearer("alice") | AS_JSON))[0] == 401


async def until_connected(running: OwnBroker, wanted: bool) -> None:
    """Wait until a broker has noticed that NATS is away, or back."""
    async with asyncio.timeout(TIMEOUT_S):
        while (await running.internal("/readyz"))[1]["nats"]["connected"] is not wanted:
            await asyncio.sleep(0.01)


async def test_answers_that_were_lost_on_the_way(real: RealBackend) -> None:
    await real.publish(task_record())
    async with Proxy(real.server.url) as proxy:
        away = broker(real, nats__url=proxy.url, **CHECKED)
        async with broker(real, **CHECKED) as one, away as other:
            stream = await other.watch(headers=bearer("alice"))
            await stream.take(2)
            proxy.lose_answers()
            await revoke(one, principal="alice")
            await proxy.cut()
            await proxy.open()
            (end,) = await stream.rest()
            assert end["reason"] == "revoked"


async def test_a_server_that_was_restarted_still_knows(real: RealBackend) -> None:
    await real.publish(task_record())
    async with broker(real, **CHECKED) as running:
        await revoke(running, principal="alice")
        await real.go_away()
        await real.come_back()
        assert (await running.get(PATH, bearer("alice") | AS_JSON))[0] == 401
        await until_connected(running, True)
        bobs = await running.watch(headers=bearer("bob"))
        await bobs.take(2)
        await revoke(running, principal="bob")
        assert [frame["reason"] for frame in await bobs.rest()] == ["revoked"]
    async with broker(real, **CHECKED) as anew:
        for who in ("alice", "bob"):
            assert (await anew.get(PATH, bearer(who) | AS_JSON))[0] == 401


async def test_an_operator_lifts_one_with_the_tools_of_nats(real: RealBackend) -> None:
    await real.publish(task_record())
    async with broker(real, **CHECKED) as running:
        body = b'{"principal":"alice"}'
        _status, answer = await running.internal("/revoke", "POST", body, bearer("root") | JSON)
        stored = answer["stored"]
        client = await nats.connect(real.server.url)
        try:
            bucket = await client.jetstream().key_value(stored["bucket"])
            entry = await bucket.get(stored["key"])
            assert (entry.revision, json.loads(entry.value or b"")["value"]) == (stored["revision"], "alice")
            await bucket.delete(stored["key"])
        finally:
            await client.close()
        async with asyncio.timeout(WITHIN_S):
            while (await running.get(PATH, bearer("alice") | AS_JSON))[0] != 200:
                await asyncio.sleep(0.05)


async def test_the_bucket_is_made_to_keep_what_it_holds(real: RealBackend) -> None:
    async with broker(real, auth__revocation_s=7200, **CHECKED) as running:
        await revoke(running, principal="alice")
        config = (await request_api(real.server.url, "STREAM.INFO.KV_SIDECAST_REVOKED", {}))["config"]
        assert (config["max_age"], config["discard"]) == (7200 * 10**9, "new")
        await request_api(real.server.url, "STREAM.UPDATE.KV_SIDECAST_REVOKED", config | {"max_bytes": 2000})
        answers = [
            await running.internal("/revoke", "POST", b'{"token_id":"t%d"}' % number, bearer("root") | JSON)
            for number in range(40)
        ]
        statuses = [status for status, _answer in answers]
        assert (statuses[0], statuses[-1]) == (200, 503)
    async with broker(real, **CHECKED) as anew:
        assert (await anew.get(PATH, bearer("alice") | AS_JSON))[0] == 401


# --- processes of their own


async def test_a_broker_that_was_killed_and_started_again_refuses(real: RealBackend, tmp_path: Path) -> None:
    def token(subject: str, **more: object) -> dict[str, str]:
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": int(time.time()) - 5, **more}
        claims = {"exp": time.time() + 600, "sidecast_grants": ["*/*/*"], **claims}
        return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}

    admin = token("root", sidecast_rights=["admin"])
    hers, later = token("alice", jti="t-1"), token("alice", jti="t-3", iat=int(time.time()) + 20)
    auth = {
        "auth__jwt_issuer": ISSUER,
        "auth__jwt_audience": AUDIENCE,
        "auth__jwt_secret": SECRET,
        "auth__jwt_leeway_s": 60,
    }
    await real.publish(task_record())
    async with child_broker(real, tmp_path / "log", **auth) as child:
        stream = await child.watch(headers=hers)
        await stream.take(2)
        status, _ = await child.internal("/revoke", "POST", b'{"principal":"alice"}', admin | JSON)
        assert status == 200
        assert [frame["reason"] for frame in await stream.rest()] == ["revoked"]
        child.kill9()
        await child.restart()
        assert (await child.get(PATH, hers | AS_JSON))[0] == 401
        # What was issued after it is another matter.
        assert (await child.get(PATH, later | AS_JSON))[0] == 200
        await child.internal("/revoke", "POST", b'{"token_id":"t-3"}', admin | JSON)
        assert (await child.get(PATH, later | AS_JSON))[0] == 401


async def test_drain_does_what_sigterm_does(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with child_broker(real, tmp_path / "log", stream__drain_s=1) as child:
        streams = [await child.watch() for _ in range(3)]
        for stream in streams:
            await stream.take(2)
        status, answer = await child.internal("/drain", "POST", b"{}", JSON)
        assert (status, answer) == (202, {"status": "draining", "streams": 3, "drain_s": 1})
        assert (await child.internal("/readyz"))[0] == 503
        # As Kubernetes does behind a preStop hook: not a second wish to hurry.
        child.signal(signal.SIGTERM)
        drained = await asyncio.gather(*(stream.rest() for stream in streams))
        assert [kinds(frames) for frames in drained] == [["stream.drain"]] * 3
        assert await child.ended() == 0
        assert {line["reason"] for line in child.logged("stream_closed")} == {"drain"}
        assert child.logged("stopped")


async def test_the_command_drains_and_waits(real: RealBackend, tmp_path: Path) -> None:
    async with child_broker(real, tmp_path / "log", stream__drain_s=0.3) as child:
        command = ("-m", "sidecast_broker", "drain", "--url", child.internal_url)
        for wanted in (0, 1):
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, err = await process.communicate()
            assert process.returncode == wanted, (out, err)
            if wanted == 0:
                assert out == b"the broker is gone\n"
                assert await child.ended() == 0
