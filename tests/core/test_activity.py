from __future__ import annotations

import json
from typing import Any

import pytest

from sidecast_broker.core.activity import activity_in, read_activity
from sidecast_schemas.codec import Event, StatusUpdateBody, decode_event
from sidecast_schemas.events import ACTIVITY


def status(metadata: Any) -> Event:
    update = {"taskId": "t", "status": {"state": "TASK_STATE_WORKING"}, "metadata": metadata}
    return decode_event(json.dumps({"statusUpdate": update}).encode())


@pytest.mark.parametrize("kind", ["progress", "step", "thought", "debug", "error"])
def test_all_that_was_sent_is_kept_with_what_is_known(kind: str) -> None:
    content = {"kind": kind, "progress": 0.5, "step": {"id": "s", "new": 1}, "big": 2**70, "ours": {"a": [1]}}
    found = read_activity(status({ACTIVITY: content, "other": 1}))
    assert found is not None
    assert (found.known.kind, found.known.progress) == (kind, 0.5)
    assert {key: json.loads(bytes(raw)) for key, raw in found.fields.items()} == content


@pytest.mark.parametrize(
    "content",
    [{}, [], None, "progress", {"kind": "progress"}, {"kind": "step", "progress": 0.5}, {"kind": "dance"}],
)
def test_a_malformed_one_is_none(content: Any) -> None:
    event = status({ACTIVITY: content})
    assert read_activity(event) is None
    assert isinstance(event.body, StatusUpdateBody)
    assert event.body.metadata is not None
    assert activity_in(event.body.metadata) is None


def test_other_metadata_and_other_events_report_none() -> None:
    assert read_activity(status({"kind": "progress", "progress": 0.5})) is None
    assert read_activity(decode_event(b'{"task":{"id":"t","status":{"state":"TASK_STATE_WORKING"}}}')) is None
