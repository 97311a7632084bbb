"""Parts: v1.0's `text`, `raw`, `url` and `data` to v0.3's text, file and data parts, and back.

Must not know what holds them. A part of another kind than v0.3 has becomes a data part that holds all of it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error

from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import (
    HELD,
    NULL,
    Tree,
    Untranslatable,
    hold,
    is_object,
    is_set,
    object_of,
    objects_of,
    pop_named,
    pop_other,
    release,
    restore,
    text_of,
)
from sidecast_broker.core.a2a.translate.spellings import spelled_object, spelled_objects
from sidecast_schemas.codec import RawObject

DATA_PART_COMPAT = "data_part_compat"
"""Metadata key of a2a-sdk 1.3: `data` is `{"value": x}` because x is no object."""

_CONTENTS = ("text", "raw", "url", "data")
_CONTENTS_V03 = ("text", "file", "data")
_FILE_CONTENTS = {"bytes": "raw", "fileWithBytes": "raw", "uri": "url", "fileWithUri": "url"}
_FILE_NAMES = frozenset({*_FILE_CONTENTS, "mimeType", "name"})
_TEXT = frozenset({"text", "metadata"})
_TEXT_V03 = _TEXT | {"kind"}
_BLOCKED = frozenset({*_CONTENTS, "metadata"})
_COLLIDING = ("kind", "file", "mediaType", "filename")
_IN_REST = frozenset({"text", "file", "data", "metadata"})
_RESERVED = frozenset({HELD})
_RESERVED_OF_DATA = frozenset({HELD, DATA_PART_COMPAT})
_KINDS = {kind: Raw(f'"{kind}"'.encode()) for kind in _CONTENTS_V03}
_TRUE = Raw(b"true")
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def parts_to_v03(raw: Raw | None, *, rest: bool) -> list[Tree]:
    """Give v0.3's form of an array of parts; none is an empty one, which v0.3 needs.

    Raises:
        Untranslatable: no array of objects, or a part with two kinds of content.
    """
    if raw is None or raw == NULL:
        return []
    return [part_to_v03(fields, rest=rest) for fields in objects_of(raw, "parts")]


def part_to_v03(fields: RawObject, *, rest: bool) -> Tree:
    """Give v0.3's form of a part.

    Args:
        fields: the part; taken over.
        rest: whether in ProtoJSON, which has no field beyond its own.

    Raises:
        Untranslatable: it has two kinds of content, or `raw` is not base64.
    """
    if not rest and "text" in fields and fields.keys() <= _TEXT and fields["text"] != NULL:
        tree: Tree = {"kind": _KINDS["text"], **fields}
        if "metadata" in fields:
            hold(tree, {})
        return tree
    content = _only_content(fields)
    if content is None:
        return _unknown_to_v03(fields, rest=rest)
    value = fields.pop(content)
    if content == "text":
        return _finish(fields, "text", value, rest=rest)
    if content == "data":
        return _data_to_v03(fields, value, rest=rest)
    return _file_to_v03(fields, content, value, rest=rest)


def _only_content(fields: RawObject) -> str | None:
    found = [name for name in _CONTENTS if is_set(fields, name)]
    # A data part may hold null, which beside other content means that it is not there.
    if not found and "data" in fields:
        found = ["data"]
    if len(found) > 1:
        raise Untranslatable(f"part: has {' and '.join(found)}")
    for name in _CONTENTS:
        if name in fields and name not in found:
            del fields[name]
    return found[0] if found else None


def _data_to_v03(fields: RawObject, value: Raw, *, rest: bool) -> Tree:
    if is_object(value):
        data: object = value
        flags: Tree = {}
    else:
        data, flags = {"value": value}, {DATA_PART_COMPAT: _TRUE}
    return _finish(fields, "data", {"data": data} if rest else data, flags, rest=rest)


def _unknown_to_v03(fields: RawObject, *, rest: bool) -> Tree:
    metadata = pop_named(fields, ("metadata",))
    data = {"data": fields} if rest else fields
    return _finish(metadata, "data", data, held={"part": _TRUE}, rest=rest)


def _file_to_v03(fields: RawObject, content: str, value: Raw, *, rest: bool) -> Tree:
    if content == "url":
        file: Tree = {"fileWithUri" if rest else "uri": value}
    else:
        file = {"fileWithBytes": _encode_twice(value)} if rest else {"bytes": value}
    for name, name_v03 in (("mediaType", "mimeType"), ("filename", "name")):
        if name in fields:
            file[name_v03] = fields.pop(name)
    beside = fields.get("file")
    if not rest and beside is not None and is_object(beside):
        more = object_of(beside, "file")
        if more and more.keys().isdisjoint(_FILE_NAMES):
            del fields["file"]
            file |= more
    return _finish(fields, "file", file, rest=rest)


def _finish(
    fields: RawObject,
    kind: str,
    content: object,
    flags: Tree | None = None,
    held: Tree | None = None,
    *,
    rest: bool,
) -> Tree:
    lost = pop_other(fields, _IN_REST - {"file"}) if rest else pop_named(fields, _COLLIDING)
    held = held or {}
    if lost:
        held["fields"] = lost
    tree: Tree = {kind: content, **fields} if rest else {"kind": _KINDS[kind], kind: content, **fields}
    hold(tree, held, flags, _RESERVED_OF_DATA if kind == "data" else _RESERVED)
    return tree


def parts_from_v03(raw: Raw, *, rest: bool) -> list[Tree]:
    """Give v1.0's form of an array of parts.

    Raises:
        Untranslatable: no array of objects, or a part that is none of v0.3.
    """
    return [part_from_v03(fields, rest=rest) for fields in spelled_objects(raw, "parts", rest=rest)]


def part_from_v03(fields: RawObject, *, rest: bool) -> Tree:
    """Give v1.0's form of a part.

    Args:
        fields: the part; taken over.
        rest: whether it is ProtoJSON.

    Raises:
        Untranslatable: its kind is missing or unknown, its content is not what that says, or there are two.
    """
    tree: Tree
    if (
        not rest
        and fields.get("kind") == _KINDS["text"]
        and fields.keys() <= _TEXT_V03
        and is_set(fields, "text")
    ):
        del fields["kind"]
        tree = fields
        if "metadata" in tree:
            restore(tree, release(tree)[0], _BLOCKED)
        return tree
    found = [name for name in _CONTENTS_V03 if is_set(fields, name)]
    if len(found) != 1:
        raise Untranslatable(f"part: has {' and '.join(found) or 'no content'}")
    (kind,) = found
    if not rest:
        named = text_of(fields.pop("kind", NULL), "part: kind")
        if named != kind:
            raise Untranslatable(f"part: kind is {named!r}, content is {kind}")
    content = fields.pop(kind)
    for name in (*_CONTENTS_V03, *_CONTENTS):
        if is_set(fields, name):
            raise Untranslatable(f"part: has {kind} and {name}")
        fields.pop(name, None)
    if kind == "text":
        tree = {"text": content, **fields}
        restore(tree, release(tree)[0], _BLOCKED)
        return tree
    if kind == "file":
        tree = {**_file_from_v03(content, rest=rest), **fields}
        restore(tree, release(tree)[0], _BLOCKED)
        return tree
    return _data_from_v03(fields, content, rest=rest)


def _data_from_v03(fields: RawObject, content: Raw, *, rest: bool) -> Tree:
    if rest:
        content = object_of(content, "part: data").get("data", Raw(b"{}"))
    if not is_object(content):
        raise Untranslatable("part: data: Expected `object`")
    tree: Tree = {"data": content, **fields}
    held, flagged = release(tree, DATA_PART_COMPAT)
    if flagged:
        data = object_of(content, "part: data")
        if "value" not in data:
            raise Untranslatable(f"part: {DATA_PART_COMPAT} is set, and data has no value")
        tree["data"] = data["value"]
    elif held.get("part") == _TRUE:
        whole = object_of(content, "part: data")
        if whole.keys().isdisjoint(_CONTENTS):
            del tree["data"]
            tree = {**whole, **tree}
    restore(tree, held, _BLOCKED)
    return tree


def _file_from_v03(raw: Raw, *, rest: bool) -> Tree:
    file = spelled_object(raw, "part: file", rest=rest)
    found = [name for name in _FILE_CONTENTS if is_set(file, name)]
    if len(found) != 1:
        raise Untranslatable(f"part: file has {' and '.join(found) or 'no content'}")
    (name,) = found
    value = file.pop(name)
    for other in _FILE_CONTENTS:
        file.pop(other, None)
    content = _FILE_CONTENTS[name]
    tree: Tree = {content: _decode_twice(value) if rest and content == "raw" else value}
    for name_v03, name_v1 in (("mimeType", "mediaType"), ("name", "filename")):
        if name_v03 in file:
            tree[name_v1] = file.pop(name_v03)
    if file:
        tree["file"] = file
    return tree


def _encode_twice(raw: Raw) -> Raw:
    """Give the bytes of a v0.3 REST file part, which are those of base64 text.

    a2a-sdk (0.3.26, and 1.3's compatibility layer) puts base64 text into the proto's bytes, which ProtoJSON
    encodes again; it fails on files that were encoded once. A JavaScript client shows such a file's text.
    """
    return Raw(b'"' + b64encode(b64encode(_decode_base64(raw))) + b'"')


def _decode_twice(raw: Raw) -> Raw:
    """Give base64 of a v0.3 REST file part, which a2a-sdk encoded twice, @a2a-js/sdk and the proto once.

    What is base64 text once it is decoded counts as encoded twice; a file that itself reads like base64 and
    comes from a client that encodes once is the price.
    """
    inner = _decode_base64(raw)
    try:
        b64decode(inner, validate=True)
    except (Base64Error, ValueError):
        return Raw(b'"' + b64encode(inner) + b'"')
    return Raw(b'"' + inner + b'"')


def _decode_base64(raw: Raw) -> bytes:
    """Decode what ProtoJSON takes as bytes: either alphabet of base64, padded or not."""
    text = text_of(raw, "part: bytes").rstrip("=").translate(_STANDARD_ALPHABET)
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError) as error:
        raise Untranslatable(f"part: bytes are not base64: {error}") from error
