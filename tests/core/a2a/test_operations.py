from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a import operations
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.operations import (
    GET_CARD,
    PROTOCOL_OPERATIONS,
    is_one_segment,
    operation_of,
    rest_call,
    rest_form,
    rpc_method,
)
from sidecast_broker.core.a2a.target import match
from sidecast_broker.core.a2a.wire import VERSIONS

# Digest 1.1 and 2.1: name, v0.3 method, v1.0 REST, v0.3 REST.
TABLE = [
    ("SendMessage", "message/send", "POST /message:send", "POST /v1/message:send"),
    ("SendStreamingMessage", "message/stream", "POST /message:stream", "POST /v1/message:stream"),
    ("GetTask", "tasks/get", "GET /tasks/t", "GET /v1/tasks/t"),
    ("ListTasks", None, "GET /tasks", "GET /v1/tasks"),
    ("CancelTask", "tasks/cancel", "POST /tasks/t:cancel", "POST /v1/tasks/t:cancel"),
    ("SubscribeToTask", "tasks/resubscribe", "POST|GET /tasks/t:subscribe", "GET|POST /v1/tasks/t:subscribe"),
    (
        "CreateTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/set",
        "POST /tasks/t/pushNotificationConfigs",
        "POST /v1/tasks/t/pushNotificationConfigs",
    ),
    (
        "GetTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/get",
        "GET /tasks/t/pushNotificationConfigs/c",
        "GET /v1/tasks/t/pushNotificationConfigs/c",
    ),
    (
        "ListTaskPushNotificationConfigs",
        "tasks/pushNotificationConfig/list",
        "GET /tasks/t/pushNotificationConfigs",
        "GET /v1/tasks/t/pushNotificationConfigs",
    ),
    (
        "DeleteTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/delete",
        "DELETE /tasks/t/pushNotificationConfigs/c",
        "DELETE /v1/tasks/t/pushNotificationConfigs/c",
    ),
    (
        "GetExtendedAgentCard",
        "agent/getAuthenticatedExtendedCard",
        "GET /extendedAgentCard",
        "GET /v1/card",
    ),
]
OF_NAME = {operation.name: operation for operation in PROTOCOL_OPERATIONS}


def test_all_operations_are_in_the_table():
    assert list(OF_NAME) == [name for name, *_ in TABLE]


@pytest.mark.parametrize(("name", "method_v03", "rest", "rest_v03"), TABLE)
def test_names(name, method_v03, rest, rest_v03):
    operation = OF_NAME[name]
    assert operation_of(name, "1.0") is operation
    assert rpc_method(operation, "1.0") == name
    assert rpc_method(operation, "0.3") == method_v03
    if method_v03 is not None:
        assert operation_of(method_v03, "0.3") is operation
    for version, form in (("1.0", rest), ("0.3", rest_v03)):
        call = rest_call(operation, version, task="t", config="c")
        assert f"{'|'.join(call.methods)} {call.path}" == form


def test_what_streams_and_what_is_ours():
    streaming = {"SendStreamingMessage", "SubscribeToTask"}
    assert {operation.name for operation in PROTOCOL_OPERATIONS if operation.streams} == streaming
    assert {operation.name for operation in PROTOCOL_OPERATIONS if operation.ours} == streaming
    assert GET_CARD.ours
    assert not GET_CARD.streams
    assert {operation.name for operation in PROTOCOL_OPERATIONS if operation.task_is_optional} == {
        "SendMessage",
        "SendStreamingMessage",
    }


@pytest.mark.parametrize("operation", PROTOCOL_OPERATIONS, ids=lambda operation: operation.name)
def test_what_names_a_task_on_a_path_names_it_in_its_parameters(operation):
    for version, place in (("1.0", operation.task), ("0.3", operation.task_v03)):
        if "{task}" in rest_form(operation, version).path:
            assert place in ("id", "taskId")
        else:
            assert place in (None, "message.taskId")


def test_the_card_has_no_method():
    assert rpc_method(GET_CARD, "1.0") is None
    assert rpc_method(GET_CARD, "0.3") is None
    assert rest_call(GET_CARD, "1.0", tenant="t").path == "/.well-known/agent-card.json"


