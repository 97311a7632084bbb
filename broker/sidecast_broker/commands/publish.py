"""`sidecast publish`: JSON lines from standard input to a task, in order.

Must not know what an event is: the broker checks that.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

import aiohttp
import click
from msgspec import Struct
from yarl import URL

from sidecast_broker.commands.client_options import client_options
from sidecast_broker.commands.terminal import printable
from sidecast_broker.commands.watcher import decode_object, text_of

BATCH_LINES_MAX = 500
BATCH_BYTES_MAX = 1024 * 1024
"""Well below `server.body_bytes_max`, so that a batch is never refused for its size."""

BACKOFF_S_MIN = 0.2
BACKOFF_S_MAX = 5.0
GIVE_UP_S = 60.0
"""Retrying must end before the stream's duplicate window (120 s): later, a repeated line is stored twice."""

REQUEST_S_MAX = 30.0
READ_BYTES = 65536


class Line(Struct, frozen=True):
    """One line of input.

    Attributes:
        number: in the input, from 1.
        offset: among the lines that are sent, from 0.
    """

    number: int
    offset: int
    content: bytes


class PublishFailed(Exception):  # noqa: N818 - named as the message reads
    """A line was refused, or the broker could not be reached for too long."""


class _LineRefused(Exception):  # noqa: N818 - named as the message reads
    def __init__(self, reason: str, stored: int, index: int) -> None:
        super().__init__(reason)
        self.stored = stored
        self.index = index


def read_lines(input_: BinaryIO) -> Iterator[list[Line]]:
    """Give the lines of an input in batches: what has arrived, never waiting to fill one.

    Blank lines are skipped. A line longer than a batch is one of its own.
    """
    number = offset = 0
    # The pieces of a line that is still arriving: joined once, when its end has come.
    rest: list[bytes] = []
    read: Callable[[int], bytes] = getattr(input_, "read1", input_.read)
    while chunk := read(READ_BYTES):
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            rest.append(chunk)
            continue
        lines = []
        for content in b"".join([*rest, head]).split(b"\n"):
            number += 1
            if content.strip():
                lines.append(Line(number, offset, content))
                offset += 1
        rest = [tail]
        yield from _batches(lines)
    last = b"".join(rest)
    if last.strip():
        yield [Line(number + 1, offset, last)]


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == BATCH_LINES_MAX or size + len(line.content) > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.content)
    if batch:
        yield batch


class TaskPublisher:
    """Sends the lines of one task; a repeated request carries a key by which nothing is stored twice.

    Attributes:
        last_id: of the last event stored, empty before the first.
        stored: events stored.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        task: str,
        *,
        params: dict[str, str] | None = None,
        note: Callable[[str], None] = lambda _: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a publisher.

        Args:
            session: carries the credential, if any.
            url: of the broker's internal listener.
            task: the task's plain id.
            params: for the query.
            note: told in one line about every failure that is retried.
            pause: waits that many seconds.
            clock: gives seconds from any fixed point.
        """
        self.last_id = ""
        self.stored = 0
        self._session = session
        base = f"{url.rstrip('/')}/publish/{quote(task, safe='')}"
        self._url = URL(base, encoded=True).update_query(params or {})
        self._note = note
        self._pause = pause
        self._clock = clock
        self._key = secrets.token_hex(16)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def publish(self, batch: list[Line]) -> None:
        """Have every line of a batch stored, in order.

        Raises:
            PublishFailed: a line was refused (those before it are stored), or the broker was away too long.
        """
        failures = 0
        give_up_at = self._clock() + GIVE_UP_S
        while batch:
            try:
                stored, reason = await self._post(batch)
            except _LineRefused as refused:
                # The broker checks a whole request before it stores any of it.
                await self.publish(batch[refused.stored : refused.index])
                raise PublishFailed(f"line {batch[refused.index].number}: {refused}") from refused
            batch = batch[stored:]
            if stored:
                failures = 0
                give_up_at = self._clock() + GIVE_UP_S
            if not batch:
                return
            delay_s = random.uniform(0.5, 1) * min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures, 10))
            if self._clock() + delay_s > give_up_at:
                raise PublishFailed(f"line {batch[0].number}: {reason}; gave up after {GIVE_UP_S:g} s")
            self._note(f"line {batch[0].number}: {reason}; trying again in {delay_s:.1f} s")
            await self._pause(delay_s)
            failures += 1

    async def _post(self, batch: list[Line]) -> tuple[int, str]:
        """Send a batch once; give how many of its lines are stored for certain, and why not all."""
        headers = {
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": self._key,
            "Idempotency-Offset": str(batch[0].offset),
        }
        body = b"".join(line.content + b"\n" for line in batch)
        try:
            async with self._session.post(self._url, data=body, headers=headers) as response:
                status, answer = response.status, decode_object(await response.read())
        except (aiohttp.ClientError, OSError) as error:
            return 0, str(error) or type(error).__name__
        stored = self._count(answer, len(batch))
        fault = answer.get("error")
        detail = text_of(fault, "message") if isinstance(fault, dict) else ""
        reason = f"{status} {detail or response.reason or ''}".strip()
        if status == 200:
            if stored != len(batch):
                raise PublishFailed(
                    f"line {batch[0].number}: the broker stored {stored} of {len(batch)} lines"
                )
        elif status < 500 and status != 429:
            line = answer.get("line")
            if isinstance(line, int) and stored < line <= len(batch):
                raise _LineRefused(reason.replace(f"line {line}: ", "", 1), stored, line - 1)
            raise _LineRefused(reason, stored, min(stored, len(batch) - 1))
        return stored, reason

    def _count(self, answer: dict[str, Any], sent: int) -> int:
        stored = answer.get("stored")
        if not isinstance(stored, list):
            return 0
        stored = stored[:sent]
        if stored and isinstance(stored[-1], dict):
            self.last_id = text_of(stored[-1], "id")
        self.stored += len(stored)
        return len(stored)


@click.command("publish")
@click.argument("task")
@client_options("internal", "http://127.0.0.1:8481")
@click.option("--tenant", help="The task's tenant, where the credential names none.")
@click.option("--agent", help="The task's agent [default: the broker's agent.name].")
@click.option("--owner", help="Whom the task belongs to [default: whom the credential names].")
def command(
    task: str, url: str, token: str | None, tenant: str | None, agent: str | None, owner: str | None
) -> None:
    """Publish JSON lines from standard input as events of TASK, in order.

    Each line is one A2A StreamResponse. Lines are sent as they come, and again while the broker is away for a
    moment; none is stored twice.
    """
    given = {"tenant": tenant, "agent": agent, "owner": owner}
    params = {name: value for name, value in given.items() if value}
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    def note(text: str) -> None:
        click.echo(f"sidecast: {printable(text)}", err=True)

    async def connect() -> TaskPublisher:
        timeout = aiohttp.ClientTimeout(total=REQUEST_S_MAX)
        session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        return TaskPublisher(session, url, task, params=params, note=note)

    # Reading blocks, and nothing else needs to happen meanwhile: the loop runs per batch.
    with asyncio.Runner() as runner:
        publisher = runner.run(connect())
        try:
            for batch in read_lines(sys.stdin.buffer):
                runner.run(publisher.publish(batch))
        except PublishFailed as error:
            click.echo(f"{publisher.stored} events stored", err=True)
            raise click.ClickException(printable(str(error))) from error
        finally:
            runner.run(publisher.close())
    last = f", the last as {publisher.last_id}" if publisher.last_id else ""
    click.echo(printable(f"{publisher.stored} events stored{last}"))
