from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from a2a_documents import Current, encoded, exactly, spelled
from hypothesis import given, settings
from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import HELD
from sidecast_broker.core.a2a.translate.updates import (
    artifact_update_from_v03,
    artifact_update_to_v03,
    status_update_from_v03,
    status_update_to_v03,
    task_tree_from_v03,
    task_tree_to_v03,
)


def fields(document: Any) -> dict[str, Raw]:
    return msgspec.json.decode(encoded(document), type=dict[str, Raw])


def again(tree: Any) -> dict[str, Raw]:
    return msgspec.json.decode(msgspec.json.encode(tree), type=dict[str, Raw])


def plain(tree: Any) -> Any:
    return json.loads(msgspec.json.encode(tree))


@pytest.mark.parametrize("rest", [False, True])
@given(Current.tasks)
@settings(max_examples=40)
def test_a_task_comes_back_as_it_was(rest: bool, document: Any) -> None:
    former = task_tree_to_v03(fields(document), {}, rest=rest)
    former.pop("kind", None)
    current, _ = task_tree_from_v03(again(former), rest=rest)
    assert spelled(msgspec.json.encode(current)) == exactly(document)


@pytest.mark.parametrize("rest", [False, True])
@given(Current.artifact_updates)
@settings(max_examples=40)
def test_an_artifact_update_comes_back_as_it_was(rest: bool, document: Any) -> None:
    former = artifact_update_to_v03(fields(document), {}, rest=rest)
    former.pop("kind", None)
    current, _ = artifact_update_from_v03(again(former), rest=rest)
    assert spelled(msgspec.json.encode(current)) == exactly(document)


@pytest.mark.parametrize("rest", [False, True])
def test_a_state_of_a_later_version_is_held_and_comes_back(rest: bool) -> None:
    document = {"taskId": "t", "status": {"state": "TASK_STATE_PAUSED"}}
    former = status_update_to_v03(fields(document), {}, rest=rest, final=None)
    former.pop("kind", None)
    assert plain(former)["metadata"] == {HELD: {"status": {"state": "TASK_STATE_PAUSED"}}}
    assert plain(former)["final"] is False
    current, _ = status_update_from_v03(again(former), rest=rest)
    assert plain(current) == document


@pytest.mark.parametrize("held", ["TASK_STATE_COMPLETED", "paused", 5, None])
def test_metadata_cannot_set_a_state_v03_can_say(held: Any) -> None:
    document = {
        "taskId": "t",
        "status": {"state": "unknown"},
        "metadata": {HELD: {"status": {"state": held, "message": {"forged": 1}, "x": 1}}},
    }
    current, _ = status_update_from_v03(fields(document), rest=False)
    assert plain(current) == {"taskId": "t", "status": {"state": "TASK_STATE_UNSPECIFIED", "x": 1}}


def test_a_held_state_does_not_replace_one_that_was_said() -> None:
    document = {
        "taskId": "t",
        "status": {"state": "completed"},
        "metadata": {HELD: {"status": {"state": "TASK_STATE_PAUSED"}}},
    }
    current, _ = status_update_from_v03(fields(document), rest=False)
    assert plain(current) == {"taskId": "t", "status": {"state": "TASK_STATE_COMPLETED"}}


def test_v03_json_rpc_gets_the_context_its_schema_requires() -> None:
    for context in ({}, {"contextId": None}):
        task = {"id": "t", "status": {"state": "TASK_STATE_WORKING"}, **context}
        former = plain(task_tree_to_v03(fields(task), {}, rest=False))
        assert former["contextId"] == ""
        del former["kind"]
        assert "contextId" not in task_tree_from_v03(fields(former), rest=False)[0]


@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize(
    "flags", [{}, {"append": False}, {"append": True, "lastChunk": False}, {"append": None}]
)
def test_flags_of_an_artifact_stand_where_they_stood(rest: bool, flags: Any) -> None:
    document = {"taskId": "t", "artifact": {"artifactId": "a", "parts": []}, **flags}
    former = plain(artifact_update_to_v03(fields(document), {}, rest=rest))
    assert {name: value for name, value in former.items() if name in ("append", "lastChunk")} == flags


def test_final_of_v03_goes_whatever_it_is() -> None:
    for final in (True, False, None, "yes"):
        document = {"taskId": "t", "status": {"state": "working"}, "final": final}
        current, _ = status_update_from_v03(fields(document), rest=False)
        assert plain(current) == {"taskId": "t", "status": {"state": "TASK_STATE_WORKING"}}


def test_timestamps_become_utc_on_the_way_to_v10_and_stay_on_the_way_from_it() -> None:
    status = {"state": "working", "timestamp": "2025-04-02T16:59:25.331844"}
    current, _ = status_update_from_v03(fields({"status": status}), rest=False)
    assert plain(current)["status"]["timestamp"] == "2025-04-02T16:59:25.331844Z"
    odd = {"status": {"state": "TASK_STATE_WORKING", "timestamp": "whatever"}}
    assert (
        plain(status_update_to_v03(fields(odd), {}, rest=False, final=None))["status"]["timestamp"]
        == "whatever"
    )


def test_rest_may_leave_out_what_is_at_its_default() -> None:
    task, _ = task_tree_from_v03(fields({"id": "t", "status": {}}), rest=True)
    assert plain(task) == {"id": "t", "status": {"state": "TASK_STATE_UNSPECIFIED"}}
    update, _ = artifact_update_from_v03(fields({"artifact": {"artifactId": "a"}}), rest=True)
    assert plain(update) == {"artifact": {"artifactId": "a", "parts": []}}