@pytest.mark.parametrize(
    ("method", "version"),
    [
        ("message/send", "1.0"),
        ("tasks/resubscribe", "1.0"),
        ("SendMessage", "0.3"),
        ("ListTasks", "0.3"),
        ("tasks/list", "0.3"),
        ("sendMessage", "1.0"),
        ("SendMessage ", "1.0"),
        ("GetAgentCard", "1.0"),
        ("", "1.0"),
        ("", "0.3"),
        ("None", "0.3"),
        ("x" * 100_000, "1.0"),
        ("\0\n", "0.3"),
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_unknown_methods(method, version):
    with pytest.raises(A2AError) as raised:
        operation_of(method, version)
    assert raised.value.kind is ErrorKind.METHOD_NOT_FOUND
    assert len(str(raised.value)) < 200  # what the client sent is not said back


def test_a_method_of_the_other_generation_says_so():
    with pytest.raises(A2AError, match=r"A2A 1\.0"):
        operation_of("SendStreamingMessage", "0.3")


def test_a_tenant_is_on_the_path_of_v1_only():
    call = rest_call(operations.GET_TASK, "1.0", task="a&b", tenant="x y")
    assert call.path == "/x%20y/tasks/a%26b"
    assert rest_call(operations.GET_TASK, "0.3", task="a", tenant="x").path == "/v1/tasks/a"


@pytest.mark.parametrize("task", ["", ".", "..", "\ud800", "a/b", "a\\b", "a%2Fb", "a\0b", "a:cancel"])
def test_ids_that_cannot_stand_on_a_path(task):
    with pytest.raises(A2AError) as raised:
        rest_call(operations.GET_TASK, "1.0", task=task)
    assert raised.value.kind is ErrorKind.INVALID_PARAMS
    with pytest.raises(A2AError):
        rest_call(operations.GET_PUSH_CONFIG, "1.0", task="a", config=task)
    if task:
        with pytest.raises(A2AError):
            rest_call(operations.LIST_TASKS, "1.0", tenant=task)


@given(
    st.sampled_from(PROTOCOL_OPERATIONS),
    st.sampled_from(VERSIONS),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
)
def test_a_path_that_is_built_is_found_again(operation, version, task, config):
    try:
        methods, path = rest_call(operation, version, task=task, config=config)
    except A2AError:
        assert not (is_one_segment(task) and is_one_segment(config))
        return
    assert path.count("/") == rest_form(operation, version).path.count("/")
    assert path.isascii()
    for method in methods:
        call = match(method, path, version)
        assert call is not None
        assert call.operation is operation
        if "{task}" in rest_form(operation, version).path:
            assert call.task == task
            assert unquote(path.split("/tasks/")[1]).startswith(task)
        if "{config}" in rest_form(operation, version).path:
            assert call.config == config


@pytest.mark.parametrize(
    "task", ["x", "a b", "ünï", "x:y", "x:", "...", ".x", "x?y", "x#y", "urn:task:1", "cancel"]
)
def test_ids_that_are_one_segment_of_a_path(task):
    assert is_one_segment(task)


@pytest.mark.parametrize(
    "task",
    [
        *("", ".", "..", "/", "a/b", "a\\b", "%", "%2f", "a%00", "\0", "a\n", "\x7f", "\u200b", "\ud800"),
        *("x:cancel", ":cancel", "x:subscribe", "x:y:subscribe", "x:resubscribe"),
    ],
    ids=ascii,
)
def test_ids_by_which_something_else_might_be_reached(task):
    assert not is_one_segment(task)


def without_refused_characters(text):
    return "".join(each for each in text if is_one_segment(f"x{each}"))


@given(
    st.sampled_from([each for each in PROTOCOL_OPERATIONS if each.task == "id"]),
    st.sampled_from(VERSIONS),
    st.text(st.characters(codec="utf-8") | st.sampled_from("/%:."), max_size=20)
    .map(without_refused_characters)
    .filter(is_one_segment),
)
def test_an_id_of_one_segment_reaches_its_operation_however_often_a_path_is_decoded(operation, version, task):
    methods, path = rest_call(operation, version, task=task)
    decoded = unquote(path)
    assert unquote(decoded) == decoded
    assert decoded.count("/") == path.count("/")
    call = match(methods[0], path, version)
    assert call is not None
    assert (call.operation, call.task) == (operation, task)
