"""How long a stream may live: until its credential ends, or is revoked.

Must not know streams, nor what time it is: `now_s` comes in, seconds since 1970.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

End: TypeAlias = Literal["expired", "revoked"]
Step: TypeAlias = Literal["tell", "expire", "cut"]
"""What is due: to tell of the end, to end in good order, or to break the connection."""

GRACE_S = 1.0
"""How long a client may take for what it was sent before the end."""


class Life:
    """The life of one stream.

    Args:
        ends_at_s: when its credential ends, seconds since 1970; None: never.
        expiring_s: how long before that the client is told.

    Attributes:
        due_s: before that time nothing is due.
        end: why it has ended; None: it goes on.
        generation: of the revocations it was judged by; -1: it was not.
    """

    __slots__ = ("_ends_at_s", "due_s", "end", "generation")

    def __init__(self, ends_at_s: float | None, expiring_s: float) -> None:
        self._ends_at_s = math.inf if ends_at_s is None else ends_at_s
        self.due_s = self._ends_at_s - expiring_s
        self.end: End | None = None
        self.generation = -1

    def left_s(self, now_s: float) -> float:
        """Give the time until the credential ends, in seconds."""
        return max(0.0, self._ends_at_s - now_s)

    def step(self, now_s: float) -> Step | None:
        """Give what is due; the same again until it is taken."""
        if now_s < self.due_s:
            return None
        if self.end is not None:
            return "cut"
        return "expire" if now_s >= self._ends_at_s else "tell"

    def tell(self) -> None:
        """Take the step of telling the client."""
        self.due_s = self._ends_at_s

    def finish(self, end: End, now_s: float) -> None:
        """End it; a second time changes nothing."""
        if self.end is None:
            self.end = end
            self.due_s = now_s + GRACE_S
