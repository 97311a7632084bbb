"""Whether two samples of times can be told apart.

Must not know what was timed.
"""

from __future__ import annotations


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
