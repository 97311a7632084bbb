from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from a2a_documents import (
    Current,
    Former,
    encoded,
    exactly,
    ids,
    merged,
    objects,
    spelled,
    spoiled,
    texts,
    unknown,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecast_broker.core.a2a.translate import (
    HELD,
    Untranslatable,
    params_from_v03,
    params_to_v03,
)

params_to_rpc = partial(params_to_v03, rest=False)
params_to_rest = partial(params_to_v03, rest=True)
params_from_rpc = partial(params_from_v03, rest=False)
params_from_rest = partial(params_from_v03, rest=True)
send_params_to_rpc = partial(params_to_v03, "SendMessage", rest=False)
send_params_to_rest = partial(params_to_v03, "SendMessage", rest=True)
send_params_from_rpc = partial(params_from_v03, "SendMessage", rest=False)
send_params_from_rest = partial(params_from_v03, "SendMessage", rest=True)

OPERATIONS = [
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "ListTasks",
    "CancelTask",
    "SubscribeToTask",
    "CreateTaskPushNotificationConfig",
    "GetTaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs",
    "DeleteTaskPushNotificationConfig",
    "GetExtendedAgentCard",
]
MESSAGE = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
MESSAGE_RPC = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
MESSAGE_REST = {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "hi"}]}

extra = unknown.map(
    lambda fields: {
        name: value for name, value in fields.items() if name not in ("url", "token", "tenant", "blocking")
    }
)
configs = merged(
    extra,
    st.fixed_dictionaries(
        {"url": texts},
        optional={
            "id": ids,
            "taskId": ids,
            "tenant": ids,
            "authentication": st.fixed_dictionaries({"scheme": texts.filter(bool)}),
        },
    ),
)
configurations = merged(
    extra,
    st.fixed_dictionaries(
        {"returnImmediately": st.booleans()},
        optional={
            "acceptedOutputModes": st.lists(texts, max_size=2),
            "historyLength": st.integers(0, 3),
            "taskPushNotificationConfig": configs,
        },
    ),
)
sends = merged(
    extra,
    st.fixed_dictionaries(
        {"message": Current.messages},
        optional={"tenant": ids, "configuration": configurations, "metadata": objects},
    ),
)


def both(configuration: Any) -> tuple[Any, Any]:
    payload = encoded({"message": MESSAGE, "configuration": configuration})
    return (
        json.loads(send_params_to_rpc(payload))["configuration"],
        json.loads(send_params_to_rest(payload))["configuration"],
    )


def from_rpc(**fields: Any) -> Any:
    return json.loads(send_params_from_rpc(encoded({"message": MESSAGE_RPC, **fields})))


def from_rest(**fields: Any) -> Any:
    return json.loads(send_params_from_rest(encoded({"message": MESSAGE_REST, **fields})))


@given(sends)
def test_a_send_comes_back_from_json_rpc_as_it_was(document: Any) -> None:
    assert spelled(send_params_from_rpc(send_params_to_rpc(encoded(document)))) == exactly(document)


@given(sends)
def test_a_send_comes_back_from_rest_as_it_was(document: Any) -> None:
    assert spelled(send_params_from_rest(send_params_to_rest(encoded(document)))) == exactly(document)


def test_a_bare_send() -> None:
    payload = encoded({"message": MESSAGE})
    assert json.loads(send_params_to_rpc(payload)) == {"message": MESSAGE_RPC}
    assert json.loads(send_params_to_rest(payload)) == {"message": MESSAGE_REST}
    assert from_rpc() == {"message": MESSAGE}
    assert from_rest() == {"message": MESSAGE}


@pytest.mark.parametrize(
    ("immediately", "rpc", "rest"),
    [
        ({"returnImmediately": True}, {"blocking": False}, {"blocking": False}),
        ({"returnImmediately": False}, {"blocking": True}, {"blocking": True}),
        ({"returnImmediately": None}, {}, {"blocking": True}),
        ({}, {}, {"blocking": True}),
    ],
)
def test_returning_immediately_is_not_blocking(immediately: Any, rpc: Any, rest: Any) -> None:
    assert both(immediately) == (rpc, rest)


