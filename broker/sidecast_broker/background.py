"""Work that must go on as long as the broker runs, whatever happens to one round of it.

Must not know what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

logger = structlog.get_logger(__name__)

RESTART_S = 1.0
CANCEL_AGAIN_S = 1.0


class Background:
    """Runs a coroutine, and again when it fails: a fault of ours is logged, and costs one round.

    Args:
        name: what a log line calls it.
        run: gives the coroutine; it isn't expected to return.
    """

    def __init__(self, name: str, run: Callable[[], Coroutine[None, None, None]]) -> None:
        self._name = name
        self._run = run
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._keep_running(), name=self._name)

    async def close(self) -> None:
        """End it."""
        # Until Python 3.12 asyncio.wait_for, which libraries use, keeps a cancellation to itself where what
        # it waits for has just come; the work would go on.
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_AGAIN_S)

    async def _keep_running(self) -> None:
        while True:
            try:
                await self._run()
            except Exception:
                logger.exception("background_failed", part=self._name)
            await asyncio.sleep(RESTART_S)
