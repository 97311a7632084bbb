"""What a stream's coroutine waits for where nothing is to be sent: that somebody has it look again.

Must not know why it is rung, nor what is looked at.
"""

from __future__ import annotations

import asyncio
from functools import partial

from sidecast_broker.hub import Hub


class Bell:
    """Wakes one coroutine."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Have it look; where it waits for nothing, that changes nothing."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def next_ring(self) -> asyncio.Future[None]:
        """Give what the next ring resolves; to be awaited before another one is asked for."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        return waiter

    async def sleep(self, hub: Hub, due_s: float) -> None:
        """Wait for a time (monotonic) as a hub's pacer tells it, or for a ring."""
        waiter = self.next_ring()
        hub.pacer.sleep(due_s, partial(_resolve, waiter))
        await waiter

    async def rung_by(self, hub: Hub, within_s: float | None = None) -> None:
        """Wait for a hub's first record or the end of its reload, or for a ring.

        Args:
            hub: the task's.
            within_s: how long at most; None: as long as it takes.
        """
        waiter = self.next_ring()
        hub.wait(self.ring)
        try:
            async with asyncio.timeout(within_s):
                await waiter
        except TimeoutError:
            pass
        finally:
            hub.stop_waiting(self.ring)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
