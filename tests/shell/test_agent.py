from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from brokers import until
from nats_server import free_ports
from sse import exchange
from yarl import URL

from sidecast_broker import agent as module
from sidecast_broker import agent_answers
from sidecast_broker.agent import Agent
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.core.a2a.card import Interface
from sidecast_broker.listener import Listener
from sidecast_broker.metrics import Metrics
from sidecast_broker.settings import Agent as AgentSettings
from sidecast_broker.settings import Settings

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

TIMEOUT_S = 10.0


class Upstream:
    """An agent on loopback that remembers what it was asked, and answers as a test says."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.cancelled = 0
        self.url = ""
        self.answer: Handler = self.echo

    async def echo(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"target": request.raw_path})

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        try:
            self.bodies.append(await request.content.read())
            return await self.answer(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[Upstream]:
        server = web.Server(self.handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


class Everywhere:
    """A router that passes every request on, and counts the clients that left before its end."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.options: dict[str, Any] = {}
        self.read = False
        self.left = 0

    def find(self, _method: str, _target: str) -> Handler:
        return self.pass_on

    async def pass_on(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read() if self.read else None
        try:
            response = await self.agent.pass_on(request, body, **self.options)
        except AgentAway as away:
            return web.json_response({"away": away.reason}, status=599)
        except asyncio.CancelledError:
            self.left += 1
            raise
        self.left += request.transport is None or request.transport.is_closing()
        return response


class Front:
    """A listener, behind it the broker's client, behind that an agent."""

    def __init__(self, upstream: Upstream, agent: Agent, router: Everywhere, url: str) -> None:
        self.upstream = upstream
        self.agent = agent
        self.router = router
        self.url = url
        self.session = aiohttp.ClientSession(auto_decompress=False)

    async def get(self, target: str = "/", **options: Any) -> tuple[int, bytes]:
        return await self.ask("GET", target, **options)

    async def ask(self, method: str, target: str = "/", **options: Any) -> tuple[int, bytes]:
        url = URL(self.url + target, encoded=True)
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            return response.status, await response.read()

    async def raw(self, target: str, *headers: str, method: str = "GET") -> tuple[int, bytes]:
        """Send a request no client library would."""
        head = f"{method} {target} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n"
        request = head.encode() + b"".join(h.encode("latin-1") + b"\r\n" for h in headers) + b"\r\n"
        answer = await exchange(self.url, request)
        return int(answer.split()[1]), answer


@asynccontextmanager
async def fronting(path: str = "", **settings: Any) -> AsyncIterator[Front]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream().serving())
        agent = Agent(AgentSettings(url=upstream.url + path, **settings))
        agent.start()
        router = Everywhere(agent)
        listener = Listener(router, Settings(), Metrics())  # type: ignore[arg-type]
        front = Front(upstream, agent, router, await listener.open("127.0.0.1", 0))
        stack.push_async_callback(agent.close)
        stack.push_async_callback(listener.close)
        stack.push_async_callback(front.session.close)
        yield front


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    async with fronting() as made:
        yield made


# --- passing on: the request


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/tasks/a%2Fb%7e~;x=1:cancel?a=%20&&b=c+d&e=%zz&f=/../",
        "/acme/tasks/%E2%82%AC",
        "/tasks/{id}?a=[1]|2",
        "/tasks?x=http://h/",
    ],
)
async def test_the_target_arrives_as_it_was_sent(front: Front, target: str) -> None:
    status, _ = await front.raw(target)
    assert status == 200
    assert [request.raw_path for request in front.upstream.requests] == [target]


async def test_the_target_is_appended_to_the_path_of_the_agent() -> None:
    async with fronting("/base/agent/") as front:
        await front.get("/tasks/1?a=b")
        front.router.options = {"target": "/tasks/2"}
        await front.get("/agents/x/tasks/2")
        paths = [request.raw_path for request in front.upstream.requests]
        assert paths == ["/base/agent/tasks/1?a=b", "/base/agent/tasks/2"]


