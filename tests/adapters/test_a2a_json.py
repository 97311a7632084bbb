"""From a2a-sdk's objects to A2A v1.0 JSON."""

from __future__ import annotations

from typing import Any

import pytest
from a2a.types.a2a_pb2 import (
    Artifact,
    Part,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.struct_pb2 import Struct, Value

from sidecast_adapters.a2a_json import (
    event_json,
    message_json,
    part_json,
    state_json,
    task_json,
    timestamp_json,
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"kind": "text", "text": "hi"}, {"text": "hi"}),
        ({"kind": "text", "text": "", "metadata": {"a": 1}}, {"text": "", "metadata": {"a": 1}}),
        (
            {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "hi"}},
            {"raw": "aGk=", "mediaType": "text/plain", "filename": "hi"},
        ),
        ({"kind": "file", "file": {"uri": "https://x"}}, {"url": "https://x"}),
        ({"kind": "file", "file": {"fileWithUri": "https://x"}}, {"url": "https://x"}),
        ({"kind": "file", "file": {"fileWithBytes": "aGk="}}, {"raw": "aGk="}),
        ({"kind": "data", "data": {"n": 1}, "metadata": {"m": 2}}, {"data": {"n": 1}, "metadata": {"m": 2}}),
        ({"kind": "data", "data": {"value": [1]}, "metadata": {"data_part_compat": True}}, {"data": [1]}),
        ({"text": "v1.0", "mediaType": "text/plain"}, {"text": "v1.0", "mediaType": "text/plain"}),
        ({"data": [1]}, {"data": [1]}),
    ],
)
def test_parts(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert part_json(old) == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("submitted", "TASK_STATE_SUBMITTED"),
        ("input-required", "TASK_STATE_INPUT_REQUIRED"),
        ("auth-required", "TASK_STATE_AUTH_REQUIRED"),
        ("canceled", "TASK_STATE_CANCELED"),
        ("unknown", "TASK_STATE_UNSPECIFIED"),
        ("TASK_STATE_WORKING", "TASK_STATE_WORKING"),
    ],
)
def test_states(old: str, new: str) -> None:
    assert state_json(old) == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2025-04-02T16:59:25.331844", "2025-04-02T16:59:25.331844Z"),
        ("2025-04-02T16:59:25Z", "2025-04-02T16:59:25Z"),
        ("2025-04-02T18:59:25+02:00", "2025-04-02T16:59:25Z"),
        ("yesterday", None),
        ("", None),
    ],
)
def test_timestamps(old: str, new: str | None) -> None:
    assert timestamp_json(old) == new


def test_messages_and_tasks_lose_kind_and_get_v1_roles() -> None:
    message = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "x"}]}
    translated = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}
    assert message_json(message) == translated
    task = {
        "kind": "task",
        "id": "t",
        "status": {"state": "working", "timestamp": "2025-01-01T00:00:00", "message": message},
        "history": [message],
        "artifacts": [{"artifactId": "a", "parts": [{"kind": "text", "text": "x"}]}],
        "unknown": 1,
    }
    assert task_json(task) == {
        "id": "t",
        "status": {"state": "TASK_STATE_WORKING", "timestamp": "2025-01-01T00:00:00Z", "message": translated},
        "history": [translated],
        "artifacts": [{"artifactId": "a", "parts": [{"text": "x"}]}],
        "unknown": 1,
    }


def test_integers_in_protobuf_structs_stay_integers_where_that_is_exact() -> None:
    metadata = Struct()
    metadata.update({"int": 3, "float": 0.5, "list": [1, 2.5], "nested": {"large": 2**53}, "huge": 1e300})
    event = TaskStatusUpdateEvent(
        task_id="t", status=TaskStatus(state=TaskState.TASK_STATE_WORKING), metadata=metadata
    )
    translated = event_json(event)
    assert translated is not None
    values = translated["statusUpdate"]["metadata"]
    assert values == {"int": 3, "float": 0.5, "list": [1, 2.5], "nested": {"large": 2**53}, "huge": 1e300}
    assert [type(values["int"]), type(values["list"][0]), type(values["huge"])] == [int, int, float]


def test_data_and_empty_text_of_protobuf_parts() -> None:
    parts = [Part(text=""), Part(data=Value(number_value=4)), Part(raw=b"hi", media_type="text/plain")]
    event = TaskArtifactUpdateEvent(task_id="t", artifact=Artifact(artifact_id="a", parts=parts))
    assert event_json(event) == {
        "artifactUpdate": {
            "taskId": "t",
            "artifact": {
                "artifactId": "a",
                "parts": [{"text": ""}, {"data": 4}, {"raw": "aGk=", "mediaType": "text/plain"}],
            },
        }
    }


def test_what_json_has_no_word_for_is_a_value_error_and_what_is_no_event_is_none() -> None:
    event = TaskStatusUpdateEvent()
    event.metadata.update({"x": float("inf")})
    with pytest.raises(ValueError, match="no JSON for TaskStatusUpdateEvent"):
        event_json(event)
    assert event_json(object()) is None
    assert event_json(ValueError("an SDK's own")) is None
