"""A task's hub where the log may lack a task that the agent has: begun elsewhere, captured from then on.

Must not know formats, nor how tasks are captured. Whoever watches can cause no more than one look per
request, or of a list `LISTED_AT_ONCE` at once, one per task at a time, and `LOOKS_MAX` at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.capture import Capture
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.opening import open_hub, until
from sidecast_broker.refused import Refused
from sidecast_schemas.subjects import TaskKey

LOOK_S = 4.0
"""How long somebody waits for a look: Python clients give up after 5 s. The look itself goes on."""
LOOKS_MAX = 64
"""Looks at once, over all tasks: an agent that hangs is not asked more and more."""
LISTED_AT_ONCE = 4
"""Looks at once for one list of tasks."""


class Adoption:
    """Looks for tasks at the agent.

    Args:
        hubs: the tasks.
        capture: captures those found; None: the agent publishes, and what the log lacks there isn't.
    """

    def __init__(self, hubs: Hubs, capture: Capture | None) -> None:
        self._hubs = hubs
        self._capture = capture
        self._looks: dict[TaskKey, asyncio.Task[bool]] = {}

    async def close(self) -> None:
        """Stop looking."""
        for look in list(self._looks.values()):
            look.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)

    async def open(self, key: TaskKey, *, first: int | None = None) -> Hub:
        """Give the hub of a task that the log or the agent has; `Hubs.release` it after use (C68).

        Args:
            key: the task.
            first: a sequence of the task's that the leader has named already; None: it wasn't asked.

        Raises:
            Refused: there is no such task, or that can't be found out at the moment.
            AgentAway: the log has no such task, and the agent can't be asked.
        """
        try:
            return await open_hub(self._hubs, key, first=first)
        except Refused as refused:
            if refused.code != "not-found" or self._capture is None or not await self._found(key):
                raise
        hub = await open_hub(self._hubs, key, wait=True)
        with self._hubs.using(hub) as use:
            await until(hub, lambda: hub.fold.started)
            use.keep()
        return hub

    async def open_waiting(self, key: TaskKey, *, first: int | None = None) -> Hub:
        """Give the hub of a task that may begin later, and look meanwhile whether the agent has it.

        Args:
            key: the task.
            first: as in `open`.

        Raises:
            Refused: it can't be found out at the moment what there is.
        """
        hub = await open_hub(self._hubs, key, wait=True, first=first)
        with self._hubs.using(hub) as use:
            if hub.first is None and self._capture is not None:
                self._look(key, self._capture)
            use.keep()
        return hub

    async def find(self, keys: Iterable[TaskKey]) -> frozenset[TaskKey]:
        """Look for listed tasks that the log lacks, no longer than for one; give those it has then.

        What can't be found out in that time counts as not there: the others of the list are not held up.
        """
        if self._capture is None:
            return frozenset()
        found: set[TaskKey] = set()
        gate = asyncio.Semaphore(LISTED_AT_ONCE)

        async def look(key: TaskKey) -> None:
            async with gate:
                with contextlib.suppress(Refused, AgentAway):
                    self._hubs.release(await self.open(key))
                    found.add(key)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await asyncio.gather(*map(look, keys))
        return frozenset(found)

    async def _found(self, key: TaskKey) -> bool:
        assert self._capture is not None
        look = self._look(key, self._capture)
        try:
            async with asyncio.timeout(LOOK_S):
                # One who leaves doesn't end it for the others.
                return await asyncio.shield(look)
        except TimeoutError as error:
            raise AgentAway("timeout", f"the agent did not say within {LOOK_S:g} s what it knows") from error

    def _look(self, key: TaskKey, capture: Capture) -> asyncio.Task[bool]:
        look = self._looks.get(key)
        if look is None:
            if len(self._looks) >= LOOKS_MAX:
                raise Refused("unavailable", "the agent is being asked for many tasks", retry_after_s=1)
            look = asyncio.get_running_loop().create_task(capture.adopt(key.tenant, key.task))
            self._looks[key] = look
            look.add_done_callback(lambda done: self._looked(key, done))
        return look

    def _looked(self, key: TaskKey, look: asyncio.Task[bool]) -> None:
        del self._looks[key]
        # Where nobody waits for it any more, an agent that is away is nobody's news.
        with contextlib.suppress(AgentAway, asyncio.CancelledError):
            look.result()
