from __future__ import annotations

import json
from typing import Any

import pytest

from sidecast_broker.core.urgent import is_urgent
from sidecast_schemas.codec import decode_event
from sidecast_schemas.events import ACTIVITY, INTERRUPTED_STATES, TASK_STATES, TERMINAL_STATES

WORKING = "TASK_STATE_WORKING"


def urgent(payload: Any) -> bool:
    return is_urgent(decode_event(json.dumps(payload).encode()))


def status(state: str = WORKING, **metadata: Any) -> dict[str, Any]:
    return {
        "statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": state}, "metadata": metadata}
    }


@pytest.mark.parametrize("state", sorted(TASK_STATES))
def test_states(state: str) -> None:
    decisive = state in TERMINAL_STATES | INTERRUPTED_STATES
    assert urgent(status(state)) is decisive
    assert urgent({"task": {"id": "t", "contextId": "c", "status": {"state": state}}}) is decisive


@pytest.mark.parametrize(
    ("activity", "expected"),
    [
        ({"kind": "error", "code": "E1"}, True),
        ({"kind": "progress", "progress": 0.5}, False),
        ({"kind": "thought"}, False),
        ({"kind": "error", "code": 5}, False),
        ("error", False),
        (None, False),
    ],
)
def test_activities(activity: Any, expected: bool) -> None:
    assert urgent(status(**{ACTIVITY: activity})) is expected


def test_turns_chunks_and_messages() -> None:
    assert urgent({"turn": {"id": "m", "phase": "end"}})
    assert not urgent({"turn": {"id": "m", "phase": "begin"}})
    part = {"text": f"{ACTIVITY} error"}
    assert not urgent({"artifactUpdate": {"taskId": "t", "artifact": {"artifactId": "a", "parts": [part]}}})
    assert not urgent({"message": {"messageId": "m", "taskId": "t", "role": "ROLE_AGENT", "parts": [part]}})
