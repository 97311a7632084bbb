"""Fewer frames of the browser format that say the same: text chunks joined, of a run of progress the newest.

Must not know pace, filters or subscribers. What a frame says and no later one replaces is never left out, so
that a client which knows the frames up to an id knows the same as one that was sent every frame up to it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct

from sidecast_broker.core.views.events import EncodedFrame, encode_shape
from sidecast_broker.core.views.shapes import ArtifactFrame, ProgressFrame


class Piece(NamedTuple):
    """A frame, and the sequence a client that has it continues from."""

    sequence: int
    frame: EncodedFrame


class _Run(Struct):
    """Frames that become one: what the first says, with the texts of all."""

    newest: Piece
    artifact: ArtifactFrame
    texts: list[bytes]


_decode_artifact = msgspec.json.Decoder(ArtifactFrame).decode
_decode_progress = msgspec.json.Decoder(ProgressFrame).decode


def coalesce(pieces: list[Piece], epoch: str, *, named: bool) -> list[Piece]:
    """Join and leave out frames of a contiguous run of records.

    Args:
        pieces: one per record that the client is to know of, in order.
        epoch: the stream's.
        named: whether the frames have an `event:` line.

    Returns:
        The fewer pieces, in order; a joined one stands at the last record in it.
    """
    kept: list[Piece] = []
    run: _Run | None = None
    progress: ProgressFrame | None = None
    for piece in pieces:
        kind = piece.frame.kind.type
        if kind == "task.artifact":
            progress = None
            chunk = _decode_artifact(piece.frame.json)
            if run is not None and _continues(run.artifact, chunk):
                run.texts.append(_inside(chunk.text))
                run.artifact.lastChunk = chunk.lastChunk
                run.artifact.seq, run.artifact.at = chunk.seq, chunk.at
                run.newest = piece
                continue
            _finish(kept, run, epoch, named)
            run = _Run(piece, chunk, [_inside(chunk.text)])
            continue
        _finish(kept, run, epoch, named)
        run = None
        if kind == "task.progress":
            newer = _decode_progress(piece.frame.json)
            if progress is not None and _replaces(progress, newer):
                kept.pop()
            progress = newer
        else:
            progress = None
        kept.append(piece)
    _finish(kept, run, epoch, named)
    return kept


def _finish(kept: list[Piece], run: _Run | None, epoch: str, named: bool) -> None:
    """Add what has been joined; a single chunk keeps its shared bytes."""
    if run is None:
        return
    if len(run.texts) > 1:
        run.artifact.text = Raw(b'"' + b"".join(run.texts) + b'"')
        frame = encode_shape(run.artifact, epoch, named=named)
        run.newest = Piece(run.newest.sequence, frame)
    kept.append(run.newest)


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
