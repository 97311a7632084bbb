"""TLS of the public listener: streams, client certificates, what is no TLS, and certificates that change.

On asyncio's loop and on the one the broker is served with: each has a TLS of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import inspect
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog
import trustme
import uvloop
from brokers import TASK, FakeBackend, OwnBroker, broker, numbered, numbers, status, task_record, texts, until
from certificate_files import Files, files_in
from sse import TIMEOUT_S, Frame, Parser, unchunk

from sidecast_broker.encryption import Encryption
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import encode_token

SLOW_S = 0.3
WIDE = 1500
"""Events of 2 KB: more than the buffers of TLS take on both sides, for asyncio's hold some 600 KB."""


def on_each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine that is run on each kind of event loop."""

    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **given: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**given))

    taken = inspect.signature(test)
    own = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    signature = taken.replace(parameters=[*taken.parameters.values(), own])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__name__ = test.__name__
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("new_loop", loops, ids=["asyncio", "uvloop"])(run)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    return files_in(tmp_path, authority)


class Client:
    """A connection over TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""

    @property
    def tls(self) -> ssl.SSLObject:
        found = self.writer.get_extra_info("ssl_object")
        assert found is not None
        return found  # type: ignore[no-any-return]

    @property
    def serial(self) -> object:
        """The server's certificate's."""
        return (self.tls.getpeercert() or {})["serialNumber"]

    async def ask(self, target: str) -> tuple[int, Any]:
        """Ask for JSON; give status and answer."""
        self.writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n".encode())
        async with asyncio.timeout(TIMEOUT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            return int(head.split()[1]), json.loads(await self.reader.readexactly(length))

    def watch(self, query: str = "") -> None:
        """Ask for the stream of the task."""
        head = f"GET /tasks/{TASK}/events{query} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
        self.writer.write(head.encode())

    async def read_until(self, wanted: str) -> list[Frame]:
        """Read the stream up to a text; give all frames, whose framing must be without fault."""
        async with asyncio.timeout(TIMEOUT_S):
            while f'"{wanted}"'.encode() not in self.received or not self.received.endswith(b"\r\n"):
                data = await self.reader.read(65_536)
                assert data, self.received[-300:]
                self.received += data
        body = self.received.partition(b"\r\n\r\n")[2]
        items = Parser().feed(b"".join(unchunk(body)))
        return [item for item in items if isinstance(item, Frame)]


@contextlib.asynccontextmanager
async def connected(
    running: OwnBroker, context: ssl.SSLContext | None, *, receive_bytes: int = 0
) -> AsyncIterator[Client]:
    """Connect; with a small receive buffer, one that takes nothing unless it is read."""
    address = urlsplit(running.url)
    assert address.scheme == "https"
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (address.hostname, address.port))
    limit = receive_bytes or 2**16
    name = address.hostname if context else None
    reader, writer = await asyncio.open_connection(
        sock=client, ssl=context, server_hostname=name, limit=limit
    )
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def hears_nothing(client: Client) -> bool:
    """Tell whether a connection is ended without an answer."""
    async with asyncio.timeout(TIMEOUT_S):
        try:
            data = await client.reader.read(100)
        except (ConnectionError, ssl.SSLError):
            return True
    return not data or data[:1] == b"\x15"  # a TLS alert


async def refused(running: OwnBroker, context: ssl.SSLContext) -> bool:
    """Tell whether a handshake fails; a client of TLS 1.3 hears of it after its own end of it."""
    try:
        async with connected(running, context) as client:
            client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return await hears_nothing(client)
    except (ConnectionError, ssl.SSLError):
        return True


@pytest.fixture
def quiet() -> Iterator[list[Any]]:
    """Check that nothing goes wrong but what a test expects."""
    with structlog.testing.capture_logs() as lines:
        yield lines
    assert [line for line in lines if line["log_level"] in ("error", "critical") or "exc_info" in line] == []


# --- streams


@on_each_loop
async def test_a_stream_is_delivered(fake: FakeBackend, files: Files, quiet: object) -> None:
    await fake.publish(task_record())
    async with broker(fake, **files.settings) as running, connected(running, files.context()) as client:
        assert client.tls.selected_alpn_protocol() == "http/1.1"
        client.watch()
        await client.read_until(TASK)
        for text in numbers(300):
            await fake.publish(status(text))
            if int(text) % 30 == 0:
                await client.read_until(text)
        assert texts(await client.read_until("299")) == numbers(300)
        (described,) = (await running.internal("/streams"))[1]["streams"]
        assert (described["events"], described["behind_events"]) == (300, 0)


