from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from sidecast_broker.core.a2a.heard import Heard, id_of_message
from sidecast_schemas.codec import Event, decode_event


def event(kind: str, **fields: Any) -> Event:
    return decode_event(json.dumps({kind: {"taskId": "t", **fields}}).encode())


def status(message_id: str | None = None) -> Event:
    message = {"messageId": message_id, "role": "ROLE_AGENT", "parts": []}
    return event(
        "statusUpdate",
        status={"state": "TASK_STATE_WORKING"} | ({"message": message} if message_id is not None else {}),
    )


def piece(text: str, *, append: bool, artifact_id: str = "a") -> Event:
    artifact = {"artifactId": artifact_id, "parts": [{"text": text}]}
    return event("artifactUpdate", artifact=artifact, append=append)


def test_nothing():
    heard = Heard([])
    assert (heard.status, heard.messages, heard.replaced, heard.pieces) == (False, set(), set(), {})


def test_what_was_heard():
    heard = Heard(
        [
            *(status("m1"), piece("x", append=True), piece("z", append=False, artifact_id="b")),
            *(piece("y", append=True), status("m2"), piece("w", append=True, artifact_id="b")),
        ]
    )
    assert heard.status
    assert heard.messages == {"m1", "m2"}
    assert heard.replaced == {"b"}
    found = {
        name: [json.loads(bytes(each))["text"] for each in parts] for name, parts in heard.pieces.items()
    }
    assert found == {"a": ["x", "y"], "b": ["z", "w"]}


def test_a_status_without_a_message_and_a_task_say_none():
    first = decode_event(b'{"task":{"id":"t","status":{"state":"TASK_STATE_WORKING"}}}')
    assert Heard([status(), first]).messages - {""} == set()


@pytest.mark.parametrize(
    "message", [None, b"null", b"7", b"[]", b"{}", b'{"messageId":7}', b'{"messageId":""}']
)
def test_what_has_no_id(message):
    assert id_of_message(None if message is None else Raw(message)) == ""


def test_an_id():
    assert id_of_message(Raw(b'{"messageId":"\\u00e9"}')) == "é"
