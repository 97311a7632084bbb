"""Functions that run at their times, with one timer of the event loop for all of them.

Must not know what they do, nor for whom.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count

from sidecast_broker.turn import report


class Timer:
    """One function that waits for its time."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[], None]) -> None:
        self.run: Callable[[], None] | None = run

    def cancel(self) -> None:
        """Don't run it, and hold nothing of it any more."""
        self.run = None


class Timers:
    """Runs functions at their times.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._armed: asyncio.TimerHandle | None = None
        self._armed_at_s = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due_s: float, run: Callable[[], None]) -> Timer:
        """Run a function once the clock has come to a time."""
        timer = Timer(run)
        heapq.heappush(self._heap, (due_s, next(self._order), timer))
        self._arm()
        return timer

    def _arm(self) -> None:
        due_s = self._heap[0][0]
        if self._armed is not None:
            if self._armed_at_s <= due_s:
                return
            self._armed.cancel()
        self._armed_at_s = due_s
        delay_s = max(due_s - self._clock(), 0.0)
        self._armed = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._armed = None
        self.run_due()
        if self._heap:
            self._arm()

    def run_due(self) -> None:
        """Run what is due; what one of them raises is reported, and keeps none of the others."""
        now_s = self._clock()
        while self._heap and self._heap[0][0] <= now_s:
            _due_s, _order, timer = heapq.heappop(self._heap)
            if (run := timer.run) is None:
                continue
            try:
                run()
            except Exception as error:  # noqa: BLE001 - reported like that of the loop's own callbacks
                report(run, error)
