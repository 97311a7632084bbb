"""One artifact as the records so far make it: replaced, or extended piece by piece.

Must not know its task, nor which update does what.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Raw

from sidecast_broker.core.raw_json import array_of, copied, elements_of, extend, merge, object_of, size_of
from sidecast_schemas.codec import RawObject


class FoldedArtifact(NamedTuple):
    """An artifact as the records so far make it.

    Attributes:
        fields: of it, but `parts` and `metadata`.
        metadata: merged key by key.
        parts: the parts as a JSON array.
    """

    fields: Mapping[str, Raw]
    metadata: Mapping[str, Raw]
    parts: Raw


class KeptArtifact:
    """One artifact: its parts as the inside of a JSON array, so that appending costs what is appended."""

    __slots__ = ("fields", "metadata", "parts")

    def __init__(self, fields: RawObject) -> None:
        self.replace(fields)

    def replace(self, fields: RawObject) -> None:
        """Become another artifact, at the same place."""
        self.parts = bytearray(elements_of(fields.get("parts")))
        self.metadata = copied(object_of(fields.get("metadata")))
        self.fields = copied({key: raw for key, raw in fields.items() if key not in ("parts", "metadata")})

    @property
    def size_bytes(self) -> int:
        return len(self.parts) + size_of(self.fields) + size_of(self.metadata)

    def append(self, fields: RawObject) -> int:
        """Extend by a further piece; give the bytes it takes more."""
        before = len(self.parts)
        extend(self.parts, elements_of(fields.get("parts")))
        return len(self.parts) - before + merge(self.metadata, object_of(fields.get("metadata")))

    def tree(self) -> dict[str, object]:
        """Give it in the form the encoder takes."""
        tree: dict[str, object] = {**self.fields, "parts": array_of(self.parts)}
        if self.metadata:
            tree["metadata"] = self.metadata
        return tree
