"""One setting as it is given: its value converted, its name looked up.

Must not know which settings there are, nor where a value comes from.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import msgspec

from sidecast_broker.settings import Setting


def unknown(name: str, known: list[str], what: str = "setting") -> str:
    """Say that a name is none, and which known one is nearest.

    Args:
        name: as it was given.
        known: those there are, at least one.
        what: it should have been.
    """
    # A key in the wrong section is as likely as a misspelt one.
    key = name.rpartition(".")[2]
    near = [candidate for candidate in known if "." in name and candidate.endswith("." + key)]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"{name}: there is no such {what}; the nearest is {near[0]}"


def convert(setting: Setting, value: Any, strict: bool) -> Any:
    """Give a value in its setting's type, within its bounds.

    Args:
        setting: whose value it is.
        value: as it was given.
        strict: whether texts that spell numbers are none.

    Raises:
        ValueError: it is no such value.
    """
    if isinstance(value, bool) and setting.name == "auth.required":
        value = str(value).lower()
    converted = msgspec.convert(value, setting.type, strict=strict)
    # Bounds don't hold NaN back: every comparison with it is false.
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError("must be a finite number")
    if isinstance(converted, str) and not converted.isprintable():
        raise ValueError("must not hold control characters")
    return converted
