from __future__ import annotations

from typing import Any

import msgspec
import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2
from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.a2a.translate.spellings import respell, spelled_object, spelled_objects

MESSAGES = [
    "Artifact CreateTaskPushNotificationConfigRequest FilePart ListTaskPushNotificationConfigRequest",
    "ListTaskPushNotificationConfigResponse Message SendMessageConfiguration StreamResponse Task",
    "TaskArtifactUpdateEvent TaskPushNotificationConfig TaskStatusUpdateEvent",
]


@pytest.mark.parametrize("message", " ".join(MESSAGES).split())
def test_every_field_of_the_proto_is_read_under_both_names(message: str) -> None:
    for field in getattr(a2a_v0_3_pb2, message).DESCRIPTOR.fields:
        if field.name == "msg":
            continue
        assert respell({field.name: Raw(b"1")}) == {field.json_name: Raw(b"1")}
        assert respell({field.json_name: Raw(b"1")}) == {field.json_name: Raw(b"1")}


def test_the_preferred_name_wins_unless_it_says_nothing() -> None:
    assert respell({"task_id": Raw(b"1"), "taskId": Raw(b"2")})["taskId"] == Raw(b"2")
    assert respell({"task_id": Raw(b"1"), "taskId": Raw(b"null")}) == {"taskId": Raw(b"1")}


def test_names_of_one_object_alone() -> None:
    assert respell({"request": Raw(b"1")}, {"request": "message"}) == {"message": Raw(b"1")}
    assert respell({"request": Raw(b"1")}) == {"request": Raw(b"1")}


@pytest.mark.parametrize(
    ("rest", "expected"), [(False, {"task_id": Raw(b"1")}), (True, {"taskId": Raw(b"1")})]
)
def test_only_rest_has_two_spellings(rest: bool, expected: Any) -> None:
    raw = Raw(msgspec.json.encode({"task_id": 1}))
    assert spelled_object(raw, "x", rest=rest) == expected
    assert spelled_objects(Raw(b"[" + bytes(raw) + b"]"), "x", rest=rest) == [expected]


def test_another_type_is_refused_by_name() -> None:
    with pytest.raises(Untranslatable, match="x: Expected"):
        spelled_object(Raw(b"5"), "x", rest=True)
    with pytest.raises(Untranslatable, match="x: Expected"):
        spelled_objects(Raw(b"[5]"), "x", rest=True)
