"""Fewer frames of the browser format that say the same: text chunks joined, of what is replaced the newest.

Must not know pace, filters or subscribers. What a frame says and no later one replaces is never left out, so
that a client which knows the frames up to an id knows the same as one that was sent every frame up to it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct

from sidecast_broker.core.fold import Fold
from sidecast_broker.core.views.events import EncodedFrame, encode_shape, without_id
from sidecast_broker.core.views.shapes import ArtifactFrame, ProgressFrame

WOVEN_MAX = 8
"""So many artifacts and progress may take turns in a stretch that is joined; another one begins the next."""


class Piece(NamedTuple):
    """A frame, and the sequence a client that has it continues from; 0: where the next piece leads to."""

    sequence: int
    frame: EncodedFrame


class _Run(Struct):
    """Frames that become one: what the first says, with the texts of all; of progress the newest alone."""

    newest: Piece
    shape: ArtifactFrame | ProgressFrame
    texts: list[bytes]


_decode_artifact = msgspec.json.Decoder(ArtifactFrame).decode
_decode_progress = msgspec.json.Decoder(ProgressFrame).decode


def coalesce(pieces: list[Piece], fold: Fold, epoch: str, *, named: bool) -> list[Piece]:
    """Join and leave out frames of a contiguous run of records.

    Between two frames of other kinds, chunks of several artifacts and progress may take turns: they don't
    touch what the others say. Of what such a stretch becomes only the last frame has an id, because a client
    that has another one lacks events before it. An artifact that is new to the task begins a stretch: so it
    comes after all that were there before, and before all that come later, however it begins.

    Args:
        pieces: one per record that the client is to know of, in order.
        fold: the task's, with all of them taken in.
        epoch: the stream's.
        named: whether the frames have an `event:` line.

    Returns:
        The fewer pieces, in order; a joined one stands at the last record in it.
    """
    kept: list[Piece] = []
    runs: dict[str | None, _Run] = {}
    for piece in pieces:
        run = _begin(piece)
        if run is None:
            _finish(kept, runs, epoch, named)
            kept.append(piece)
            continue
        key = run.shape.artifactId if isinstance(run.shape, ArtifactFrame) else None
        if (known := runs.get(key)) is not None:
            if _continue(known, run):
                runs[key] = runs.pop(key)  # its place is that of its newest
                continue
            _finish(kept, runs, epoch, named)
        elif len(runs) == WOVEN_MAX or (key is not None and fold.begins_artifact(key, piece.sequence)):
            _finish(kept, runs, epoch, named)
        runs[key] = run
    _finish(kept, runs, epoch, named)
    return kept


def _begin(piece: Piece) -> _Run | None:
    kind = piece.frame.kind.type
    if kind == "task.artifact":
        chunk = _decode_artifact(piece.frame.json)
        return _Run(piece, chunk, [_inside(chunk.text)])
    if kind == "task.progress":
        return _Run(piece, _decode_progress(piece.frame.json), [])
    return None


def _continue(run: _Run, newer: _Run) -> bool:
    """Join a frame to those before it; False: it says something of its own."""
    shape, more = run.shape, newer.shape
    if isinstance(shape, ArtifactFrame) and isinstance(more, ArtifactFrame):
        if _supersedes(shape, more):
            run.shape, run.texts = more, newer.texts
        elif _continues(shape, more):
            run.texts += newer.texts
            shape.lastChunk, shape.seq, shape.at = more.lastChunk, more.seq, more.at
        else:
            return False
    elif isinstance(shape, ProgressFrame) and isinstance(more, ProgressFrame):
        if not _replaces(shape, more):
            return False
        run.shape = more
    run.newest = newer.newest
    return True


def _finish(kept: list[Piece], runs: dict[str | None, _Run], epoch: str, named: bool) -> None:
    """Add what has been joined; a single frame keeps its shared bytes."""
    left = len(runs)
    for run in runs.values():
        left -= 1
        piece = run.newest
        if len(run.texts) > 1:
            assert isinstance(run.shape, ArtifactFrame)
            run.shape.text = Raw(b'"' + b"".join(run.texts) + b'"')
            piece = Piece(piece.sequence, encode_shape(run.shape, epoch, named=named))
        kept.append(Piece(0, without_id(piece.frame, named=named)) if left else piece)
    runs.clear()


def _inside(text: object) -> bytes:
    """Give a JSON string without its quotes: no escape reaches over a chunk, lone surrogates are no more."""
    return bytes(text)[1:-1] if isinstance(text, Raw) else b""


def _continues(first: ArtifactFrame, chunk: ArtifactFrame) -> bool:
    """Tell whether a chunk is only more text of the one before it."""
    return (
        chunk.append
        and not first.lastChunk
        and chunk.artifactId == first.artifactId
        and chunk.contextId == first.contextId
        and first.parts is UNSET
        and chunk.parts is UNSET
        and isinstance(first.text, Raw)
        and isinstance(chunk.text, Raw)
        and (chunk.name is UNSET or chunk.name == first.name)
        and (chunk.mediaType is UNSET or chunk.mediaType == first.mediaType)
        and (chunk.metadata is UNSET or chunk.metadata == first.metadata)
        and first.eventMetadata is UNSET
        and chunk.eventMetadata is UNSET
    )


def _supersedes(older: ArtifactFrame, newer: ArtifactFrame) -> bool:
    """Tell whether a frame says anew all that an earlier one said of its artifact."""
    return not newer.append and older.eventMetadata is UNSET and older.contextId == newer.contextId


def _replaces(older: ProgressFrame, newer: ProgressFrame) -> bool:
    """Tell whether a progress says anew all that lasts of the one before it."""
    return (
        older.step is UNSET
        and older.message is UNSET
        and (older.text is UNSET or newer.text is not UNSET)
        and older.contextId == newer.contextId
        and (
            older.metadata is UNSET
            or (newer.metadata is not UNSET and older.metadata.keys() <= newer.metadata.keys())
        )
    )
