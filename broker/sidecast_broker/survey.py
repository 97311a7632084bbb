"""The tasks that a stream of an agent or a context begins with: those that may be seen, newest first.

Must not know HTTP, nor what is done with them.
"""

from __future__ import annotations

import asyncio

from sidecast_broker.answers import Away
from sidecast_broker.auth.access import Access
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.log import Stored
from sidecast_broker.entry import Selection
from sidecast_broker.jetstream import JetStream
from sidecast_broker.task_list import RESULTS_MAX, TaskLists
from sidecast_schemas import headers as names
from sidecast_schemas.codec import InvalidEvent, decode_event
from sidecast_schemas.subjects import EVENTS_PREFIX, InvalidId, TaskKey, agent_tokens, parse_subject

AT_ONCE = 32
"""Tasks whose owners are asked for together."""


class Survey:
    """Finds tasks.

    Args:
        stream: the connection to JetStream.
        tasks: the tasks of agents, as they were lately.
        access: who may watch which.
    """

    def __init__(self, stream: JetStream, tasks: TaskLists, access: Access) -> None:
        self._stream = stream
        self._tasks = tasks
        self._access = access

    async def may_watch(self, principal: Principal, key: TaskKey, first: Stored | None = None) -> bool:
        """Tell whether a principal may watch a task.

        Args:
            principal: who asks.
            key: the task.
            first: the task's first record, where that is at hand: it names the owner.

        Raises:
            Refused: `unavailable`.
        """
        if not self._access.on:
            return True
        if first is not None and not self._access.asks_elsewhere:
            return self._access.may_watch_new(principal, key, first.owner)
        return await self._access.may_watch(principal, key)

    async def tasks(
        self, tenant: str, agent: str, selection: Selection, principal: Principal, count_max: int
    ) -> tuple[list[TaskKey], int]:
        """Give the tasks of a selection that a principal may watch, newest first; how many there are beside.

        What there is says the leader: a replica that is behind must not make a task be missing.

        Args:
            tenant: of the tasks.
            agent: whose they are.
            selection: a context, or the agent.
            principal: who asks.
            count_max: so many at most.

        Raises:
            Away: NATS can't answer, or owners can't be looked up.
            Refused: the same.
        """
        began_s = self._access.now()
        try:
            return await self._find(tenant, agent, selection, principal, count_max)
        finally:
            # How many tasks of others were looked at, or whether there are any in a context, must not show.
            await self._access.hold(began_s)

    async def _find(
        self, tenant: str, agent: str, selection: Selection, principal: Principal, count_max: int
    ) -> tuple[list[TaskKey], int]:
        subjects = await self._stream.subjects(f"{EVENTS_PREFIX}.{agent_tokens(tenant, agent)}.*")
        if selection.context is not None:
            ranked = await self._of_context(subjects, selection.context)
        else:
            listing = await self._tasks.of(tenant, agent).read()
            newest = {listed.key: listed.sequence for listed in listing.tasks}
            # One that the list lacks has just begun.
            ranked = sorted(_keys(subjects), key=lambda key: -newest.get(key, 2**63))
        if not self._access.on:
            return ranked[:count_max], max(0, len(ranked) - count_max)
        visible = await self._access.visible(principal, ranked)
        if visible.away:
            raise Away("owners can't be looked up")
        ranked = [key for key in ranked if key in visible.keys]
        # Nothing is opened on the word of a list, which remembers owners for a while.
        shown = ranked[:count_max]
        allowed: list[bool] = []
        for start in range(0, len(shown), AT_ONCE):
            some = shown[start : start + AT_ONCE]
            allowed += await asyncio.gather(*(self.may_watch(principal, key) for key in some))
        left_out = len(ranked) - len(shown) + (1 if visible.left_out else 0)
        return [key for key, may in zip(shown, allowed, strict=True) if may], left_out

    async def _of_context(self, subjects: list[str], context: str) -> list[TaskKey]:
        """Give the tasks of a context by their newest records; those that don't say it by their first."""
        found: list[Stored] = []
        for start in range(0, len(subjects), RESULTS_MAX):
            found += await self._stream.last_of(subjects[start : start + RESULTS_MAX], 0)
        found.sort(key=lambda stored: -stored.sequence)
        known = {stored.headers.get(names.SUBJECT, "") for stored in found}
        silent = [subject for subject in subjects if subject not in known]
        ranked = []
        for subject, named in [
            *((subject, None) for subject in silent),
            *((stored.headers.get(names.SUBJECT, ""), context_of(stored)) for stored in found),
        ]:
            if not named:
                first = await self._stream.next(subject, 1)
                named = context_of(first) if first is not None else None
            if named == context:
                ranked.append(subject)
        return _keys(ranked)


def context_of(stored: Stored) -> str | None:
    try:
        return decode_event(stored.payload).context_id
    except InvalidEvent:
        return None


def _keys(subjects: list[str]) -> list[TaskKey]:
    keys = []
    for subject in subjects:
        try:
            keys.append(parse_subject(subject))
        except InvalidId:
            continue
    return keys
