"""What a board sends for while records wait: whether a task belongs there, and what its hub lacks.

Must not know the order of records, nor what is done with what comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from sidecast_broker.answers import Away
from sidecast_broker.entry import Member
from sidecast_broker.feed import Arrival
from sidecast_broker.turn import report

PAUSE_S = 0.05
PAUSE_S_MAX = 2.0

Decide = Callable[[Arrival], Awaitable[Member | None]]
"""Gives the member that a task is to become, with all records up to this one; None: it doesn't belong here.

Raises `Away` where that can't be told at the moment, `Unnamed` where that is for a later record to say."""


class Unnamed(Exception):  # noqa: N818 - a state of the task
    """Nothing that a task has said up to a record names its context."""


class Errands:
    """Holds what is under way, one errand at a time for each task.

    Args:
        done: called when one has come back.
        fail: called when a fault of ours has ended one.
    """

    def __init__(self, done: Callable[[], None], fail: Callable[[], None]) -> None:
        self._done = done
        self._fail = fail
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, task: str) -> bool:
        return task in self._under_way

    def begin(self, task: str, work: Coroutine[None, None, None]) -> None:
        """Send for something that a task's next record waits for."""
        errand = asyncio.get_running_loop().create_task(work)
        self._under_way[task] = errand
        errand.add_done_callback(lambda done: self._end(task, done))

    def _end(self, task: str, errand: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if errand.cancelled():
            return
        if isinstance(error := errand.exception(), Exception):
            report(self, error)
            self._fail()
        else:
            self._done()

    def close(self) -> None:
        """Call all back, and tell nobody of what still comes."""
        # Who is told holds these errands: so held in turn, it would wait for the collector.
        self._done = self._fail = _untold
        for errand in list(self._under_way.values()):
            errand.cancel()


def _untold() -> None:
    """Tell nobody."""


async def patiently(decide: Decide, arrival: Arrival) -> Member | None:
    """Ask until it can be told whether a task belongs to a board.

    Raises:
        Unnamed: a later record has to say it.
    """
    pause_s = PAUSE_S
    while True:
        try:
            return await decide(arrival)
        except Away:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)


async def fetch(member: Member, sequence: int) -> bool:
    """Have a hub read a record that did not reach it; False: the stream doesn't hold it any more."""
    hub = member.hub
    while hub.reloading and not hub.failed:  # noqa: ASYNC110 - it has no end to wait for when it fails
        await asyncio.sleep(PAUSE_S)
    member.tail.repair("hole", sequence)
    await member.tail.settled()
    return hub.failed or hub.end >= sequence
