"""Requests made to break the A2A door, over raw sockets: a clear error, and nothing asked of anybody but the
agent, which is asked for exactly what it may be asked for.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import structlog
from brokers import Backend, Broker, FakeBackend, RealBackend, broker, child_broker, done, task_record
from recording_agent import RecordingAgent, Said, Trap
from sse import TIMEOUT_S, exchange

BODY_BYTES_MAX = 4096
SLOW_S = 0.3
"""Time that heads and bodies may take in these tests; nothing here waits for longer."""
LIMITS = {
    "server__body_bytes_max": BODY_BYTES_MAX,
    "agent__passthrough": "/docs",
    "agent__timeout_s": 5,
}
SMUGGLED = b"GET /docs/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

# --- requests


def request(method: str, target: str, *lines: str, body: bytes | None = None, host: str = "x") -> bytes:
    """Write a request as the test says, and nothing besides."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    head = (f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *length, *lines, "", "")
    return "\r\n".join(head).encode("latin-1") + (body or b"")


def post(body: str | bytes, *lines: str, target: str = "/", version: str = "1.0") -> bytes:
    """Write a POST of JSON."""
    body = body.encode() if isinstance(body, str) else body
    said = [f"A2A-Version: {version}"] if version else []
    return request("POST", target, "Content-Type: application/json", *said, *lines, body=body)


def get(target: str, *lines: str, version: str = "1.0", method: str = "GET") -> bytes:
    """Write a request without a body."""
    return request(method, target, f"A2A-Version: {version}", *lines)


def rpc(method: str = "GetTask", params: str = '{"id":"a"}', rpc_id: str = "1") -> str:
    """Write a JSON-RPC request from its parts, which need not be JSON."""
    return f'{{"jsonrpc":"2.0","id":{rpc_id},"method":"{method}","params":{params}}}'


def message(**members: object) -> str:
    """Give the parameters of a send."""
    fields = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "x"}], **members}
    return json.dumps({"message": fields})


def chunked(*pieces: bytes, lines: tuple[str, ...] = (), target: str = "/") -> bytes:
    """Write a POST whose body comes in chunks, ended."""
    head = request("POST", target, "A2A-Version: 1.0", "Transfer-Encoding: chunked", *lines)
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def framed(*lines: str, body: bytes = b"", version: str = "1.1", target: str = "/") -> bytes:
    """Write a POST with only these lines, and something behind it."""
    head = "\r\n".join((f"POST {target} HTTP/{version}", "Host: x", "A2A-Version: 1.0", *lines, "", ""))
    return head.encode("latin-1") + body + SMUGGLED


GET_TASK = rpc()


class Case(NamedTuple):
    """One hostile request.

    Attributes:
        raw: its bytes; `{trap}` stands for the address nobody may ask.
        status: of HTTP, as it must be answered.
        code: of the error, where it must be one.
        passes: the request lines by which the agent may hear of it.
    """

    raw: bytes
    status: int
    code: int | str | None = None
    passes: tuple[str, ...] = ()


def rpc_error(raw: bytes, code: int) -> Case:
    """Say that a request gets a JSON-RPC error, and does not pass."""
    return Case(raw, 200, code)


def rest_error(raw: bytes, status: int = 400) -> Case:
    """Say that a request gets an error of A2A's REST form, and does not pass."""
    return Case(raw, status, status)


def no_http(raw: bytes) -> Case:
    """Say that a request is refused before anybody looks at what it asks for."""
    return Case(raw, 400, "bad-request")


DUPLICATES = {
    f"a member twice: {name}": rpc_error(post(body), -32600)
    for name, body in {
        "method": '{"jsonrpc":"2.0","id":1,"method":"GetTask","method":"CancelTask","params":{"id":"a"}}',
        "method, case": '{"jsonrpc":"2.0","id":1,"method":"GetTask","METHOD":"x","params":{"id":"a"}}',
        "params": '{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"a"},"params":{"id":"b"}}',
        "params, case": '{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"a"},"PARAMS":{"id":"b"}}',
        "params, escaped": r'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{},"par\u0061ms":{}}',
        "envelope's id": '{"jsonrpc":"2.0","id":1,"id":2,"method":"GetTask","params":{"id":"a"}}',
        "id": rpc(params='{"id":"a","id":"b"}'),
        "id, case": rpc(params='{"id":"a","ID":"b"}'),
        "id, only case": rpc(params='{"ID":"b"}'),
        "id, escaped": rpc(params=r'{"id":"a","\u0069d":"b"}'),
        "id, Kelvin's": rpc("GetTaskPushNotificationConfig", '{"taskId":"a","tas\u212aId":"b","id":"c"}'),
        "taskId, snake": rpc("GetTaskPushNotificationConfig", '{"taskId":"a","task_id":"b","id":"c"}'),
        "tenant": rpc(params='{"id":"a","tenant":"t","tenant":"u"}'),
        "message": rpc("SendMessage", '{"message":{"messageId":"m"},"Message":{"messageId":"m"}}'),
        "message.taskId": rpc("SendMessage", '{"message":{"messageId":"m","taskId":"a","taskID":"b"}}'),
        "message.task_id": rpc("SendMessage", '{"message":{"messageId":"m","taskId":"a","task_id":"b"}}'),
        "message.contextId": rpc("SendStreamingMessage", '{"message":{"contextId":"a","contextid":"b"}}'),
    }.items()
}

