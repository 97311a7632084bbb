"""For how long a client's peer has not acknowledged what it was sent.

Must not know sockets, nor what becomes of a client that lags.
"""

from __future__ import annotations


class Lag:
    """The lag of one client; its age counts from when it was first seen."""

    __slots__ = ("_bytes", "_since_s")

    def __init__(self) -> None:
        self._bytes = 0
        self._since_s: float | None = None

    def settled_at(self, sent: int) -> bool:
        """Tell whether all was acknowledged at the last look, and so many bytes had been sent by then."""
        return self._since_s is None and self._bytes == sent

    def look(self, acknowledged: int, pending: int, now: float, *, patient: bool) -> float:
        """Take note of how far the peer is; give the lag's age in seconds, 0 for none.

        Args:
            acknowledged: bytes of all that was sent.
            pending: bytes that were sent and not acknowledged.
            now: seconds, monotonic.
            patient: whether its age begins anew with each byte acknowledged; else with all that is pending.
        """
        if not pending or self._since_s is None or acknowledged >= self._bytes:
            self._bytes = acknowledged + (min(pending, 1) if patient else pending)
            self._since_s = now if pending else None
        return self.age_s(now)

    def age_s(self, now: float) -> float:
        """Give the lag's age in seconds; 0: there was none at the last look."""
        return 0.0 if self._since_s is None else now - self._since_s
