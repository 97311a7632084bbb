from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from a2a_documents import Current, encoded, exactly, spelled, spoiled, values
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecast_broker.core.a2a.translate import (
    Untranslatable,
    result_from_v03,
    result_to_v03,
)

result_to_rpc = partial(result_to_v03, rest=False)
result_to_rest = partial(result_to_v03, rest=True)
result_from_rpc = partial(result_from_v03, rest=False)
result_from_rest = partial(result_from_v03, rest=True)

TASK = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_CANCELED"}}
TASK_RPC = {"kind": "task", "id": "t", "contextId": "c", "status": {"state": "canceled"}}
TASK_REST = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_CANCELLED"}}
CONFIG = {"taskId": "t", "id": "c", "url": "u"}
CONFIG_RPC = {"taskId": "t", "pushNotificationConfig": {"id": "c", "url": "u"}}
CONFIG_REST = {
    "name": "tasks/t/pushNotificationConfigs/c",
    "pushNotificationConfig": {"id": "c", "url": "u"},
}
RESULTS: list[tuple[str, Any, Any, Any]] = [
    ("SendMessage", {"task": TASK}, TASK_RPC, {"task": TASK_REST}),
    ("SendStreamingMessage", {"task": TASK}, TASK_RPC, {"task": TASK_REST}),
    ("SubscribeToTask", {"task": TASK}, TASK_RPC, {"task": TASK_REST}),
    ("GetTask", TASK, TASK_RPC, TASK_REST),
    ("CancelTask", TASK, TASK_RPC, TASK_REST),
    (
        "ListTasks",
        {"tasks": [TASK], "nextPageToken": "n", "totalSize": 1},
        {"tasks": [TASK_RPC], "nextPageToken": "n", "totalSize": 1},
        {"tasks": [TASK_REST], "nextPageToken": "n", "totalSize": 1},
    ),
    ("ListTasks", {}, {}, {}),
    ("CreateTaskPushNotificationConfig", CONFIG, CONFIG_RPC, CONFIG_REST),
    ("GetTaskPushNotificationConfig", CONFIG, CONFIG_RPC, CONFIG_REST),
    ("ListTaskPushNotificationConfigs", {"configs": [CONFIG]}, [CONFIG_RPC], {"configs": [CONFIG_REST]}),
    ("DeleteTaskPushNotificationConfig", {}, None, {}),
]


@pytest.mark.parametrize(("operation", "current", "rpc", "rest"), RESULTS)
def test_results_both_ways(operation: str, current: Any, rpc: Any, rest: Any) -> None:
    assert json.loads(result_to_rpc(operation, encoded(current))) == rpc
    assert json.loads(result_from_rpc(operation, encoded(rpc))) == current
    assert json.loads(result_to_rest(operation, encoded(current))) == rest
    assert json.loads(result_from_rest(operation, encoded(rest))) == current


def test_a_list_without_configs_is_empty() -> None:
    assert result_to_rpc("ListTaskPushNotificationConfigs", b"{}") == b"[]"
    assert json.loads(result_from_rpc("ListTaskPushNotificationConfigs", b"[]")) == {"configs": []}


def test_a_deletion_says_nothing_whatever_the_agent_answers() -> None:
    name = "DeleteTaskPushNotificationConfig"
    assert result_to_rpc(name, b"null") == b"null"
    assert result_from_rest(name, b"") == b"{}"


@given(Current.tasks)
@settings(max_examples=30)
def test_a_list_of_tasks_comes_back_as_it_was(task: Any) -> None:
    document = encoded({"tasks": [task, task], "pageSize": 2})
    expected = exactly({"tasks": [task, task], "pageSize": 2})
    assert spelled(result_from_rpc("ListTasks", result_to_rpc("ListTasks", document))) == expected
    assert spelled(result_from_rest("ListTasks", result_to_rest("ListTasks", document))) == expected


@pytest.mark.parametrize(
    ("operation", "result", "detail"),
    [
        ("SendMessage", b'{"id":"t","status":{"state":"working"}}', "kind"),
        ("GetTask", b'{"kind":"message"}', "kind"),
        ("ListTasks", b'{"tasks":{}}', "tasks"),
        ("ListTasks", b'{"tasks":[{"id":"t"}]}', "kind"),
        ("ListTasks", b'{"tasks":[{"kind":"message"}]}', "kind"),
        ("ListTaskPushNotificationConfigs", b"{}", "Expected `array`"),
        ("ListTaskPushNotificationConfigs", b"[1]", "Expected `object`"),
        ("GetTaskPushNotificationConfig", b"null", "Expected `object`"),
    ],
)
def test_what_is_no_result_is_refused(operation: str, result: bytes, detail: str) -> None:
    with pytest.raises(Untranslatable, match=detail):
        result_from_rpc(operation, result)


@pytest.mark.parametrize("operation", sorted({operation for operation, *_ in RESULTS}))
@given(st.data())
@settings(max_examples=25)
def test_spoiled_results_give_one_line_or_one_kind_of_error(operation: str, data: st.DataObject) -> None:
    documents = [document for name, *forms in RESULTS if name == operation for document in forms]
    payload = encoded(data.draw(spoiled(st.sampled_from(documents)) | values))
    for translation in (result_to_rpc, result_from_rpc, result_to_rest, result_from_rest):
        try:
            line = translation(operation, payload)
        except Untranslatable:
            continue
        json.loads(line)