@pytest.mark.parametrize(
    "target",
    [
        "http://elsewhere.example/tasks",
        "//elsewhere.example/tasks",
        "/tasks//1",
        "/tasks/../admin",
        "/tasks/%2e%2e/admin",
        "/tasks/..%2Fadmin",
        "/tasks/%252e%252e/admin",
        "/tasks/..;/admin",
        "/tasks/a\\..\\b",
        "/tasks/\xc3\xa4",
        "/tasks/%",
    ],
)
async def test_an_unsafe_target_never_reaches_the_agent(front: Front, target: str) -> None:
    status, _ = await front.raw(target)
    assert status == 400
    assert front.upstream.requests == []


async def test_a_target_given_instead_is_checked_too(front: Front) -> None:
    front.router.options = {"target": "/x/../y"}
    assert (await front.get("/"))[0] == 400
    assert front.upstream.requests == []


async def test_an_upgrade_is_refused(front: Front) -> None:
    status, _ = await front.raw("/", "Upgrade: websocket")
    assert status == 400
    assert front.upstream.requests == []


async def test_headers_to_the_agent(front: Front) -> None:
    front.router.options = {"principal": "alice@example.com"}
    sent = {
        "A2A-Version": "1.0",
        "A2A-Extensions": "urn:a",
        "X-A2A-Extensions": "urn:b",
        "Authorization": "Bearer t",
        "traceparent": "00-1-2-01",
        "Accept-Encoding": "br",
        "X-Hop": "secret",
        "Connection": "keep-alive, X-Hop",
        "Sidecast-Principal": "root",
        "Sidecast_Principal": "root",
        "TE": "trailers",
        "User-Agent": "test",
        "Accept": "x/y",
    }
    await front.get("/", headers=sent)
    got = front.upstream.requests[0].headers
    kept = sent.keys() - {"X-Hop", "Connection", "Sidecast-Principal", "Sidecast_Principal", "TE"}
    assert {name: got[name] for name in kept} == {name: sent[name] for name in kept}
    assert got.keys() - kept == {"Host", "Sidecast-Principal"}
    assert got["Host"] == URL(front.upstream.url).authority
    assert got.getall("Sidecast-Principal") == ["=YWxpY2VAZXhhbXBsZS5jb20"]


async def test_without_a_principal_the_header_is_absent(front: Front) -> None:
    await front.get("/", headers={"Sidecast-Principal": "root"})
    assert "Sidecast-Principal" not in front.upstream.requests[0].headers


async def test_a_header_that_can_not_be_passed_on_is_refused(front: Front) -> None:
    status, answer = await front.raw("/", "X-Name: \xff\xfe")
    assert status == 400
    assert b"X-Name" in answer
    assert front.upstream.requests == []


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("body", [b"", b'{"a": 1.50,  "a": 2}\xff\x00', b"x" * 3_000_000])
async def test_the_body_arrives_to_the_byte(front: Front, body: bytes, read: bool) -> None:
    front.router.read = read
    headers = {"Content-Type": "application/json"}
    status, _ = await front.ask("POST", "/", data=io.BytesIO(body), headers=headers)
    assert status == 200
    assert front.upstream.bodies == [body]
    got = front.upstream.requests[0].headers
    assert got["Content-Type"] == "application/json"
    assert got.get("Content-Length") == str(len(body))
    assert "Transfer-Encoding" not in got


async def test_a_chunked_body_stays_chunked(front: Front) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    await front.ask("PUT", "/", data=pieces())
    assert front.upstream.bodies == [b"onetwo"]
    assert front.upstream.requests[0].method == "PUT"


# --- passing on: the answer


