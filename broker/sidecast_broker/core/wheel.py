"""Whose turn it is among many that are each looked at once in a period: small slices, spread evenly over it.

Must not know clocks (the time comes in as `now_s`), nor what is looked at or why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

SLICES = 128
"""Of a period. More would cost more questions that each ask for less; in 5 s there is one every 39 ms."""
SLICE_MIN = 16
"""Another slice is begun where those in use hold so many: few members are looked at in one go."""
TICK_S = 1e-6
"""Less than this is no waiting: a remainder may be smaller than what a clock can tell."""

_BITS = SLICES.bit_length() - 1
_ORDER = tuple(int(f"{number:0{_BITS}b}"[::-1], 2) for number in range(SLICES))
"""In which slices are begun: the first few are spread over the period as well as all are."""

Member = TypeVar("Member")


class Wheel(Generic[Member]):
    """Turns once in a period; each member has a place in a slice, due at the same moment of each turn.

    Places, not a queue or due times, bound the time between two looks at a member, whoever comes and goes
    meanwhile. The moments are drawn by chance, so that of those who turn alike no two ask in step.

    Args:
        period_s: a member is looked at once in so long a time, in seconds.
        chance: gives numbers from 0 to below 1.
    """

    def __init__(self, period_s: float, chance: Callable[[], float]) -> None:
        self._period_s = period_s
        begin_s = chance() * period_s
        self._due_s = [begin_s + (index + chance()) * period_s / SLICES for index in range(SLICES)]
        self._slices: list[dict[Member, None]] = [{} for _ in range(SLICES)]
        self._place: dict[Member, int] = {}
        self._in_use = 1
        self._taken_s = -math.inf

    def __len__(self) -> int:
        return len(self._place)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._place)

    def __contains__(self, member: object) -> bool:
        return member in self._place

    def add(self, member: Member) -> None:
        """Give a member its place; one that has a place keeps it."""
        if member in self._place:
            return
        index = min(_ORDER[: self._in_use], key=lambda index: len(self._slices[index]))
        if len(self._slices[index]) >= SLICE_MIN and self._in_use < SLICES:
            index = _ORDER[self._in_use]
            self._in_use += 1
        self._slices[index][member] = None
        self._place[member] = index

    def remove(self, member: Member) -> None:
        """Forget a member; unknown ones are fine."""
        index = self._place.pop(member, None)
        if index is not None:
            del self._slices[index][member]

    def wait_s(self, now_s: float) -> float:
        """Give the time until a slice is due that is not empty; the first one is due also when it is."""
        until_s = min(
            self._period_s - (now_s - self._due_s[index]) % self._period_s
            for index in _ORDER[: self._in_use]
            if self._slices[index] or not index
        )
        return max(until_s, TICK_S)

    def take(self, now_s: float) -> list[Member]:
        """Give the members of all slices that have come due since this was called last: all, the first time.

        Args:
            now_s: the time, seconds, monotonic.
        """
        taken_s, self._taken_s = self._taken_s, now_s
        if now_s - taken_s >= self._period_s:
            return list(self._place)
        return [
            member
            for index in _ORDER[: self._in_use]
            if self._turns(index, now_s) > self._turns(index, taken_s)
            for member in self._slices[index]
        ]

    def _turns(self, index: int, at_s: float) -> int:
        return math.floor((at_s - self._due_s[index]) / self._period_s)
