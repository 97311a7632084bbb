"""Web pages of other origins: what they may read and send; and what every answer says of itself."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from a2a_rig.wire import WIRES
from access_rig import ALICES, BOBS, MISSING, OPEN, PASSED, STREAMED, Rig, rig
from aiohttp import web
from brokers import OwnBroker
from door import Answer
from sse import exchange

APP, EVIL = "https://app.example.com", "https://evil.example"
LISTED = {"server__cors_origins": f"{APP}, http://localhost:3000"}
ALLOW = "access-control-allow-origin"


async def send(
    it: Rig | OwnBroker,
    method: str,
    target: str,
    *lines: str,
    body: bytes | None = None,
    internal: bool = False,
) -> Answer:
    running = it.broker if isinstance(it, Rig) else it
    host = (running.internal_url if internal else running.url).removeprefix("http://")
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    head = (f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *length, *lines, "", "")
    return Answer(await exchange(f"http://{host}", "\r\n".join(head).encode("latin-1") + (body or b"")))


def cors(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


AS_ALICE = "Authorization: Bearer alice"

ANSWERS: dict[str, tuple[str, str, tuple[str, ...], bytes | None, int]] = {
    "a stream": ("GET", f"/tasks/{ALICES}/events", (AS_ALICE,), None, 200),
    "JSON": ("GET", f"/tasks/{ALICES}/events", (AS_ALICE, "Accept: application/json"), None, 200),
    "unknown": ("GET", f"/tasks/{MISSING}/events", (AS_ALICE,), None, 404),
    "forbidden": ("GET", f"/tasks/{BOBS}/events", (AS_ALICE,), None, 404),
    "unauthenticated": ("GET", f"/tasks/{ALICES}/events", (), None, 401),
    "unauthenticated A2A": ("POST", "/", ("Content-Type: application/json",), b"{}", 401),
    "nonsense": ("GET", f"/tasks/{ALICES}/events?from=nowhere", (AS_ALICE,), None, 400),
    "the list": ("GET", "/ui/api/tasks", (AS_ALICE,), None, 200),
    "the page": ("GET", "/ui/", (), None, 200),
    "the card": ("GET", "/.well-known/agent-card.json", (), None, 200),
    "a wrong method": ("DELETE", f"/tasks/{ALICES}/events", (AS_ALICE,), None, 405),
    "no ticket": ("POST", "/tickets", (AS_ALICE, "Content-Type: application/json"), b"{}", 400),
    "a ticket": (
        "POST", "/tickets", (AS_ALICE, "Content-Type: application/json"),
        json.dumps({"tasks": [ALICES]}).encode(), 200,
    ),
    "passed on": (
        "POST", "/", (AS_ALICE, "Content-Type: application/json", "A2A-Version: 1.0"),
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": ALICES}}).encode(), 200,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_answer_can_be_read_by_pages_that_are_listed_and_no_others(name: str) -> None:
    method, target, lines, body, status = ANSWERS[name]
    async with rig(**LISTED) as it:
        for origin in (APP, "http://localhost:3000"):
            answer = await send(it, method, target, *lines, f"Origin: {origin}", body=body)
            assert answer.status == status, answer.raw
            assert answer.headers[ALLOW] == origin
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert "A2A-Version" in answer.headers["access-control-expose-headers"]
            assert "Origin" in answer.headers["vary"]
        for origin in (
            EVIL,
            "null",
            f"{APP}.evil.example",
            "http://app.example.com",
            APP.upper(),
            f"{APP}/",
            "",
        ):
            answer = await send(it, method, target, *lines, f"Origin: {origin}", body=body)
            assert (answer.status, cors(answer)) == (status, {})
            assert "Origin" in answer.headers["vary"]
        answer = await send(it, method, target, *lines, body=body)
        assert (answer.status, cors(answer)) == (status, {})
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_page_never_gets_the_browsers_credentials(name: str) -> None:
    method, target, lines, body, status = ANSWERS[name]
    async with rig(server__cors_origins="*") as it:
        for origin in (EVIL, "null"):
            answer = await send(it, method, target, *lines, f"Origin: {origin}", body=body)
            assert (answer.status, answer.headers[ALLOW]) == (status, "*")
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("name", ANSWERS)
async def test_by_default_no_page_of_another_origin_reads_anything(name: str) -> None:
    method, target, lines, body, status = ANSWERS[name]
    async with rig() as it:
        answer = await send(it, method, target, *lines, f"Origin: {EVIL}", body=body)
        assert (answer.status, cors(answer)) == (status, {})


async def test_a_stream_that_goes_on_can_be_read() -> None:
    async with rig(**LISTED) as it:
        headers = {"Authorization": "Bearer alice", "Origin": APP, "A2A-Version": "1.0"}
        for path in (f"/tasks/{OPEN}/events", f"/tasks/{OPEN}:subscribe"):
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.get(it.broker.url + path) as answer,
            ):
                assert (answer.status, answer.content_type) == (200, "text/event-stream")
                assert answer.headers["Access-Control-Allow-Origin"] == APP
                assert answer.headers["Server"] == "sidecast"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_what_is_no_http_is_dressed_too() -> None:
    async with rig(**LISTED) as it:
        answer = Answer(await exchange(it.broker.url, b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n"))
        assert (answer.status, answer.headers["server"]) == (400, "sidecast")
        assert answer.headers["x-content-type-options"] == "nosniff"


# --- preflight

PREFLIGHTS = {
    f"/tasks/{ALICES}/events": {"GET"},
    f"/stream/tasks/{ALICES}": {"GET"},
    "/a2a/stream?taskId=x": {"GET"},
    "/tickets": {"POST"},
    "/tickets?cookie=1": {"POST"},
    "/": {"POST"},
    "/a2a": {"POST"},
    "/message:stream": {"POST"},
    f"/tasks/{ALICES}:subscribe": {"GET", "POST"},
    f"/v1/tasks/{ALICES}:subscribe": {"GET", "POST"},
    f"/tasks/{ALICES}/pushNotificationConfigs/c": {"GET", "DELETE"},
    "/agents/agent/": {"POST"},
    "/ui/api/tasks": {"GET"},
    "/ui/api/streams": {"GET"},
    "/.well-known/agent-card.json": {"GET", "HEAD"},
}


@pytest.mark.parametrize("path", PREFLIGHTS)
async def test_a_browser_learns_what_it_may_send(path: str) -> None:
    async with rig(**LISTED) as it:
        lines = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
        answer = await send(it, "OPTIONS", path, f"Origin: {APP}", *lines)
        assert (answer.status, answer.body, answer.headers[ALLOW]) == (204, b"", APP)
        assert set(answer.headers["access-control-allow-methods"].split(", ")) == PREFLIGHTS[path]
        allowed = {name.lower() for name in answer.headers["access-control-allow-headers"].split(", ")}
        wanted = {
            "last-event-id",
            "authorization",
            "x-api-key",
            "a2a-version",
            "a2a-extensions",
            "content-type",
        }
        assert wanted <= allowed
        assert "*" not in allowed
        assert int(answer.headers["access-control-max-age"]) > 0
        assert it.backend.asked == []
        assert it.agent.requests == []

        for refused in ((f"Origin: {EVIL}", *lines), lines, (f"Origin: {APP}",)):
            answer = await send(it, "OPTIONS", path, *refused)
            assert (answer.status, "access-control-allow-methods" in answer.headers) == (405, False)


@pytest.mark.parametrize(
    "path", ["/nothing/here", "/tasks", "/ui/api/nothing/x", "/tasks//events", "*", "/../x"]
)
async def test_there_is_no_preflight_for_what_is_not_there(path: str) -> None:
    async with rig(**LISTED) as it:
        lines = (f"Origin: {APP}", "Access-Control-Request-Method: GET")
        answer = await send(it, "OPTIONS", path, *lines)
        assert answer.status in (400, 401, 404) or path == "/tasks"
        assert it.agent.requests == []


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/streams", "/publish/x"])
async def test_the_internal_listener_lets_no_page_read(path: str) -> None:
    for origins in (APP, "*"):
        async with rig(server__cors_origins=origins) as it:
            for method in ("GET", "OPTIONS"):
                lines = (f"Origin: {APP}", "Access-Control-Request-Method: GET")
                answer = await send(it, method, path, *lines, internal=True)
                assert cors(answer) == {}
                assert "vary" not in answer.headers
                assert answer.headers["server"] == "sidecast"


async def test_which_pages_may_read_is_not_the_agents_to_say() -> None:
    async def answer(_request: web.Request, _body: bytes) -> web.StreamResponse:
        allowed = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Accept",
        }
        return web.json_response({"id": ALICES}, headers=allowed)

    for settings in ({}, LISTED):
        async with rig(agent__passthrough="/docs", **settings) as it:
            it.agent.answer = answer
            answered = await send(it, "GET", "/docs", AS_ALICE, f"Origin: {EVIL}")
            assert (answered.status, cors(answered)) == (200, {})
            assert answered.headers["vary"] == ("Accept, Origin" if settings else "Accept")


# --- what a page can send unasked

FORMS = ("", "text/plain", "application/x-www-form-urlencoded",
         "multipart/form-data; boundary=b", "text/plain; application/json", "text/json",
         "application/json, text/plain", "x/y+json", "json")  # fmt: skip
FOREIGN = (f"Origin: {EVIL}", "Origin: null", "Origin: http://127.0.0.1:1", "Sec-Fetch-Site: cross-site",
           "Sec-Fetch-Site: same-site")  # fmt: skip
POSTS = {name: path for name, path in (PASSED | STREAMED).items() if path(ALICES).method == "POST"}


@pytest.mark.parametrize("path", POSTS.values(), ids=POSTS)
async def test_a_form_of_another_origin_changes_nothing(path: Any) -> None:
    async with rig(auth__required="auto", **LISTED) as it:
        ask = path(ALICES)
        kept = [f"{name}: {value}" for name, value in ask.headers.items() if name != "Content-Type"]
        for form in FORMS:
            lines = [*kept, *([f"Content-Type: {form}"] if form else [])]
            for from_where in FOREIGN:
                answer = await send(it, "POST", ask.target, *lines, from_where, body=ask.body)
                assert b"application/json" in answer.body, answer.raw
                assert answer.status in (200, 415), answer.raw
        # Without a body, too: that is how a form cancels.
        await send(it, "POST", ask.target, *kept, f"Origin: {EVIL}")
        assert it.agent.requests == []


OWN = ["", "Origin: http://{host}", f"Origin: {APP}", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"]


@pytest.mark.parametrize("line", OWN)
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_what_is_no_foreign_page_may_name_its_body_as_it_likes(wire: Any, line: str) -> None:
    async with rig(auth__required="auto", **LISTED) as it:
        ask = PASSED[f"send {wire}"](ALICES)
        kept = [f"{name}: {value}" for name, value in ask.headers.items() if name != "Content-Type"]
        host = it.broker.url.removeprefix("http://")
        lines = [line.format(host=host)] if line else []
        assert (await send(it, "POST", ask.target, *kept, *lines, body=ask.body)).status == 200
        assert len(it.agent.requests) == 1


@pytest.mark.parametrize(
    "media_type", ["application/json", "Application/JSON;charset=utf-8", "application/a2a+json"]
)
async def test_json_of_another_origin_is_what_the_browser_has_asked_about(media_type: str) -> None:
    async with rig(auth__required="auto") as it:
        ask = PASSED["send rest-1.0"](ALICES)
        lines = ("A2A-Version: 1.0", f"Content-Type: {media_type}", f"Origin: {EVIL}")
        assert (await send(it, "POST", ask.target, *lines, body=ask.body)).status == 200
        preflight = await send(
            it, "OPTIONS", ask.target, f"Origin: {EVIL}", "Access-Control-Request-Method: POST"
        )
        assert (preflight.status, cors(preflight)) == (405, {})
