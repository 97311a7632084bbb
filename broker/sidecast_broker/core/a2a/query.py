"""Parameters in the query of a REST request without a body: read by their types, and written.

Must not know what names a task or a tenant there, which `envelope` reads, nor who asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Raw

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.operations import GET_TASK, LIST_PUSH_CONFIGS, LIST_TASKS, Operation
from sidecast_schemas.codec import RawObject

_PAGE: dict[str, type] = {"pageSize": int, "pageToken": str}
_TYPES: dict[Operation, dict[str, type]] = {
    GET_TASK: {"historyLength": int},
    LIST_TASKS: {
        "contextId": str,
        "status": str,
        **_PAGE,
        "historyLength": int,
        "statusTimestampAfter": str,
        "includeArtifacts": bool,
    },
    LIST_PUSH_CONFIGS: _PAGE,
}
"""By operation: what its query may hold. Source: A2A 1.0, sections 5.3 and 11.5; digest 1.1 and 2.1."""

_decode_int = msgspec.json.Decoder(int).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_NAMES: dict[type, str] = {int: "number", bool: "true or false", str: "text"}
_BOOLS = {"true": Raw(b"true"), "false": Raw(b"false")}


def read_query(operation: Operation, query: str) -> RawObject:
    """Give the parameters in a query as members of the JSON parameters; unknown ones are left out.

    Args:
        operation: which.
        query: as it was sent, without its question mark.

    Raises:
        A2AError: INVALID_PARAMS: one stands twice, or is not of its type.
    """
    types = _TYPES.get(operation, {})
    fields: RawObject = {}
    for name, text in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        kind = types.get(name)
        if kind is None:
            continue
        if name in fields:
            raise _invalid(f"{name} stands twice in the query")
        fields[name] = _read(name, kind, text)
    return fields


def write_query(operation: Operation, params: bytes) -> str:
    """Give the query that says of an operation what its path does not, with its question mark; or nothing.

    Args:
        operation: which.
        params: its JSON parameters.

    Raises:
        A2AError: INVALID_PARAMS: one is not of its type.
    """
    types: Mapping[str, type] = _TYPES.get(operation, {})
    given = _decode_object(params) if types else {}
    pairs = [(name, _written(name, kind, given[name])) for name, kind in types.items() if name in given]
    written = urlencode([(name, text) for name, text in pairs if text is not None])
    return f"?{written}" if written else ""


def _read(name: str, kind: type, text: str) -> Raw:
    try:
        if kind is int:
            _decode_int(text)
            return Raw(text.encode())
        if kind is bool:
            return _BOOLS[text]
        return Raw(msgspec.json.encode(text))
    except (KeyError, UnicodeEncodeError, msgspec.DecodeError) as error:
        raise _invalid(f"{name} is no {_NAMES[kind]}") from error


def _written(name: str, kind: type, raw: Raw) -> str | None:
    try:
        value = msgspec.json.decode(raw, type=kind | None)
    except msgspec.ValidationError as error:
        raise _invalid(f"{name} is no {_NAMES[kind]}") from error
    if value is None:
        return None
    return str(value) if kind is not bool else str(value).lower()


def _invalid(detail: str) -> A2AError:
    return A2AError(ErrorKind.INVALID_PARAMS, detail)
