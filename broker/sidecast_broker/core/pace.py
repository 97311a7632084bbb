"""How fast one client is sent to: what it may ask for, its batch window, and its token bucket.

Must not know clocks (the time comes in as `now_s`), records, frames or who writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from msgspec import Struct

RATE_MIN = 0.1
"""Slowest rate a client may ask for, in events per second: fewer than one in ten seconds is no stream."""

SLACK = 0.02
"""Tokens come back so much slower than asked for: frames that reach a client early or late, or two at once
because only both make a resume point, are then still no more in ten seconds than it asked for."""

TICK_S = 1e-6
"""Less than this is no waiting: sums of intervals are not exact."""

Slow = Literal["disconnect", "snapshot"]
"""What becomes of a client that takes less than is sent: cut, to resume; or shown the task as it stands."""

REPLAY_S = 0.5
"""Older events are read for so long a time of a client's rate at once."""

_COUNT = re.compile(r"[0-9]{1,9}")
_RATE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Pace(Struct, frozen=True):
    """How one client is sent to; clients of equal pace and view share the bytes of their batches.

    Attributes:
        batch_s: how long events gather before they go out in one write, in seconds; 0: not at all.
        batch_max: as many go out at once.
        rate: events per second; 0: as many as come.
        burst: events that may go out at once after silence, where there is a rate.
    """

    batch_s: float = 0.0
    batch_max: int = 1
    rate: float = 0.0
    burst: int = 1

    @property
    def replayed_at_once(self) -> int:
        """How many older events are read for this client at once, where it has a rate."""
        return min(max(int(self.rate * REPLAY_S), 1), self.burst)

    @property
    def even(self) -> bool:
        """Whether everything goes out as it comes."""
        return not self.batch_s and not self.rate


class Bounds(NamedTuple):
    """What clients may ask for, and what holds for those that ask for nothing.

    Attributes:
        batch_ms: window of a client that names none, in ms.
        batch_ms_max: longest window.
        batch_max: events in a batch for a client that names no number.
        batch_max_max: most events.
        rate: events per second of a client that names no rate; 0: as many as come.
        rate_max: highest rate to ask for.
        burst: events at once, of every client with a rate.
    """

    batch_ms: int
    batch_ms_max: int
    batch_max: int
    batch_max_max: int
    rate: float
    rate_max: float
    burst: int


class BadPace(ValueError):  # noqa: N818 - named as the answer reads: the pace is bad
    """A value of a parameter that is no number, or out of bounds.

    Attributes:
        name: the parameter.
    """

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name} must be {detail}")
        self.name = name


@lru_cache(maxsize=4)
def parse_rates(text: str) -> Mapping[str, float]:
    """Read the rates of principals: `NAME=EVENTS_PER_S`, separated by commas.

    Raises:
        ValueError: an entry is none, or its rate is neither 0 nor at least `RATE_MIN`.
    """
    rates: dict[str, float] = {}
    for entry in text.split(","):
        if not entry.strip():
            continue
        name, equals, number = (part.strip() for part in entry.rpartition("="))
        rate = float(number) if _RATE.fullmatch(number) else -1.0
        if not equals or not name or name in rates or (rate != 0 and rate < RATE_MIN):
            raise ValueError(f"{entry.strip()[:80]!r} is not NAME=RATE, 0 or from {RATE_MIN:g}")
        rates[name] = rate
    return rates


def parse_pace(query: Mapping[str, str], bounds: Bounds) -> Pace | None:
    """Read `?batch_ms=`, `?batch_max=` and `?max_rate=`; None: everything goes out as it comes.

    Args:
        query: the request's parameters, decoded; others are left alone.
        bounds: what may be asked for, and what holds for who asks.

    Raises:
        BadPace: a value is no number, or out of bounds.
    """
    batch_ms = _count(query, "batch_ms", 0, bounds.batch_ms_max, bounds.batch_ms)
    batch_max = _count(query, "batch_max", 1, bounds.batch_max_max, bounds.batch_max)
    rate = bounds.rate
    if (text := query.get("max_rate")) is not None:
        rate = float(text) if _RATE.fullmatch(text) else 0.0
        if not RATE_MIN <= rate <= bounds.rate_max:
            raise BadPace(
                "max_rate", f"a number of events per second from {RATE_MIN:g} to {bounds.rate_max:g}"
            )
    pace = Pace(batch_ms / 1000, batch_max, rate, bounds.burst)
    return None if pace.even else pace


def _count(query: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    value = int(text) if _COUNT.fullmatch(text) else -1
    if not least <= value <= most:
        raise BadPace(name, f"a whole number from {least} to {most}")
    return value


class Bucket:
    """One client's tokens: a burst at once, then so many a second.

    It holds one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T
    I.371).

    Args:
        rate: tokens per second, above 0.
        burst: tokens of a full bucket, at least 1.
    """

    __slots__ = ("_burst", "_full_at_s", "_interval_s")

    def __init__(self, rate: float, burst: int) -> None:
        self._interval_s = (1.0 + SLACK) / rate
        self._burst = burst
        self._full_at_s = 0.0

    def available(self, now_s: float) -> int:
        """Tell how many tokens there are."""
        missing = max(self._full_at_s - now_s, 0.0) / self._interval_s
        return max(int(self._burst - missing + TICK_S), 0)

    def take(self, count: int, now_s: float) -> None:
        """Use so many tokens; of more than are `available` the rest is owed."""
        self._full_at_s = max(self._full_at_s, now_s) + count * self._interval_s

    def due_s(self, now_s: float, count: int = 1) -> float:
        """Give the time from which there are so many tokens: now, or later.

        Args:
            now_s: seconds, monotonic.
            count: at most the burst.
        """
        return max(now_s, self._full_at_s - (self._burst - count) * self._interval_s)


class Window:
    """When what gathers goes out: the first after silence at once, then one batch in each window.

    Args:
        batch_s: length of a window, in seconds.
        batch_max: so many events end it early.

    Attributes:
        closes_at_s: before this only a full or an urgent batch goes out.
    """

    __slots__ = ("_batch_max", "_batch_s", "_gathered", "closes_at_s")

    def __init__(self, batch_s: float, batch_max: int) -> None:
        self._batch_s = batch_s
        self._batch_max = batch_max
        self._gathered = 0
        self.closes_at_s = 0.0

    def gather(self, count: int, now_s: float, *, urgent: bool) -> float:
        """Take in events; give the time at which they go out, `now_s` for at once.

        Args:
            count: how many.
            now_s: seconds, monotonic.
            urgent: whether one of them must not wait.
        """
        self._gathered += count
        if urgent or self._gathered >= self._batch_max:
            return now_s
        return max(now_s, self.closes_at_s)

    def send(self, now_s: float) -> None:
        """Know that what has gathered goes out; the next window begins."""
        self._gathered = 0
        self.closes_at_s = now_s + self._batch_s
