"""Which events no batch holds back: the end of a task or a turn, an interruption, an error.

Must not know how long batches gather, nor for whom.
"""

from __future__ import annotations

from sidecast_broker.core.activity import read_activity
from sidecast_schemas.codec import Event, TurnBody
from sidecast_schemas.events import ACTIVITY, INTERRUPTED_STATES, TERMINAL_STATES

_DECISIVE = TERMINAL_STATES | INTERRUPTED_STATES
_MARK = ACTIVITY.encode()


def is_urgent(event: Event) -> bool:
    """Tell whether an event goes out at once, with all that gathered before it."""
    if isinstance(event.body, TurnBody):
        return event.body.phase == "end"
    if event.state in _DECISIVE:
        return True
    if event.kind != "statusUpdate" or _MARK not in event.payload:
        return False
    activity = read_activity(event)
    return activity is not None and activity.known.kind == "error"
