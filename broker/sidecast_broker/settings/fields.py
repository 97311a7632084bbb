"""The shapes that fields of settings repeat: sizes, bounds, ports, limits, secrets, lists in a text.

Must not know any setting.

A field is written `Annotated[type, bounds, "What it sets, in one or two sentences."]`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Port = Annotated[int, Meta(ge=0, le=65535)]

Limit = Annotated[int, Meta(ge=0, le=1_000_000)]
"""A number of things at once, or in a time; 0 is mostly no limit, and each says what it is."""

SECRET = Meta(extra={"masked": "whole"})
SECRET_IN_URL = Meta(extra={"masked": "url"})


def within(low: float, high: float) -> Meta:
    """Bound a number, both bounds included."""
    return Meta(ge=low, le=high)


def listed(text: str) -> tuple[str, ...]:
    """Give the items of a text that separates them by commas."""
    return tuple(item.strip() for item in text.split(",") if item.strip())
