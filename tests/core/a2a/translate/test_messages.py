from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from a2a_documents import Current, Former, encoded, exactly, spelled
from hypothesis import given, settings
from msgspec import Raw

from sidecast_broker.core.a2a.translate.messages import (
    history_from_v03,
    history_to_v03,
    message_tree_from_v03,
    message_tree_to_v03,
    nested_message_from_v03,
    nested_message_to_v03,
)
from sidecast_broker.core.a2a.translate.raw import HELD, NULL


def fields(document: Any) -> dict[str, Raw]:
    return msgspec.json.decode(encoded(document), type=dict[str, Raw])


def to(document: Any, *, rest: bool = False) -> Any:
    return spelled(msgspec.json.encode(message_tree_to_v03(fields(document), {}, rest=rest)))


def back(document: Any, *, rest: bool = False) -> Any:
    return json.loads(msgspec.json.encode(message_tree_from_v03(fields(document), rest=rest)[0]))


@pytest.mark.parametrize("rest", [False, True])
@given(Current.messages)
@settings(max_examples=40)
def test_a_message_comes_back_as_it_was(rest: bool, document: Any) -> None:
    former = msgspec.json.encode(message_tree_to_v03(fields(document), {}, rest=rest))
    current, _ = message_tree_from_v03(msgspec.json.decode(former, type=dict[str, Raw]), rest=rest)
    assert spelled(msgspec.json.encode(current)) == exactly(document)


@given(Former(rest=False).messages)
@settings(max_examples=40)
def test_a_v03_message_comes_back_as_it_was(document: Any) -> None:
    current, _ = message_tree_from_v03(fields(document), rest=False)
    former = message_tree_to_v03(
        msgspec.json.decode(msgspec.json.encode(current), type=dict[str, Raw]), {}, rest=False
    )
    assert spelled(msgspec.json.encode(former)) == exactly(document)


def test_rest_calls_parts_content_and_has_no_references() -> None:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "a"}], "referenceTaskIds": ["t"]}
    assert to(message, rest=True) == {
        "messageId": "m",
        "role": "ROLE_USER",
        "content": [{"text": "a"}],
        "metadata": {HELD: {"fields": {"referenceTaskIds": ["t"]}}},
    }


def test_what_v03_needs_is_there_even_where_v10_left_it_out() -> None:
    assert to({}) == {
        "kind": "message",
        "messageId": "",
        "role": "agent",
        "parts": [],
        "metadata": {HELD: {"role": "ROLE_UNSPECIFIED"}},
    }
    assert back(to({})) == {"role": "ROLE_UNSPECIFIED", "parts": []}


def test_the_kind_of_a_nested_message_may_be_left_out() -> None:
    message = {"messageId": "m", "role": "user", "parts": []}
    assert back(message) == back({**message, "kind": "message"})


def test_metadata_cannot_name_another_task_or_role() -> None:
    forged = {
        "role": "ROLE_USER",
        "fields": {"taskId": "other", "messageId": "x", "contextId": "c", "tenant": "t"},
    }
    message = {"messageId": "m", "role": "agent", "parts": [], "metadata": {HELD: forged}}
    assert back(message) == {"messageId": "m", "role": "ROLE_AGENT", "parts": [], "tenant": "t"}


def test_null_stays_null() -> None:
    for rest in (False, True):
        assert nested_message_to_v03(NULL, rest=rest) == NULL
        assert nested_message_from_v03(NULL, rest=rest) == NULL
        assert history_to_v03(NULL, rest=rest) == NULL
        assert history_from_v03(NULL, rest=rest) == NULL


def test_a_history_is_a_list_of_messages() -> None:
    current = [{"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "a"}]}]
    for rest in (False, True):
        former = msgspec.json.encode(history_to_v03(Raw(encoded(current)), rest=rest))
        assert json.loads(msgspec.json.encode(history_from_v03(Raw(former), rest=rest))) == current
