"""JSON that everybody reads alike: UTF-8, no member twice, no number that JSON doesn't have.

Must not know what it says.
"""

from __future__ import annotations

import json
from typing import Any


def read_strictly(text: bytes) -> Any:
    """Give what a JSON text says.

    Raises:
        ValueError: it is not UTF-8 or not JSON, or holds a member twice, `NaN` or `Infinity`.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text.decode(), object_pairs_hook=_members, parse_constant=_no_number)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
