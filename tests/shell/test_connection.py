"""What a listener does about clients that are slow, stop in the middle, or send what is no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from brokers import FakeBackend
from door import GET_TASK, SMUGGLED, Answer, Door, framed, get, opened, post, rpc
from recording_agent import RecordingAgent
from sse import TIMEOUT_S, exchange

from sidecast_broker.connection import ClientConnections, Limits
from sidecast_broker.refused import Refused

SLOW_S = 0.3
"""Time that heads and bodies may take in these tests; nothing here waits for longer."""


@pytest.fixture
async def door(fake: FakeBackend, unharmed: None) -> AsyncIterator[Door]:
    async with opened(fake, RecordingAgent()) as made:
        yield made


class Slow:
    """A client that sends its bytes one by one, and hears when it is cut off."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)

    async def send(self, at_once: bytes, one_by_one: bytes) -> bytes:
        """Send until the other side answers; give all it says, which must take the time allowed."""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        loop = asyncio.get_running_loop()
        reading = loop.create_task(_heard(reader))
        began = loop.time()
        try:
            writer.write(at_once)
            for byte in one_by_one:
                writer.write(bytes([byte]))
                # None falls on the moment the time is up: it would look as if the agent were slow.
                done, _ = await asyncio.wait({reading}, timeout=SLOW_S / 6.5)
                if done:
                    break
            async with asyncio.timeout(TIMEOUT_S):
                return await reading
        finally:
            assert loop.time() - began >= SLOW_S
            writer.close()