@pytest.mark.parametrize(
    ("blocking", "rpc", "rest"),
    [
        ({"blocking": True}, {"returnImmediately": False}, {"returnImmediately": False}),
        ({"blocking": False}, {"returnImmediately": True}, {"returnImmediately": True}),
        ({}, {}, {"returnImmediately": True}),
    ],
)
def test_blocking_left_out_is_true_on_json_rpc_and_false_in_the_proto(
    blocking: Any, rpc: Any, rest: Any
) -> None:
    assert from_rpc(configuration=blocking)["configuration"] == rpc
    assert from_rest(configuration=blocking)["configuration"] == rest


def test_a_push_config_that_is_null_is_none() -> None:
    assert both({"taskPushNotificationConfig": None}) == ({}, {"blocking": True})
    assert from_rpc(configuration={"pushNotificationConfig": None})["configuration"] == {}


def test_a_history_length_of_0_is_no_limit_in_v03() -> None:
    for zero in (0, "0", 0.0):
        assert from_rpc(configuration={"historyLength": zero})["configuration"] == {}
        assert from_rest(configuration={"history_length": zero})["configuration"] == {
            "returnImmediately": True
        }
        for params in (params_from_rpc, params_from_rest):
            assert json.loads(params("GetTask", encoded({"id": "t", "historyLength": zero}))) == {"id": "t"}
    assert json.loads(params_from_rpc("GetTask", encoded({"id": "t", "historyLength": 10}))) == {
        "id": "t",
        "historyLength": 10,
    }


def test_a_history_length_of_0_in_v10_is_sent_and_comes_back() -> None:
    former = params_to_rpc("GetTask", b'{"id":"t","historyLength":0}')
    assert json.loads(former)["historyLength"] == 0
    assert json.loads(params_from_rpc("GetTask", former)) == {"id": "t", "historyLength": 0}
    rpc, rest = both({"historyLength": 0})
    assert rpc["historyLength"] == rest["historyLength"] == 0


def test_the_tenant_is_held() -> None:
    for operation in ("GetTask", "CancelTask", "SubscribeToTask"):
        former = json.loads(params_to_rpc(operation, encoded({"id": "t", "tenant": "x"})))
        assert former == {"id": "t", "metadata": {HELD: {"fields": {"tenant": "x"}}}}
        assert json.loads(params_from_rpc(operation, encoded(former))) == {"id": "t", "tenant": "x"}
    payload = encoded({"message": MESSAGE, "tenant": "x"})
    for former in (send_params_to_rpc(payload), send_params_to_rest(payload)):
        assert json.loads(former)["metadata"] == {HELD: {"fields": {"tenant": "x"}}}


def test_metadata_names_no_other_task() -> None:
    forged = {HELD: {"fields": {"id": "other", "taskId": "other"}}}
    for operation in OPERATIONS[2:6]:
        params = json.loads(params_from_rpc(operation, encoded({"id": "mine", "metadata": forged})))
        assert params == {"id": "mine"}
    for operation in ("GetTaskPushNotificationConfig", "ListTaskPushNotificationConfigs"):
        params = json.loads(params_from_rpc(operation, encoded({"id": "mine", "metadata": forged})))
        assert params == {"taskId": "mine"}
    forged = {HELD: {"fields": {"message": {"taskId": "other"}}, "configuration": {"blocking": False}}}
    assert from_rpc(metadata=forged) == {"message": MESSAGE}


def test_an_unknown_parameter_with_a_v10_name_names_no_other_task() -> None:
    params = encoded({"id": "mine", "taskId": "other", "pushNotificationConfigId": "c"})
    assert json.loads(params_from_rpc("GetTaskPushNotificationConfig", params)) == {
        "taskId": "mine",
        "id": "c",
    }


def test_a_cursor_in_metadata_stays_readable() -> None:
    params = {"id": "t", "metadata": {"urn:sidecast:resume:v1": {"lastEventId": "e-1"}}}
    assert json.loads(params_from_rpc("SubscribeToTask", encoded(params))) == params


