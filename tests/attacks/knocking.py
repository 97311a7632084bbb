"""One client that sends bytes of any form, and takes apart whatever comes back.

Must not know what was sent, beyond where it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from attacks.inputs import Input

ANSWER_S = 15.0
MORE_S = 0.004
"""How long a second answer is waited for, where a first has come and what was sent may hold two requests."""
STREAM_S = 0.03
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9]) [ -~]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\x00-\x08\x0a-\x1f\x7f]*)")


class Malformed(AssertionError):  # noqa: N818 - named as the failure reads
    """An answer that is no HTTP."""


class Answer(NamedTuple):
    """One answer.

    Attributes:
        status: of HTTP.
        headers: by their names in lower case.
        body: what came of it; of a stream the beginning.
        closes: whether the connection ends with it.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    closes: bool

    @property
    def streams(self) -> bool:
        """Whether it is a stream of events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")


class Client:
    """Sends inputs to one listener, over one connection as long as that is kept."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, given: Input) -> list[Answer]:
        """Send an input; give its answers, none where the broker only closes.

        Raises:
            Malformed: what came is no HTTP.
            TimeoutError: neither an answer came nor the end.
        """
        if not given.ends:
            self.close()
        async with asyncio.timeout(ANSWER_S):
            reused = await self._write(given)
            answers = await self._take(given)
            if reused and given.ends and not answers:
                # The broker may have closed it just then.
                self.close()
                await self._write(given)
                answers = await self._take(given)
        return answers

    async def _write(self, given: Input) -> bool:
        reused = self._writer is not None
        if self._writer is None:
            address = self._address
            self._reader, self._writer = await asyncio.open_connection(address.hostname, address.port)
        size = max(1, -(-len(given.raw) // given.pieces))
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(given.raw), size):
                self._writer.write(given.raw[at : at + size])
                await self._writer.drain()
                if at:
                    await asyncio.sleep(0.001)
        return reused

    async def _take(self, given: Input) -> list[Answer]:
        answers: list[Answer] = []
        bodiless = given.raw.lstrip(b"\r\n").partition(b" ")[0].upper() == b"HEAD"
        # Of one that follows it can't be told whether its answer has a body.
        heads = b"HEAD" in given.raw.upper()
        try:
            while (answer := await self._answer(bodiless, first=not answers)) is not None:
                answers.append(answer)
                if given.ends and not answer.closes:
                    return answers
                if answer.streams or heads:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # closed without an answer, or within one that nobody waited for
        self.close(reset=len(given.raw) % 2 == 0)
        return answers

    async def _answer(self, bodiless: bool, *, first: bool) -> Answer | None:
        if first:
            return await self._whole(bodiless)
        # Of a second one it isn't known what it answers: perhaps a HEAD, whose answer has no body.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MORE_S):
                return await self._whole(bodiless)
        return None

    async def _whole(self, bodiless: bool) -> Answer | None:
        while True:
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise Malformed(f"half a head: {error.partial!r}") from error
                return None
            line, *lines = head[:-4].split(b"\r\n")
            status = _STATUS.fullmatch(line)
            if status is None:
                raise Malformed(f"no status line: {line!r}")
            if int(status[2]) >= 200:
                break
        headers = dict(_fields(lines))
        kept = headers.get("connection", "" if status[1] == b"1" else "close").lower() != "close"
        answer = Answer(int(status[2]), headers, b"", closes=not kept)
        if bodiless or answer.status in (204, 304):
            return answer
        return answer._replace(body=await self._body(answer), closes=not kept or answer.streams)

    async def _body(self, answer: Answer) -> bytes:
        if answer.streams:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STREAM_S):
                    return await self._reader.readuntil(b"\n\n")
            return b""
        if answer.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self._reader.readline(), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readline()
            return body
        length = answer.headers.get("content-length")
        return await (self._reader.read() if length is None else self._reader.readexactly(int(length)))

    def close(self, *, reset: bool = False) -> None:
        """Leave, in the one way or the other that a client can."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if reset:
            there: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


def _fields(lines: list[bytes]) -> Iterator[tuple[str, str]]:
    for each in lines:
        field = _FIELD.fullmatch(each)
        if field is None:
            raise Malformed(f"no header line: {each!r}")
        yield field[1].decode().lower(), field[2].decode("latin-1")
