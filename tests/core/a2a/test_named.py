from __future__ import annotations

import json

import pytest

from sidecast_broker.core.a2a.envelope import parse_params
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.named import references_of, task_of, tenant_of
from sidecast_broker.core.a2a.operations import (
    CANCEL_TASK,
    CREATE_PUSH_CONFIG,
    DELETE_PUSH_CONFIG,
    GET_CARD,
    GET_EXTENDED_CARD,
    GET_PUSH_CONFIG,
    GET_TASK,
    LIST_PUSH_CONFIGS,
    LIST_TASKS,
    SEND_MESSAGE,
    SEND_STREAMING_MESSAGE,
    SUBSCRIBE_TO_TASK,
)


def params(tree=None):
    return parse_params(json.dumps(tree).encode() if tree is not None else b"", v03=False)


@pytest.mark.parametrize(
    ("operation", "version", "tree", "task"),
    [
        (GET_TASK, "1.0", {"id": "a"}, "a"),
        (GET_TASK, "0.3", {"id": "a"}, "a"),
        (CANCEL_TASK, "1.0", {"id": "a", "taskId": "b"}, "a"),
        (SUBSCRIBE_TO_TASK, "1.0", {"id": "a\0\n/é"}, "a\0\n/é"),
        (SUBSCRIBE_TO_TASK, "0.3", {"id": "x" * 256}, "x" * 256),
        (CREATE_PUSH_CONFIG, "1.0", {"id": "c", "taskId": "a"}, "a"),
        (CREATE_PUSH_CONFIG, "0.3", {"taskId": "a", "pushNotificationConfig": {"id": "c"}}, "a"),
        (GET_PUSH_CONFIG, "1.0", {"id": "c", "taskId": "a"}, "a"),
        (GET_PUSH_CONFIG, "0.3", {"id": "a", "pushNotificationConfigId": "c"}, "a"),
        (LIST_PUSH_CONFIGS, "1.0", {"task_id": "a"}, "a"),
        (LIST_PUSH_CONFIGS, "0.3", {"id": "a"}, "a"),
        (DELETE_PUSH_CONFIG, "1.0", {"id": "c", "taskId": "a"}, "a"),
        (DELETE_PUSH_CONFIG, "0.3", {"id": "a", "pushNotificationConfigId": "c"}, "a"),
        (SEND_MESSAGE, "1.0", {"message": {"taskId": "a"}}, "a"),
        (SEND_MESSAGE, "1.0", {"message": {"task_id": "a"}, "id": "b", "taskId": "c"}, "a"),
        (SEND_STREAMING_MESSAGE, "0.3", {"message": {"taskId": "a"}}, "a"),
        (SEND_STREAMING_MESSAGE, "1.0", {"message": {}}, None),
        (SEND_STREAMING_MESSAGE, "1.0", {"message": {"taskId": ""}}, None),
        (SEND_STREAMING_MESSAGE, "0.3", {"message": {"taskId": None}}, None),
        (LIST_TASKS, "1.0", {"id": "a"}, None),
        (GET_EXTENDED_CARD, "0.3", {"id": "a"}, None),
        (GET_CARD, "1.0", None, None),
    ],
)
def test_task_of(operation, version, tree, task):
    assert task_of(operation, version, params(tree)) == task