@on_each_loop
async def test_a_slow_reader_gets_everything_and_holds_up_nobody(
    fake: FakeBackend, files: Files, quiet: object
) -> None:
    await fake.publish(task_record())
    small = {"stream__buffer_bytes_max": 4096, "stream__send_buffer_bytes": 4096}
    async with (
        broker(fake, **files.settings, **small) as running,
        connected(running, files.context(), receive_bytes=4096) as slow,
        connected(running, files.context()) as fast,
    ):
        for client in (slow, fast):
            client.watch()
            await client.read_until(TASK)
        wide = [status(f"{number}{'x' * 2000}") for number in range(WIDE)]
        for number, event in enumerate(wide):
            await fake.publish(event)
            if number % 100 == 99:
                await fast.read_until(f"{number}{'x' * 2000}")
        (behind, _) = sorted(
            (await running.internal("/streams"))[1]["streams"], key=lambda stream: -stream["behind_events"]
        )
        assert behind["behind_events"] > 0, "it was slow enough to leave the shared loop"
        frames = await slow.read_until(f"{WIDE - 1}{'x' * 2000}")
        seen = [frame["text"].rstrip("x") for frame in frames if frame.kind == "task.status"]
        assert seen == numbers(WIDE)
        await fake.publish(status("at last"))
        for client in (slow, fast):
            assert texts(await client.read_until("at last"))[-1] == "at last"


@on_each_loop
async def test_who_takes_nothing_is_cut(fake: FakeBackend, files: Files, quiet: object) -> None:
    await fake.publish(task_record())
    small = {"stream__buffer_bytes_max": 4096, "stream__send_buffer_bytes": 4096, "stream__lag_s_max": 0.3}
    async with (
        broker(fake, **files.settings, **small) as running,
        connected(running, files.context(), receive_bytes=4096) as slow,
    ):
        slow.watch()
        await slow.read_until(TASK)
        await fake.publish(*(status(f"{number}{'x' * 2000}") for number in range(400)))
        await running.until_metric("sidecast_streams_closed_total", reason="lag")
        await until(lambda: not len(running.listening.streams))


@on_each_loop
async def test_the_card_names_https(fake: FakeBackend, files: Files, quiet: object) -> None:
    async with broker(fake, **files.settings) as running, connected(running, files.context()) as client:
        _status, card = await client.ask("/.well-known/agent-card.json")
        assert "https://x" in json.dumps(card)
        assert "http://x" not in json.dumps(card)


# --- what is no handshake


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\xff\xff\x01" + b"\0" * 100,
        b"\x16\x03\x01\x00\x05hello",
        b"\0" * 1000,
        b"\r\n",
    ],
    ids=["plain HTTP", "broken hello", "no hello", "zeros", "a line end"],
)
@on_each_loop
async def test_what_is_no_tls_is_closed(fake: FakeBackend, files: Files, quiet: object, sent: bytes) -> None:
    async with broker(fake, **files.settings, server__header_s=SLOW_S) as running:
        async with connected(running, None) as client:
            client.writer.write(sent)
            assert await hears_nothing(client)
        await running.until_metric("sidecast_rejected_total", reason="handshake")
        async with connected(running, files.context()) as client:
            assert (await client.ask("/tasks/x/events"))[0] == 404


@on_each_loop
async def test_old_versions_are_refused(fake: FakeBackend, files: Files, quiet: object) -> None:
    context = files.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with broker(fake, **files.settings) as running, connected(running, context) as client:
        assert client.tls.version() == "TLSv1.2"
    assert Encryption(files.server).context().minimum_version == ssl.TLSVersion.TLSv1_2


@on_each_loop
async def test_a_handshake_that_never_ends_is_ended(fake: FakeBackend, files: Files, quiet: object) -> None:
    limits = {"server__connections_max": 3, "stream__streams_max": 3, "server__header_s": SLOW_S}
    async with broker(fake, **files.settings, **limits) as running, contextlib.AsyncExitStack() as stack:
        begun = [await stack.enter_async_context(connected(running, None)) for _ in range(3)]
        begun[0].writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        began_s = asyncio.get_running_loop().time()
        # They take the places there are, although none of them is a connection of HTTP yet.
        async with connected(running, None) as one:
            assert await hears_nothing(one)
        assert await running.metric("sidecast_rejected_total", reason="connections") == 1
        assert all([await hears_nothing(client) for client in begun])
        assert SLOW_S * 0.9 <= asyncio.get_running_loop().time() - began_s < TIMEOUT_S / 2
        await running.until_metric("sidecast_rejected_total", 3, reason="handshake")
        async with connected(running, files.context()) as client:
            assert (await client.ask("/tasks/x/events"))[0] == 404


