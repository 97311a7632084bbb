"""What the process above the workers tells one of them that asks all: what each says, and who says nothing.

Must not know what is asked for, nor how.
"""

from __future__ import annotations

import msgspec

GATHER_S_MAX = 1.0
"""A worker that takes longer is left out: a page asks every few seconds, and shows what the others say."""


class Said(msgspec.Struct, frozen=True):
    """The answer of one worker.

    Attributes:
        worker: its number.
        body: JSON.
    """

    worker: int
    body: msgspec.Raw


class Gathered(msgspec.Struct, frozen=True):
    """The answers of all.

    Attributes:
        said: of those that answered, by number.
        silent: the numbers of those that serve, and did not answer in time.
    """

    said: list[Said]
    silent: list[int]
