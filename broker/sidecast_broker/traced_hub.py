"""A hub where traces are switched on: it remembers which of its records are part of one.

Must not know spans.
"""

from __future__ import annotations

from typing import Any

from sidecast_broker.core.log import Stored
from sidecast_broker.hub import Hub
from sidecast_broker.tracing import Tracing


class TracedHub(Hub):
    """Does what a hub does; a class of its own, so that a hub without traces pays nothing per record.

    Args:
        tracing: makes the spans, also as the hub's witness.
        hub: the arguments of `Hub`.
    """

    def __init__(self, tracing: Tracing, **hub: Any) -> None:
        super().__init__(**hub)
        self._tracing = tracing

    def append(self, stored: Stored) -> None:
        """Take the next record of the task."""
        self._tracing.note(self.key.task, stored)
        super().append(stored)

    def reset(self, epoch: str) -> None:
        """Forget everything: the stream has begun anew."""
        self._tracing.forget()
        super().reset(epoch)
