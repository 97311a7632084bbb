"""What kind of record an event becomes: how dear it is, and what it does to the task's state.

Must not know buffers or NATS.
"""

from __future__ import annotations

from typing import Any, cast

from sidecast_adapters.record import Rank, Record
from sidecast_schemas.codec import EventKind
from sidecast_schemas.events import ACTIVITY

LOOSE_ACTIVITIES = frozenset({"progress", "thought", "debug"})


def record_of(event: dict[str, Any], payload: bytes, state: str, traceparent: str) -> Record:
    """Give the record of an event.

    Args:
        event: one StreamResponse in A2A v1.0 JSON, or a `turn`.
        payload: its JSON as bytes.
        state: the task's state before it, empty while unknown.
        traceparent: the trace it belongs to, or empty.
    """
    ((name, body),) = event.items()
    kind = cast(EventKind, name)
    if kind == "statusUpdate":
        after = body["status"]["state"]
        return Record(
            kind, payload, _status_rank(body, changes=after != state), after, traceparent=traceparent
        )
    if kind == "artifactUpdate":
        artifact, append = body["artifact"], bool(body.get("append"))
        loose = (
            append
            and not body.get("lastChunk")
            and all("text" in part for part in artifact.get("parts") or ())
        )
        return Record(
            kind,
            payload,
            Rank.LOOSE if loose else Rank.FIRM,
            artifact_id=artifact["artifactId"],
            append=append,
            traceparent=traceparent,
        )
    if kind == "task":
        return Record(kind, payload, Rank.KEPT, body["status"]["state"], traceparent=traceparent)
    return Record(kind, payload, Rank.KEPT if kind == "turn" else Rank.FIRM, traceparent=traceparent)


def _status_rank(body: dict[str, Any], *, changes: bool) -> Rank:
    if changes:
        return Rank.KEPT
    activity = (body.get("metadata") or {}).get(ACTIVITY)
    if not isinstance(activity, dict):
        return Rank.REPEATED
    return Rank.LOOSE if activity.get("kind") in LOOSE_ACTIVITIES else Rank.FIRM
