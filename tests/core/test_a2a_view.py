from __future__ import annotations

import json

import pytest

from sidecast_broker.core.views.a2a import with_history


@pytest.mark.parametrize(
    ("length", "kept"), [(None, 3), (5, 3), (3, 3), (2, 2), (1, 1), (0, None), (-1, None)]
)
def test_of_the_history_the_newest_messages_stay(length: int | None, kept: int | None) -> None:
    messages = [{"messageId": str(number)} for number in range(3)]
    task = with_history(json.dumps({"id": "t", "history": messages, "x": 1.0}).encode(), length)
    found = json.loads(task)
    assert found.get("history") == (None if kept is None else messages[-kept:])
    assert (found["id"], found["x"]) == ("t", 1.0)
    assert json.loads(with_history(b'{"id":"t"}', length)) == {"id": "t"}
