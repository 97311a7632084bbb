"""A TCP proxy before a nats-server: cuts connections, loses answers or live messages, holds requests back.

Must not know JetStream: it understands NATS' protocol just enough to tell messages apart.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from e2e.ports import fixed_ports


class Proxy:
    """One address that leads to a nats-server; an async context manager.

    Args:
        target: the server's URL.
        loses: tells of a message to the client, by subject and payload with headers, whether it is lost.

    Attributes:
        url: where clients connect.
        lost: how many messages were lost.
        held: messages to the server that are held back, each with where it goes.
    """

    def __init__(
        self, target: str, loses: Callable[[str, bytes], bool] = lambda _subject, _data: False
    ) -> None:
        address = urlsplit(target)
        self._target = (address.hostname, address.port)
        [self._port] = fixed_ports(1)
        self.url = f"nats://127.0.0.1:{self._port}"
        self.lost = 0
        self.held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._loses = loses
        self._holds: Callable[[str, bytes], bool] | None = None
        self._deaf = False
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def open(self) -> None:
        """Accept connections, again after a cut."""
        self._deaf = False
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self._port, limit=1 << 20)

    def lose_answers(self) -> None:
        """Lose what the server says from now on: what clients send still arrives, and they never know."""
        self._deaf = True

    def hold(self, holds: Callable[[str, bytes], bool]) -> None:
        """Hold back what clients send until `release`.

        Args:
            holds: tells of a message, by subject and payload with headers, whether it is held back.
        """
        self._holds = holds

    def release(self) -> None:
        """Pass on what was held back, where its connection still stands, and hold nothing back any more."""
        self._holds = None
        held, self.held = self.held, []
        for writer, data in held:
            if not writer.is_closing():
                writer.write(data)

    async def cut(self) -> None:
        """Break all connections, and refuse new ones until `open`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._transports):
            writer.transport.abort()
        if self._links:
            await asyncio.wait(self._links)

    async def _link(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._transports.add(client)
        try:
            server_reader, server = await asyncio.open_connection(*self._target, limit=1 << 20)
        except OSError:
            client.transport.abort()
            return
        else:
            self._transports.add(server)
            up = asyncio.create_task(self._up(client_reader, server))
            down = asyncio.create_task(self._down(server_reader, client))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for direction, writer in ((up, client), (down, server)):
                direction.cancel()
                writer.transport.abort()
                self._transports.discard(writer)
            await asyncio.wait({up, down})
        finally:
            self._transports.discard(client)
            self._links.discard(task)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                data = line
                if line.startswith((b"PUB ", b"HPUB ")):
                    _verb, subject, *_rest, size = line.split()
                    body = await reader.readexactly(int(size) + 2)
                    data += body
                    if self._holds is not None and self._holds(subject.decode(), body):
                        self.held.append((writer, data))
                        continue
                writer.write(data)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                data = line
                if line.startswith((b"MSG ", b"HMSG ")):
                    _verb, subject, *_rest, size = line.split()
                    body = await reader.readexactly(int(size) + 2)
                    if self._loses(subject.decode(), body):
                        self.lost += 1
                        continue
                    data += body
                elif line.startswith(b"INFO "):
                    # A client that learns of the cluster's other servers goes round the proxy.
                    data = line.replace(b'"connect_urls"', b'"connect_none"')
                if not self._deaf:
                    writer.write(data)
                    await writer.drain()