async def test_the_answer_comes_back_to_the_byte(front: Front) -> None:
    body = gzip.compress(b'{"result": 1}')
    headers = [
        ("Content-Type", "application/a2a+json; x=y"),
        ("Content-Encoding", "gzip"),
        ("A2A-Extensions", "urn:a"),
        ("Set-Cookie", "a=b"),
        ("Set-Cookie", "c=d"),
        ("ETag", '"t"'),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Sidecast-Principal", "x"),
        ("Server", "theirs"),
    ]

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, status=418, reason="Tea", headers=headers)

    front.upstream.answer = answer
    async with front.session.get(front.url) as response:
        assert (response.status, response.reason) == (418, "Tea")
        assert await response.read() == body
        got = response.headers
    assert got.getall("Set-Cookie") == ["a=b", "c=d"]
    assert got["Content-Length"] == str(len(body))
    assert {name: got[name] for name, _ in headers[:3]} == dict(headers[:3])
    assert (got["ETag"], got["Server"]) == ('"t"', "theirs")
    assert not {"X-Hop", "Sidecast-Principal"} & got.keys()


@pytest.mark.parametrize("status", [201, 204, 304, 401, 404, 500, 503])
async def test_a_status_comes_back_as_it_is(front: Front, status: int) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={"WWW-Authenticate": "Bearer"})

    front.upstream.answer = answer
    async with front.session.post(front.url, data=b"{}") as response:
        assert (response.status, await response.read()) == (status, b"")
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_no_redirect_is_followed(front: Front) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    front.upstream.answer = answer
    assert (await front.ask("POST", "/", data=b"{}"))[0] == 307
    assert len(front.upstream.requests) == 1


async def test_head_has_the_length_and_no_body(front: Front) -> None:
    async with front.session.head(front.url) as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert await response.read() == b""
    assert front.upstream.requests[0].method == "HEAD"


async def test_cookies_are_nobodys_but_the_clients(front: Front) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"Set-Cookie": "session=alice; Path=/"})

    front.upstream.answer = answer
    await front.get("/")
    async with aiohttp.ClientSession() as other:
        await (await other.get(front.url)).read()
    assert "Cookie" not in front.upstream.requests[1].headers


async def test_a_header_of_the_agent_that_is_no_utf8_is_left_out(front: Front) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nX-A: \xff\r\nX-B: b\r\nContent-Length: 2\r\n\r\nok")
        await asyncio.Event().wait()
        raise AssertionError

    front.upstream.answer = answer
    async with front.session.get(front.url) as response:
        assert await response.read() == b"ok"
        assert "X-A" not in response.headers
        assert response.headers["X-B"] == "b"


async def test_a_stream_comes_as_the_agent_writes_it(front: Front) -> None:
    go_on = asyncio.Event()
    pieces = [b": ping\r\n\r\n", b"data: {\r\ndata: }\r\n\r\n", b"id: 1\rdata: x\r\r"]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await go_on.wait()
            go_on.clear()
        return response

    front.upstream.answer = answer
    async with asyncio.timeout(TIMEOUT_S), front.session.post(front.url, data=b"{}") as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        for piece in pieces:
            assert await response.content.readexactly(len(piece)) == piece
            go_on.set()
        assert await response.read() == b""


