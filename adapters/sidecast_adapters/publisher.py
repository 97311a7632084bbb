"""The publisher, one per agent process: it keeps the buffer, the connection and the logs of the tasks.

Must not know what events say. nats-py is imported when the connection is first made.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from msgspec import structs

from sidecast_adapters.buffer import Buffer
from sidecast_adapters.connection import Connection
from sidecast_adapters.counts import Counts
from sidecast_adapters.log import Log
from sidecast_adapters.shared import Shared
from sidecast_adapters.task import ErrorText, Task
from sidecast_schemas.subjects import TaskKey, encode_token

logger = logging.getLogger("sidecast_adapters")

SENDING_MAX = 32
"""Publishes on their way at once over all tasks; the server takes 50 unfinished batches per stream."""
PATIENCE_S = 0.5
"""How long a call waits for room while NATS takes events; once it doesn't, none waits until it does again."""
ROOM_FROM = 0.5
"""A call waits from this share of the bound on."""
TURN_EVERY = 64
"""So many calls let the event loop go round once, or an agent that never waits would never be sent."""
_STREAM = re.compile(r"[^\s.*>/\\]{1,255}")
_PASSWORD = re.compile(r"//[^/\s]*@")
_SCHEMES = frozenset({"nats", "tls", "ws", "wss"})