@pytest.mark.parametrize(
    ("operation", "tree", "field"),
    [
        (GET_TASK, None, "id"),
        (GET_TASK, {}, "id"),
        (GET_TASK, {"taskId": "a"}, "id"),
        (GET_TASK, {"id": ""}, "id"),
        (GET_TASK, {"id": None}, "id"),
        (GET_TASK, {"id": 1}, "id"),
        (GET_TASK, {"id": ["a"]}, "id"),
        (GET_TASK, {"id": {"a": 1}}, "id"),
        (GET_TASK, {"id": True}, "id"),
        (SUBSCRIBE_TO_TASK, {"id": "x" * 257}, "id"),
        (SUBSCRIBE_TO_TASK, {"id": "é" * 129}, "id"),
        (LIST_PUSH_CONFIGS, {"id": "a"}, "taskId"),
        (SEND_MESSAGE, None, "message"),
        (SEND_MESSAGE, {"message": None}, "message"),
        (SEND_MESSAGE, {"message": "hello"}, "message"),
        (SEND_MESSAGE, {"message": []}, "message"),
        (SEND_MESSAGE, {"message": {"taskId": 7}}, "message.taskId"),
        (SEND_MESSAGE, {"message": {"taskId": "x" * 1_000_000}}, "message.taskId"),
    ],
    ids=str,
)
def test_task_of_refuses(operation, tree, field):
    with pytest.raises(A2AError) as raised:
        task_of(operation, "1.0", params(tree))
    assert raised.value.kind is ErrorKind.INVALID_PARAMS
    assert [violation.field for violation in raised.value.violations] == [field]
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("operation", "version", "tree"),
    [
        (SUBSCRIBE_TO_TASK, "1.0", None),
        (SUBSCRIBE_TO_TASK, "1.0", {"id": "a"}),
        (SUBSCRIBE_TO_TASK, "0.3", {"id": ""}),
        (CANCEL_TASK, "1.0", {"metadata": {"id": "b"}}),
        (CREATE_PUSH_CONFIG, "1.0", {"id": "c", "url": "https://x.example"}),
        (CREATE_PUSH_CONFIG, "1.0", {"id": "c", "taskId": "a"}),
        (DELETE_PUSH_CONFIG, "0.3", {"id": "c"}),
    ],
)
def test_the_path_names_the_task(operation, version, tree):
    assert task_of(operation, version, params(tree), "a") == "a"


@pytest.mark.parametrize(
    ("operation", "tree"),
    [
        (SUBSCRIBE_TO_TASK, {"id": "b"}),
        (CANCEL_TASK, {"id": "b"}),
        (CANCEL_TASK, {"id": 1}),
        (CREATE_PUSH_CONFIG, {"taskId": "b"}),
        (CREATE_PUSH_CONFIG, {"task_id": "b"}),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "0.3"])
def test_path_and_body_name_the_same_task(operation, tree, version):
    with pytest.raises(A2AError) as raised:
        task_of(operation, version, params(tree), "a")
    assert raised.value.kind is ErrorKind.INVALID_PARAMS


@pytest.mark.parametrize(
    ("message", "tasks"),
    [
        (None, []),
        ({}, []),
        ({"referenceTaskIds": None}, []),
        ({"referenceTaskIds": []}, []),
        ({"referenceTaskIds": ["a", "b"]}, ["a", "b"]),
        ({"reference_task_ids": ["a"]}, ["a"]),
        ({"referenceTaskIds": ["a"] * 100}, ["a"] * 100),
    ],
)
def test_references_of(message, tasks):
    assert references_of(params({"message": message})) == tasks


@pytest.mark.parametrize(
    "references", ["a", [1], [None], {"a": "b"}, [""], ["x" * 257], [["a"]], ["a"] * 101]
)
def test_references_of_refuses(references):
    with pytest.raises(A2AError) as raised:
        references_of(params({"message": {"referenceTaskIds": references}}))
    assert raised.value.kind is ErrorKind.INVALID_PARAMS
    assert raised.value.violations[0].field == "message.referenceTaskIds"


@pytest.mark.parametrize(
    ("version", "tree", "in_path", "tenant"),
    [
        ("1.0", None, "", ""),
        ("1.0", {"tenant": ""}, "", ""),
        ("1.0", {"tenant": "x"}, "", "x"),
        ("1.0", None, "x", "x"),
        ("1.0", {"tenant": "x"}, "x", "x"),
        ("1.0", {"tenant": ""}, "x", "x"),
        ("1.0", {"tenant": None}, "x", "x"),
        ("0.3", {"tenant": "x"}, "", ""),
    ],
)
def test_tenant_of(version, tree, in_path, tenant):
    assert tenant_of(version, params(tree), in_path) == tenant


def test_tenant_of_refuses():
    with pytest.raises(A2AError) as raised:
        tenant_of("1.0", params({"tenant": "y"}), "x")
    # to the byte what an unknown task is (C06, C45)
    assert (raised.value.kind, raised.value.message) == (ErrorKind.TASK_NOT_FOUND, None)
    for tenant in (1, ["x"], "x" * 257):
        with pytest.raises(A2AError) as raised:
            tenant_of("1.0", params({"tenant": tenant}))
        assert raised.value.kind is ErrorKind.INVALID_PARAMS
