"""A record: one payload on its way into a task's log, and how dear it is when the buffer is full.

Must not know asyncio, NATS or who waits for it.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from sidecast_schemas.codec import EventKind


class Rank(IntEnum):
    """The order in which a full buffer lets records go; `KEPT` never goes."""

    LOOSE = 0
    """Text chunks, progress, thoughts, debug lines: many, and worth little one by one."""
    FIRM = 1
    """Steps, errors, messages, whole artifacts."""
    REPEATED = 2
    """Statuses that say something but leave the state as it is."""
    KEPT = 3
    """The task itself, changes of state, turns."""


class Record(Struct, frozen=True):
    """One payload for the log.

    Attributes:
        kind: which member of the payload's object it is.
        payload: its JSON.
        rank: when a full buffer may drop it.
        state: the task's A2A state after it, empty where it leaves the state as it is.
        artifact_id: of an artifact update, which artifact.
        append: of an artifact update, whether it continues the artifact.
        traceparent: the W3C trace context it was published in, or empty.
        queued_ns: since when it waits, in ns since 1970, where its publishing may be traced; else 0.
    """

    kind: EventKind
    payload: bytes
    rank: Rank
    state: str = ""
    artifact_id: str = ""
    append: bool = False
    traceparent: str = ""
    queued_ns: int = 0
