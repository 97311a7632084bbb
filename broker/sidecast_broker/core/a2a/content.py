"""What two pieces of A2A content have in common: equal, one the beginning of the other, or neither.

Must not know logs, tasks or events. Content is compared by what it says: spaces, the order of keys, and
whether an empty field is written out don't count, nor into how many parts one run of text was cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from sidecast_schemas.codec import RawObject

_EMPTY = frozenset({b"null", b'""', b"[]", b"{}", b"false"})

_encode = msgspec.json.Encoder(order="sorted").encode
_decode_text = msgspec.json.Decoder(str).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_object = msgspec.json.Decoder(RawObject).decode


def canonical(raw: Raw | bytes) -> bytes:
    """Give JSON in the one spelling that equal values share; a number no float can hold stays as written."""
    try:
        return _encode(msgspec.json.decode(raw))
    except msgspec.DecodeError:
        return bytes(raw)


def fields_of(raw: Raw | None) -> RawObject:
    """Give the fields of an object; what is none has none."""
    return {} if raw is None or memoryview(raw)[0] != ord("{") else _decode_object(raw)


def elements_of(raw: Raw | None) -> list[Raw]:
    """Give the elements of an array; what is none has none."""
    return [] if raw is None or memoryview(raw)[0] != ord("[") else _decode_list(raw)


def values(fields: Mapping[str, Raw]) -> dict[str, bytes]:
    """Give the values of metadata, fit to compare: an empty one is not none there."""
    return {key: canonical(raw) for key, raw in fields.items()}


def says(fields: Mapping[str, Raw], without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Give what an object's fields say, fit to compare: ProtoJSON may leave empty ones out."""
    said = {key: canonical(raw) for key, raw in fields.items() if key not in without}
    return {key: value for key, value in said.items() if value not in _EMPTY}


class _Run(NamedTuple):
    """Parts that say one thing: a run of text, or a single part of another kind.

    Attributes:
        kind: what else a text part says, or a whole other part.
        text: None where it isn't text.
        end: index of the part after it.
    """

    kind: bytes
    text: str | None
    end: int


def _runs(parts: list[Raw]) -> list[_Run]:
    runs: list[_Run] = []
    for index, part in enumerate(parts, 1):
        fields = fields_of(part)
        text = _text(fields)
        if text is None:
            runs.append(_Run(canonical(part), None, index))
            continue
        kind = _encode({key: canonical(raw) for key, raw in fields.items() if key != "text"})
        if runs and runs[-1].text is not None and runs[-1].kind == kind:
            runs[-1] = _Run(kind, runs[-1].text + text, index)
        else:
            runs.append(_Run(kind, text, index))
    return runs


def _text(fields: RawObject) -> str | None:
    raw = fields.get("text")
    return None if raw is None or memoryview(raw)[0] != ord('"') else _decode_text(raw)


def parts_after(known: list[Raw], parts: list[Raw]) -> list[Raw] | None:
    """Give what `parts` say beyond the `known` ones; None where they don't begin with what those say.

    The rest of a text that was cut elsewhere than before comes as a part of its own.
    """
    count = len(known)
    if list(map(canonical, known)) == list(map(canonical, parts[:count])):
        return parts[count:]
    before, after = _runs(known), _runs(parts)
    if len(before) > len(after):
        return None
    for old, new in zip(before[:-1], after, strict=False):
        if old[:2] != new[:2]:
            return None
    last, same = before[-1], after[len(before) - 1]
    if last.kind != same.kind or (last.text is None) != (same.text is None):
        return None
    rest: list[Raw] = []
    if last.text is not None and same.text is not None:
        if not same.text.startswith(last.text):
            return None
        if len(same.text) > len(last.text):
            fields: dict[str, Any] = dict(fields_of(parts[same.end - 1]))
            rest.append(Raw(msgspec.json.encode({**fields, "text": same.text[len(last.text) :]})))
    return rest + parts[same.end :]


def parts_before(parts: list[Raw], piece: list[Raw]) -> list[Raw] | None:
    """Give what `parts` say before the text `piece` they end with; None where that isn't so.

    The beginning of a text that was cut elsewhere comes as a part of its own.
    """
    whole, end = _runs(parts), _runs(piece)
    if len(end) != 1 or not whole or end[0].kind != whole[-1].kind:
        return None
    text, wanted = whole[-1].text, end[0].text
    if text is None or wanted is None or not text.endswith(wanted):
        return None
    before = parts[: whole[-2].end if len(whole) > 1 else 0]
    if len(text) > len(wanted):
        fields: dict[str, Any] = dict(fields_of(parts[-1]))
        before.append(Raw(msgspec.json.encode({**fields, "text": text.removesuffix(wanted)})))
    return before


def ends_with(parts: list[Raw], piece: list[Raw]) -> bool:
    """Tell whether the last thing that `parts` say is a non-empty `piece`."""
    if not piece:
        return False
    if list(map(canonical, parts[-len(piece) :])) == list(map(canonical, piece)):
        return True
    # Agents that join text chunks into one part.
    whole, end = _runs(parts), _runs(piece)
    if len(end) > len(whole):
        return False
    first, same = end[0], whole[-len(end)]
    if [run[:2] for run in end[1:]] != [run[:2] for run in whole[len(whole) - len(end) + 1 :]]:
        return False
    return (
        first.kind == same.kind
        and first.text is not None
        and same.text is not None
        and same.text.endswith(first.text)
    )