async def test_an_agent_is_read_no_faster_than_the_client_reads(front: Front) -> None:
    written = 0
    piece = b"x" * 65536

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1600):  # 100 MiB
            await response.write(piece)
            written += len(piece)
        return response

    front.upstream.answer = answer
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(front.url).port, limit=65536)
    writer.write(b"GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    seen = -1
    async with asyncio.timeout(TIMEOUT_S):
        while seen != written:  # until all buffers on the way are full
            seen = written
            await asyncio.sleep(0.2)
    assert 0 < written < 40 * 2**20
    writer.transport.abort()


# --- passing on: the agent fails, the client leaves


async def test_an_agent_that_is_not_there() -> None:
    (port,) = free_ports(1)
    agent = Agent(AgentSettings(url=f"http://127.0.0.1:{port}"))
    agent.start()
    try:
        with pytest.raises(AgentAway) as away:
            await agent.call(b"{}")
        assert away.value.reason == "unreachable"
        with pytest.raises(AgentAway) as away:
            async with agent.stream(b"{}"):
                raise AssertionError
        assert away.value.reason == "unreachable"
    finally:
        await agent.close()


async def test_where_an_agent_is_that_is_not_there_is_for_the_log() -> None:
    (port,) = free_ports(1)
    agent = Agent(AgentSettings(url=f"http://127.0.0.1:{port}"))
    agent.start()
    try:
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(AgentAway) as away:
                    await agent.call(b"{}")
        assert str(away.value) == "the agent can't be reached"
        logs = [line for line in logs if line["log_level"] == "warning"]
        assert [(line["event"], line["reason"]) for line in logs] == [("agent_away", "unreachable")]
        assert str(port) in logs[0]["detail"]
    finally:
        await agent.close()


async def test_no_agent() -> None:
    agent = Agent(AgentSettings())
    agent.start()
    assert not agent.configured
    with pytest.raises(AgentAway) as away:
        await agent.call(b"{}")
    assert away.value.reason == "none"
    await agent.close()


async def never(_request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def raw_answer(data: bytes) -> Handler:
    """Answer with bytes, then cut the connection."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        transport.write(data)
        transport.close()
        return await never(request)

    return answer


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_agent_that_never_answers(method: str) -> None:
    async with fronting(timeout_s=0.2) as front:
        front.upstream.answer = never
        assert await front.ask(method) == (599, b'{"away": "timeout"}')
        await until(lambda: front.upstream.cancelled == 1)


@pytest.mark.parametrize("data", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000])
async def test_an_agent_that_speaks_no_http(front: Front, data: bytes) -> None:
    front.upstream.answer = raw_answer(data)
    assert await front.ask("POST", "/", data=b"{}") == (599, b'{"away": "broken"}')
    with pytest.raises(AgentAway, match="can't be read"):
        await front.agent.call(b"{}")


CUT = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
]


@pytest.mark.parametrize("data", CUT)
async def test_half_an_answer_is_never_passed_off_as_a_whole_one(front: Front, data: bytes) -> None:
    front.upstream.answer = raw_answer(data)
    with pytest.raises(aiohttp.ClientError):
        await front.get()
    with pytest.raises(aiohttp.ClientError):
        await front.ask("POST", "/", data=b"{}")
    with pytest.raises(AgentAway) as away:
        await front.agent.call(b"{}")
    assert away.value.reason == "broken"


async def test_an_agent_that_falls_silent_in_its_answer() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        return await never(request)

    async with fronting(timeout_s=0.2) as front:
        front.upstream.answer = answer
        with pytest.raises(aiohttp.ClientError):
            await front.get()
        with pytest.raises(AgentAway) as away:
            await front.agent.call(b"{}")
        assert away.value.reason == "timeout"


async def test_a_body_that_the_agent_does_not_take_is_not_late() -> None:
    async with fronting(timeout_s=3) as front:
        front.upstream.answer = never
        assert await front.ask("POST", "/", data=io.BytesIO(bytes(64 << 20))) == (599, b'{"away": "timeout"}')


async def test_a_body_that_trickles_is_late_also_while_a_piece_of_it_is_on_its_way() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0)

    async with fronting(timeout_s=0.5) as front:
        front.upstream.answer = never
        code, body = await front.ask("POST", "/", data=trickle())
        assert (code, json.loads(body)["error"]["code"]) == (408, "request-timeout")


class Slow:
    """A turn of the agent that ends when the test says."""

    def __init__(self, *, streams: bool) -> None:
        self.streams = streams
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = False

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if self.streams:
            await response.prepare(request)
            await response.write(b"data: 1\n\n")
        self.began.set()
        await self.go_on.wait()
        if not self.streams:
            response = web.json_response({})
            await response.prepare(request)
        else:
            await response.write(b"data: 2\n\n")
        await response.write_eof()
        self.ended = True
        return response


@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_leaves_cancels_nothing(
    front: Front, streams: bool, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow(streams=streams)
    front.upstream.answer = slow.answer
    _, writer = await asyncio.open_connection("127.0.0.1", URL(front.url).port)
    writer.write(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}")
    async with asyncio.timeout(TIMEOUT_S):
        await slow.began.wait()
    writer.transport.abort()
    await until(lambda: front.router.left)
    slow.go_on.set()
    await until(lambda: slow.ended)
    await until(lambda: not front.agent._running)
    assert front.upstream.cancelled == 0
    assert not caplog.records  # a client that leaves is not an error


async def test_a_client_that_leaves_a_get_ends_it(front: Front) -> None:
    slow = Slow(streams=True)
    front.upstream.answer = slow.answer
    _, writer = await asyncio.open_connection("127.0.0.1", URL(front.url).port)
    writer.write(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
    async with asyncio.timeout(TIMEOUT_S):
        await slow.began.wait()
    writer.transport.abort()
    await until(lambda: front.upstream.cancelled == 1)


async def test_closing_ends_what_clients_left_behind() -> None:
    async with fronting() as front:
        front.upstream.answer = never
        calling = asyncio.ensure_future(front.agent.call(b"{}"))
        await until(lambda: front.upstream.requests)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert len(front.agent._running) == 1
        assert front.upstream.cancelled == 0
        await front.agent.close()
        await until(lambda: front.upstream.cancelled == 1)


# --- the broker's own requests


async def test_a_call(front: Front) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b'{"a": 1.50}', status=404, headers={"X-A": "a", "Keep-Alive": "x"})

    front.upstream.answer = answer
    headers = [("a2a-version", "0.3"), ("Content-Type", "text/x"), ("Content-Length", "9"), ("Accept", "x/y")]
    reply = await front.agent.call(b"{}", target="/rpc?x=1", headers=headers, principal="alice")
    assert (reply.status, reply.body, reply.headers["X-A"]) == (404, b'{"a": 1.50}', "a")
    assert "Keep-Alive" not in reply.headers
    (got,) = front.upstream.requests
    assert (got.method, got.raw_path) == ("POST", "/rpc?x=1")
    assert front.upstream.bodies == [b"{}"]
    assert got.headers["A2A-Version"] == "0.3"
    assert got.headers.getall("Content-Type") == ["application/json"]
    assert got.headers.getall("Content-Length") == ["2"]
    assert got.headers.getall("Accept") == ["application/json"]
    assert got.headers["Accept-Encoding"] == "identity"
    assert got.headers["Sidecast-Principal"] == "alice"


async def test_a_call_without_a_body(front: Front) -> None:
    reply = await front.agent.call(None, target="/tasks/1", method="GET", headers={"A2A-Version": "1.0"})
    assert json.loads(reply.body) == {"target": "/tasks/1"}
    assert "Content-Type" not in front.upstream.requests[0].headers


async def test_answers_are_bounded(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"x" * 1001)

    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1000)
    front.upstream.answer = answer
    with pytest.raises(AgentAway, match="longer than 1000"):
        await front.agent.call(b"{}")
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1001)
    assert len((await front.agent.call(b"{}")).body) == 1001


async def test_an_answer_compressed_unasked_is_not_guessed_at(front: Front) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})

    front.upstream.answer = answer
    with pytest.raises(AgentAway, match="gzip"):
        await front.agent.call(b"{}")


def streaming(*pieces: bytes, content_type: str = "text/event-stream; charset=utf-8") -> Handler:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    return answer


async def test_a_stream(front: Front) -> None:
    front.upstream.answer = streaming(
        b"\xef\xbb\xbf: ping\r\n\r\nid: 7\r\ndata: {\r\nda",
        b"ta: }\r",
        b"\n\r\n",
        b"event: error\ndata: x\n\ndata: lost",
    )
    async with front.agent.stream(b"{}", target="/rpc", principal="alice") as answer:
        assert (answer.status, answer.body) == (200, None)
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = [tuple(received) async for received in answer]
    assert events == [("message", b"{\n}", "7"), ("error", b"x", "7")]
    (got,) = front.upstream.requests
    assert got.headers["Accept"] == "text/event-stream, application/json"
    assert got.headers["Sidecast-Principal"] == "alice"


@pytest.mark.parametrize(("status", "content_type"), [(200, "application/json"), (404, "text/event-stream")])
async def test_what_is_no_stream_is_a_body(front: Front, status: int, content_type: str) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=b'{"error": 1}', headers={"Content-Type": content_type})

    front.upstream.answer = answer
    async with front.agent.stream(b"{}") as answered:
        assert (answered.status, answered.body) == (status, b'{"error": 1}')
        assert [received async for received in answered] == []


async def test_a_stream_that_is_cut_off_says_so_after_its_events(front: Front) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    front.upstream.answer = raw_answer(head + b"9\r\ndata: 1\n\n\r\n")
    events = []
    with pytest.raises(AgentAway, match="cut off") as away:  # noqa: PT012
        async with front.agent.stream(b"{}") as answer:
            async for received in answer:
                events.append(received.data)  # noqa: PERF401
    assert away.value.reason == "broken"
    assert events == [b"1"]


async def test_an_event_that_is_too_large_ends_the_stream(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_answers, "EVENT_BYTES_MAX", 1000)
    front.upstream.answer = streaming(b"data: 1\n\n", b"data: " + b"x" * 2000)
    events = []
    with pytest.raises(AgentAway, match="1000 bytes"):  # noqa: PT012
        async with front.agent.stream(b"{}") as answer:
            async for received in answer:
                events.append(received.data)  # noqa: PERF401
    assert events == [b"1"]


async def test_a_stream_may_be_silent_for_longer_than_an_answer() -> None:
    go_on = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.wait_for(go_on.wait(), TIMEOUT_S)
        await response.write(b"data: 1\n\n")
        return response

    async with fronting(timeout_s=0.1) as front:
        front.upstream.answer = answer
        asyncio.get_running_loop().call_later(0.4, go_on.set)
        async with front.agent.stream(b"{}") as answered:
            assert [received.data async for received in answered] == [b"1"]


async def test_leaving_a_stream_closes_it(front: Front) -> None:
    slow = Slow(streams=True)
    front.upstream.answer = slow.answer
    async with front.agent.stream(b"{}") as answer:
        async for received in answer:
            assert received.data == b"1"
            break
    await until(lambda: front.upstream.cancelled == 1)


async def test_connections_are_used_again(front: Front) -> None:
    for _ in range(3):
        await front.agent.call(b"{}")
        await front.get()
        await front.ask("POST", "/", data=b"{}")
    assert len({request.transport for request in front.upstream.requests}) == 1


# --- targets


@pytest.mark.parametrize(
    ("base", "path", "rest", "expected"),
    [
        ("", "/", "", "/"),
        ("", "/rpc", "", "/rpc"),
        ("", "", "/tasks/1?a=b", "/tasks/1?a=b"),
        ("", "/rest", "/tasks/1", "/rest/tasks/1"),
        ("/base", "/base/rpc", "", "/rpc"),
        ("/base", "/base", "", "/"),
        ("/base", "/rpc", "", "/rpc"),
        ("/base", "/basement", "", "/basement"),
        ("/base/", "/base", "/tasks/1", "/tasks/1"),
    ],
)
def test_where_an_interface_is(base: str, path: str, rest: str, expected: str) -> None:
    agent = Agent(AgentSettings(url="http://127.0.0.1:9000" + base))
    assert agent.target(Interface("jsonrpc", "1.0", path, "", ""), rest) == expected


def test_the_query_of_an_interface_is_kept() -> None:
    agent = Agent(AgentSettings(url="http://127.0.0.1:9000"))
    assert agent.target(Interface("jsonrpc", "1.0", "/rpc", "code=1", "")) == "/rpc?code=1"


def test_what_passes() -> None:
    agent = Agent(AgentSettings(url="http://h", passthrough="/docs, /files/"))
    assert agent.passes("/docs/a?b")
    assert agent.passes("/files")
    assert not agent.passes("/other")
    assert not Agent(AgentSettings(url="http://h")).passes("/docs")
    assert not Agent(AgentSettings(passthrough="/")).passes("/docs")
