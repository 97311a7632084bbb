"""All tasks in memory: opened when first watched, kept while watched or recent, bounded together.

Must not know HTTP, nor how a hub feeds its subscribers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from sidecast_broker.answers import Away, StreamInfo
from sidecast_broker.background import Background
from sidecast_broker.core.cursor import MalformedCursor, parse_cursor
from sidecast_broker.core.log import Stored
from sidecast_broker.hub import Hub, ignore_growth
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.positioner import Positioner
from sidecast_broker.settings import Log
from sidecast_broker.tail import Cause, Tail
from sidecast_broker.timers import Timers
from sidecast_broker.traced_hub import TracedHub
from sidecast_broker.tracing import Tracing
from sidecast_broker.turn import Turn
from sidecast_broker.use import Use
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey, events_subject, parse_subject

logger = structlog.get_logger(__name__)

SWEEP_S = 1.0
REPAIR_S_MAX = 2.0
"""How long a request waits for a hub to reach what the leader has named."""


class _Entry:
    """A hub with its tail, and who uses it."""

    __slots__ = ("hub", "idle_since_s", "opened", "tail", "users")

    def __init__(self, hub: Hub, tail: Tail, opened: asyncio.Task[None]) -> None:
        self.hub = hub
        self.tail = tail
        self.opened = opened
        self.users = 0
        self.idle_since_s = 0.0


class Hubs:
    """Opens, shares and evicts the hubs of tasks.

    Args:
        stream: the connection to JetStream.
        positioner: watches over the tails.
        settings: the bounds of memory.
        metrics: where to count.
        tracing: makes the spans of what is delivered; None: nobody does.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        stream: JetStream,
        positioner: Positioner,
        settings: Log,
        metrics: Metrics,
        *,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size_bytes = 0
        self._stream = stream
        self._positioner = positioner
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing
        self._clock = clock
        self._entries: dict[TaskKey, _Entry] = {}
        # Who looks at the tasks of one agent again and again doesn't go through those of all.
        self._of_agent: dict[str, dict[TaskKey, None]] = {}
        self._sweeper = Background("sweeper", self._sweep)
        self._turn = Turn()
        self._timers = Timers(clock)
        stream.on_burst_end = self._turn.end
        self._shrinking = False
        self._shrink_above = settings.bytes_max
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def start(self) -> None:
        """Begin to sweep out what nobody watches."""
        self._sweeper.start()

    async def close(self) -> None:
        """Close all tails."""
        await self._sweeper.close()
        for key in list(self._entries):
            self._evict(key)
        await asyncio.gather(*self._closing)

    async def first(self, key: TaskKey) -> Stored | None:
        """Ask the stream's leader for a task's first retained record; None: there is no such task.

        Raises:
            Away: no answer.
        """
        return await self._stream.next(events_subject(key), 1)

    async def task_at(self, sequence: int) -> TaskKey | None:
        """Ask the stream's leader whose record stands at a sequence; None: there is none.

        Raises:
            Away: no answer.
        """
        stored = await self._stream.at(sequence)
        return parse_subject(stored.headers[names.SUBJECT]) if stored is not None else None

    async def position_of(self, cursor: str | None, hub: Hub) -> StreamInfo:
        """Give the stream's state, fresh from the leader where the cursor lies beyond what is known.

        Args:
            cursor: as the client sent it.
            hub: the task's; what was purged before its first record may not be known yet.

        Raises:
            Away: the leader had to be asked and can't answer.
        """
        info = self._positioner.info
        if info is None:
            raise Away("the stream has not been reached yet")
        if cursor is not None:
            try:
                sequence = parse_cursor(cursor).sequence
            except MalformedCursor:
                return info
            before_first = not hub.complete and sequence < (hub.first or 0) - 1
            beyond = sequence > max(info.last, hub.end)
            if beyond or before_first or (info.first > 1 and sequence < info.first):
                return await self._stream.info()
        return info

    def peek(self, key: TaskKey) -> Hub | None:
        """Give the hub of a task that is in memory with all its records, without using it."""
        entry = self._entries.get(key)
        if entry is None or not entry.opened.done() or entry.hub.reloading:
            return None
        return entry.hub

    def in_memory(self, agent: str) -> list[Hub]:
        """Give the hubs of an agent's tasks that are in memory with all their records."""
        hubs = map(self.peek, self._of_agent.get(agent, ()))
        return [hub for hub in hubs if hub is not None]

    def watchers(self, key: TaskKey) -> int:
        """Tell how many use a task's hub."""
        entry = self._entries.get(key)
        return 0 if entry is None else entry.users

    def watched(self, tenant: str, agent: str) -> dict[str, int]:
        """Tell how many use each hub of an agent's tasks; those that nobody uses are left out."""
        keys = [key for key in self._of_agent.get(agent, ()) if key.tenant == tenant]
        return {key.task: users for key in keys if (users := self._entries[key].users)}

    async def acquire(self, key: TaskKey, at_least: int = 0) -> Hub:
        """Give a task's hub with all it holds read; many may wait for one reading. `release` it after use.

        Args:
            key: the task.
            at_least: a sequence of this task that the leader has named: the hub holds it, unless it was
                purged meanwhile.

        Raises:
            Away: what is to be read can't be, because NATS doesn't answer.
            InvalidId: one of the ids can't be part of a subject.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._open(key)
        entry.users += 1
        with Use(partial(self._leave, entry)) as use:
            try:
                if not entry.opened.done():
                    await asyncio.shield(entry.opened)
                if entry.hub.end < at_least or entry.hub.reloading:
                    # Its live message may be on its way; who knows of it must not be told that there is none.
                    entry.tail.repair("open", at_least)
                    async with asyncio.timeout(REPAIR_S_MAX):
                        await entry.tail.settled()
            except TimeoutError as error:
                raise Away("what is stored can't be read") from error
            if entry.hub.failed:
                raise Away("what is stored can't be read")
            use.keep()
        return entry.hub

    def unfed(self, key: TaskKey) -> Hub:
        """Give a hub that nothing feeds, for who waits for a task that may not be looked at yet.

        Raises:
            Away: the stream has not been reached yet.
        """
        return self._hub(key, self._epoch())

    def using(self, hub: Hub) -> Use:
        """Release a hub that `acquire` gave when a block is left, unless the block keeps it in use."""
        return Use(partial(self.release, hub))

    def release(self, hub: Hub) -> None:
        """Stop using a hub that `acquire` gave; its task may be held by another one since, or by none."""
        entry = self._entries.get(hub.key)
        if entry is not None and entry.hub is hub:
            self._leave(entry)

    def _leave(self, entry: _Entry) -> None:
        entry.users -= 1
        entry.idle_since_s = self._clock()

    def tail(self, hub: Hub) -> Tail:
        """Give the tail of a hub in use.

        Raises:
            Away: the hub was let go: the task may be held by another one since.
        """
        entry = self._entries.get(hub.key)
        if entry is None or entry.hub is not hub:
            raise Away("what is stored can't be read")
        return entry.tail

    def _epoch(self) -> str:
        info = self._positioner.info
        if info is None:
            raise Away("the stream has not been reached yet")
        return info.epoch

    def _hub(self, key: TaskKey, epoch: str) -> Hub:
        parts = self.parts(key, epoch, self._settings.task_bytes_max, self._grow)
        return Hub(**parts) if self._tracing is None else TracedHub(self._tracing, **parts)

    def parts(
        self, key: TaskKey, epoch: str, log_bytes_max: int, on_growth: Callable[[int], None]
    ) -> dict[str, Any]:
        """Give the arguments of a hub that runs in turn with all others."""
        return {
            "key": key,
            "epoch": epoch,
            "log_bytes_max": log_bytes_max,
            "metrics": self._metrics,
            "soon": self._turn.soon,
            "afterwards": self._turn.afterwards,
            "on_growth": on_growth,
            "timers": self._timers,
            "clock": self._clock,
            "witness": self._tracing,
        }

    def _open(self, key: TaskKey) -> _Entry:
        hub = self._hub(key, self._epoch())
        loop = asyncio.get_running_loop()
        tail = Tail(
            self._stream,
            key,
            hub,
            on_doubt=self._positioner.doubt,
            on_repair=self._count_repair,
            on_failure=lambda: self._fail(key, hub),
        )
        # Before anything is awaited: a stream that begins anew meanwhile resets this tail too.
        self._positioner.add(tail)
        hub.on_other_owner = partial(self._part, key, hub)
        entry = self._entries[key] = _Entry(hub, tail, loop.create_task(self._fill(key, tail, hub.epoch)))
        self._of_agent.setdefault(key.agent, {})[key] = None
        return entry

    def _fail(self, key: TaskKey, hub: Hub) -> None:
        """Let a task go that a fault of ours stops: its clients reconnect, and it is read anew."""
        entry = self._entries.get(key)
        if entry is not None and entry.hub is hub:
            self._evict(key)
        hub.fail()

    def _part(self, key: TaskKey, hub: Hub) -> None:
        """Let a task go whose id is another owner's: its streams break off, and who opens them is judged."""
        logger.warning("owner_changed", task=key.task)
        hub.fail()
        entry = self._entries.get(key)
        if entry is not None and entry.hub is hub:
            # Those who wait for its being read must not be cancelled with that.
            entry.opened.add_done_callback(lambda _opened: self._fail(key, hub))

    async def _fill(self, key: TaskKey, tail: Tail, epoch: str) -> None:
        try:
            info = await self._stream.info()
            if info.epoch != epoch:
                self._positioner.doubt("another-stream")
                raise Away("the stream has begun anew")
            await tail.open(info.last)
        except BaseException:
            self._positioner.remove(tail)
            self._forget(key, tail)
            raise

    def _forget(self, key: TaskKey, tail: Tail) -> None:
        """Hold a task no more, and its memory for free; one that is not held is fine."""
        entry = self._entries.get(key)
        if entry is not None and entry.tail is tail:
            del self._entries[key]
            keys = self._of_agent[key.agent]
            del keys[key]
            if not keys:
                del self._of_agent[key.agent]
            self.size_bytes -= entry.hub.size_bytes
            entry.hub.on_growth = ignore_growth  # a message may be on its way

    def measure(self) -> None:
        """Set the gauges of memory: computed when somebody asks, not per event."""
        self._metrics.tasks.set(len(self._entries))
        self._metrics.log_bytes.set(self.size_bytes)

    def _count_repair(self, cause: Cause) -> None:
        self._metrics.tail_repairs.labels(cause).inc()

    def _grow(self, grown: int) -> None:
        self.size_bytes += grown
        if grown > 0 and self.size_bytes > self._shrink_above and not self._shrinking:
            # Not at once: this is called from inside of a hub, which is no place to cut it.
            self._shrinking = True
            asyncio.get_running_loop().call_soon(self._shrink)

    def _shrink(self) -> None:
        """Make room: first tasks nobody watches, the longest idle first, then old records of the largest.

        Folds can't shrink. Where they fill the bound alone, logs are cut again only after some growth.
        """
        self._shrinking = False
        self._make_room()
        self._shrink_above = self._above_present()

    def _above_present(self) -> int:
        bytes_max = self._settings.bytes_max
        return max(bytes_max, self.size_bytes + bytes_max // 64)

    def _make_room(self) -> None:
        idle = [key for key, entry in self._entries.items() if not entry.users and entry.opened.done()]
        for key in sorted(idle, key=lambda key: self._entries[key].idle_since_s):
            if self.size_bytes <= self._settings.bytes_max:
                return
            self._evict(key)
        for entry in sorted(self._entries.values(), key=lambda entry: -entry.hub.log.size_bytes):
            if self.size_bytes <= self._settings.bytes_max * 0.9:
                return
            entry.hub.trim(entry.hub.log.size_bytes // 2)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_S, self._settings.idle_s or SWEEP_S))
            limit = self._clock() - self._settings.idle_s
            for key, entry in list(self._entries.items()):
                if not entry.users and entry.opened.done() and entry.idle_since_s <= limit:
                    self._evict(key)
            self._shrink_above = min(self._shrink_above, self._above_present())

    def _evict(self, key: TaskKey) -> None:
        entry = self._entries[key]
        self._forget(key, entry.tail)
        entry.opened.cancel()
        self._positioner.remove(entry.tail)
        closing = asyncio.get_running_loop().create_task(entry.tail.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        if not entry.users:
            closing.add_done_callback(lambda _closed: self._turn.soon(entry.hub.let_go))
