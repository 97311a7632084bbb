"""Since when a client has not been sent all there is: it takes too little, or its own rate is too low.

Must not know clients, nor what is done about a slow one.
"""

from __future__ import annotations

from math import inf


class Slowness:
    """How slow one client has been.

    Attributes:
        lags: how often it was found to take less than is sent, and left to its own speed.
        skips: how often it was shown the task as it stands instead of what it had missed.
    """

    __slots__ = ("_behind_since_s", "_behind_until_s", "_late_since_s", "_late_to", "lags", "skips")

    def __init__(self) -> None:
        self.lags = 0
        self.skips = 0
        self._behind_since_s: float | None = None
        self._behind_until_s = inf
        self._late_to = 0
        self._late_since_s = 0.0

    def fall_behind(self, now: float, apart_s: float) -> None:
        """Take note of a client that takes less than is sent.

        One with a rate may never come to the end; it was not slow as long as it took what that allows.

        Args:
            now: seconds, monotonic.
            apart_s: what it took in time for so long was not the same slowness.
        """
        self.lags += 1
        if self._behind_since_s is None or now - self._behind_until_s >= apart_s:
            self._behind_since_s = now
        self._behind_until_s = inf

    def take(self, now: float) -> None:
        """Take note of a client with a rate that has taken all it was sent."""
        self._behind_until_s = now

    def catch_up(self) -> None:
        """Take note of a client that was sent all there is."""
        self._behind_since_s = None

    def skip(self, *, slow: bool) -> None:
        """Take note of a client that was shown the task as it stands, for its slowness or otherwise."""
        if slow:
            self.skips += 1
        self._behind_since_s = None
        self._late_to = 0

    def lasts(self, now: float, at_least_s: float) -> bool:
        """Tell whether a client has been behind for so long."""
        since_s = self._behind_since_s
        return since_s is not None and now - since_s >= at_least_s

    def late_s(self, cursor: int, end: int, now: float) -> float:
        """Give for how long a client has not been sent what was the newest record then, in seconds.

        Args:
            cursor: sequence of the newest record it was sent.
            end: that of the newest there is.
            now: seconds, monotonic.
        """
        if cursor >= self._late_to:
            self._late_to, self._late_since_s = end, now
        return now - self._late_since_s
