"""How one client format shows a stream: beside records also beginnings, holes, lag and ends.

Must not know streams, nor any one format.
"""

from __future__ import annotations

from typing import Protocol

from sidecast_broker.core.auth.life import End
from sidecast_broker.core.pace import Slow
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.hub import Hub
from sidecast_broker.subscriber import View


class StreamView(View, Protocol):
    """What a stream needs of its format beside the frames of records."""

    @property
    def insert(self) -> bytes | None:
        """What replaces each NUL in shared bytes; None: there are none."""

    @property
    def heartbeat_s(self) -> float:
        """Silence after which a heartbeat is sent."""

    def gap(self, hub: Hub, reason: StreamGapReason, requested: str, oldest: int) -> bytes | None:
        """Give what tells of a hole and how the task stands after it; None: this format can't say it."""

    @property
    def thins(self) -> bool:
        """Whether several records may become one frame."""

    def lag(self, behind_events: int, policy: Slow) -> bytes:
        """Give the frame that tells a client it is slow; empty where the format has none."""

    def drain(self, reconnect_in_ms: int) -> bytes:
        """Give the frame that sends a client to another broker; empty where the format has none."""

    def expiring(self, expires_in_s: float) -> bytes:
        """Give the frame that tells of the credential's end; empty where the format has none."""

    def cut_short(self, hub: Hub, end: End) -> bytes:
        """Give the end of a stream that may not go on: nobody takes it for the end of the task."""

    def not_found(self) -> bytes:
        """Give the end of a stream whose task never came."""

    def unavailable(self) -> bytes:
        """Give the end of a stream whose rest can't be read; empty where the client comes again anyway."""

    def heartbeat(self) -> bytes:
        """Give what is sent in silence."""