class Publisher:
    """Publishes the events of an agent's tasks to JetStream; an async context manager.

    One per process and event loop, for all tasks. It connects in the background and works without NATS:
    events wait in order within the buffer's bound, oldest text chunks and progress go first beyond it, and
    what is missing is marked in the log. Methods of it and of its tasks belong to the event loop it was
    entered in; from another thread use `asyncio.run_coroutine_threadsafe(task.status("working"), loop)`.

    Args:
        url: the NATS server, or several of a cluster.
        agent: the agent's name, as the broker knows it.
        tenant: the tenant of its tasks, where there are several.
        stream: the JetStream stream; the broker creates it.
        buffer_events_max: how many events may wait.
        buffer_bytes_max: how many bytes their payloads may have.
        credentials_file: a NATS `.creds` file; needs the package `nkeys`.
        close_s_max: how long leaving the block waits for what is not yet acknowledged.
        connect_options: further options of `nats.connect`, for example `tls`.

    Raises:
        ValueError: a name or address can't be used.
    """

    def __init__(
        self,
        url: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        agent: str,
        tenant: str = "",
        stream: str = "SIDECAST",
        buffer_events_max: int = 10_000,
        buffer_bytes_max: int = 32 << 20,
        credentials_file: str | Path | None = None,
        close_s_max: float = 5.0,
        connect_options: Mapping[str, Any] | None = None,
    ) -> None:
        encode_token(agent)
        if tenant:
            encode_token(tenant)
        if not _STREAM.fullmatch(stream):
            raise ValueError(f"{stream!r} can't be a stream's name")
        servers = [url] if isinstance(url, str) else list(url)
        if not servers or not all(map(_is_address, servers)):
            told = _PASSWORD.sub("//***@", repr(url))
            raise ValueError(f"not the address of a NATS server, like nats://127.0.0.1:4222: {told}")
        self.agent = agent
        self.tenant = tenant
        self._close_s_max = close_s_max
        options = dict(connect_options or {})
        if credentials_file is not None:
            options["user_credentials"] = str(credentials_file)
        self._needs_nkeys = credentials_file is not None
        self._calls = 0
        self._counts = Counts()
        self._connection = partial(Connection, servers, stream, options)
        self._buffer = partial(Buffer, buffer_events_max, buffer_bytes_max)
        self._begin()

    def _begin(self) -> None:
        # Nothing here may outlive its process, its event loop or its closing: two processes that share a
        # producer take each other's events for stored ones of their own.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._logs: dict[TaskKey, Log] = {}
        self._progress = asyncio.Event()
        self._flowing = True
        self._shared = Shared(
            producer=secrets.token_hex(16),
            connection=self._connection(),
            buffer=self._buffer(),
            sending=asyncio.Semaphore(SENDING_MAX),
            progressed=self._progressed,
            counts=self._counts,
        )

    @property
    def producer(self) -> str:
        """128 random bits in hex that name this publisher in the log; others after each `start` anew."""
        return self._shared.producer

    @property
    def connected(self) -> bool:
        """Whether NATS is connected at the moment."""
        return self._shared.connection.up

    @property
    def waiting_events(self) -> int:
        """How many events are not yet acknowledged."""
        return self._shared.buffer.events

    @property
    def counts(self) -> Counts:
        """What was stored and dropped so far, as a copy."""
        return structs.replace(self._shared.counts)

    @property
    def totals(self) -> Counts:
        """The counts themselves, for adapters of frameworks to add to."""
        return self._shared.counts

    def start(self) -> None:
        """Begin to connect in the background; `async with` and the first task do it.

        A publisher that was closed, whose event loop has ended, or that came here by a fork begins anew.

        Raises:
            RuntimeError: no event loop runs, or `credentials_file` is set and the package `nkeys` is missing.
        """
        if self._abandoned or self._shared.over:
            self._abandon()
            self._begin()
        if self._loop is not None:
            return
        if self._needs_nkeys and importlib.util.find_spec("nkeys") is None:
            raise RuntimeError("credentials_file needs the package nkeys: pip install 'nats-py[nkeys]'")
        self._shared.connection.open()
        self._loop = asyncio.get_running_loop()

    @property
    def _abandoned(self) -> bool:
        return self._shared.forked or (self._loop is not None and self._loop.is_closed())

    def _abandon(self) -> None:
        """Let go of what was left behind with a process or an event loop; no task of theirs runs here."""
        buffer = self._shared.buffer
        if buffer.events and not self._shared.over:
            self._shared.count_dropped(buffer.events, buffer.bytes)
            logger.error(
                "the event loop ended before the publisher was closed; %d events lost", buffer.events
            )
        self._shared.closed = True
        self._logs.clear()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait up to `close_s_max` for what is not acknowledged, then disconnect; what is left is lost."""
        if self._abandoned:
            self._abandon()
            return
        if not await self.flush(self._close_s_max):
            logger.error("closing with %d events that NATS has not acknowledged", self.waiting_events)
        self._shared.closed = True
        for log in list(self._logs.values()):
            await log.close()
        self._logs.clear()
        await self._shared.connection.close()

    def task(
        self,
        task_id: str,
        *,
        context_id: str | None = None,
        owner: str | None = None,
        error_text: ErrorText = "type",
        traceparent: str | None = None,
        tenant: str | None = None,
    ) -> Task:
        """Make a task to report on: `async with publisher.task("task-1", context_id="ctx-1") as task`.

        Args:
            task_id: the task's id, unique within tenant and agent.
            context_id: the context it belongs to; the task's own id where left out.
            owner: the principal who may watch it; without one only grants decide.
            error_text: what an exception that leaves the block says in the log: its `type`, or its text too
                (`full`; texts carry secrets).
            traceparent: W3C trace context of all its events; the current OpenTelemetry span's where left out.
            tenant: instead of the publisher's.

        Raises:
            ValueError: an id is empty or longer than 256 bytes, or an argument is none of what it may be.
        """
        key = TaskKey(self.tenant if tenant is None else tenant, self.agent, task_id)
        encode_token(task_id)
        if key.tenant:
            encode_token(key.tenant)
        return Task(
            self,
            key,
            context_id=context_id or task_id,
            owner=owner,
            error_text=error_text,
            traceparent=traceparent,
        )

    async def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything published so far is stored, or given up.

        Args:
            timeout_s: how long at most; None waits as long as it takes.

        Returns:
            Whether it came to that in time.
        """
        ordinal = self._shared.buffer.ordinal
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for log in list(self._logs.values()):
            while not log.settled(ordinal):
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                await self._next_progress(left_s)
        return True

    async def room(self) -> None:
        """Wait a moment where the buffer fills up while NATS takes events; at once where it doesn't."""
        self._calls += 1
        if self._calls % TURN_EVERY == 0:
            await asyncio.sleep(0)
        if (
            self._flowing
            and self._shared.buffer.full >= ROOM_FROM
            and not await self._next_progress(PATIENCE_S)
        ):
            self._flowing = False

    async def _next_progress(self, timeout_s: float | None) -> bool:
        progress = self._progress
        try:
            async with asyncio.timeout(timeout_s):
                await progress.wait()
        except TimeoutError:
            return False
        return True

    def _progressed(self) -> None:
        self._flowing = True
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
        for key, log in list(self._logs.items()):
            if log.users == 0 and log.idle:
                del self._logs[key]

    def open_log(self, key: TaskKey, context_id: str, fixed_headers: dict[str, str]) -> Log:
        """Open the log of a task; several users of one task share it."""
        if not self._shared.closed:
            self.start()
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = Log(key, context_id, fixed_headers, self._shared)
        log.users += 1
        return log

    def close_log(self, log: Log) -> None:
        """Let go of a log; it goes on until what waits is sent."""
        log.users -= 1
        if log.users == 0 and log.idle:
            self._logs.pop(log.key, None)


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
