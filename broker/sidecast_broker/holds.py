"""One stream's hold on a named subscription: what it has confirmed, and how it ends when it is lost.

Must not know who decides that it is lost, nor where positions are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sidecast_broker.core.outlived import Outlived
from sidecast_broker.core.subscriptions import Subscription

Lost = Literal["displaced", "deleted"]
"""By another stream; by its owner, or for inactivity."""


class Held:
    """One stream's hold on a subscription.

    Args:
        subscription: which one.
        token: of this stream.
        outlived: finds what the client's TCP has acknowledged; None: that doesn't count.
        tell: called when a position is to be stored.

    Attributes:
        confirmed: newest sequence to be stored; 0: none.
        due_s: when it is looked at next (monotonic).
        touched_s: when something was last pulled from its consumer (monotonic).
    """

    __slots__ = (
        "_end",
        "_lost",
        "_tell",
        "confirmed",
        "due_s",
        "outlived",
        "subscription",
        "token",
        "touched_s",
    )

    def __init__(
        self, subscription: Subscription, token: str, outlived: Outlived | None, tell: Callable[[Held], None]
    ) -> None:
        self.subscription = subscription
        self.token = token
        self.outlived = outlived
        self.confirmed = 0
        self.due_s = 0.0
        self.touched_s = 0.0
        self._tell = tell
        self._end: Callable[[Lost], None] | None = None
        self._lost: Lost | None = None

    def attach(self, end: Callable[[Lost], None]) -> None:
        """Say how the stream is ended; at once, where the subscription is lost already."""
        self._end = end
        if self._lost is not None:
            end(self._lost)

    def lose(self, reason: Lost) -> None:
        """End the stream: it doesn't hold the subscription any more."""
        self._lost = reason
        if self._end is not None:
            self._end(reason)

    def let_go(self) -> None:
        """Have nothing more to do with the stream, which has ended."""
        self._end = None

    def look(self, cursor: int, sent: int, acknowledged: int, now: float) -> None:
        """Take note of how far a stream is; see `Outlived.look`."""
        if self.outlived is not None:
            position = self.outlived.look(cursor, sent, acknowledged, now)
            if position is not None:
                self.confirmed = max(self.confirmed, position)
                self._tell(self)
