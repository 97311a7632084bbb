"""Request bodies: the JSON-RPC 2.0 envelope, and the parameters that are a REST body whole, or its query.

Must not know operations. Only the levels that are looked at are decoded; what is below stays raw JSON.

A broker that checks who owns a task and an agent that acts on it must read the same body alike, and JSON
does not make them: of two equal names one reader takes the first, another the last; Go's takes `TASKID` for
`taskId`, protobuf's takes `task_id`. So two members that any of them might confuse are refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind, escape_line_ends
from sidecast_schemas.codec import DEPTH_MAX, RawObject, nests_deeper

ID_BYTES_MAX = 256
"""Longest raw id: each frame of a stream repeats it."""

MEMBERS_MAX = 256
"""Most members of an object that is looked at."""

_SMALL_BYTES = 16_384
"""A body below this can't hold enough members to be worth counting them one by one."""

_SPACE = b" \t\r\n"
_NUMBER = re.compile(rb"-?[0-9][0-9.eE+-]*")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Params(NamedTuple):
    """What an operation is called with.

    Attributes:
        fields: its members; those of `_PARAMS` under their v1.0 JSON names.
        message: the members of `message`, where that is an object; those of `_MESSAGE` under these names.
    """

    fields: RawObject
    message: RawObject | None


class Request(NamedTuple):
    """A JSON-RPC request.

    Attributes:
        id: raw JSON of a string, a number or null; one line to any reader, at most `ID_BYTES_MAX` long.
        method: not looked up yet.
        params: empty where there are none.
    """

    id: bytes
    method: str
    params: Params


class _Member:
    """The name of a member; equal only to itself, so that a dict keeps a repeated one beside the first."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _TooMany(Exception):  # noqa: N818 - never leaves this module
    pass


Spelling = dict[str, tuple[str, tuple[str, ...]]]
"""Of a name in lower case without underscores: the name we use, and all spellings that are right."""


def _spelling(*names: str) -> Spelling:
    """Take names as JSON spells them; protobuf's own spelling (`task_id`) is right too (ProtoJSON)."""
    return {
        name.lower(): (name, (name, re.sub(r"([A-Z])", lambda upper: "_" + upper[1].lower(), name)))
        for name in names
    }


_ENVELOPE = _spelling("jsonrpc", "id", "method", "params")
_PARAMS = _spelling("id", "taskId", "tenant", "message", "metadata", "configuration")
_IN_QUERY = _spelling("id", "taskId", "tenant")
_PARAMS_V03_REST = {**_PARAMS, "request": ("message", ("request",))}
"""The v0.3 proto names the field `request` and spells it `message` in JSON: its readers take both."""
_MESSAGE = _spelling("messageId", "taskId", "contextId", "referenceTaskIds")

_decode_small = msgspec.json.Decoder(dict[_Member, Raw], dec_hook=lambda _type, name: _Member(name)).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_raw = msgspec.json.Decoder(Raw).decode


def parse(body: bytes) -> Request:
    """Read a JSON-RPC 2.0 request.

    Without an id it is answered as one whose id is null: A2A has no notifications.

    Args:
        body: as it was received, of any content.

    Raises:
        A2AError: PARSE_ERROR: not UTF-8, not JSON. INVALID_REQUEST: a batch, no envelope, a member that
            stands twice or is misspelled. INVALID_PARAMS: the parameters are no object. It carries the id
            as soon as that is known.

    Source: JSON-RPC 2.0, section 4; contract, section 4; C49.
    """
    body = body.strip(_SPACE)
    _check(body)
    envelope = _read(body, _ENVELOPE, "The request")
    rpc_id = _read_id(envelope.get("id"))
    try:
        if envelope.get("jsonrpc") is None or _string(envelope["jsonrpc"]) != "2.0":
            raise _invalid('jsonrpc must be "2.0"')
        method = _string(envelope["method"]) if "method" in envelope else None
        if method is None:
            raise _invalid("method must be a string")
        return Request(rpc_id, method, _read_params(envelope.get("params"), _PARAMS))
    except A2AError as error:
        error.rpc_id = rpc_id
        raise


def parse_params(body: bytes, *, v03: bool) -> Params:
    """Read the body of a REST request, which is the parameters; an empty one has none.

    Args:
        body: as it was received, of any content.
        v03: by the names of the v0.3 proto.

    Raises:
        A2AError: PARSE_ERROR, INVALID_REQUEST: as in `parse`. INVALID_PARAMS: it is no object.
    """
    body = body.strip(_SPACE)
    if not body:
        return Params({}, None)
    _check(body)
    return _read_params(Raw(body), _PARAMS_V03_REST if v03 else _PARAMS)


