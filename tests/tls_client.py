"""Clients that speak TLS, or only seem to; and tests that run on each kind of event loop.

Must not know what is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop
from brokers import TASK, OwnBroker
from sse import TIMEOUT_S, Frame, Parser, unchunk


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
