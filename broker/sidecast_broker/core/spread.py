"""When each of many is due that are to be spread evenly over a time, whatever holds up who does it.

Must not know clocks (the time comes in as `now_s`), nor what is done.
"""

from __future__ import annotations

FASTEST = 1.5
"""How much faster than planned it may go after a delay: what was missed must not come in one burst."""
MISSED_S = 0.1
"""As much as this may be made good at once: timers are not exact."""


class Spread:
    """Plans so many steps over a time.

    Args:
        count: how many.
        over_s: seconds; the last step is due one interval before their end.
        now_s: the time, seconds, monotonic: the first is due at once.
    """

    def __init__(self, count: int, over_s: float, now_s: float) -> None:
        self._interval_s = over_s / count if count else 0.0
        self._planned_s = now_s
        self._paced_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Give the time until the next step, and go on to the one behind it; 0 where it is due."""
        due_s = max(self._planned_s, self._paced_s)
        self._planned_s += self._interval_s
        self._paced_s = max(due_s, now_s - MISSED_S) + self._interval_s / FASTEST
        return max(0.0, due_s - now_s)
