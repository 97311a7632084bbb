"""What a status update says the agent is doing: its activity, where it is a valid one.

Must not know the task it belongs to, nor how it is shown.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UNSET

from sidecast_schemas.codec import Event, RawObject, StatusUpdateBody
from sidecast_schemas.events import ACTIVITY, Activity


class RawActivity(NamedTuple):
    """A valid activity: what it says, and all its fields as they were sent."""

    known: Activity
    fields: RawObject


_decode_activity = msgspec.json.Decoder(Activity).decode
_decode_object = msgspec.json.Decoder(RawObject).decode


def read_activity(event: Event) -> RawActivity | None:
    """Give the activity a status update reports, or None.

    One that is malformed (a wrong type, a `progress` outside 0..1, an unknown kind, a `progress` or `step`
    without what it is named after) is none: to us the event is then a status like any other.
    """
    body = event.body
    return activity_in(body.metadata) if isinstance(body, StatusUpdateBody) and body.metadata else None


def activity_in(metadata: RawObject) -> RawActivity | None:
    """Give the activity that the metadata of a status update holds, or None."""
    raw = metadata.get(ACTIVITY)
    if raw is None:
        return None
    try:
        known = _decode_activity(raw)
    except msgspec.ValidationError:
        return None
    if (known.kind == "progress" and known.progress is UNSET) or (
        known.kind == "step" and known.step is UNSET
    ):
        return None
    return RawActivity(known, _decode_object(raw))
