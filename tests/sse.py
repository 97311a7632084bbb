"""Server-sent events as a strict client sees them: a parser, and a stream that is read frame by frame.

Must not know what the frames mean. Source: WHATWG HTML, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

TIMEOUT_S = 8.0
RECEIVE_BUFFER_BYTES = 16_384

_LINE_END = re.compile(rb"\r\n|\n|\r")


class Violation(AssertionError):  # noqa: N818 - named as the failure reads
    """Bytes that a browser may take, but that this broker promises not to send."""


class EndOfStream(Exception):  # noqa: N818 - a state of the stream
    """The response ended where a frame was expected."""


class Frame(NamedTuple):
    """One dispatched event.

    Attributes:
        type: its name; `message` where the block has no `event:` line.
        data: the text of its `data:` line.
        id: the id its own block carries, None for none.
        last_id: what a client would send back as `Last-Event-ID` after it.
        retry: the reconnection time its block sets, in ms.
    """

    type: str
    data: str
    id: str | None
    last_id: str
    retry: int | None

    @property
    def json(self) -> dict[str, Any]:
        """Its data, decoded."""
        decoded = json.loads(self.data)
        assert isinstance(decoded, dict)
        return decoded

    @property
    def kind(self) -> str:
        """What it is: the `type` its data names, which an `event:` line may only repeat."""
        kind = self.json["type"]
        assert self.type in (kind, "message")
        assert isinstance(kind, str)
        return kind

    def __getitem__(self, key: Any) -> Any:  # type: ignore[override]
        return self.json[key] if isinstance(key, str) else tuple.__getitem__(self, key)


class Comment(NamedTuple):
    """A line that begins with a colon."""

    text: str


class Parser:
    """Parses a stream by the WHATWG's rules; where `strict`, refuses what this broker must never send.

    Args:
        strict: raise `Violation` for CR, a second `data:` line, fields without data, unknown fields, a
            `retry:` that isn't all digits, an id with NUL, bytes that aren't UTF-8.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self.last_id = ""
        self._strict = strict
        self._rest = b""
        self._started = False
        self._begin()

    def _begin(self) -> None:
        self._type = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._retry: int | None = None
        self._fields = 0

    def feed(self, data: bytes) -> list[Frame | Comment]:
        """Take bytes as they come; give what they complete."""
        self._rest += data
        if not self._started and len(self._rest) >= 3:
            self._started = True
            if self._rest.startswith(b"\xef\xbb\xbf"):
                self._refuse("a byte order mark")
                self._rest = self._rest[3:]
        # A CR at the very end may have its LF still to come.
        end = max(self._rest.rfind(b"\n"), self._rest.rfind(b"\r", 0, -1)) + 1
        complete, self._rest = self._rest[:end], self._rest[end:]
        if b"\r" in complete:
            self._refuse("a CR")
        items = map(self._take, _LINE_END.split(complete)[:-1])
        return [item for item in items if item is not None]

    def _take(self, raw: bytes) -> Frame | Comment | None:
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            self._refuse("bytes that are not UTF-8")
            line = raw.decode(errors="replace")
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            return Comment(line[1:])
        name, _colon, value = line.partition(":")
        value = value.removeprefix(" ")
        self._fields += 1
        match name:
            case "event":
                self._type = value
            case "data":
                if self._data:
                    self._refuse("a second data line")
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = self.last_id = value
            case "retry" if value.isascii() and value.isdigit():
                self._retry = int(value)
            case _:
                self._refuse(f"the line {line[:80]!r}")
        return None

    def _dispatch(self) -> Frame | None:
        if not self._data:
            if self._fields:
                self._refuse("a block without data")
            self._begin()
            return None
        frame = Frame(self._type or "message", "\n".join(self._data), self._id, self.last_id, self._retry)
        self._begin()
        return frame

    def _refuse(self, what: str) -> None:
        if self._strict:
            raise Violation(f"the stream holds {what}")


