"""What is new in a list of parts that may hold what was said several times over.

Must not know events, logs or JSON: parts come in as bytes that are equal where the parts say the same.

a2a-sdk 0.3 keeps one Task, into which each open stream takes each event (`ResultAggregator.consume_and_emit`
runs a `TaskManager` of its own, all of them on the stored object). So while n streams are open, what is
appended to an artifact is appended n times: each stream says `3 4`, the Task `3 3 4 4` or `3 4 3 4`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

COPIES_MAX = 16
"""Streams of one task that are told apart."""
STARTS_MAX = 256
"""Places that are tried for the beginning of what was heard."""


class Reading(NamedTuple):
    """How far parts could be read as something said, with copies of it that trail behind.

    Attributes:
        said: so many of what was said came.
        used: so many of the parts it took.
    """

    said: int
    used: int


def news_at(known: Sequence[bytes], parts: Sequence[bytes]) -> int | None:
    """Tell where in `parts` begins what the `known` ones don't say.

    Returns:
        An index, that of the end where nothing is new; None where `parts` don't say what is known. Where the
        rest may be new or a copy, whole copies of the newest of what is known are taken for these, and
        anything else for new.
    """
    reading = _read(known, parts)
    everything = reading.said == len(known)
    if everything and _repeats_end(known, parts[reading.used :]):
        return len(parts)
    if list(parts[: len(known)]) == list(known):
        return len(known) + _copied_end(known, parts[len(known) :])
    return reading.used if everything else None


def news_before(known: Sequence[bytes], heard: Sequence[bytes], parts: Sequence[bytes]) -> slice | None:
    """Tell what `parts` say beyond the `known` ones before they say what was `heard`.

    What stands behind that was said later, and will be heard too.

    Args:
        known: what was said first.
        heard: what was said last, without a hole; `parts` may lack the end of it.
        parts: all of it, with copies.

    Returns:
        A slice of `parts`; None where they don't say what is known, or say something else than was heard.
    """
    if heard and news_at([*known, *heard], parts) == len(parts):
        return slice(0, 0)
    start = news_at(known, parts)
    if start is None:
        return None
    if start == len(parts) or not heard:
        return slice(start, len(parts))
    end, fewest_left = None, len(parts)
    begins = (index for index in range(start, len(parts)) if parts[index] == heard[0])
    for index in islice(begins, STARTS_MAX):
        reading = _read(heard, parts[index:], copies_begin_late=True)
        left = len(parts) - index - reading.used
        if left < fewest_left and (left == 0 or reading.said == len(heard)):
            end, fewest_left = index, left
        if left == 0:
            break
    return None if end is None else slice(start, end)


def _read(said: Sequence[bytes], parts: Sequence[bytes], *, copies_begin_late: bool = False) -> Reading:
    """Read parts as what was said; copies of it begin where a further stream was opened.

    Args:
        said: what was said.
        parts: what holds it.
        copies_begin_late: also behind the end of what was said, where a copy may be something new.
    """
    lead = 0
    copies: list[int] = []
    newest: dict[bytes, int] = {}
    for used, part in enumerate(parts):
        if lead < len(said) and said[lead] == part:
            newest[part] = lead
            lead += 1
            continue
        trailing = [at for at in copies if at < lead and said[at] == part]
        if trailing:
            copies.remove(max(trailing))
            copies.append(max(trailing) + 1)
        elif (copies_begin_late or lead < len(said)) and part in newest and len(copies) < COPIES_MAX:
            copies.append(newest[part] + 1)
        else:
            return Reading(lead, used)
    return Reading(lead, len(parts))


def _copied_end(known: Sequence[bytes], rest: Sequence[bytes]) -> int:
    """Give how long a copy of the end of what is known a rest begins with; 0: with none."""
    for start in range(max(0, len(known) - len(rest)), len(known)):
        count = len(known) - start
        if rest[0] == known[start] and list(rest[:count]) == list(known[start:]):
            return count
    return 0


def _repeats_end(known: Sequence[bytes], rest: Sequence[bytes]) -> bool:
    """Tell whether a rest is nothing, or the end of what is known once or several times."""
    for copies in range(1, COPIES_MAX + 1):
        count, left = divmod(len(rest), copies)
        if not left and count <= len(known) and list(rest) == list(known[len(known) - count :]) * copies:
            return True
    return False
