"""What the broker is sent: each input by its seed and number alone, or out of a file of the corpus.

Must not know what is done with them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from attacks.asks import some_ask
from attacks.breaking import FRAMING, PARTS, break_raw

CORPUS = Path(__file__).parent / "corpus"
SUFFIX = ".http"


class Input(NamedTuple):
    """Bytes for one of the two listeners.

    Attributes:
        name: tells it from all others, and how to make it again.
        raw: what is sent.
        internal: whether to the internal listener.
        parts: what was broken in it.
        ends: whether it ends where it says, so that a connection can carry more after it.
        pieces: in how many writes it is sent.
    """

    name: str
    raw: bytes
    internal: bool
    parts: tuple[str, ...]
    ends: bool
    pieces: int = 1


@cache
def corpus(folder: Path = CORPUS) -> tuple[Input, ...]:
    """Give the kept inputs; a file is named `<listener>-<what it is>.http`."""
    return tuple(
        Input(path.name, path.read_bytes(), path.name.startswith("internal-"), ("kept",), ends=False)
        for path in sorted(folder.glob(f"*{SUFFIX}"))
    )


def made(seed: int, number: int) -> Input:
    """Make one input: half are requests with parts replaced, a few whole, the rest bytes of the corpus."""
    dice = random.Random(f"{seed}/{number}")
    name = f"seed {seed}, number {number}"
    kept = corpus()
    if dice.random() < 0.35:
        origin = dice.choice(kept)
        internal = origin.internal if dice.random() < 0.97 else not origin.internal
        others = [each.raw for each in kept]
        raw = break_raw(origin.raw, others, dice) or b"\r\n"  # who sends nothing gets no answer
        return Input(name, raw, internal, ("bytes",), ends=False, pieces=dice.choice([1, 1, 1, 2, 3]))
    kind, ask = some_ask(dice)
    count = dice.choices([0, 1, 2, 3], [2, 7, 4, 2])[0]
    parts = dice.sample(list(PARTS), count)
    for part in parts:
        PARTS[part](ask, dice)
    raw = ask.raw()
    head = raw.partition(b"\r\n\r\n")[0]
    lines = 1 + len(ask.lines) + len(ask.credential) + len(ask.cursor)
    ends = not FRAMING.intersection(parts) and head.count(b"\n") <= lines + 3 and b"\0" not in head
    ends = ends and not any("\n" in each or "\r" in each for each in (ask.path, *ask.query, *ask.credential))
    ends = ends and not any("\n" in each or "\r" in each for each in ask.cursor)
    return Input(name, raw, ask.internal, (f"kind {kind}", *parts), ends, dice.choice([1] * 9 + [2]))


def some(seed: int, first: int, count: int) -> Iterator[Input]:
    """Give so many inputs of a seed."""
    return (made(seed, number) for number in range(first, first + count))
