"""Tickets over the wire: who gets one, what it opens, and what it never does."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from a2a_rig.awkward import AwkwardAgent
from access_rig import (
    ACME,
    ALIASES,
    ALICES,
    BOBS,
    HERS_ELSEWHERE,
    MISSING,
    OPEN,
    PASSED,
    STREAMED,
    Ask,
    Rig,
    as_task,
    rig,
    stocked,
)
from aiohttp.test_utils import make_mocked_request
from brokers import broker
from door import Answer
from sse import exchange

from sidecast_broker.auth.api_keys import hash_key
from sidecast_broker.auth.tickets import Made, Tickets
from sidecast_broker.settings import Auth, Settings
from sidecast_broker.ticket_desk import TicketDesk

SECRET = "a secret that is long enough: 32 bytes"
KEYS = {"alice": "key-of-alice", "bob": "key-of-bob", "dave": "key-of-dave", "root": "key-of-root"}
JSON = "Content-Type: application/json"
FLOOR_S = 0.02


@asynccontextmanager
async def desk(tmp_path: Path, **settings: Any) -> AsyncIterator[Rig]:
    """Run a broker with API keys, before an agent."""
    lines = [
        f'[[key]]\nid = "{name}"\nsha256 = "{hash_key(key)}"\nprincipal = "{name}"\n'
        + {"dave": f'tenant = "{ACME}"\n', "root": 'grants = ["*/*/*"]\n'}.get(name, "")
        for name, key in KEYS.items()
    ]
    (tmp_path / "keys.toml").write_text("".join(lines))
    backend = stocked()
    settings = {
        "auth__api_keys_file": tmp_path / "keys.toml",
        "auth__ticket_secret": SECRET,
        "auth__refusal_floor_ms": round(FLOOR_S * 1000),
    } | settings
    async with AwkwardAgent() as agent:
        agent.answer = as_task
        async with broker(backend, agent__url=agent.url, **settings) as running:
            backend.asked.clear()
            yield Rig(running, backend, agent)


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Rig]:
    async with desk(tmp_path) as running:
        yield running


def of(who: str | None) -> list[str]:
    return [] if who is None else [f"X-API-Key: {KEYS[who]}"]


async def send(it: Rig, method: str, target: str, *lines: str, body: bytes | None = None) -> Answer:
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    head = (f"{method} {target} HTTP/1.1", "Host: broker", "Connection: close", *length, *lines, "", "")
    return Answer(await exchange(it.broker.url, "\r\n".join(head).encode("latin-1") + (body or b"")))


async def make(
    it: Rig, who: str | None, *tasks: str, query: str = "", lines: tuple[str, ...] = (JSON,), **more: Any
) -> Answer:
    body = json.dumps({"tasks": list(tasks), **more}).encode()
    return await send(it, "POST", f"/tickets{query}", *of(who), *lines, body=body)


async def ticket(it: Rig, who: str, *tasks: str, **more: Any) -> str:
    answer = await make(it, who, *tasks, **more)
    assert answer.status == 200, answer.raw
    return str(answer.json["ticket"])


# --- who gets one


async def test_a_ticket_for_ones_own_tasks(it: Rig) -> None:
    answer = await make(it, "alice", ALICES, OPEN, ttl_s=60)
    assert (answer.status, answer.json.keys()) == (200, {"ticket", "expires_in_s"})
    assert answer.json["expires_in_s"] == 60
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    assert (await make(it, "alice", ALICES)).json["expires_in_s"] == 300
    assert (await make(it, "alice", ALICES, ttl_s=100_000)).json["expires_in_s"] == 300
    assert (await make(it, "root", ALICES, BOBS, MISSING)).status == 200
    assert (await make(it, "dave", HERS_ELSEWHERE)).status == 404


@pytest.mark.parametrize(
    "tasks", [[BOBS], [MISSING], [ALICES, BOBS], [BOBS, ALICES], [ALICES, MISSING], [HERS_ELSEWHERE]]
)
async def test_one_task_that_may_not_be_watched_refuses_all_as_if_it_were_not_there(
    it: Rig, tasks: list[str]
) -> None:
    unknown = await send(it, "GET", f"/tasks/{MISSING}/events", *of("alice"), "Accept: application/json")
    began_s = time.monotonic()
    answer = await make(it, "alice", *tasks)
    assert time.monotonic() - began_s >= FLOOR_S
    assert (answer.status, answer.json) == (404, unknown.json)
    assert answer.headers.keys() == unknown.headers.keys()


async def test_who_asks_for_too_many_gets_none(tmp_path: Path) -> None:
    async with desk(tmp_path, auth__tickets_per_minute_max=3) as it:
        assert [(await make(it, "alice", ALICES)).status for _ in range(4)] == [200, 200, 200, 429]
        answer = await make(it, "alice", ALICES)
        assert answer.json["error"]["reason"] == "tickets"
        assert int(answer.headers["retry-after"]) > 0
        assert (await make(it, "bob", BOBS)).status == 200


async def test_who_is_unknown_gets_none(it: Rig) -> None:
    for lines in ((JSON,), ("X-API-Key: wrong", JSON), ("Authorization: Bearer x", JSON)):
        answer = await make(it, None, ALICES, lines=lines)
        assert (answer.status, answer.code) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"]
    assert it.backend.asked == []


async def test_a_ticket_makes_no_ticket(it: Rig) -> None:
    text = await ticket(it, "alice", ALICES)
    for query, lines in ((f"?ticket={text}", ()), ("", (f"Cookie: sidecast_ticket={text}",))):
        answer = await make(it, None, ALICES, query=query, lines=(JSON, *lines))
        assert (answer.status, answer.code) == (403, "forbidden")
    # A browser that holds the cookie asks for the next one with its credential.
    cookie = f"Cookie: sidecast_ticket={text}"
    assert (await make(it, "alice", ALICES, lines=(JSON, cookie))).status == 200
    assert (await make(it, "alice", ALICES, query=f"?ticket={text}")).status == 401


async def test_where_the_leader_is_away_none_is_made(it: Rig) -> None:
    it.backend.server.leaderless = True
    answer = await make(it, "alice", ALICES)
    assert (answer.status, answer.code) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_without_credentials_a_front_end_takes_the_same_path(tmp_path: Path) -> None:
    async with rig(auth__required="auto") as it:
        answer = await make(it, None, ALICES, query="?cookie=1")
        assert answer.status == 200
        text = answer.json["ticket"]
        opened = await send(it, "GET", f"/tasks/{ALICES}/events?ticket={text}")
        assert opened.status == 200
    async with desk(tmp_path, auth__required="false", auth__insecure="true") as it:
        text = await ticket(it, "alice", ALICES)
    async with desk(tmp_path) as it:
        # Made where nobody needed a credential, it names nobody where one is needed.
        assert (await send(it, "GET", f"/tasks/{ALICES}/events?ticket={text}")).status == 401


# --- hostile requests

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"tasks":["\xff"]}',
    "a list": b'["t"]',
    "null": b"null",
    "a number": b"1",
    "no tasks": b"{}",
    "tasks null": b'{"tasks":null}',
    "tasks empty": b'{"tasks":[]}',
    "tasks a string": b'{"tasks":"task-1"}',
    "a task that is none": b'{"tasks":[1]}',
    "an empty task": b'{"tasks":[""]}',
    "a lone surrogate": b'{"tasks":["\\ud800"]}',
    "a task too long": json.dumps({"tasks": ["x" * 257]}).encode(),
    "too many": json.dumps({"tasks": [f"t-{number}" for number in range(101)]}).encode(),
    "tasks twice": b'{"tasks":["a"],"tasks":["b"]}',
    "a nested member twice": b'{"tasks":["a"],"ttl_s":{"a":1,"a":2}}',
    "another member": b'{"tasks":["a"],"principal":"bob"}',
    "another case": b'{"Tasks":["a"]}',
    "ttl zero": b'{"tasks":["a"],"ttl_s":0}',
    "ttl negative": b'{"tasks":["a"],"ttl_s":-5}',
    "ttl NaN": b'{"tasks":["a"],"ttl_s":NaN}',
    "ttl Infinity": b'{"tasks":["a"],"ttl_s":Infinity}',
    "ttl a string": b'{"tasks":["a"],"ttl_s":"60"}',
    "ttl true": b'{"tasks":["a"],"ttl_s":true}',
    "deep": b'{"tasks":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of many digits": b'{"tasks":["a"],"ttl_s":' + b"9" * 10_000 + b"}",
    "a byte order mark": b'\xef\xbb\xbf{"tasks":["a"]}',
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_that_makes_no_sense(it: Rig, body: bytes) -> None:
    answer = await send(it, "POST", "/tickets", *of("root"), JSON, body=body)
    assert (answer.status, answer.code) == (400, "bad-request"), answer.raw
    assert len(answer.body) < 500


async def test_a_body_that_is_too_large(it: Rig) -> None:
    for lines in ((JSON,), (JSON, "Content-Encoding: identity")):
        body = b'{"tasks":["a"]' + b" " * 300_000 + b"}"
        answer = await send(it, "POST", "/tickets", *of("root"), *lines, body=body)
        assert (answer.status, answer.code) == (413, "body-too-large")


@pytest.mark.parametrize(
    "line",
    ["X: y", "Content-Type: text/plain", "Content-Type: text/plain; application/json",
     "Content-Type: text/json",
     "Content-Type: application/x-www-form-urlencoded", "Content-Type: multipart/form-data; boundary=x",
     "Content-Type:",
     "Content-Type: application/json, text/plain"],
)  # fmt: skip
async def test_a_body_that_a_form_can_send(it: Rig, line: str) -> None:
    answer = await make(it, "root", ALICES, lines=(line,))
    assert (answer.status, answer.code) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"]
)
async def test_a_body_of_json(it: Rig, media_type: str) -> None:
    assert (await make(it, "alice", ALICES, lines=(f"Content-Type: {media_type}",))).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_only_post(it: Rig, method: str) -> None:
    answer = await send(it, method, "/tickets", *of("alice"))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("query", ["?cookie=2", "?cookie=", "?cookie", "?cookie=1&cookie=0", "?cookie=true"])
async def test_a_query_that_makes_no_sense(it: Rig, query: str) -> None:
    answer = await make(it, "alice", ALICES, query=query)
    assert (answer.status, answer.code) == (400, "bad-request")


async def test_a_task_named_twice_is_one(it: Rig) -> None:
    once, twice = [await ticket(it, "root", *[ALICES] * count, ttl_s=5) for count in (1, 100)]
    assert len(once) == len(twice)


async def test_ids_that_do_not_fit_into_a_request(it: Rig) -> None:
    ids = [f"{number:0200}" for number in range(40)]
    answer = await make(it, "root", *ids)
    assert (answer.status, answer.code) == (400, "bad-request")
    assert "too many" in answer.json["error"]["message"]
    ids = [f"{number:036}" for number in range(100)]
    text = await ticket(it, "root", *ids)
    assert (await send(it, "GET", f"/tasks/{ids[99]}/events?ticket={text}")).status == 404
    answer = await make(it, "root", *ids, query="?cookie=1")
    assert (answer.status, "for a cookie" in answer.json["error"]["message"]) == (400, True)


# --- the cookie


@pytest.mark.parametrize(
    ("public_url", "secure", "path"),
    [("", False, "/"), ("http://b.example", False, "/"), ("https://b.example", True, "/"),
     ("https://b.example/base", True, "/base")],
)  # fmt: skip
async def test_the_cookie_is_for_nobody_else(
    tmp_path: Path, public_url: str, secure: bool, path: str
) -> None:
    async with desk(tmp_path, server__public_url=public_url) as it:
        answer = await make(it, "alice", ALICES, query="?cookie=1", ttl_s=60)
        cookies: SimpleCookie = SimpleCookie(answer.headers["set-cookie"])
        cookie = cookies["sidecast_ticket"]
        assert cookie.value == answer.json["ticket"]
        assert (cookie["httponly"], cookie["samesite"], cookie["secure"] or False) == (True, "Strict", secure)
        assert (cookie["path"], cookie["max-age"], cookie["domain"]) == (path, "60", "")


# --- what it opens


def carried(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {"query": (f"ticket={text}", ()), "cookie": ("", (f"Cookie: a=b; sidecast_ticket={text}",))}


@pytest.mark.parametrize("where", ["query", "cookie"])
async def test_it_opens_streams_of_its_tasks_and_no_others(it: Rig, where: str) -> None:
    query, lines = carried(await ticket(it, "alice", ALICES))[where]
    paths = [*ALIASES.values(), "/tasks/{}:subscribe", "/agents/agent/tasks/{}:subscribe"]
    for path in paths:
        mark = "&" if "?" in path else "?"
        target = f"{path}{mark}{query}"
        version = ("A2A-Version: 1.0",) if ":subscribe" in path else ()
        own, *others = [
            await send(it, "GET", target.format(task), *lines, *version)
            for task in (ALICES, OPEN, BOBS, MISSING)
        ]
        if version:  # that it has ended is what an A2A stream says of this task
            assert b"The task has ended" in own.raw
        else:
            assert b"TASK_STATE_COMPLETED" in own.raw
        assert [other.status for other in others] == [404, 404, 404], path
        assert len({other.body for other in others}) == 1
    listed = await send(it, "GET", f"/ui/api/tasks?{query}", *lines)
    assert [each["task"] for each in listed.json["tasks"]] == [ALICES]
    assert it.agent.requests == []


@pytest.mark.parametrize("where", ["query", "cookie"])
async def test_it_never_does_anything_else(it: Rig, where: str) -> None:
    """A page of another origin can make a browser send its cookie: to nothing that changes anything."""
    query, lines = carried(await ticket(it, "alice", ALICES, OPEN))[where]
    origins = ((), ("Origin: https://evil.example",), ("Origin: http://broker",))
    asks = [path(task) for path in (PASSED | STREAMED).values() for task in (ALICES, OPEN)]
    asks = [ask for ask in asks if not (ask.method == "GET" and ask.target.endswith(":subscribe"))]
    asks.append(Ask("GET", "/extendedAgentCard", None, {"A2A-Version": "1.0"}))
    asks.append(Ask("GET", "/tasks", None, {"A2A-Version": "1.0"}))
    asks.append(Ask("GET", "/anything/else", None, {}))
    it.backend.asked.clear()
    for ask in asks:
        for origin in origins:
            given = [f"{name}: {value}" for name, value in ask.headers.items()]
            target = f"{ask.target}{'&' if '?' in ask.target else '?'}{query}" if query else ask.target
            answer = await send(it, ask.method, target, *given, *lines, *origin, body=ask.body)
            assert answer.status == 403, (ask, answer.raw)
    assert it.agent.requests == []
    assert it.backend.asked == []


async def test_it_is_no_credential_of_the_internal_listener(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        text = await ticket(it, "root", ALICES)
        for path in ("/streams", f"/streams?ticket={text}"):
            status, _body = await it.broker.internal(path)
            assert status in (401, 403)


async def test_an_old_ticket_opens_nothing(it: Rig) -> None:
    text = await ticket(it, "alice", ALICES, ttl_s=1)
    target = f"/tasks/{ALICES}/events?ticket={text}"
    until_s = time.monotonic() + 5
    while (answer := await send(it, "GET", target)).status == 200 and time.monotonic() < until_s:
        pass
    assert (answer.status, answer.json["error"]["message"]) == (401, "the credential is not valid")


async def test_a_second_replica_takes_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        text = await ticket(one, "alice", ALICES)
    for settings, status in (
        ({}, 200),
        ({"auth__ticket_secret": "n" * 32, "auth__ticket_secret_previous": SECRET}, 200),
        ({"auth__ticket_secret": "n" * 32}, 401),
        ({"auth__ticket_secret": ""}, 401),
    ):
        async with desk(tmp_path, **settings) as other:
            answer = await send(other, "GET", f"/tasks/{ALICES}/events?ticket={text}")
            assert answer.status == status, settings


@pytest.mark.parametrize("tls", [True, False])
async def test_the_cookie_of_a_request_by_tls_goes_by_tls_only(tls: bool) -> None:
    desk = TicketDesk(Settings(), None, Tickets(Auth()), None)  # type: ignore[arg-type]
    request = make_mocked_request("POST", "/tickets?cookie=1", sslcontext=True if tls else None)
    assert ("; Secure" in desk._cookie(request, Made("text", 5))) is tls
