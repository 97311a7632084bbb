"""The tasks of an agent that the stream retains, newest first: read from JetStream, remembered in between.

Must not know HTTP. What a read costs depends on what has changed since the last one.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from sidecast_broker.answers import Away, StreamInfo, TooManyResults
from sidecast_broker.core.log import Stored
from sidecast_schemas import headers as names
from sidecast_schemas.codec import InvalidEvent, decode_event
from sidecast_schemas.subjects import InvalidId, TaskKey, events_subject, parse_subject

FRESH_S = 1.0
"""Answers are shared for so long: any number of open pages costs one read."""
WHOLE_S = 60.0
"""A task removed on its own leaves no trace in later records: everything is read again after so long."""
RESULTS_MAX = 1024
"""Subjects one direct get answers for; nats-server refuses more with 413 (2.15: measured at 1,025)."""
REQUESTS_MAX = 16
LISTS_MAX = 64
"""Lists held at once: each may hold 16,000 tasks, some 8 MB."""


class Listed(NamedTuple):
    """One task.

    Attributes:
        state: its A2A state, None where no record read so far says it.
        at: when its newest record was stored, RFC 3339.
        sequence: of that record.
        owner: whom that record names; whose the task is says only its first one.
    """

    key: TaskKey
    state: str | None
    at: str
    sequence: int
    owner: str | None = None


class Listing(NamedTuple):
    """What is known of the tasks.

    Attributes:
        tasks: newest first.
        truncated: whether the stream holds more tasks than are looked at.
        partial: whether NATS could not be asked, so that this is what was known before.
    """

    tasks: list[Listed]
    truncated: bool
    partial: bool


class Source(Protocol):
    """What is asked of the connection to JetStream."""

    async def info(self) -> StreamInfo:
        """Give the stream's state."""

    async def last_of(self, subjects: Sequence[str], above: int) -> list[Stored]:
        """Give the newest record of each subject that has one above a sequence."""

    async def subjects(self, pattern: str) -> list[str]:
        """Give the subjects that hold records."""


class TaskList:
    """Lists the tasks of one agent.

    Args:
        source: the connection to JetStream.
        tenant: the agent's.
        agent: its name.
        clock: seconds, monotonic.
    """

    def __init__(
        self, source: Source, tenant: str, agent: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._clock = clock
        # A task's subject with its last token exchanged: the tokens before it are encoded as everywhere.
        self._pattern = events_subject(TaskKey(tenant, agent, "x")).rpartition(".")[0] + ".*"
        self._known: dict[str, Listed] = {}
        self._info: StreamInfo | None = None
        self._above = 0
        self._truncated = False
        self._whole_at_s = 0.0
        self._read_at_s: float | None = None
        self._reading = asyncio.Lock()

    async def read(self) -> Listing:
        """Give the tasks, as they stood at most `FRESH_S` ago; those known before where NATS is away."""
        partial = False
        async with self._reading:
            if self._read_at_s is None or self._clock() - self._read_at_s >= FRESH_S:
                try:
                    await self._update()
                    self._read_at_s = self._clock()
                except Away:
                    partial = True
        tasks = sorted(self._known.values(), key=lambda listed: -listed.sequence)
        return Listing(tasks, self._truncated, partial)

    async def _update(self) -> None:
        info = await self._source.info()
        old, now = self._info, self._clock()
        if (
            old is None
            or (old.epoch, old.created, old.deleted) != (info.epoch, info.created, info.deleted)
            or now - self._whole_at_s >= WHOLE_S
        ):
            found = await self._newest(0)
            self._known = {}
            self._whole_at_s = now
        else:
            found = await self._newest(self._above) if info.last > self._above else []
            self._known = {
                subject: listed for subject, listed in self._known.items() if listed.sequence >= info.first
            }
        for stored in found:
            self._take(stored)
        # What a replica lacked that is behind, or what came between two requests, is asked for again.
        newest = max((listed.sequence for listed in self._known.values()), default=0)
        self._above = min(newest, info.last)
        self._info = info

    async def _newest(self, above: int) -> list[Stored]:
        try:
            found = await self._source.last_of([self._pattern], above)
            self._truncated = False
        except TooManyResults:
            subjects = await self._source.subjects(self._pattern)
            self._truncated = len(subjects) > RESULTS_MAX * REQUESTS_MAX
            found = []
            for start in range(0, min(len(subjects), RESULTS_MAX * REQUESTS_MAX), RESULTS_MAX):
                found += await self._source.last_of(subjects[start : start + RESULTS_MAX], above)
        return found

    def _take(self, stored: Stored) -> None:
        subject = stored.headers.get(names.SUBJECT, "")
        try:
            key = parse_subject(subject)
        except InvalidId:
            return
        before = self._known.get(subject)
        # Where the newest record says nothing of the state, the task is still in the one it was in.
        state = _state_of(stored) or (before.state if before is not None else None)
        self._known[subject] = Listed(key, state, stored.at, stored.sequence, stored.owner)


class TaskLists:
    """Holds lists, one for each agent and tenant that somebody asks about.

    Args:
        source: the connection to JetStream.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lists: OrderedDict[tuple[str, str], TaskList] = OrderedDict()

    def of(self, tenant: str, agent: str) -> TaskList:
        """Give the list of an agent's tasks in a tenant; those not asked for in a while are read anew."""
        key = (tenant, agent)
        found = self._lists.get(key)
        if found is None:
            found = self._lists[key] = TaskList(self._source, tenant, agent)
            if len(self._lists) > LISTS_MAX:
                self._lists.popitem(last=False)
        self._lists.move_to_end(key)
        return found


def _state_of(stored: Stored) -> str | None:
    if state := stored.headers.get(names.STATE):
        return state
    try:
        return decode_event(stored.payload).state
    except InvalidEvent:
        return None
