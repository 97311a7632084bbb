"""Raw JSON that is kept: copied out of its payload, merged key by key, appended to, and measured.

Must not know what any of it means.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from sidecast_schemas.codec import RawObject

FIELD_BYTES = 180
"""Memory of one kept raw value beside its bytes: Raw, bytes and str objects, and the slot in a dict."""

_decode_object = msgspec.json.Decoder(RawObject).decode


def copied(fields: RawObject) -> RawObject:
    """Copy raw values, which are slices of a payload and would keep it alive."""
    return {key: raw.copy() for key, raw in fields.items()}


def merge(into: RawObject, fields: RawObject) -> int:
    """Set copies of raw values; give the bytes they take more."""
    grown = 0
    for key, raw in fields.items():
        grown += len(raw)
        if key in into:
            grown -= len(into[key])
        else:
            grown += FIELD_BYTES + len(key)
        into[key] = raw.copy()
    return grown


def size_of(fields: RawObject) -> int:
    """Give roughly the memory that kept fields take."""
    return sum(FIELD_BYTES + len(key) + len(raw) for key, raw in fields.items())


def object_of(raw: Raw | None) -> RawObject:
    """Give the fields of a JSON object; what is none has none."""
    return {} if raw is None or memoryview(raw)[0] != ord("{") else _decode_object(raw)


def elements_of(array: Raw | None) -> bytes:
    """Give the inside of a JSON array."""
    return b"" if array is None or memoryview(array)[0] != ord("[") else bytes(array)[1:-1].strip()


def array_of(elements: bytearray) -> Raw:
    """Give the JSON array with this inside."""
    return Raw(b"[" + bytes(elements) + b"]")


def extend(elements: bytearray, more: bytes | Raw) -> None:
    """Append to the inside of a JSON array what is the inside of another."""
    if elements and more:
        elements += b","
    elements += more
