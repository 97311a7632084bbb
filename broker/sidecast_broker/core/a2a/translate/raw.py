"""JSON taken apart level by level, and what v0.3 has no field for, held in metadata until it comes back.

Must not know A2A's objects. Every value that is not looked at stays raw, so numbers keep their spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from sidecast_schemas.codec import RawObject, one_line, replace_lone_surrogates

HELD = "urn:sidecast:v1"
"""Key of v0.3 metadata under which stands what v1.0 says and v0.3 has no field for. Its value is an object:

- `fields`: fields of the object the metadata belongs to, as v1.0 has them (`mediaType` of a text, `tenant`);
- `metadata`: the metadata as it was, where merely taking this key out again would not give it back;
- `role`, `status`: a role, a state and fields of the status that v0.3 does not know;
- `part`: true where `data` holds a whole part of a kind that v0.3 does not know;
- `response`: fields beside the one member of a StreamResponse;
- `configuration`, `pushConfig`: the same of a request's `configuration` and of its push notification config.

On the way back only fields are taken from it that v0.3 can't carry in their own place: a v0.3 client must not
set by it what was checked elsewhere, such as the id of a task.
"""

_DETAIL_CHARACTERS_MAX = 200
"""Errors quote what came in: bounds what a log line or an answer shows of it."""

Tree: TypeAlias = dict[str, Any]
"""An object in the form the encoder takes: its leaves are raw."""

NULL = Raw(b"null")
EMPTY = Raw(b'""')
_FALSE = Raw(b"false")

_T = TypeVar("_T")

# The depth JSON may have shrinks with each call, so that a level can fail which the one above it took.
_UNREADABLE = (msgspec.DecodeError, RecursionError)

_decode_object = msgspec.json.Decoder(RawObject).decode
_decode_objects = msgspec.json.Decoder(list[RawObject]).decode
encode = msgspec.json.Encoder().encode


class Untranslatable(ValueError):  # noqa: N818 - named as the answer reads: this is untranslatable
    """JSON that is not what its version of A2A allows, so that the other version can't say it."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail[:_DETAIL_CHARACTERS_MAX])


def decode_line(payload: bytes, what: str) -> RawObject:
    """Take apart the outermost object, whose raw values are then valid JSON on one line.

    Lone surrogates become U+FFFD, as in every stored payload.

    Raises:
        Untranslatable: not UTF-8, not JSON, not an object, or nested too deeply to be read.
    """
    return _decode_line(payload, what, _decode_object)


def decode_list_line(payload: bytes, what: str) -> list[RawObject]:
    """Take apart an outermost array of objects, as `decode_line` does.

    Raises:
        Untranslatable: as there.
    """
    return _decode_line(payload, what, _decode_objects)


def _decode_line(payload: bytes, what: str, decode: Callable[[bytes], _T]) -> _T:
    try:
        if not payload.isascii():
            payload.decode()
        try:
            decoded = decode(payload)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            payload, repaired = replace_lone_surrogates(payload)
            if not repaired:
                raise
            decoded = decode(payload)
        # Only of what is valid: in a string a line end is an error, which squeezing it out would hide.
        return decode(one_line(payload)) if b"\n" in payload or b"\r" in payload else decoded
    except UnicodeDecodeError as error:
        raise Untranslatable(f"{what}: not valid UTF-8 at byte {error.start}") from error
    except _UNREADABLE as error:
        raise Untranslatable(f"{what}: {error}") from error


def _reader(decode: Callable[[bytes], _T]) -> Callable[[Raw, str], _T]:
    """Give a function of a raw value, and of what it is called in errors, that raises `Untranslatable`."""

    def read(raw: Raw, what: str) -> _T:
        try:
            return decode(raw)
        except _UNREADABLE as error:
            raise Untranslatable(f"{what}: {error}") from error

    return read


object_of = _reader(_decode_object)
"""Take apart an object."""
objects_of = _reader(_decode_objects)
"""Take apart an array of objects."""
list_of = _reader(msgspec.json.Decoder(list[Raw]).decode)
"""Take apart an array."""
text_of = _reader(msgspec.json.Decoder(str).decode)
"""Give a string."""


def is_object(raw: Raw) -> bool:
    """Tell whether a valid raw value is an object."""
    return memoryview(raw)[0] == 0x7B


