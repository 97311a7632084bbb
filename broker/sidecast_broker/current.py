"""Tasks with all that the stream holds of them at this moment, for what begins with many of them.

Must not know what begins, nor who may watch what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sidecast_broker.entry import Member
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_schemas.subjects import TaskKey, events_subject

AT_ONCE = 32
"""Tasks of one board that are read together."""


class Current:
    """Reads tasks up to now.

    Args:
        stream: the connection to JetStream.
        hubs: the tasks.
    """

    def __init__(self, stream: JetStream, hubs: Hubs) -> None:
        self._stream = stream
        self._hubs = hubs

    async def begun(self, keys: Iterable[TaskKey]) -> frozenset[TaskKey]:
        """Give those tasks of which the stream holds a record.

        Raises:
            Away: NATS can't answer.
        """
        wanted = list(keys)
        if not wanted:
            return frozenset()
        newest = await self._stream.newest(map(events_subject, wanted), 0, (await self._stream.info()).last)
        return frozenset(key for key in wanted if events_subject(key) in newest)

    async def take(self, keys: Iterable[TaskKey], *, begun: bool = False) -> list[Member]:
        """Give tasks with all records that the stream holds of them up to now, in use.

        What a hub in memory lacks of them, because its live message was lost, is read first: where a board
        begins, all before that must be in the hubs.

        Args:
            keys: the tasks.
            begun: leave those out that have no record.

        Raises:
            Away: NATS can't answer.
        """
        wanted = list(keys)
        if not wanted:
            return []
        last = (await self._stream.info()).last
        newest = await self._stream.newest(map(events_subject, wanted), 0, last)
        if begun:
            wanted = [key for key in wanted if events_subject(key) in newest]
        members: dict[TaskKey, Member] = {}

        async def take(key: TaskKey) -> None:
            # Noted one by one: who leaves in the middle must not keep those that have come.
            members[key] = await self.member(key, newest.get(events_subject(key), 0))

        try:
            for start in range(0, len(wanted), AT_ONCE):
                answers = await asyncio.gather(
                    *map(take, wanted[start : start + AT_ONCE]), return_exceptions=True
                )
                for answer in answers:
                    if answer is not None:
                        raise answer
        except BaseException:
            for member in members.values():
                self._hubs.release(member.hub)
            raise
        return [members[key] for key in wanted]

    async def member(self, key: TaskKey, at_least: int) -> Member:
        """Give a task with all its records, up to one that the leader has named, in use.

        Raises:
            Away: what is to be read can't be.
        """
        hub = await self._hubs.acquire(key, at_least)
        return Member(hub, self._hubs.tail(hub))
