"""Whether two samples of times can be told apart.

Must not know what was timed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

TRIES = 3

Measure = Callable[[], Awaitable[list[list[float]]]]


def distance(one: list[float], other: list[float]) -> float:
    """Give the Kolmogorov-Smirnov statistic of two samples of one size: how far apart they are."""
    marks = sorted(one + other)
    return max(abs(sum(x <= m for x in one) - sum(x <= m for x in other)) for m in marks) / len(one)


def threshold(size: int, strictness: float = 2.5) -> float:
    """Give the distance that samples of one distribution exceed by chance seldom.

    Args:
        size: of each sample.
        strictness: 1.95 is exceeded once in a thousand times, 2.5 once in a hundred thousand.
    """
    return strictness * (2 / size) ** 0.5


async def same(measure: Measure, limit: float) -> None:
    """Measure samples that must not differ, again where they do: on a busy machine they may, once.

    Args:
        measure: gives the samples, all of one size.
        limit: the distance at which two of them differ.

    Raises:
        AssertionError: they differ every time.
    """
    await _once(measure, lambda distances: max(distances) < limit, "told apart")


async def differ(measure: Measure, limit: float) -> None:
    """Measure samples that must differ, again where they don't: a busy machine may drown it, once.

    Args:
        measure: gives the samples, all of one size.
        limit: the distance from which on two of them differ.

    Raises:
        AssertionError: they never do.
    """
    await _once(measure, lambda distances: min(distances) > limit, "not told apart")


async def _once(measure: Measure, holds: Callable[[list[float]], bool], otherwise: str) -> None:
    found: list[list[float]] = []
    while len(found) < TRIES:
        found.append([distance(one, other) for one, other in pairwise(await measure())])
        if holds(found[-1]):
            return
    raise AssertionError(f"{otherwise}: {found}")
