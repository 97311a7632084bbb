"""Timestamps as v0.3 has them, any spelling of ISO 8601, to those of v1.0: UTC with `Z`.

Must not know where they stand, nor what time it is.
"""

from __future__ import annotations

import re

from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import Untranslatable, text_of

_FRACTION_DIGITS_MAX = 9
"""google.protobuf.Timestamp holds nanoseconds."""

_UTC = re.compile(rb'"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?Z"')
_ISO = re.compile(
    r"([0-9]{4})-([01][0-9])-([0-3][0-9])"
    r"(?:[Tt ]([0-2][0-9]):([0-5][0-9])(?::([0-5][0-9])(?:[.,]([0-9]+))?)?)?"
    r" ?(?:[Zz]|([+-])([0-2][0-9]):?([0-5][0-9])?)?"
)
_DAY_MINUTES = 24 * 60


def to_utc(raw: Raw) -> Raw:
    """Give a timestamp in UTC with `Z`; without an offset it is UTC already. One with `Z` stays as it is.

    Digits of a second stay as they are, up to nine.

    Raises:
        Untranslatable: no string, or no date and time of ISO 8601.

    Source: A2A 1.0, section 5.6.1; digest 2.3; C60.
    """
    if _UTC.fullmatch(bytes(raw)):
        return raw
    text = text_of(raw, "timestamp")
    match = _ISO.fullmatch(text)
    if match is None:
        raise Untranslatable(f"timestamp: {text!r} is no date and time of ISO 8601")
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    hour, minute = int(match[4] or 0), int(match[5] or 0)
    offset = (int(match[9] or 0) * 60 + int(match[10] or 0)) * (-1 if match[8] == "-" else 1)
    if not (year and 1 <= month <= 12 and 1 <= day <= _month_days(year, month) and hour < 24):
        raise Untranslatable(f"timestamp: {text!r} is no date and time of ISO 8601")
    days, minutes = divmod(hour * 60 + minute - offset, _DAY_MINUTES)
    year, month, day = _shift(year, month, day, days)
    if not 1 <= year <= 9999:
        raise Untranslatable(f"timestamp: {text!r} is out of range in UTC")
    fraction = f".{match[7][:_FRACTION_DIGITS_MAX]}" if match[7] else ""
    date = f"{year:04}-{month:02}-{day:02}"
    return Raw(f'"{date}T{minutes // 60:02}:{minutes % 60:02}:{match[6] or "00"}{fraction}Z"'.encode())


def _shift(year: int, month: int, day: int, days: int) -> tuple[int, int, int]:
    """Move a date by at most one day, which is all an offset can do."""
    day += days
    if day < 1:
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
        return year, month, _month_days(year, month)
    if day > _month_days(year, month):
        return (year + 1, 1, 1) if month == 12 else (year, month + 1, 1)
    return year, month, day


def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31