def parse_query(query: str) -> Params:
    """Read what names a task or a tenant in the query of a REST request without a body.

    Args:
        query: as it was sent, without its question mark.

    Raises:
        A2AError: INVALID_REQUEST: such a parameter stands twice or is misspelled, or is one only to a reader
            that takes semicolons for separators. INVALID_PARAMS: it is not UTF-8.

    Source: A2A 1.0, section 11.5.
    """
    fields: RawObject = {}
    for name, value in parse_qsl(query.replace(";", "&"), keep_blank_values=True, errors="surrogateescape"):
        known = _IN_QUERY.get(name.casefold().replace("_", ""))
        if known is None:
            continue
        if name not in known[1] or known[0] in fields or ";" in query:
            raise _invalid(f"The query must hold {known[0]} once, spelled exactly so, and no semicolon")
        try:
            fields[known[0]] = Raw(msgspec.json.encode(value))
        except UnicodeEncodeError as error:
            raise A2AError(ErrorKind.INVALID_PARAMS, f"{known[0]} is not UTF-8") from error
    return Params(fields, None)


def _check(body: bytes) -> None:
    """Refuse what the decoder does not: text that is not UTF-8, and nesting no reader is sure to survive."""
    try:
        if not body.isascii():
            body.decode()
        _decode_raw(body)
        if nests_deeper(body, DEPTH_MAX):
            raise _too_deep()
    except UnicodeDecodeError as error:
        raise A2AError(ErrorKind.PARSE_ERROR, f"The body is not UTF-8 at byte {error.start}") from error
    except msgspec.DecodeError as error:
        if _SURROGATE.search(body):
            detail = "The body is not JSON, or holds half of a surrogate pair"
        else:
            detail = "The body is not JSON"
        raise A2AError(ErrorKind.PARSE_ERROR, detail) from error
    except RecursionError as error:
        raise _too_deep() from error


def _too_deep() -> A2AError:
    return _invalid(f"The body is nested deeper than {DEPTH_MAX}")


def _read_params(raw: Raw | None, spelling: Spelling) -> Params:
    # Go writes an absent object as null.
    if raw is None or _begins(raw, b"n"):
        return Params({}, None)
    if not _begins(raw, b"{"):
        raise A2AError(ErrorKind.INVALID_PARAMS, "The parameters are no object")
    fields = _read(raw, spelling, "The parameters object")
    message = fields.get("message")
    if message is None or not _begins(message, b"{"):
        return Params(fields, None)
    return Params(fields, _read(message, _MESSAGE, "The message"))


def _read(raw: bytes | Raw, spelling: Spelling, where: str) -> RawObject:
    """Give the members of an object, those in `spelling` under their right names.

    Raises:
        A2AError: INVALID_REQUEST.
    """
    try:
        members = _decode_small(raw) if len(memoryview(raw)) < _SMALL_BYTES else _decode_large(raw)
        if len(members) > MEMBERS_MAX:
            raise _TooMany
    except msgspec.ValidationError as error:
        detail = "is no object: batches are not supported" if _begins(raw, b"[") else "is no object"
        raise _invalid(f"{where} {detail}") from error
    except _TooMany as error:
        raise _invalid(f"{where} has more than {MEMBERS_MAX} members") from error
    fields: RawObject = {}
    seen: set[str] = set()
    for member, value in members.items():
        name = member.name
        folded = name.casefold()
        known = spelling.get(folded.replace("_", ""))
        if known is not None:
            if name not in known[1]:
                raise _invalid(f"{where} must spell {known[0]} exactly so")
            name = known[0]
            folded = name.lower()
        if folded in seen:
            raise _invalid(f"{where} has a member twice (case is ignored)")
        seen.add(folded)
        fields[name] = value
    return fields


def _decode_large(raw: bytes | Raw) -> dict[_Member, Raw]:
    """Decode an object, but give up at once when it has more members than any we take."""
    count = 0

    def name_member(_type: type, name: str) -> _Member:
        nonlocal count
        count += 1
        if count > MEMBERS_MAX:
            raise _TooMany
        return _Member(name)

    return msgspec.json.decode(raw, type=dict[_Member, Raw], dec_hook=name_member)


def _read_id(raw: Raw | None) -> bytes:
    """Give the id as it was sent: a client compares spelling as well as value.

    Raises:
        A2AError: INVALID_REQUEST: it is neither a string, nor a number, nor null; or too long to be repeated.
    """
    if raw is None:
        return b"null"
    text = bytes(raw)
    if text != b"null" and text[:1] != b'"' and not _NUMBER.fullmatch(text):
        raise _invalid("id must be a string, a number or null")
    text = escape_line_ends(text)
    if len(text) > ID_BYTES_MAX:
        raise _invalid(f"id is longer than {ID_BYTES_MAX} bytes")
    return text


def _string(raw: Raw) -> str | None:
    try:
        return _decode_string(raw)
    except msgspec.ValidationError:
        return None


def _begins(raw: bytes | Raw, mark: bytes) -> bool:
    return memoryview(raw)[:1] == mark


def _invalid(message: str) -> A2AError:
    return A2AError(ErrorKind.INVALID_REQUEST, message)
