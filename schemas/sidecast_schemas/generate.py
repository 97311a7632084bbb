"""`python -m sidecast_schemas.generate DIRECTORY` writes JSON Schemas and the AsyncAPI document of the wire.

Must not know fields by heart: what msgspec derives from structs is tightened only where they can't say it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from sidecast_schemas.asyncapi import REFERENCE, asyncapi_document
from sidecast_schemas.events import (
    ACTIVITY,
    LOSS,
    Activity,
    Loss,
    Part,
    StreamResponse,
    TaskStatusUpdateEvent,
    TurnRecord,
)

Document: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_LOCAL_REFERENCE = "#/$defs/{name}"
_EVENT = "Event"
_STRUCTS: tuple[type[Struct], ...] = (StreamResponse, TurnRecord, Activity, Loss)
_EXACTLY_ONE: dict[str, tuple[str, ...]] = {
    StreamResponse.__name__: StreamResponse.__struct_fields__,
    Part.__name__: ("text", "raw", "url", "data"),
}


def documents() -> dict[str, Document]:
    """Build every document, by file name."""
    wire = struct_schemas(_STRUCTS, _LOCAL_REFERENCE)
    wire[_EVENT] = _event(wire)
    return {
        "activity.json": _document(Activity.__name__, wire),
        "asyncapi.json": asyncapi_document(struct_schemas(_STRUCTS, REFERENCE)),
        "event.json": _document(_EVENT, wire),
        "loss.json": _document(Loss.__name__, wire),
        "stream-response.json": _document(StreamResponse.__name__, wire),
        "turn.json": _document(TurnRecord.__name__, wire),
    }


def struct_schemas(structs: Sequence[type[Struct]], reference: str) -> dict[str, Document]:
    """Derive the JSON Schemas of structs and of all they refer to, by name, in alphabetical order.

    Unknown fields stay allowed; what the structs' types can't say is added: members of which exactly one must
    be there, and what our keys of a status update's metadata hold.

    Args:
        structs: the structs to start from; with `TaskStatusUpdateEvent` also `Activity` and `Loss`, which its
            metadata refers to.
        reference: how one schema refers to another, with `{name}` for its name.
    """
    _, derived = msgspec.json.schema_components(structs, ref_template=reference)
    schemas = {name: _tidied(derived[name]) for name in sorted(derived)}
    for name, members in _EXACTLY_ONE.items():
        if name in schemas:
            schemas[name]["oneOf"] = [{"required": [member]} for member in members]
    update = schemas.get(TaskStatusUpdateEvent.__name__)
    if update:
        update["properties"]["metadata"]["properties"] = {
            key: {"$ref": reference.format(name=struct.__name__)}
            for key, struct in ((ACTIVITY, Activity), (LOSS, Loss))
        }
    return schemas


def render(document: Document) -> str:
    """Give a document as the text of its file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def stale_files(directory: Path) -> list[str]:
    """Give the names of files that differ from what would be written, are missing, or don't belong there."""
    current = {name: render(document) for name, document in documents().items()}
    found = {path.name: path.read_text("utf-8") for path in directory.glob("*.json")}
    return sorted(name for name in current | found if current.get(name) != found.get(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the documents, or with `--check` compare them: 0 when current or written, 1 when stale."""
    parser = argparse.ArgumentParser(prog="python -m sidecast_schemas.generate", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    options = parser.parse_args(arguments)
    if options.check:
        stale = stale_files(options.directory)
        if stale:
            sys.stderr.write(f"stale, run `make schemas`: {', '.join(stale)}\n")
        return 1 if stale else 0
    options.directory.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (options.directory / name).write_text(render(document), "utf-8", newline="\n")
    return 0


def _document(name: str, schemas: dict[str, Document]) -> Document:
    needed = _reached(name, schemas)
    return {
        "$schema": DIALECT,
        "$ref": _LOCAL_REFERENCE.format(name=name),
        "$defs": {other: schema for other, schema in sorted(schemas.items()) if other in needed},
    }


def _reached(name: str, schemas: dict[str, Document]) -> set[str]:
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _references(schemas[name])
    return reached


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].rpartition("/")[2]] if "$ref" in node else []
    return own + [name for item in node.values() for name in _references(item)]


def _event(schemas: dict[str, Document]) -> Document:
    members = {
        **schemas[StreamResponse.__name__]["properties"],
        **schemas[TurnRecord.__name__]["properties"],
    }
    return {
        "title": _EVENT,
        "description": "What a NATS message's payload is: a StreamResponse or a turn record, never both.",
        "type": "object",
        "properties": members,
        "oneOf": [{"required": [member]} for member in members],
    }


def _tidied(node: Any) -> Any:
    """Drop what says nothing, or says it in OpenAPI's words.

    `Raw` in a union becomes `{}`, which would let anything pass: it holds JSON already encoded, of the type
    it stands beside.
    """
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {
        key: value
        for key, value in node.items()
        if key != "discriminator" and (key, value) != ("required", [])
    }
    if "anyOf" in node:
        node["anyOf"] = [choice for choice in node["anyOf"] if choice]
        if len(node["anyOf"]) == 1:
            node |= node.pop("anyOf")[0]
    return {key: _tidied(value) for key, value in node.items()}


if __name__ == "__main__":
    sys.exit(main())