@on_each_loop
async def test_connections_are_counted_once_and_given_back(
    fake: FakeBackend, files: Files, quiet: object
) -> None:
    async with broker(fake, **files.settings, server__connections_per_address_max=1) as running:
        for _ in range(5):
            async with asyncio.timeout(TIMEOUT_S):
                while not await is_alone(running, files.context()):
                    await asyncio.sleep(0.01)


async def is_alone(running: OwnBroker, context: ssl.SSLContext) -> bool:
    """Connect, and check that a second one can't; False: there was one before."""
    try:
        async with connected(running, context) as client:
            assert (await client.ask("/tasks/x/events"))[0] == 404
            assert await refused(running, context)
            return True
    except ConnectionError:
        return False


@on_each_loop
async def test_the_broker_ends_with_handshakes_under_way(
    fake: FakeBackend, files: Files, quiet: object
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with broker(fake, **files.settings) as running:
            begun = await stack.enter_async_context(connected(running, None))
            done = await stack.enter_async_context(connected(running, files.context()))
            assert (await done.ask("/tasks/x/events"))[0] == 404
        assert await hears_nothing(begun)
        assert await hears_nothing(done)


# --- client certificates


async def owned(fake: FakeBackend, owner: str) -> None:
    await fake.publish(task_record(), headers={names.OWNER: encode_token(owner)})


@on_each_loop
async def test_a_client_certificate_names_the_principal(
    fake: FakeBackend, files: Files, quiet: object
) -> None:
    await owned(fake, "alice")
    async with broker(fake, **files.mutual) as running:
        for name, wanted in (("alice", 200), ("bob", 404)):
            certificate = files.authority.issue_cert(f"{name}.example", common_name=name)
            async with connected(running, files.context(certificate)) as client:
                assert (await client.ask(f"/tasks/{TASK}/events"))[0] == wanted
        alice = files.authority.issue_cert("alice.example", common_name="alice")
        async with connected(running, files.context(alice)) as client:
            client.watch()
            await client.read_until(TASK)


@on_each_loop
async def test_without_a_certificate_another_credential_is_needed(
    fake: FakeBackend, files: Files, quiet: object
) -> None:
    async with broker(fake, **files.mutual) as running, connected(running, files.context()) as client:
        status_code, body = await client.ask(f"/tasks/{TASK}/events")
        assert (status_code, body["error"]["code"]) == (401, "unauthenticated")


@on_each_loop
async def test_a_certificate_of_somebody_else_makes_no_connection(
    fake: FakeBackend, files: Files, quiet: object
) -> None:
    stranger = trustme.CA().issue_cert("alice.example", common_name="alice")
    async with broker(fake, **files.mutual) as running:
        assert await refused(running, files.context(stranger))
        await running.until_metric("sidecast_rejected_total", reason="handshake")


@on_each_loop
async def test_an_expired_certificate_makes_no_connection(
    fake: FakeBackend, files: Files, quiet: object
) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    expired = files.authority.issue_cert("alice.example", common_name="alice", not_after=past)
    async with broker(fake, **files.mutual) as running:
        assert await refused(running, files.context(expired))
        await running.until_metric("sidecast_rejected_total", reason="handshake")


# --- files that change


async def until_serial(running: OwnBroker, context: ssl.SSLContext, other: object) -> object:
    """Connect until another certificate is shown than that; give its serial number."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            async with connected(running, context) as client:
                if (serial := client.serial) != other:
                    return serial
            await asyncio.sleep(0.05)


@on_each_loop
async def test_a_new_certificate_counts_for_new_connections(
    fake: FakeBackend, files: Files, quiet: object
) -> None:
    await fake.publish(task_record())
    async with broker(fake, **files.settings) as running, connected(running, files.context()) as client:
        client.watch()
        await client.read_until(TASK)
        first = client.serial
        files.renew()
        second = await until_serial(running, files.context(), first)
        await fake.publish(*numbered(10))
        assert texts(await client.read_until("9")) == numbers(10), "who was connected stays so"
        assert second != first


@on_each_loop
async def test_who_may_sign_clients_changes_too(fake: FakeBackend, files: Files, quiet: object) -> None:
    await owned(fake, "alice")
    other = trustme.CA()
    ours, theirs = (
        files.context(each.issue_cert("alice.example", common_name="alice"))
        for each in (files.authority, other)
    )
    async with broker(fake, **files.mutual) as running, connected(running, ours) as kept:
        assert (await kept.ask(f"/tasks/{TASK}/events"))[0] == 200
        assert await refused(running, theirs)
        files.trust(other)
        async with asyncio.timeout(TIMEOUT_S):
            while await refused(running, theirs):
                await asyncio.sleep(0.05)
        assert await refused(running, ours), "an authority that is gone signs nobody any more"
        assert (await kept.ask(f"/tasks/{TASK}/events"))[0] == 200
