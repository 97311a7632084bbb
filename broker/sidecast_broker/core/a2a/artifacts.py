"""What makes an artifact of a log the one that an agent's Task has.

Must not know tasks, statuses or what is published besides. Fields come in raw and stay so.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from sidecast_broker.core.a2a.content import (
    canonical,
    elements_of,
    fields_of,
    parts_after,
    parts_before,
    says,
    values,
)
from sidecast_broker.core.a2a.copies import news_at, news_before
from sidecast_broker.core.a2a.heard import Heard
from sidecast_broker.core.kept_artifact import FoldedArtifact
from sidecast_schemas.codec import RawObject


def artifact_update(
    known: FoldedArtifact, artifact: RawObject, doubles: bool = False
) -> dict[str, Any] | None:
    """Give what makes a known artifact this one: a further piece, or all of it anew; None: it is this one.

    Args:
        known: as the log has it.
        artifact: as the Task has it.
        doubles: it may hold pieces several times over; what only repeats what is known is not new.
    """
    old, new = elements_of(known.parts), elements_of(artifact.get("parts"))
    more = None
    if doubles and (start := news_at(_said(old), _said(new))) is not None:
        more = new[start:]
    if more is None:
        more = parts_after(old, new)
    if more is None or not _extends(known, artifact):
        return {"artifact": artifact}
    return _piece(known, artifact, more)


def artifact_update_before(
    known: FoldedArtifact | None, artifact: RawObject, artifact_id: str, heard: Heard
) -> dict[str, Any] | None:
    """Give what makes an artifact the one that it was before something of it was heard; None: it is that.

    Args:
        known: as the log has it, or None.
        artifact: as the Task has it, with what was heard.
        artifact_id: its id.
        heard: what will be written behind it.
    """
    if artifact_id in heard.replaced:
        return None
    pieces, parts = heard.pieces.get(artifact_id, []), elements_of(artifact.get("parts"))
    if known is not None and _extends(known, artifact):
        more = _before(elements_of(known.parts), pieces, parts)
        if more is not None:
            return _piece(known, artifact, more)
    whole = _before([], pieces, parts)
    if whole is None:
        return {"artifact": artifact}
    return {"artifact": {**artifact, "parts": whole}} if whole else None


def _before(known: list[Raw], pieces: list[Raw], parts: list[Raw]) -> list[Raw] | None:
    """Give what parts say between what is known and what was heard; None: they don't say these."""
    before = news_before(_said(known), _said(pieces), _said(parts))
    if before is not None:
        return parts[before]
    # Agents that join text chunks into one part.
    if parts_after(known + pieces, parts) is not None:
        return []
    rest = parts_after(known, parts)
    return None if rest is None else parts_before(rest, pieces)


def _said(parts: list[Raw]) -> list[bytes]:
    return list(map(canonical, parts))


def _extends(known: FoldedArtifact, artifact: RawObject) -> bool:
    """Whether a further piece can make a known artifact this one, as far as its other fields say."""
    inner = ("parts", "metadata")
    gone = values(known.metadata).keys() - values(fields_of(artifact.get("metadata"))).keys()
    return not gone and says(known.fields, inner) == says(artifact, inner)


def _piece(known: FoldedArtifact, artifact: RawObject, more: list[Raw]) -> dict[str, Any] | None:
    """Give a piece of an artifact, with what of its metadata has changed; None: it says nothing."""
    old = values(known.metadata)
    metadata = fields_of(artifact.get("metadata"))
    changed = {key: metadata[key] for key, value in values(metadata).items() if old.get(key) != value}
    if not more:
        return {"artifact": {**artifact, "parts": known.parts}} if changed else None
    piece: dict[str, Any] = {"artifactId": artifact["artifactId"], "parts": more}
    if changed:
        piece["metadata"] = changed
    return {"artifact": piece, "append": True}
