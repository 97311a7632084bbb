"""Durations counted in buckets, and what share of them is how long.

Must not know what took so long.
"""

from __future__ import annotations

import math
from typing import TypeVar

_STEP = math.log(1.02)
Key = TypeVar("Key", int, str)


def count(counts: dict[Key, int], key: Key, times: int = 1) -> None:
    """Count something."""
    counts[key] = counts.get(key, 0) + times


def bucket(seconds: float) -> int:
    """Give the bucket of a duration: each is 2 % wide, from 1 µs."""
    return int(math.log(max(seconds * 1e6, 1.0)) / _STEP)


def percentile_ms(buckets: dict[int, int], share: float) -> float:
    """Give the duration below which that share of all lies, 0 where there are none."""
    rank = share * sum(buckets.values())
    for index in sorted(buckets):
        rank -= buckets[index]
        if rank < 0:
            return math.exp((index + 1) * _STEP) / 1000
    return math.exp((max(buckets) + 1) * _STEP) / 1000 if buckets else 0.0
