"""TLS of the public listener: streams, client certificates, what is no TLS, and certificates that change.

On asyncio's loop and on the one the broker is served with: each has a TLS of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from urllib.parse import urlsplit

import pytest
from brokers import TASK, FakeBackend, OwnBroker, broker, numbered, numbers, status, task_record, texts, until
from certificate_files import Files
from sse import TIMEOUT_S
from tls_client import connected, hears_nothing, on_each_loop, refused

from sidecast_broker.encryption import Encryption

SLOW_S = 0.3
WIDE = 1500
"""Events of 2 KB: more than the buffers of TLS take on both sides, for asyncio's hold some 600 KB."""


# --- streams


@on_each_loop
async def test_a_stream_is_delivered(fake: FakeBackend, files: Files, unharmed: None) -> None:
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
    fake: FakeBackend, files: Files, unharmed: None
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
async def test_who_takes_nothing_is_cut(fake: FakeBackend, files: Files, unharmed: None) -> None:
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


def _watching(url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Open a stream by a socket that holds little, and reads nothing by itself as those of event loops do."""
    address = urlsplit(url)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(TIMEOUT_S)
    plain.connect((address.hostname, address.port))
    encrypted = context.wrap_socket(plain, server_hostname=address.hostname)
    encrypted.sendall(f"GET /tasks/{TASK}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return encrypted


LITTLE = {"stream__send_buffer_bytes": 4096, "stream__lag_s_max": 0.8}


@on_each_loop
async def test_who_takes_nothing_is_cut_in_time_whatever_tls_holds(
    fake: FakeBackend, files: Files, unharmed: None
) -> None:
    await fake.publish(task_record())
    async with broker(fake, **files.settings, **LITTLE) as running:
        with await asyncio.to_thread(_watching, running.url, files.context()):
            await until(lambda: len(running.listening.streams))
            began_s = time.monotonic()
            while len(running.listening.streams) and time.monotonic() - began_s < TIMEOUT_S:
                # So slowly that the limit is over several times before what TLS holds is full.
                await fake.publish(status("x" * 1000))
                await asyncio.sleep(0.05)
            assert time.monotonic() - began_s < 3 * 0.8
            assert await running.metric("sidecast_streams_closed_total", reason="lag") == 1


@on_each_loop
async def test_who_takes_some_all_the_time_is_not_cut_though_more_is_always_on_its_way(
    fake: FakeBackend, files: Files, unharmed: None
) -> None:
    await fake.publish(task_record())
    async with broker(fake, **files.settings, **LITTLE) as running:
        with await asyncio.to_thread(_watching, running.url, files.context()) as slow:
            await until(lambda: len(running.listening.streams))
            await fake.publish(*[status("x" * 3000)] * 8)
            began_s, lags = time.monotonic(), []
            while time.monotonic() - began_s < 4 * 0.8:
                await fake.publish(status("x" * 3000))
                left = 3000
                while left > 0:
                    left -= len(await asyncio.to_thread(slow.recv, left))
                await asyncio.sleep(0.02)
                lags += [described["lag_s"] for described in running.listening.streams.describe()]
            assert len(running.listening.streams) == 1
            assert sum(lag_s > 0 for lag_s in lags) > len(lags) / 2, "there was more on its way"


@on_each_loop
async def test_the_card_names_https(fake: FakeBackend, files: Files, unharmed: None) -> None:
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
async def test_what_is_no_tls_is_closed(fake: FakeBackend, files: Files, unharmed: None, sent: bytes) -> None:
    async with broker(fake, **files.settings, server__header_s=SLOW_S) as running:
        async with connected(running, None) as client:
            client.writer.write(sent)
            assert await hears_nothing(client)
        await running.until_metric("sidecast_rejected_total", reason="handshake")
        async with connected(running, files.context()) as client:
            assert (await client.ask("/tasks/x/events"))[0] == 404


@on_each_loop
async def test_old_versions_are_refused(fake: FakeBackend, files: Files, unharmed: None) -> None:
    context = files.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with broker(fake, **files.settings) as running, connected(running, context) as client:
        assert client.tls.version() == "TLSv1.2"
    assert Encryption(files.server).context().minimum_version == ssl.TLSVersion.TLSv1_2


@on_each_loop
async def test_a_handshake_that_never_ends_is_ended(fake: FakeBackend, files: Files, unharmed: None) -> None:
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
    fake: FakeBackend, files: Files, unharmed: None
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
    fake: FakeBackend, files: Files, unharmed: None
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with broker(fake, **files.settings) as running:
            begun = await stack.enter_async_context(connected(running, None))
            done = await stack.enter_async_context(connected(running, files.context()))
            assert (await done.ask("/tasks/x/events"))[0] == 404
        assert await hears_nothing(begun)
        assert await hears_nothing(done)


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
    fake: FakeBackend, files: Files, unharmed: None
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