JSON_BODIES = {
    "no body": rpc_error(post(""), -32700),
    "not JSON": rpc_error(post("{"), -32700),
    "two values": rpc_error(post(GET_TASK + GET_TASK), -32700),
    "a batch": rpc_error(post(f"[{GET_TASK},{GET_TASK}]"), -32600),
    "an empty batch": rpc_error(post("[]"), -32600),
    "a string": rpc_error(post('"GetTask"'), -32600),
    "UTF-16": rpc_error(post(GET_TASK.encode("utf-16")), -32700),
    "a byte order mark": rpc_error(post(b"\xef\xbb\xbf" + GET_TASK.encode()), -32700),
    "bytes that are no UTF-8": rpc_error(post(GET_TASK.encode().replace(b"a", b"\xff", 1)), -32700),
    "a surrogate in UTF-8": rpc_error(post(GET_TASK.encode().replace(b'"a"', b'"\xed\xa0\x80"')), -32700),
    "half a pair": rpc_error(post(rpc(params=r'{"id":"\ud800"}')), -32700),
    "a line end in a string": rpc_error(post(rpc(params='{"id":"a\nb"}')), -32700),
    "NUL": rpc_error(post(GET_TASK + "\0"), -32700),
    "NaN": rpc_error(post(rpc(rpc_id="NaN")), -32700),
    "an id like 01": rpc_error(post(rpc(rpc_id="01")), -32700),
    "an id that is an object": rpc_error(post(rpc(rpc_id="{}")), -32600),
    "an id too long": rpc_error(post(rpc(rpc_id=f'"{"x" * 300}"')), -32600),
    "deep nesting": rpc_error(post(rpc(params='{"id":"a","x":' + "[" * 1500 + "]" * 1500 + "}")), -32600),
    "deeper nesting": rpc_error(post("[" * 4000), -32600),
    "too many members": rpc_error(
        post(rpc(params="{" + ",".join(f'"{n}":1' for n in range(300)) + "}")), -32600
    ),
    "params that are a list": rpc_error(post(rpc(params='["a"]')), -32602),
    "an id that is a number": rpc_error(post(rpc(params='{"id":1}')), -32602),
    "no task": rpc_error(post(rpc(params="{}")), -32602),
    "no method": rpc_error(post('{"jsonrpc":"2.0","id":1}'), -32600),
    "JSON-RPC 1.0": rpc_error(post(GET_TASK.replace('"2.0"', '"1.0"')), -32600),
    "a method of nobody": rpc_error(post(rpc("rpc.discover")), -32601),
    "a method of the other version": rpc_error(post(rpc("tasks/get")), -32601),
    "a message that is a string": rpc_error(post(rpc("SendMessage", '{"message":"x"}')), -32602),
    "a message's id that is none": rpc_error(
        post(rpc("SendStreamingMessage", message(messageId={"a": 1}))), -32602
    ),
    "REST: a list": rest_error(post("[]", target="/message:send")),
    "REST: another task": rest_error(
        post('{"taskId":"b"}', target="/tasks/a/pushNotificationConfigs"),
    ),
    "REST: a member twice": rest_error(
        post('{"message":{"taskId":"a","TaskId":"b"}}', target="/message:send"),
    ),
}

