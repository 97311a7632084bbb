"""The garbage collector: kept from walking what memory is made of, and sent over all of it now and then.

Must not know what is collected.
"""

from __future__ import annotations

import asyncio
import gc

from sidecast_broker.background import Background

COLLECT_S = 600.0
"""A whole collection holds the event loop for some 100 ms at 30,000 records: once in ten minutes."""


class Collector:
    """Has the collector look at what is new, and seldom at everything.

    A broker's memory is records and streams, freed by their reference counts. What those can't free is
    little, as errors that hold the frames that hold them, but whoever causes it could go on: so nothing of
    it stays for longer than two periods.

    Args:
        period_s: between two whole collections.
    """

    def __init__(self, period_s: float = COLLECT_S) -> None:
        self._period_s = period_s
        self._background = Background("collector", self._run)

    def start(self) -> None:
        """Leave alone what is there from the beginning, and begin.

        What stays is walked once among the new objects and once among the young ones, however many those are
        at a time: 110,000 of them take 50 ms, so they are walked a few thousand at a time. The last number is
        one of young collections that a broker doesn't come to within a period.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(1_000, 3, 300_000)
        self._background.start()

    async def close(self) -> None:
        """End."""
        await self._background.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            gc.collect()
