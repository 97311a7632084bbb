"""Answers that are several messages: asked for through one inbox, each matched with its question.

Must not know what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats.errors

from sidecast_broker.answers import Away, Headers, stored_from
from sidecast_broker.client import ShortClient
from sidecast_broker.core.log import Stored
from sidecast_schemas import headers as names

READ_ATTEMPTS = 4
"""A read that no replica has begun to answer is asked for so often within `nats.request_s`."""


class Inbox:
    """The answers to what was asked through one connection, each matched with its question.

    Args:
        request_s: time an answer may take.
    """

    def __init__(self, request_s: float) -> None:
        self._request_s = request_s
        self._reads: dict[str, _Read] = {}
        self._read_count = 0
        self._subject = ""

    async def open(self, client: ShortClient) -> None:
        """Receive answers through a connection, and through no other any more."""
        self._subject = client.new_inbox()
        await client.receive(f"{self._subject}.*", self._on_read)

    async def round_trip(self, client: ShortClient) -> None:
        """Wait until the server has worked off all that was sent before.

        Raises:
            TimeoutError, nats.errors.Error, OSError: it has not in time.
        """
        self._read_count += 1
        read = _Read()
        key = str(self._read_count)
        self._reads[key] = read
        try:
            await client.publish(f"{self._subject}.{key}", b"", headers=None)
            async with asyncio.timeout(self._request_s):
                await read.done
        finally:
            del self._reads[key]

    async def direct_get(
        self, subject: str, request: bytes, client: Callable[[], ShortClient]
    ) -> tuple[list[Stored], dict[str, str]]:
        """Ask whichever replica the server picks, and perhaps another where that one says nothing.

        A frozen replica is still picked, for minutes, until the others take its connection for dead.

        Args:
            subject: of direct gets from the stream.
            request: what is asked.
            client: gives the connection, or raises Away.

        Returns:
            The records of the answer, and the headers of the message that ends it.

        Raises:
            Away: no complete answer.
        """
        asked: dict[str, _Read] = {}
        try:
            async with asyncio.timeout(self._request_s):
                while not (answered := [read for read in asked.values() if read.done.done()]):
                    if not any(read.records for read in asked.values()):
                        key, read = await self._ask(subject, request, client())
                        asked[key] = read
                    await asyncio.wait(
                        [read.done for read in asked.values()],
                        timeout=self._request_s / READ_ATTEMPTS,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Away(f"direct get: {str(error) or type(error).__name__}") from error
        finally:
            for key in asked:
                del self._reads[key]
        return answered[0].records, answered[0].done.result()

    async def _ask(self, subject: str, request: bytes, client: ShortClient) -> tuple[str, _Read]:
        self._read_count += 1
        key = str(self._read_count)
        read = self._reads[key] = _Read()
        try:
            await client.publish(subject, request, reply=f"{self._subject}.{key}")
        except BaseException:
            del self._reads[key]
            raise
        return key, read

    def _on_read(self, subject: bytes, block: bytes, payload: bytes) -> None:
        read = self._reads.get(subject[len(self._subject) + 1 :].decode())
        if read is None:
            return
        headers = Headers(block)
        if headers.status is None and names.SEQUENCE in headers:
            read.records.append(stored_from(headers, payload))
        elif not read.done.done():
            read.done.set_result({**headers, names.STATUS: headers.status or ""})


class _Read:
    """The replies of one direct get as they come in."""

    __slots__ = ("done", "records")

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.done: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