@pytest.mark.parametrize(("state", "rest"), [("canceled", False), ("TASK_STATE_CANCELLED", True)])
def test_the_state_asked_for_in_a_list(state: str, rest: bool) -> None:
    to, back = (params_to_rest, params_from_rest) if rest else (params_to_rpc, params_from_rpc)
    current = {"status": "TASK_STATE_CANCELED", "pageSize": 5}
    assert json.loads(to("ListTasks", encoded(current))) == {"status": state, "pageSize": 5}
    assert json.loads(back("ListTasks", encoded({"status": state, "pageSize": 5}))) == current


def test_rest_names_the_task_on_the_path() -> None:
    assert json.loads(params_from_rest("CancelTask", b'{"name":"tasks/t"}')) == {}
    query = encoded({"page_size": "5", "parent": "tasks/t"})
    assert json.loads(params_from_rest("ListTaskPushNotificationConfigs", query)) == {"pageSize": "5"}


def test_setting_a_push_config() -> None:
    current = {"taskId": "t", "id": "c", "url": "u", "tenant": "x"}
    former = params_to_rpc("CreateTaskPushNotificationConfig", encoded(current))
    assert json.loads(former) == {
        "taskId": "t",
        "tenant": "x",
        "pushNotificationConfig": {"id": "c", "url": "u"},
    }
    assert json.loads(params_from_rpc("CreateTaskPushNotificationConfig", former)) == current


@pytest.mark.parametrize("operation", OPERATIONS[2:])
@given(
    merged(extra, st.fixed_dictionaries({}, optional={"metadata": objects, "tenant": ids, "pageToken": ids}))
)
@settings(max_examples=25)
def test_parameters_come_back_from_json_rpc_as_they_were(operation: str, document: Any) -> None:
    if operation == "CreateTaskPushNotificationConfig":
        document = {**document, "url": "u"}
    document = {**document, "id": "i"}
    if "PushNotificationConfig" in operation:
        document = {**document, "taskId": "t"}
    if operation == "ListTaskPushNotificationConfigs":
        del document["id"]
    assert spelled(params_from_rpc(operation, params_to_rpc(operation, encoded(document)))) == exactly(
        document
    )


TRANSLATIONS = [params_to_rpc, params_from_rpc, params_to_rest, params_from_rest]


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        ([], "params"),
        ({}, "message"),
        ({"message": None}, "message"),
        ({"message": []}, "message"),
        ({"message": {"role": 5}}, "role"),
    ],
)
def test_a_send_without_a_message_is_refused(document: Any, detail: str) -> None:
    for translation in TRANSLATIONS:
        with pytest.raises(Untranslatable, match=detail):
            translation("SendMessage", encoded(document))


@pytest.mark.parametrize(
    ("configuration", "detail"),
    [
        ([], "configuration"),
        ({"blocking": "yes"}, "blocking"),
        ({"historyLength": {}}, "historyLength"),
        ({"historyLength": True}, "historyLength"),
        ({"pushNotificationConfig": 5, "pushNotification": 5}, "pushNotification"),
    ],
)
def test_a_configuration_that_is_none_is_refused(configuration: Any, detail: str) -> None:
    for translate in (from_rpc, from_rest):
        with pytest.raises(Untranslatable, match=detail):
            translate(configuration=configuration)


@pytest.mark.parametrize("operation", OPERATIONS)
@given(st.data())
@settings(max_examples=25)
def test_spoiled_parameters_give_one_line_or_one_kind_of_error(operation: str, data: st.DataObject) -> None:
    message = st.one_of(Current.messages, Former(rest=False).messages, Former(rest=True).messages)
    params = merged(
        objects, st.fixed_dictionaries({"message": message}, optional={"metadata": objects}), sends
    )
    configs = st.fixed_dictionaries({"id": texts, "taskId": texts, "pushNotificationConfig": objects})
    payload = encoded(data.draw(spoiled(params if operation.startswith("Send") else configs | objects)))
    for translation in TRANSLATIONS:
        try:
            line = translation(operation, payload)
        except Untranslatable:
            continue
        json.loads(line)
        assert b"\n" not in line