TARGETS = {
    "absolute form": no_http(post(GET_TASK, target="http://{trap}/")),
    "absolute form of a card": no_http(get("http://{trap}/.well-known/agent-card.json")),
    "absolute form, passed on": no_http(get("http://{trap}/docs/x")),
    "absolute form, https": no_http(get("https://{trap}/docs/x")),
    "absolute form, broken": no_http(get("http://[::1")),
    "authority form": no_http(get("{trap}", method="CONNECT")),
    "asterisk form": no_http(get("*", method="OPTIONS")),
    "two slashes": rest_error(post(GET_TASK, target="//{trap}/")),
    "two slashes, passed on": rest_error(get("//{trap}/docs/x")),
    "two slashes within": rest_error(get("/docs//{trap}")),
    "a user part": Case(get("/@{trap}/x"), 404, "not-found"),
    "dots": rest_error(get("/docs/../tasks/a")),
    "dots, encoded": rest_error(get("/docs/%2e%2E/tasks/a")),
    "dots, half encoded": rest_error(get("/docs/.%2e/tasks/a")),
    "dots, encoded twice": no_http(get("/docs/%252e%252e/tasks/a")),
    "dots and an encoded slash": no_http(get("/docs/..%2ftasks/a")),
    "dots and parameters": no_http(get("/docs/..;x/tasks/a")),
    "one dot": rest_error(get("/./docs/x")),
    "a backslash": rest_error(get("/docs\\..\\x")),
    "a fragment": rest_error(get("/docs/x#y")),
    "a bad escape": rest_error(get("/docs/%zz")),
    "bytes beyond ASCII": no_http(get("/docs/\xff")),
    "an action in an id": rest_error(get("/tasks/a%3Acancel")),
    "a slash in an id": rest_error(get("/tasks/a%2Fb")),
    "parameters of an id": rest_error(get("/tasks/a;b")),
    "a tenant that is reserved": Case(get("/agents/nobody/docs/x"), 404, "not-found"),
    "another agent": rest_error(get("/agents/nobody/tasks/a"), 404),
    "another task in the query": rest_error(get("/tasks/a?id=b")),
    "a task twice in the query": rest_error(get("/tasks/a?id=a&id=b")),
    "a tenant twice in the query": rest_error(get("/tasks?tenant=t&tenant=u")),
    "a tenant in another case": rest_error(get("/tasks?Tenant=t")),
    "a tenant behind a semicolon": rest_error(get("/tasks?x=1;tenant=t")),
    "a tenant that is no UTF-8": rest_error(get("/tasks?tenant=%ff")),
    "tenants that differ": rest_error(get("/t/tasks/a?tenant=u"), 404),
    "a path of nobody": Case(get("/admin"), 404, "not-found"),
    "a method of HTTP that is not for it": Case(get("/tasks/a", method="PUT"), 405, "method-not-allowed"),
    "a long target": no_http(get("/docs/" + "x" * 10_000)),
}