def is_set(fields: RawObject, name: str) -> bool:
    """Tell whether a field is there and not null, which in both versions says the same as leaving it out."""
    raw = fields.get(name)
    return raw is not None and raw != NULL


def drop_unset(fields: RawObject, name: str) -> None:
    """Leave out a field that says nothing: null, or the empty string v0.3 needs where v1.0 has no field."""
    raw = fields.get(name)
    if raw is not None and len(raw) <= 4 and raw in (NULL, EMPTY):
        del fields[name]


def pop_other(fields: RawObject, known: frozenset[str]) -> RawObject:
    """Take out the fields that are not among those known."""
    if known.issuperset(fields):
        return {}
    return {name: fields.pop(name) for name in list(fields) if name not in known}


def pop_named(fields: RawObject, names: Iterable[str]) -> RawObject:
    """Take out fields by name, those that are there."""
    return {name: fields.pop(name) for name in names if name in fields}


def hold(
    tree: Tree, held: Tree, flags: Tree | None = None, reserved: frozenset[str] = frozenset({HELD})
) -> None:
    """Put what v0.3 has no field for into an object's metadata.

    Args:
        tree: the object in v0.3 form; its `metadata`, if any, is raw.
        held: what to hold, as `HELD` says; may be empty.
        flags: further keys of the metadata that say how the object was translated.
        reserved: metadata keys that mean something on the way back, so may not stand there by themselves.

    Raises:
        Untranslatable: the metadata is no object, and something must be put there.
    """
    raw = tree.get("metadata")
    visible: RawObject = {}
    if raw is not None:
        if not (held or flags or _mentions(raw, reserved)):
            return
        visible = object_of(raw, "metadata") if raw != NULL else {}
        mistakable = not visible.keys().isdisjoint(reserved)
        if mistakable or ((held or flags) and not visible):
            held["metadata"] = raw
            visible = {key: value for key, value in visible.items() if key not in reserved}
    if held:
        tree["metadata"] = {**visible, **(flags or {}), HELD: held}
    elif flags:
        tree["metadata"] = {**visible, **flags}


def release(tree: Tree, flag: str = "") -> tuple[RawObject, bool]:
    """Take out of an object's metadata what `hold` put there, and give the metadata its former shape.

    Args:
        tree: the object in v1.0 form; its `metadata`, if any, is raw.
        flag: a key that `hold` got among its flags.

    Returns:
        What was held, which may be anything a client made up; and whether the flag was set.

    Raises:
        Untranslatable: the metadata is no object though it mentions one of the keys.
    """
    raw = tree.get("metadata")
    if raw is None or not _mentions(raw, (HELD, flag) if flag else (HELD,)):
        return {}, False
    visible = object_of(raw, "metadata")
    flagged = flag and visible.pop(flag, NULL) not in (NULL, _FALSE)
    mark = visible.get(HELD, NULL)
    held: RawObject = {}
    if is_object(mark):
        held = object_of(visible.pop(HELD), HELD)
    former = held.pop("metadata", None)
    metadata = visible | (object_of(former, HELD) if former is not None and is_object(former) else {})
    if metadata:
        tree["metadata"] = metadata
    elif former is not None:
        tree["metadata"] = former
    else:
        del tree["metadata"]
    return held, bool(flagged)


def restore(tree: Tree, held: RawObject, blocked: frozenset[str], name: str = "fields") -> None:
    """Give an object the fields of its own that were held, but none that v0.3 has in its own place.

    Args:
        tree: the object in v1.0 form.
        held: what `release` gave.
        blocked: fields that are never taken from there.
        name: under which of the names of `HELD` they stand.
    """
    raw = held.get(name)
    if raw is None or not is_object(raw):
        return
    for key, value in object_of(raw, HELD).items():
        if key not in blocked:
            tree.setdefault(key, value)


def _mentions(raw: Raw, keys: Iterable[str]) -> bool:
    """Whether raw metadata may have one of these keys: an escape may spell any of them."""
    text = bytes(raw)
    if b"\\" in text:
        return True
    for key in keys:  # noqa: SIM110 - runs for every object that has metadata; a generator doubles its time
        if key.encode() in text:
            return True
    return False
