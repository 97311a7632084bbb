"""Revoking and draining on the internal listener: who may, what is refused, and what is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from access_rig import ACME, OPEN, PRINCIPALS, stocked
from askers import Askers, bearer
from brokers import FakeBackend, OwnBroker, broker

from sidecast_broker.administration import BODY_BYTES_MAX

JSON = {"Content-Type": "application/json"}
BUCKET = "SIDECAST_REVOKED"


@asynccontextmanager
async def checking(**changes: Any) -> AsyncIterator[OwnBroker]:
    changes = {"auth__required": "true", "auth__refusal_floor_ms": 0} | changes
    async with broker(stocked(), authenticator=Askers(*PRINCIPALS), **changes) as running:
        yield running


async def revoke(running: OwnBroker, who: str = "root", **body: object) -> tuple[int, Any]:
    return await running.internal("/revoke", "POST", json.dumps(body).encode(), bearer(who) | JSON)


# --- who may


@pytest.mark.parametrize("path", ["/revoke", "/drain"])
@pytest.mark.parametrize(
    ("who", "wanted"),
    [(None, 401), ("mallory", 401), ("alice", 403), ("holder", 403), ("teller", 403)],
)
async def test_it_needs_the_right(path: str, who: str | None, wanted: int) -> None:
    async with checking() as running:
        headers = JSON | (bearer(who) if who else {})
        assert (await running.internal(path, "POST", b'{"principal":"bob"}', headers))[0] == wanted
        assert not running.listening.streams.draining
        assert (await running.get(f"/tasks/{OPEN}/events?from=now", bearer("bob")))[0] == 404


@pytest.mark.parametrize("path", ["/revoke", "/drain"])
async def test_a_browser_is_not_led_here(path: str) -> None:
    async with checking() as running:
        body = b'{"principal":"bob"}'
        asked = bearer("root") | JSON
        assert (await running.internal(path, "POST", body, asked | {"Host": "evil.example"}))[0] == 421
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/x-ndjson", ""):
            headers = asked | {"Content-Type": content_type}
            assert (await running.internal(path, "POST", body, headers))[0] == 415
        assert (await running.internal(path, headers=asked))[0] == 405
        assert (await running.get(path, asked))[0] == 404
        assert not running.listening.streams.draining


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"principal": "alice"}, ACME),
        ({"principal": "alice", "tenant": ACME}, ACME),
        ({"token_id": "t-1"}, ACME),
        ({"task": "x"}, ACME),
        ({"principal": "alice", "tenant": "other"}, None),
        ({"principal": "alice", "tenant": ""}, None),
        ({"token_id": "t-1", "tenant": "_"}, None),
        ({"task": "x", "tenant": "other"}, None),
    ],
    ids=str,
)
async def test_who_is_bound_to_a_tenant_revokes_within_it(body: dict[str, str], wanted: str | None) -> None:
    async with checking() as running:
        status, answer = await revoke(running, "chief", **body)
        if wanted is None:
            assert (status, answer["error"]["code"]) == (403, "forbidden")
        else:
            assert (status, answer["revoked"]["tenant"]) == (200, wanted)
        assert (await running.internal("/drain", "POST", b"{}", bearer("chief") | JSON))[0] == 403


async def test_where_no_credential_is_needed_nothing_can_be_revoked(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        status, answer = await running.internal("/revoke", "POST", b'{"task":"x"}', JSON)
        assert (status, answer["error"]["code"]) == (400, "bad-request")
        assert "no credential is needed" in answer["error"]["message"]


# --- what is answered


@pytest.mark.parametrize(
    ("body", "revoked"),
    [
        ({"token_id": "t-1"}, {"token_id": "t-1", "tenant": None}),
        ({"principal": "bob@example.org"}, {"principal": "bob@example.org", "tenant": None}),
        ({"principal": "bob", "tenant": "_"}, {"principal": "bob", "tenant": ""}),
        ({"task": "a/b"}, {"task": "a/b", "tenant": "", "agent": "agent"}),
        (
            {"task": "x", "tenant": "acme", "agent": "planner", "reason": "leaked"},
            {"task": "x", "tenant": "acme", "agent": "planner"},
        ),
    ],
    ids=str,
)
async def test_it_says_what_is_stored_where(body: dict[str, str], revoked: dict[str, Any]) -> None:
    async with checking(auth__revocation_s=3600) as running:
        status, answer = await revoke(running, **body)
        assert (status, answer["revoked"]) == (200, revoked)
        assert (answer["stored"]["bucket"], answer["stored"]["revision"]) == (BUCKET, 1)
        assert answer["until_s"] - answer["at_s"] == 3600
        again = await revoke(running, **body)
        assert again[1]["stored"] == answer["stored"] | {"revision": 2}


async def test_with_nats_away_it_is_not_said_to_be_stored() -> None:
    backend = stocked()
    async with broker(backend, authenticator=Askers(*PRINCIPALS), auth__required="true") as running:
        assert (await running.internal("/streams", headers=bearer("root")))[0] == 200
        await backend.go_away()
        status, answer = await revoke(running, principal="bob")
        assert (status, answer["error"]["code"]) == (503, "unavailable")


# --- hostile bodies

BAD_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no object": b"[]",
    "null": b"null",
    "a text": b'"principal"',
    "no json": b"{",
    "two documents": b'{"task":"x"}{"task":"y"}',
    "none": b"{}",
    "only nulls": b'{"task":null}',
    "two": b'{"task":"x","principal":"bob"}',
    "three": b'{"task":"x","principal":"bob","token_id":"t"}',
    "twice": b'{"task":"x","task":"y"}',
    "twice in two spellings": b'{"task":"x","t\\u0061sk":"y"}',
    "an unknown member": b'{"task":"x","everything":true}',
    "another case": b'{"Task":"x"}',
    "a number": b'{"task":7}',
    "a list": b'{"principal":["bob"]}',
    "an object": b'{"token_id":{"$ne":1}}',
    "an empty task": b'{"task":""}',
    "an empty principal": b'{"principal":""}',
    "an empty id": b'{"token_id":""}',
    "control characters": b'{"principal":"bob\\n"}',
    "a control character in the tenant": b'{"principal":"bob","tenant":"a\\u0000"}',
    "a lone surrogate": b'{"principal":"\\ud800"}',
    "a lone surrogate in a task": b'{"task":"\\ud800"}',
    "a lone surrogate in the agent": b'{"task":"x","agent":"\\udfff"}',
    "a lone surrogate in the reason": b'{"task":"x","reason":"\\udfff"}',
    "no utf-8": b'{"task":"\xff"}',
    "utf-16": '{"task":"x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"task":"x"}',
    "too long a task": b'{"task":"' + b"x" * 257 + b'"}',
    "too long a principal": b'{"principal":"' + b"x" * 257 + b'"}',
    "too long a tenant": b'{"principal":"bob","tenant":"' + b"x" * 257 + b'"}',
    "too long a reason": b'{"task":"x","reason":"' + b"x" * 257 + b'"}',
    "a reason on two lines": b'{"task":"x","reason":"a\\nb"}',
    "an agent of a principal": b'{"principal":"bob","agent":"agent"}',
    "an agent of a token": b'{"token_id":"t","agent":""}',
    "deep": b"[" * 15_000,
    "a large number": b'{"task":' + b"9" * 10_000 + b"}",
    "not a number": b'{"task":NaN}',
}


async def test_hostile_bodies_are_refused_and_store_nothing(unharmed: None) -> None:
    async with checking() as running:
        headers = bearer("root") | JSON
        for name, body in BAD_BODIES.items():
            status, answer = await running.internal("/revoke", "POST", body, headers)
            assert (status, answer["error"]["code"]) == (400, "bad-request"), name
            assert len(answer["error"]["message"]) < 400, name
        large = b'{"task":"x","reason":"' + b" " * BODY_BYTES_MAX + b'"}'
        assert (await running.internal("/revoke", "POST", large, headers))[0] == 413
        # Its size is not believed either.
        assert (await revoke(running, task="x"))[1]["stored"]["revision"] == 1


# --- draining


async def test_drain_refuses_new_streams_before_it_answers() -> None:
    async with checking() as running:
        stream = await running.watch(OPEN, headers=bearer("root"))
        await stream.take(2)
        for _ in range(2):
            status, answer = await running.internal("/drain", "POST", b"{}", bearer("root") | JSON)
            assert (status, answer) == (202, {"status": "draining", "streams": 1, "drain_s": 0})
        assert (await running.internal("/readyz"))[0] == 503
        refused = await running.watch(OPEN, headers=bearer("root"))
        assert [frame["reason"] for frame in await refused.rest()] == ["draining"]
