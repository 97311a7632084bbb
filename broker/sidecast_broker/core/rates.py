"""How often something may happen, at all or per key, in bounded memory; and how many there are per key.

Must not know clocks: the time comes in as `now_s`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

KEYS_MAX = 65_536
"""Keys that are remembered: some 10 MiB; the ones used longest ago are forgotten first."""


class Rates(Generic[K]):
    """Lets each key do something so many times in a period: at once, or spread over it.

    A bucket holds one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T
    I.371): what a key has not used comes back evenly, and a key whose bucket is full need not be known.

    Args:
        count: how many in a period; 0: any number.
        period_s: seconds.
        keys_max: keys that are remembered.
    """

    def __init__(self, count: int, period_s: float, keys_max: int = KEYS_MAX) -> None:
        self._interval_s = period_s / count if count else 0.0
        self._burst_s = period_s - self._interval_s
        self._keys_max = keys_max
        self._full_at_s: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, key: K, now_s: float) -> float:
        """Use one of what a key has; give 0, or where there is none the seconds until there will be.

        Args:
            key: who.
            now_s: seconds, monotonic.
        """
        if not self._interval_s:
            return 0.0
        full_at_s = max(self._full_at_s.get(key, now_s), now_s)
        wait_s = full_at_s - self._burst_s - now_s
        # Less than a clock's tick is none: sums of intervals are not exact.
        if wait_s > 1e-6:
            self._full_at_s.move_to_end(key)
            return wait_s
        self._full_at_s[key] = full_at_s + self._interval_s
        self._full_at_s.move_to_end(key)
        if len(self._full_at_s) > self._keys_max:
            self._full_at_s.popitem(last=False)
        return 0.0


class Admission:
    """Lets so many in at once and then evenly, and tells who is turned away when to come again: one by one.

    All of a crowd that were told the same time would come back as a crowd, most of them in vain.

    Args:
        per_s: how many a second; 0: any number.
        burst: how many at once after silence.
        wait_s_max: the longest anybody is told to wait, in seconds.
    """

    def __init__(self, per_s: int, burst: int, wait_s_max: float) -> None:
        self._rates = Rates[None](burst if per_s else 0, burst / per_s if per_s else 1.0)
        self._interval_s = 1 / per_s if per_s else 0.0
        self._wait_s_max = wait_s_max
        self._next_s = 0.0

    def enter(self, now_s: float) -> float:
        """Let one in and give 0, or give the seconds after which to come again.

        Args:
            now_s: seconds, monotonic.
        """
        wait_s = self._rates.take(None, now_s)
        if not wait_s:
            return 0.0
        at_s = max(self._next_s, now_s + wait_s)
        if at_s - now_s > self._wait_s_max:
            return self._wait_s_max
        self._next_s = at_s + self._interval_s
        return at_s - now_s


class Counts(Generic[K]):
    """Counts what each key holds; a key that holds nothing takes no memory.

    Args:
        most: how many a key may hold; 0: any number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def is_full(self, key: K) -> bool:
        """Tell whether a key holds as many as it may."""
        return bool(self._most) and self._held.get(key, 0) >= self._most

    def held(self, key: K) -> int:
        """Give how many a key holds."""
        return self._held.get(key, 0)

    def add(self, key: K) -> None:
        """Count one more, whether or not the key is full."""
        self._held[key] = self._held.get(key, 0) + 1

    def remove(self, key: K) -> None:
        """Count one less of what was added."""
        left = self._held[key] - 1
        if left:
            self._held[key] = left
        else:
            del self._held[key]
