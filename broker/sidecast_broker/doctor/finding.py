"""What a look at one thing found, as a line to read and an object to process.

Must not know what was looked at.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "warn", "fail", "skip"]


class Finding(Struct, frozen=True, omit_defaults=True):
    """One finding.

    Attributes:
        check: what was looked at, one word.
        level: `fail`: the broker can't do its work so; `warn`: it can, with the loss the text names;
            `skip`: not looked at, because the settings name nothing to look at, or for want of another thing.
        text: what was found.
        remedy: what to do about it; empty where there is nothing to do.
    """

    check: str
    level: Level
    text: str
    remedy: str = ""
