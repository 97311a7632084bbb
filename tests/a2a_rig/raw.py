"""Streams over sockets of their own, to the byte: cut where the test says, and read as an EventSource reads.

Must not know what the frames say.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Self
from urllib.parse import urlsplit

from a2a_rig.operations import Asked
from a2a_rig.wire import WAIT_S_MAX, Frame, parse_frame

SLOW_BYTES = 4096
LAST_CHUNK = b"\r\n0\r\n\r\n"


class Connection:
    """One request and the bytes of its answer; an async context manager that breaks off when it is left.

    Args:
        url: of the server.
        asked: the request.
        cursor: sent as `Last-Event-ID`, where there is one.
        slow: take little at a time, so that what isn't read stays with the server.

    Attributes:
        received: every byte of the answer so far.
    """

    def __init__(self, url: str, asked: Asked, cursor: str | None = None, *, slow: bool = False) -> None:
        self.received = b""
        address = urlsplit(url)
        self._address = (str(address.hostname), int(address.port or 80))
        self._slow = slow
        method, path, body, headers = asked
        body = body or b""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {address.netloc}", "Connection: close"]
        lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if cursor is not None:
            lines.append(f"Last-Event-ID: {cursor}")
        self._request = "\r\n".join([*lines, "", ""]).encode() + body

    async def __aenter__(self) -> Self:
        connection = socket.socket()
        if self._slow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BYTES)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, self._address)
        self._reader, self._writer = await asyncio.open_connection(sock=connection, limit=SLOW_BYTES)
        self._writer.write(self._request)
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self._writer.transport.abort()

    async def read(self, count: int) -> None:
        """Read until so many bytes have come and no more, or to the end of the answer."""
        async with asyncio.timeout(WAIT_S_MAX):
            while len(self.received) < count and (
                data := await self._reader.read(count - len(self.received))
            ):
                self.received += data

    async def until(self, words: bytes) -> None:
        """Read until something stands in the answer."""
        async with asyncio.timeout(WAIT_S_MAX):
            while words not in self.received:
                data = await self._reader.read(65536)
                assert data, f"the answer ended before {words!r}: {self.received[-500:]!r}"
                self.received += data

    async def rest(self) -> None:
        """Read to the end of the answer, which must be its own."""
        async with asyncio.timeout(WAIT_S_MAX):
            self.received += await self._reader.read()
        assert self.received.endswith(LAST_CHUNK), f"it broke off: {self.received[-500:]!r}"

    @property
    def head_bytes(self) -> int:
        """How long the head of the answer is."""
        return len(self.received.partition(b"\r\n\r\n")[0]) + 4

    @property
    def frames(self) -> list[Frame]:
        """The blocks that are complete, without comments: what an EventSource has dispatched."""
        blocks = unchunked(self.received).split(b"\n\n")[:-1]
        bare = [b"\n".join(line for line in block.split(b"\n") if line[:1] != b":") for block in blocks]
        return [parse_frame(block) for block in bare if block]


def unchunked(received: bytes) -> bytes:
    """Give the body of an answer in chunks, as far as it came."""
    _, _, rest = received.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, crlf, rest = rest.partition(b"\r\n")
        if not crlf:  # cut within the size
            break
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
        if length == 0:
            break
    return body