async def _heard(reader: asyncio.StreamReader) -> bytes:
    """Give all the other side says; who still sends while it closes may be reset after its answer."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(65536):
            said += piece
    return said


@pytest.fixture
async def impatient(fake: FakeBackend, unharmed: None) -> AsyncIterator[Door]:
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
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert raw.count(b"HTTP/1.1 ") == 1 + bool(before)
    assert await impatient.running.metric("sidecast_rejected_total", reason="request-timeout") == 1
    assert (await impatient.ask(post(GET_TASK))).status == 200


KEPT = [each.replace(b"Connection: close\r\n", b"") for each in (get("/tasks/x"), post(GET_TASK))]


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
@pytest.mark.parametrize("kept", [KEPT[0], KEPT[1], KEPT[0] + KEPT[1]], ids=["bare", "with a body", "two"])
async def test_a_head_that_begins_behind_a_request_is_cut_off_too(
    impatient: Door, kept: bytes, begun: bytes
) -> None:
    raw = await Slow(impatient.running.url).send(kept + begun, b"")
    assert raw.count(b"HTTP/1.1 200 ") == kept.count(b" HTTP/1.1\r\n")
    answer = Answer(raw[raw.rindex(b"HTTP/1.1") :])
    assert (answer.status, answer.code) == (408, "request-timeout")


async def test_what_came_while_a_request_was_answered_is_no_head_where_that_has_ended(
    impatient: Door,
) -> None:
    address = urlsplit(impatient.running.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    for _ in range(2):
        # The body comes apart, and behind it the line end that some clients send.
        for piece in (KEPT[1][:-9], KEPT[1][-9:] + b"\r\n"):
            writer.write(piece)
            await asyncio.sleep(SLOW_S / 20)
        async with asyncio.timeout(TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SLOW_S * 1.5):
                await reader.read(1)
    writer.close()


LINE = 2048
FIELDS = 20


@pytest.fixture
async def narrow(fake: FakeBackend, unharmed: None) -> AsyncIterator[Door]:
    async with opened(
        fake,
        RecordingAgent(),
        server__head_line_bytes_max=LINE,
        server__head_fields_max=FIELDS,
        server__head_bytes_max=8192,
    ) as made:
        yield made


LONGEST = "X-A: " + "a" * (LINE - 3)


@pytest.mark.parametrize(
    "raw",
    [
        get("/tasks/" + "x" * LINE),
        get("/tasks/x?" + "x" * LINE),
        get("/tasks/x", LONGEST + "aaaa"),
        get("/tasks/x", "X" * (LINE + 1) + ": a"),
        get("/tasks/x", *(f"X-{n}: a" for n in range(FIELDS))),
        # Without an end, so that its limit as a whole is what cuts it off.
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 1500) for n in range(6)),
        b"GET / HTTP/1.1\r\nX: " + b"a" * 8192,
        b"GET /" + b"a" * 8192,
    ],
    ids=["target", "query", "field", "name", "fields", "all", "open field", "open target"],
)
async def test_a_head_too_large_is_refused_as_such(narrow: Door, raw: bytes) -> None:
    answer = await narrow.ask(raw)
    assert (answer.status, answer.code) == (431, "head-too-large")
    assert await narrow.running.metric("sidecast_rejected_total", reason="head-too-large") == 1
    assert narrow.agent.heard == []
    assert (await narrow.ask(post(GET_TASK))).status == 200


async def test_what_just_fits_is_taken(narrow: Door) -> None:
    for raw in (
        get("/tasks/" + "x" * 200, LONGEST),
        get("/tasks/x", *(f"X-{n}: a" for n in range(FIELDS - 3))),
    ):
        assert (await narrow.ask(raw)).status == 200


async def test_a_large_head_in_pieces_is_as_large_as_at_once(narrow: Door) -> None:
    address = urlsplit(narrow.running.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET / HTTP/1.1\r\n")
    for number in range(8):
        writer.write(b"X-%d: %b\r\n" % (number, b"a" * 1050))
        await writer.drain()
        await asyncio.sleep(0.001)
    async with asyncio.timeout(TIMEOUT_S):
        said = await _heard(reader)
    writer.close()
    assert said.startswith(b"HTTP/1.1 431 ")


async def test_many_requests_in_a_row_are_no_long_head(narrow: Door) -> None:
    kept = get("/tasks/x").replace(b"Connection: close\r\n", b"")
    whole = kept * 300 + get("/tasks/x")
    address = urlsplit(narrow.running.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    for start in range(0, len(whole), 5001):
        writer.write(whole[start : start + 5001])
        await writer.drain()
        await asyncio.sleep(0.001)
    async with asyncio.timeout(TIMEOUT_S):
        said = await reader.read()
        while piece := await reader.read():
            said += piece
    writer.close()
    assert said.count(b"HTTP/1.1 200 ") == 301


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
        (framed("Content-Length: 4000", target="/docs/x"), 408, "request-timeout"),
        (framed("Transfer-Encoding: chunked", body=b"fff\r\n", target="/docs/x"), 408, "request-timeout"),
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


@pytest.mark.parametrize("version", [b"", b" HTTP/0.9", b" HTTP/1.2", b" HTTP/2.0"])
async def test_another_version_of_http_is_refused_in_our_own(door: Door, version: bytes) -> None:
    raw = await exchange(door.running.url, post(GET_TASK).replace(b" HTTP/1.1", version, 1) * 2)
    assert raw.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert raw.count(b"HTTP/") == 1 + raw.count(b'"only HTTP/') * 2
    assert door.agent.heard == []


class Wire(asyncio.Transport):
    """The broker's end of a connection, which keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed.set()

    abort = close


async def test_a_slow_head_that_begins_with_its_connection_is_cut_off_too() -> None:
    async def never(_request: web.BaseRequest) -> web.Response:
        raise AssertionError

    limits = Limits(header_s=SLOW_S, body_s=1, body_bytes_max=1, head_bytes_max=4096)
    connections = ClientConnections(never, limits, Refused.response, lambda *_dressed: None)
    connection, wire = connections.new(None), Wire()
    # In one turn of the event loop, as uvloop does it: the connection's own task has not run yet.
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x")
    async with asyncio.timeout(TIMEOUT_S):
        await wire.closed.wait()
    assert wire.written.startswith(b"HTTP/1.1 408 ")
    connection.connection_lost(None)
    await connections.shutdown()