class Watch:
    """One streaming response, read frame by frame; an async context manager.

    Args:
        url: what to get, percent-encoded as it is to be sent.
        headers: of the request; `Accept: text/event-stream` unless given otherwise.

    Attributes:
        status: of the response.
        headers: of the response.
        raw: every byte of the body so far.
        frames: every frame so far.
        comments: every comment so far.
        broken: whether the connection ended without the end of the body.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self.raw = bytearray()
        self.frames: list[Frame] = []
        self.comments: list[str] = []
        self.broken = False
        self._request_headers = {"Accept": "text/event-stream", **(headers or {})}
        self._parser = Parser()
        self._items: deque[Frame | Comment] = deque()
        self._ended = False

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=None)
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self._response = await self._session.get(
                    URL(self.url, encoded=True), headers=self._request_headers
                )
        except BaseException:
            await self._session.close()
            raise
        self.status = self._response.status
        self.headers = self._response.headers
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave, as a client does whose page is closed."""
        self._response.close()
        await self._session.close()

    @property
    def last_id(self) -> str:
        """What an EventSource that has seen `frames` would send as `Last-Event-ID` on its next attempt."""
        return self.frames[-1].last_id if self.frames else ""

    async def _read(self) -> None:
        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, ConnectionError):
            self.broken = True
            data = b""
        if not data:
            self._ended = True
        self.raw += data
        for item in self._parser.feed(data):
            self._items.append(item)

    async def item(self, timeout_s: float = TIMEOUT_S) -> Frame | Comment:
        """Give the next frame or comment.

        Raises:
            EndOfStream: there is none.
            TimeoutError: none came in time.
        """
        async with asyncio.timeout(timeout_s):
            while not self._items:
                if self._ended:
                    raise EndOfStream
                await self._read()
        item = self._items.popleft()
        if isinstance(item, Frame):
            self.frames.append(item)
        else:
            self.comments.append(item.text)
        return item

    async def next(self, timeout_s: float = TIMEOUT_S) -> Frame:
        """Give the next frame.

        Raises:
            EndOfStream: there is none.
            TimeoutError: none came in time.
        """
        async with asyncio.timeout(timeout_s):
            while not isinstance(item := await self.item(timeout_s), Frame):
                pass
        return item

    async def take(self, count: int, timeout_s: float = TIMEOUT_S) -> list[Frame]:
        """Give so many frames."""
        async with asyncio.timeout(timeout_s):
            return [await self.next(timeout_s) for _ in range(count)]

    async def until(self, wanted: str | Callable[[Frame], bool], timeout_s: float = TIMEOUT_S) -> list[Frame]:
        """Give all frames up to and with the first of a kind, or the first that is wanted."""
        found: list[Frame] = []
        async with asyncio.timeout(timeout_s):
            while True:
                frame = await self.next(timeout_s)
                found.append(frame)
                if frame.kind == wanted if isinstance(wanted, str) else wanted(frame):
                    return found

    async def rest(self, timeout_s: float = TIMEOUT_S) -> list[Frame]:
        """Give all frames up to the end of the response."""
        found: list[Frame] = []
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    found.append(await self.next(timeout_s))
                except EndOfStream:
                    return found

    async def body(self, timeout_s: float = TIMEOUT_S) -> bytes:
        """Give the whole body, whatever it holds."""
        async with asyncio.timeout(timeout_s):
            return bytes(self.raw) + await self._response.read()


def target(path: str, **query: object) -> str:
    """Write a path with a query; the path stands as it is given."""
    text = urlencode({key: str(value) for key, value in query.items()}, quote_via=quote)
    return f"{path}?{text}" if text else path


def data_frames(frames: list[Frame]) -> list[Frame]:
    """Give the frames that tell of the task, not of the stream."""
    return [frame for frame in frames if frame.kind.startswith("task.")]


def kinds(frames: list[Frame]) -> list[str]:
    """Give what each frame is."""
    return [frame.kind for frame in frames]


async def exchange(url: str, request: bytes, timeout_s: float = TIMEOUT_S, until: bytes = b"") -> bytes:
    """Send bytes to a server and give all it answers until it closes, or up to the bytes to leave at."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(timeout_s):
            writer.write(request)
            await writer.drain()
            if until:
                return await reader.readuntil(until)
            return await reader.read()
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()
        await writer.wait_closed()


def unchunk(body: bytes) -> list[bytes]:
    """Take a chunked body apart, strictly; give its chunks, the empty last one included where it came.

    Raises:
        Violation: it is not framed as RFC 9112, section 7.1 says.
    """
    chunks = []
    while body:
        size, crlf, rest = body.partition(b"\r\n")
        if not crlf or not re.fullmatch(rb"[0-9a-fA-F]+", size):
            raise Violation(f"no chunk begins with {body[:40]!r}")
        length = int(size, 16)
        if rest[length : length + 2] != b"\r\n":
            raise Violation(f"a chunk of {length} bytes does not end there")
        chunks.append(rest[:length])
        body = rest[length + 2 :]
    return chunks


class Stalled:
    """A client that reads only when told to, over a socket with a small receive buffer.

    Args:
        url: of the listener.
        path: what to get.
        headers: more lines of the request's head.

    Attributes:
        received: every byte it has read.
    """

    def __init__(self, url: str, path: str, *headers: str) -> None:
        self.received = b""
        self._address = urlsplit(url)
        lines = (f"GET {path} HTTP/1.1", "Host: x", "Accept: text/event-stream", *headers)
        self._request = "\r\n".join((*lines, "", "")).encode()
        self._socket = socket.socket()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._socket.setblocking(False)
        await loop.sock_connect(self._socket, (str(self._address.hostname), int(self._address.port or 0)))
        await loop.sock_sendall(self._socket, self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Break the connection as a crash does, without a word."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    async def read(self, size: int = 65_536) -> bytes:
        """Read what is there; empty at the end.

        Raises:
            ConnectionError: the connection was cut.
        """
        async with asyncio.timeout(TIMEOUT_S):
            data = await asyncio.get_running_loop().sock_recv(self._socket, size)
        self.received += data
        return data

    async def read_until(self, wanted: bytes) -> None:
        """Read until the body holds these bytes."""
        while wanted not in self.received:
            assert await self.read(), self.received[-200:]

    @property
    def frames(self) -> list[Frame]:
        """The frames of all whole chunks received so far."""
        body = self.received.partition(b"\r\n\r\n")[2]
        end = body.rfind(b"\n\n\r\n") + 4
        items = Parser().feed(b"".join(unchunk(body[:end])))
        return [item for item in items if isinstance(item, Frame)]
