"""The wire between agents, NATS and the broker: subjects, headers, events and their codec.

Knows nothing of networks: msgspec is all it needs.
"""

from __future__ import annotations

from sidecast_schemas.codec import Event, InvalidEvent, decode_event
from sidecast_schemas.subjects import InvalidId, TaskKey

__all__ = ["Event", "InvalidEvent", "InvalidId", "TaskKey", "decode_event"]