FRAMING = {
    "both lengths": no_http(
        framed("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    "both lengths, the other way": no_http(
        framed("Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"),
    ),
    "two lengths": no_http(framed("Content-Length: 0", "Content-Length: 40")),
    "two equal lengths": no_http(framed("Content-Length: 2", "Content-Length: 2", body=b"{}")),
    "a list of lengths": no_http(framed("Content-Length: 2, 2", body=b"{}")),
    "a negative length": no_http(framed("Content-Length: -2", body=b"{}")),
    "a length with a sign": no_http(framed("Content-Length: +2", body=b"{}")),
    "a hexadecimal length": no_http(framed("Content-Length: 0x2", body=b"{}")),
    "a length beyond all numbers": no_http(framed(f"Content-Length: {2**64 + 2}", body=b"{}")),
    "a coding of nobody": no_http(framed("Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    "a coding before chunked": no_http(framed("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    "chunked twice": no_http(framed("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    "chunked in two lines": no_http(
        framed("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    ),
    "chunked in HTTP/1.0": no_http(framed("Transfer-Encoding: chunked", body=b"0\r\n\r\n", version="1.0")),
    "chunked in HTTP/1.0, kept alive": no_http(
        framed("Connection: keep-alive", "Transfer-Encoding: chunked", body=b"0\r\n\r\n", version="1.0"),
    ),
    "a chunk without a size": no_http(framed("Transfer-Encoding: chunked", body=b"ZZ\r\n")),
    "a chunk of another size": no_http(framed("Transfer-Encoding: chunked", body=b"1\r\n{}\r\n0\r\n\r\n")),
    "a chunk that ends in LF": no_http(framed("Transfer-Encoding: chunked", body=b"2\n{}\n0\n\n")),
    "a chunk beyond all numbers": no_http(framed("Transfer-Encoding: chunked", body=b"F" * 17 + b"\r\n")),
    "a folded line": no_http(framed("X-A: b\r\n c")),
    "a folded first line": no_http(framed(" X-A: b")),
    "lines that end in LF": no_http(framed("X-A: b\nContent-Length: 40")),
    "a line that ends in CR": no_http(framed("X-A: b\rContent-Length: 40")),
    "a request that ends in LF": no_http(post(GET_TASK).replace(b"\r\n", b"\n") + SMUGGLED),
    "a space in a name": no_http(framed("X A: b")),
    "a space behind a name": no_http(framed("Content-Length : 40")),
    "NUL in a name": no_http(framed("X\0A: b")),
    "NUL in a value": no_http(framed("X-A: b\0c")),
    "a line without a colon": no_http(framed("X-A")),
    "a name that is empty": no_http(framed(": b")),
    "too many headers": no_http(framed(*(f"X-{n}: b" for n in range(200)))),
    "a long header": no_http(framed("X-A: " + "b" * 20_000)),
    "no Host": no_http(post(GET_TASK).replace(b"Host: x\r\n", b"")),
    "two Hosts": no_http(post(GET_TASK, "Host: {trap}")),
    "an upgrade": rpc_error(post(GET_TASK, "Upgrade: h2c", "Connection: Upgrade"), -32600),
    "an upgrade, and more": rpc_error(
        post(GET_TASK, "Upgrade: websocket", "Connection: Upgrade") + SMUGGLED, -32600
    ),
    "an upgrade of what passes": no_http(get("/docs/x", "Upgrade: websocket", "Connection: Upgrade")),
    "something else expected": no_http(post(GET_TASK, "Expect: 200-ok")),
    "no HTTP at all": no_http(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64),
    "HTTP/2": no_http(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
}

HEADERS = {
    "a foreign Host": Case(post(GET_TASK).replace(b"Host: x", b"Host: {trap}"), 200, passes=("POST /",)),
    "forwarding that is forged": Case(
        post(
            GET_TASK,
            "X-Forwarded-Host: {trap}",
            "X-Forwarded-For: 192.0.2.1",
            "Forwarded: host={trap}",
            "X-Original-URL: http://{trap}/",
            "X-Rewrite-URL: /admin",
            "X-HTTP-Method-Override: DELETE",
        ),
        200,
        passes=("POST /",),
    ),
    "two versions": rpc_error(post(GET_TASK, "A2A-Version: 0.3"), -32009),
    "two versions in the query": rpc_error(
        post(GET_TASK, target="/?A2A-Version=1.0&A2A-Version=0.3", version=""), -32009
    ),
    "a version of nobody": rpc_error(post(GET_TASK, version="7.0"), -32009),
    "a version that is no UTF-8": rpc_error(post(GET_TASK, version="\xff\xfe"), -32009),
    "REST: a version that is no UTF-8": rest_error(get("/tasks/a", version="\xff\xfe")),
    "a header that is no UTF-8": rpc_error(post(GET_TASK, "X-Name: \xff"), -32600),
    "a header that is no UTF-8, of a send": rpc_error(
        post(rpc("SendStreamingMessage", message()), "X-Name: \xff"), -32600
    ),
    "a card's tag that is none": Case(get("/.well-known/agent-card.json", 'If-None-Match: \xff", W/"'), 200),
    "a card for a Host that is none": no_http(
        request("GET", "/.well-known/agent-card.json", host="a/b@{trap}")
    ),
    "an unknown Content-Encoding": Case(post(GET_TASK, "Content-Encoding: br"), 415, -32000),
    "a list of Content-Encodings": Case(post(GET_TASK, "Content-Encoding: gzip, gzip"), 415, -32000),
}

BIG = b"x" * (BODY_BYTES_MAX + 1)
BOMB = gzip.compress(b"x" * 3_000_000)

SIZES = {
    "a body too large": Case(post(BIG), 413, -32000),
    "a body said to be too large": Case(
        request("POST", "/", "A2A-Version: 1.0", f"Content-Length: {2**63}"), 413, -32000
    ),
    "a body too large in chunks": Case(chunked(*[b"x" * 1000] * 5), 413, -32000),
    "REST: a body too large": Case(post(BIG, target="/message:send"), 413, 413),
    "REST v0.3: a body too large": Case(post(BIG, target="/v1/message:stream", version="0.3"), 413, -32000),
    "a bomb": Case(post(BOMB, "Content-Encoding: gzip"), 413, -32000),
    "a bomb in chunks": Case(chunked(BOMB, lines=("Content-Encoding: gzip",)), 413, -32000),
    "a bomb of zlib": Case(post(zlib.compress(b"x" * 3_000_000), "Content-Encoding: deflate"), 413, -32000),
    "a bomb of the public card": Case(
        request("GET", "/.well-known/agent-card.json", "Content-Encoding: gzip", body=BOMB), 200
    ),
    "gzip that is none": rpc_error(post(GET_TASK, "Content-Encoding: gzip"), -32600),
    "gzip that is cut off": rpc_error(post(gzip.compress(b"x" * 99)[:-9], "Content-Encoding: gzip"), -32600),
    "gzip and more": rpc_error(post(gzip.compress(b"{}") + b"x", "Content-Encoding: gzip"), -32600),
}

CASES = DUPLICATES | JSON_BODIES | TARGETS | FRAMING | HEADERS | SIZES

# --- the door


class Door:
    """A broker with a recording agent behind it, and a trap where nobody may ask."""

    def __init__(self, running: Broker, agent: RecordingAgent, trap: Trap) -> None:
        self.running = running
        self.agent = agent
        self.trap = trap

    def write(self, raw: bytes) -> bytes:
        """Put the trap's address into a request."""
        return raw.replace(b"{trap}", self.trap.authority.encode())

    async def ask(self, raw: bytes) -> Answer:
        """Send a request over a connection of its own; give its answer."""
        return Answer(await exchange(self.running.url, self.write(raw)))

    async def check(self, case: Case) -> None:
        """Check that a hostile request is answered as it must be, and the next one as ever."""
        self.agent.heard.clear()
        answer = await self.ask(case.raw)
        assert (answer.status, answer.code) == (case.status, case.code), answer.raw
        assert [heard.line for heard in self.agent.heard] == list(case.passes)
        assert (await self.ask(post(GET_TASK))).json["result"]["id"] == "a"
        self.clean()

    def clean(self) -> None:
        """Check that nobody was asked who may not be, and the agent for nothing ambiguous."""
        assert self.trap.caught == 0
        assert self.agent.faults == []
        assert not any("smuggled" in heard.line for heard in self.agent.heard)


class Answer:
    """What a raw socket got: one response and no more."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _blank, body = raw.partition(b"\r\n\r\n")
        if head.endswith(b" 100 Continue"):
            head, _blank, body = body.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.lower(): value.strip() for name, _colon, value in pairs}
        self.body = body
        if "content-length" in self.headers:
            assert len(body) == int(self.headers["content-length"]), raw

    @property
    def json(self) -> Any:
        """Its body; of an event stream that of its one event."""
        body = self.body
        if self.headers["content-type"].startswith("text/event-stream"):
            body = body.removeprefix(b"data: ")
        return json.loads(body)

    @property
    def code(self) -> int | str | None:
        """The error's code, where it says one in one of the forms there are."""
        said = self.json
        error = said.get("error", said)
        return error.get("code") if isinstance(error, dict) else None


@asynccontextmanager
async def opened(backend: Backend, agent: RecordingAgent, **changes: object) -> AsyncIterator[Door]:
    """Run a broker in this process before an agent."""
    async with (
        Trap() as trap,
        agent,
        broker(backend, agent__url=agent.url, **LIMITS | changes) as running,
    ):
        yield Door(running, agent, trap)


@pytest.fixture(autouse=True)
def unharmed(caplog: pytest.LogCaptureFixture) -> Any:
    """Check that no line with a stack trace is logged, nor any error."""
    with structlog.testing.capture_logs() as lines, caplog.at_level(logging.INFO):
        yield
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
    assert [line for line in lines if line["log_level"] in ("error", "critical") or "exc_info" in line] == []


@pytest.fixture
async def door(fake: FakeBackend) -> AsyncIterator[Door]:
    await fake.publish(task_record(), done())
    async with opened(fake, RecordingAgent()) as made:
        yield made


# --- all of them


@pytest.mark.parametrize("name", CASES)
async def test_a_hostile_request_gets_a_clear_answer(door: Door, name: str) -> None:
    await door.check(CASES[name])


async def test_a_broker_of_its_own_withstands_them_one_after_the_other(
    real: RealBackend, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with Trap() as trap, RecordingAgent() as agent:
        async with child_broker(real, log, agent__url=agent.url, **LIMITS) as child:
            door = Door(child, agent, trap)
            for case in CASES.values():
                await door.check(case)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line for line in lines if line["level"] not in ("debug", "info") or "exception" in line] == []


# --- what reaches the agent


async def test_the_agent_gets_the_clients_headers_and_none_of_the_hops(door: Door) -> None:
    answer = await door.ask(
        request(
            "POST",
            "/",
            "A2A-Version: 1.0",
            "Connection: authorization, X-Forwarded-For , a2a-version,,",
            "Connection: x-hop, close",
            "Authorization: Bearer t",
            "X-Forwarded-For: 192.0.2.1",
            "X-Forwarded-Host: {trap}",
            "X-Hop: 1",
            "X-End: 2",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic x",
            "TE: trailers",
            "Trailer: X-Sum",
            "Sidecast-Principal: root",
            "Sidecast_Principal: root",
            "SIDECAST-Owner: root",
            "Last-Event-ID: epoch1-1",
            "Cookie: a=b",
            "Expect: 100-continue",
            body=GET_TASK.encode(),
            host=door.trap.authority,
        )
    )
    assert answer.status == 200
    (heard,) = door.agent.heard
    assert heard.body == GET_TASK.encode()
    assert sorted(heard.headers) == sorted(
        [
            ("host", door.agent.authority),
            ("a2a-version", "1.0"),
            ("x-forwarded-host", door.trap.authority),
            ("x-end", "2"),
            ("last-event-id", "epoch1-1"),
            ("cookie", "a=b"),
            ("content-length", str(len(GET_TASK))),
        ]
    )
    door.clean()


async def test_a_send_reaches_the_agent_without_what_the_client_says_of_itself(door: Door) -> None:
    lines = (
        "Connection: a2a-version, x-hop",
        "X-Hop: 1",
        "Last-Event-ID:",
        "Sidecast-Principal: root",
        "Transfer-Encoding: chunked",
        "Accept-Encoding: gzip",
    )
    body = rpc("SendStreamingMessage", message()).encode()
    head = request("POST", "/", "A2A-Version: 1.0", *lines)
    answer = await door.ask(head + b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\nHost: y\r\n\r\n" % (len(body), body))
    assert answer.json["result"]["message"]["messageId"] == "m-a"
    (heard,) = door.agent.heard
    assert sorted(heard.headers) == sorted(
        [
            ("host", door.agent.authority),
            ("a2a-version", "1.0"),
            ("content-type", "application/json"),
            ("accept", "text/event-stream, application/json"),
            ("accept-encoding", "identity"),
            ("content-length", str(len(heard.body))),
        ]
    )
    door.clean()


@pytest.mark.parametrize(
    ("raw", "version"),
    [
        (post(GET_TASK, target="/?A2A-Version=1.0", version=""), ["1.0"]),
        (get("/tasks/a?A2A-Version=1.0", version=""), ["1.0"]),
        (post(GET_TASK, "A2A-Version: 1.0"), ["1.0"]),
        (post(GET_TASK, "A2A-Version: 1.0", target="/?A2A-Version=0.3"), ["1.0"]),
        (post(GET_TASK, version="1.0.5"), ["1.0"]),
    ],
)
async def test_the_agent_reads_the_version_the_broker_has_read(
    door: Door, raw: bytes, version: list[str]
) -> None:
    assert (await door.ask(raw)).status == 200
    assert [heard.values("a2a-version") for heard in door.agent.heard] == [version]


async def test_an_agent_of_the_older_version_hears_of_no_other(fake: FakeBackend) -> None:
    async with opened(fake, RecordingAgent(version="0.3")) as door:
        assert (await door.ask(post(rpc("tasks/get"), version=""))).status == 200
        assert (await door.ask(post(rpc("tasks/get"), version="0.3"))).status == 200
        assert (await door.ask(post(GET_TASK))).status == 200
        assert [heard.values("a2a-version") for heard in door.agent.heard] == [[], ["0.3"], ["0.3"]]


async def test_what_can_not_be_said_in_the_agents_version_is_an_error(fake: FakeBackend) -> None:
    async with opened(fake, RecordingAgent(version="0.3")) as door:
        for method in ("SendMessage", "SendStreamingMessage"):
            answer = await door.ask(post(rpc(method, message(parts={"text": "x"}))))
            assert (answer.status, answer.code) == (200, -32602)
        assert door.agent.heard == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_body_without_a_meaning_reaches_nobody(door: Door, method: str) -> None:
    target = "/tasks/a/pushNotificationConfigs/c"
    body = b'{"taskId":"b"}' + SMUGGLED
    answer = await door.ask(request(method, target, "A2A-Version: 1.0", body=body))
    assert answer.status == 200
    (heard,) = door.agent.heard
    assert (heard.line, heard.body) == (f"{method} {target}", b"")
    door.clean()


async def test_a_tenant_in_the_query_is_the_tenant(door: Door) -> None:
    task = "/tasks/" + "task-1:subscribe"
    assert (await door.ask(get(task))).code == 400  # it has ended
    assert (await door.ask(get(task + "?tenant=t"))).code == 404


async def test_a_packed_body_is_read_and_passed_on_unpacked(door: Door) -> None:
    for encoding, packed in (
        ("gzip", gzip.compress(GET_TASK.encode())),
        ("Deflate", zlib.compress(GET_TASK.encode())),
        ("identity", GET_TASK.encode()),
    ):
        assert (await door.ask(post(packed, f"Content-Encoding: {encoding}"))).status == 200
        heard = door.agent.heard.pop()
        assert (heard.body, heard.values("content-encoding")) == (GET_TASK.encode(), [])
        assert heard.values("content-length") == [str(len(GET_TASK))]


async def test_what_is_passed_on_unread_stays_packed(door: Door) -> None:
    assert (await door.ask(post(BOMB, "Content-Encoding: gzip", target="/docs/x"))).status == 200
    (heard,) = door.agent.heard
    assert (heard.body, heard.values("content-encoding")) == (BOMB, ["gzip"])
    door.clean()


async def test_chunks_are_framed_anew(door: Door) -> None:
    pieces = (b"0\r\n\r\n", SMUGGLED, b"\r\n" * 50)
    assert (await door.ask(chunked(*pieces, target="/docs/x"))).status == 200
    (heard,) = door.agent.heard
    assert heard.body == b"".join(pieces)
    door.clean()


# --- what an agent, or a card, leads to


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
@pytest.mark.parametrize("location", ["http://{trap}/", "//{trap}/", "/docs/smuggled"])
async def test_no_redirect_leads_away(door: Door, status: str, location: str) -> None:
    said = Said(b"{}", status, ("Location: " + location.replace("{trap}", door.trap.authority),))
    door.agent.answer = lambda _heard: said
    code = int(status.split()[0])
    assert (await door.ask(post(GET_TASK))).status == code
    assert (await door.ask(get("/tasks/a"))).status == code
    assert (await door.ask(get("/docs/x"))).status == code
    assert (await door.ask(post(rpc("SendStreamingMessage", message())))).code == -32006
    assert len(door.agent.heard) == 4
    door.clean()


async def test_a_card_leads_nowhere_else(fake: FakeBackend) -> None:
    async with Trap() as elsewhere:
        agent = RecordingAgent(elsewhere=f"http://user:pass@{elsewhere.authority}/api")
        async with opened(fake, agent) as door:
            assert (await door.ask(post(GET_TASK))).status == 200
            assert (await door.ask(get("/tasks/a"))).status == 200
            assert (await door.ask(post(rpc("SendStreamingMessage", message())))).status == 200
            assert [heard.line for heard in agent.heard] == ["POST /api", "GET /api/tasks/a", "POST /api"]
            assert (
                elsewhere.authority not in (await door.ask(get("/.well-known/agent-card.json"))).raw.decode()
            )
            assert elsewhere.caught == 0
            door.clean()


async def test_an_address_in_a_body_is_nobodys_to_visit(door: Door) -> None:
    url = "http://{trap}/hook"
    config = f'{{"taskId":"a","url":"{url}","authentication":{{"scheme":"Bearer"}}}}'
    part = f'{{"url":"{url}","mediaType":"text/html"}}'
    bodies = [
        post(rpc("CreateTaskPushNotificationConfig", config)),
        post(config, target="/tasks/a/pushNotificationConfigs"),
        post(rpc("SendMessage", f'{{"message":{{"messageId":"m","parts":[{part}]}}}}')),
        post(rpc("SendStreamingMessage", f'{{"message":{{"messageId":"m","parts":[{part}]}}}}')),
    ]
    for raw in bodies:
        # The address is longer than its placeholder.
        body = door.write(raw.partition(b"\r\n\r\n")[2])
        target = raw.split()[1].decode()
        assert (await door.ask(post(body, target=target))).status == 200
        assert door.trap.authority.encode() in door.agent.heard[-1].body
    assert len(door.agent.heard) == len(bodies)
    door.clean()


@pytest.mark.parametrize(
    "said",
    [
        Said(b"{}", "200 \udcff\udcfe"),
        Said(b"\xff", "200 OK"),
        Said(b"[" * 5000, "200 OK"),
        Said(b'{"jsonrpc":"2.0","id":1,"result":7}'),
        Said(b'{"jsonrpc":"2.0","id":1,"error":{"code":1e300,"message":7}}'),
        Said(b"data: [\n\n", headers=("Content-Type: text/event-stream",)),
        Said(b"data: " + b"[" * 5000 + b"\n\n", headers=("Content-Type: text/event-stream",)),
    ],
    ids=range(7),
)
async def test_nothing_an_agent_says_is_a_fault_of_the_broker(door: Door, said: Said) -> None:
    door.agent.answer = lambda _heard: said
    assert (await door.ask(post(GET_TASK))).status == 200
    answer = await door.ask(post(rpc("GetExtendedAgentCard", "{}")))
    assert answer.status == 200
    answer = await door.ask(post(rpc("SendStreamingMessage", message())))
    assert (answer.status, answer.code) == (200, -32006)


async def test_an_extended_card_that_is_none_is_the_agents_fault(door: Door) -> None:
    door.agent.answer = lambda _heard: Said(b'{"jsonrpc":"2.0","id":1,"result":{"skills":7}}')
    assert (await door.ask(post(rpc("GetExtendedAgentCard", "{}")))).code == -32006
    door.agent.answer = lambda _heard: Said(b'{"skills":7}')
    assert (await door.ask(get("/extendedAgentCard"))).status == 500


# --- slow, cut off, and one behind the other


class Slow:
    """A client that sends its bytes one by one, and hears when it is cut off."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)

    async def send(self, at_once: bytes, one_by_one: bytes) -> bytes:
        """Send until the other side answers; give all it says, which must take the time allowed."""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        loop = asyncio.get_running_loop()
        reading = loop.create_task(reader.read())
        began = loop.time()
        try:
            writer.write(at_once)
            for byte in one_by_one:
                writer.write(bytes([byte]))
                done, _ = await asyncio.wait({reading}, timeout=SLOW_S / 10)
                if done:
                    break
            async with asyncio.timeout(TIMEOUT_S):
                return await reading
        finally:
            assert loop.time() - began >= SLOW_S
            writer.close()


@pytest.fixture
async def impatient(fake: FakeBackend) -> AsyncIterator[Door]:
    async with opened(
        fake, RecordingAgent(), server__header_s=SLOW_S, server__body_s=SLOW_S, agent__timeout_s=SLOW_S
    ) as made:
        yield made


@pytest.mark.parametrize("before", [b"", post(GET_TASK).replace(b"Connection: close\r\n", b"")])
async def test_a_slow_head_is_cut_off(impatient: Door, before: bytes) -> None:
    raw = await Slow(impatient.running.url).send(before + b"GET / HTTP/1.1\r\n", b"X-A: " + b"b" * 200)
    answer = Answer(raw[raw.rindex(b"HTTP/1.1") :])
    assert (answer.status, answer.code) == (408, "request-timeout")
    assert answer.headers["connection"] == "close"
    assert raw.count(b"HTTP/1.1 ") == 1 + bool(before)
    assert await impatient.running.metric("sidecast_rejected_total", reason="request-timeout") == 1
    assert (await impatient.ask(post(GET_TASK))).status == 200


async def test_a_head_in_pieces_is_no_slow_one(impatient: Door) -> None:
    address = urlsplit(impatient.running.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    whole = post(GET_TASK).replace(b"Connection: close\r\n", b"")
    for _ in range(4):  # longer than one head may take, on one connection
        for piece in (whole[:9], whole[9:60], whole[60:]):
            writer.write(piece)
            await asyncio.sleep(SLOW_S / 10)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        await asyncio.sleep(SLOW_S / 10)
    writer.close()


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (framed("Content-Length: 4000"), 408, -32000),
        (framed("Transfer-Encoding: chunked", body=b"fff\r\n"), 408, -32000),
        (framed("Content-Length: 4000", target="/message:stream"), 408, 408),
        (framed("Content-Length: 4000", target="/docs/x"), 503, "unavailable"),
    ],
)
async def test_a_slow_body_is_cut_off(impatient: Door, head: bytes, status: int, code: int | str) -> None:
    answer = Answer(await Slow(impatient.running.url).send(head.removesuffix(SMUGGLED), b"x" * 200))
    assert (answer.status, answer.code) == (status, code)
    assert not [heard for heard in impatient.agent.heard if "docs" not in heard.line]
    assert (await impatient.ask(post(GET_TASK))).status == 200


@pytest.mark.parametrize("target", ["/", "/message:send", "/docs/x", "/.well-known/agent-card.json"])
@pytest.mark.parametrize("chunks", [False, True])
async def test_a_body_that_breaks_off_is_no_body(door: Door, target: str, chunks: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(GET_TASK) + 9}"
    begun = b"%x\r\n%b\r\n" % (len(GET_TASK), GET_TASK.encode()) if chunks else GET_TASK.encode()
    address = urlsplit(door.running.url)
    for reset in (False, True):
        _reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(framed(framing, target=target).removesuffix(SMUGGLED) + begun)
        await writer.drain()
        if reset:
            writer.transport.abort()
        else:
            writer.close()
    assert (await door.ask(post(GET_TASK))).status == 200
    assert [heard.line for heard in door.agent.heard] == ["POST /"]
    door.clean()


@pytest.mark.parametrize("target", ["/", "/docs/x"])
async def test_a_body_that_turns_out_to_be_none_is_refused(door: Door, target: str) -> None:
    address = urlsplit(door.running.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    async with asyncio.timeout(TIMEOUT_S):
        writer.write(
            framed("Transfer-Encoding: chunked", body=b"2\r\n{}\r\n", target=target).removesuffix(SMUGGLED)
        )
        await asyncio.sleep(0.05)
        writer.write(b"XX\r\n" + SMUGGLED)
        answer = Answer(await reader.read())
        writer.close()
    assert answer.status == (200 if target == "/" else 400)
    assert answer.code in (-32600, "bad-request")
    assert (await door.ask(post(GET_TASK))).status == 200
    assert [heard.line for heard in door.agent.heard if heard.line == f"POST {target}"][1:] == []
    door.clean()


async def test_pipelined_requests_are_answered_in_their_order(door: Door) -> None:
    ids = [str(number) for number in range(40)]
    kept = [post(rpc(rpc_id=each)).replace(b"Connection: close\r\n", b"") for each in ids[:-1]]
    hostile = get("/tasks//a").replace(b"Connection: close\r\n", b"")
    raw = await exchange(door.running.url, b"".join([*kept, hostile, post(rpc(rpc_id=ids[-1]))]))
    bodies = [part.partition(b"\r\n\r\n")[2] for part in raw.split(b"HTTP/1.1 ")[1:]]
    answered = [json.loads(body) for body in bodies]
    refused = answered.pop(-2)
    assert refused["error"]["status"] == "INVALID_ARGUMENT"
    assert [str(answer["id"]) for answer in answered] == ids
    assert len(door.agent.heard) == 40
    door.clean()


async def test_what_follows_a_broken_request_is_not_read(door: Door) -> None:
    first = post(GET_TASK).replace(b"Connection: close\r\n", b"")
    answer = Answer(await exchange(door.running.url, framed("X A: b") + first))
    assert (answer.status, answer.code) == (400, "bad-request")
    assert door.agent.heard == []
    door.clean()
