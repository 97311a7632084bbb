"""What is revoked at one broker is refused by all: by those that were away, and by those that come later."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import jwt
import nats
import pytest
from askers import bearer
from brokers import OTHER, TASK, Backend, OwnBroker, RealBackend, broker, child_broker, done, task_record
from e2e.proxy import Proxy
from issuer import AUDIENCE, ISSUER, SECRET
from lives import AS_JSON, CHECKED, JSON, PATH, WITHIN_S, assert_broken_off, opened, revoke
from nats_server import request_api
from sse import TIMEOUT_S, kinds


@pytest.mark.row("C53")
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
