"""The translation compared with that of a2a-sdk 1.3, on what both cover.

Where ours differs on purpose:

- `append` and `lastChunk` stay out where they were out; the SDK writes false.
- `mediaType` and `filename` of a text, `referenceTaskIds` on REST and unknown names are held in metadata; the
  SDK loses them.
- A state v0.3 has no name for is held as well; a timestamp without an offset is UTC, the SDK raises.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2, conversions, proto_utils
from a2a.compat.v0_3 import types as former_types
from a2a.types import a2a_pb2
from a2a_documents import STATES, base64s, encoded, ids, merged, timestamps
from google.protobuf.json_format import MessageToDict, Parse, ParseDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecast_broker.core.a2a.translate import (
    HELD,
    params_from_v03,
    params_to_v03,
    response_from_v03,
    response_to_v03,
    result_from_v03,
    result_to_v03,
)

params_to_rpc = partial(params_to_v03, rest=False)
params_to_rest = partial(params_to_v03, rest=True)
params_from_rpc = partial(params_from_v03, rest=False)
params_from_rest = partial(params_from_v03, rest=True)
response_to_rpc = partial(response_to_v03, rest=False)
response_to_rest = partial(response_to_v03, rest=True)
response_from_rpc = partial(response_from_v03, rest=False)
response_from_rest = partial(response_from_v03, rest=True)
result_to_rpc = partial(result_to_v03, rest=False)
result_to_rest = partial(result_to_v03, rest=True)
result_from_rpc = partial(result_from_v03, rest=False)
result_from_rest = partial(result_from_v03, rest=True)

texts = st.text("ab ü\n", min_size=1, max_size=5)
values = st.recursive(
    st.booleans() | st.integers(-1000, 1000) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(texts, values, min_size=1, max_size=2)
extra = st.fixed_dictionaries({}, optional={"metadata": objects})
named = st.fixed_dictionaries({}, optional={"mediaType": texts, "filename": texts})
parts = (
    merged(extra, st.fixed_dictionaries({"text": texts}))
    | merged(extra, named, st.fixed_dictionaries({"raw": base64s.filter(bool)}))
    | merged(extra, named, st.fixed_dictionaries({"url": texts}))
    | merged(extra, st.fixed_dictionaries({"data": values | objects}))
)
messages = merged(
    extra,
    st.fixed_dictionaries(
        {
            "messageId": ids,
            "role": st.sampled_from(["ROLE_USER", "ROLE_AGENT"]),
            "parts": st.lists(parts, min_size=1, max_size=2),
        },
        optional={"contextId": ids, "taskId": ids, "extensions": st.lists(texts, min_size=1, max_size=2)},
    ),
)
statuses = st.fixed_dictionaries(
    {"state": st.sampled_from([state for state in STATES if state != "TASK_STATE_UNSPECIFIED"])},
    optional={"message": messages, "timestamp": timestamps},
)
artifacts = merged(
    extra,
    st.fixed_dictionaries(
        {"artifactId": ids, "parts": st.lists(parts, min_size=1, max_size=2)},
        optional={"name": texts, "description": texts, "extensions": st.lists(texts, min_size=1, max_size=2)},
    ),
)
tasks = merged(
    extra,
    st.fixed_dictionaries(
        {"id": ids, "contextId": ids, "status": statuses},
        optional={
            "artifacts": st.lists(artifacts, min_size=1, max_size=2),
            "history": st.lists(messages, min_size=1, max_size=2),
        },
    ),
)
status_updates = merged(extra, st.fixed_dictionaries({"taskId": ids, "contextId": ids, "status": statuses}))
artifact_updates = merged(
    extra,
    st.fixed_dictionaries(
        {"taskId": ids, "contextId": ids, "artifact": artifacts},
        optional={"append": st.booleans(), "lastChunk": st.booleans()},
    ),
)
responses = (
    st.fixed_dictionaries({"task": tasks})
    | st.fixed_dictionaries({"message": messages})
    | st.fixed_dictionaries({"statusUpdate": status_updates})
    | st.fixed_dictionaries({"artifactUpdate": artifact_updates})
)
authentications = st.fixed_dictionaries({"scheme": texts}, optional={"credentials": texts})
configs = st.fixed_dictionaries(
    {"id": ids.filter(lambda text: "/" not in text), "url": texts},
    optional={"token": texts, "authentication": authentications},
)
task_configs = st.builds(
    lambda config, task: {**config, "taskId": task}, configs, ids.filter(lambda text: "/" not in text)
)
configurations = st.fixed_dictionaries(
    {"returnImmediately": st.booleans()},
    optional={
        "acceptedOutputModes": st.lists(texts, min_size=1, max_size=2),
        "historyLength": st.integers(1, 9),
        "taskPushNotificationConfig": configs,
    },
)
sends = merged(
    extra, st.fixed_dictionaries({"message": messages}, optional={"configuration": configurations})
)
slow = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)


def proto(document: Any, kind: Any = a2a_pb2.StreamResponse) -> Any:
    return ParseDict(document, kind())


def result_model(document: Any) -> Any:
    return former_types.SendStreamingMessageSuccessResponse(id=1, result=document)


def plain(model: Any) -> Any:
    """Give a pydantic model as JSON without what is at its default."""
    return pruned(model.model_dump(mode="json", by_alias=True, exclude_none=True))


def pruned(document: Any) -> Any:
    if isinstance(document, dict):
        pairs = {key: pruned(value) for key, value in document.items()}
        return {
            key: value
            for key, value in pairs.items()
            if not (key in ("append", "lastChunk") and value is False)
            and not (key in ("metadata", "extensions") and not value)
        }
    return [pruned(each) for each in document] if isinstance(document, list) else document


@pytest.mark.row("C36")
@given(responses)
@slow
def test_json_rpc_says_what_the_sdk_says(document: Any) -> None:
    theirs = conversions.to_compat_stream_response(proto(document), 1)
    ours = result_model(json.loads(response_to_rpc(encoded(document))))
    assert plain(ours) == plain(theirs)


@given(responses)
@slow
def test_from_json_rpc_comes_what_the_sdk_reads(document: Any) -> None:
    theirs = conversions.to_compat_stream_response(proto(document), 1)
    result = theirs.result.model_dump(mode="json", by_alias=True, exclude_none=True)
    ours = proto(json.loads(response_from_rpc(encoded(result))))
    assert ours == conversions.to_core_stream_response(theirs)


@pytest.mark.row("C37")
@given(responses)
@slow
def test_rest_says_what_the_sdk_says_and_the_strict_proto_takes_it(document: Any) -> None:
    former = conversions.to_compat_stream_response(proto(document), 1)
    theirs = proto_utils.ToProto.stream_response(former.result)
    ours = Parse(response_to_rest(encoded(document)), a2a_v0_3_pb2.StreamResponse())
    assert ours == theirs


@pytest.mark.parametrize("spelled_as_the_proto", [False, True])
@given(responses)
@slow
def test_from_rest_comes_what_the_sdk_reads(spelled_as_the_proto: bool, document: Any) -> None:
    former = conversions.to_compat_stream_response(proto(document), 1)
    wire = proto_utils.ToProto.stream_response(former.result)
    response = MessageToDict(wire, preserving_proto_field_name=spelled_as_the_proto)
    ours = proto(json.loads(response_from_rest(encoded(response))))
    assert MessageToDict(ours) == MessageToDict(proto(document))


@given(sends)
@slow
def test_a_send_is_what_the_sdk_sends(document: Any) -> None:
    request = proto(document, a2a_pb2.SendMessageRequest)
    theirs = conversions.to_compat_send_message_request(request, 1)
    ours = former_types.MessageSendParams.model_validate(
        json.loads(params_to_rpc("SendMessage", encoded(document)))
    )
    assert plain(ours) == plain(theirs.params)
    wire = theirs.params.model_dump(mode="json", by_alias=True, exclude_none=True)
    back = proto(json.loads(params_from_rpc("SendMessage", encoded(wire))), a2a_pb2.SendMessageRequest)
    assert back == conversions.to_core_send_message_request(theirs)


@pytest.mark.parametrize("spelled_as_the_proto", [False, True])
@given(sends)
@slow
def test_a_rest_send_is_what_the_sdk_sends(spelled_as_the_proto: bool, document: Any) -> None:
    request = proto(document, a2a_pb2.SendMessageRequest)
    params = conversions.to_compat_send_message_request(request, 1).params
    theirs = a2a_v0_3_pb2.SendMessageRequest(
        request=proto_utils.ToProto.message(params.message),
        configuration=proto_utils.ToProto.message_send_configuration(params.configuration)
        if params.configuration
        else None,
        metadata=proto_utils.ToProto.metadata(params.metadata),
    )
    ours = Parse(params_to_rest("SendMessage", encoded(document)), a2a_v0_3_pb2.SendMessageRequest())
    assert ours == theirs
    wire = MessageToDict(theirs, preserving_proto_field_name=spelled_as_the_proto)
    back = proto(json.loads(params_from_rest("SendMessage", encoded(wire))), a2a_pb2.SendMessageRequest)
    assert MessageToDict(back) == MessageToDict(request)


@given(task_configs)
@slow
def test_a_push_config_is_what_the_sdk_makes_of_it(document: Any) -> None:
    config = proto(document, a2a_pb2.TaskPushNotificationConfig)
    former = conversions.to_compat_task_push_notification_config(config)
    name = "GetTaskPushNotificationConfig"
    ours = former_types.TaskPushNotificationConfig.model_validate(
        json.loads(result_to_rpc(name, encoded(document)))
    )
    assert plain(ours) == plain(former)
    wire = former.model_dump(mode="json", by_alias=True, exclude_none=True)
    back = proto(json.loads(result_from_rpc(name, encoded(wire))), a2a_pb2.TaskPushNotificationConfig)
    assert back == config

    theirs = proto_utils.ToProto.task_push_notification_config(former)
    assert Parse(result_to_rest(name, encoded(document)), a2a_v0_3_pb2.TaskPushNotificationConfig()) == theirs
    back = proto(
        json.loads(result_from_rest(name, encoded(MessageToDict(theirs)))),
        a2a_pb2.TaskPushNotificationConfig,
    )
    assert back == config


@given(task_configs)
@slow
def test_setting_a_push_config_on_rest_is_what_the_sdk_sends(document: Any) -> None:
    former = conversions.to_compat_task_push_notification_config(
        proto(document, a2a_pb2.TaskPushNotificationConfig)
    )
    theirs = a2a_v0_3_pb2.CreateTaskPushNotificationConfigRequest(
        parent=f"tasks/{former.task_id}",
        config_id=former.push_notification_config.id,
        config=proto_utils.ToProto.task_push_notification_config(former),
    )
    name = "CreateTaskPushNotificationConfig"
    ours = params_to_rest(name, encoded(document))
    assert Parse(ours, a2a_v0_3_pb2.CreateTaskPushNotificationConfigRequest()) == theirs
    for spelled_as_the_proto in (False, True):
        wire = MessageToDict(theirs, preserving_proto_field_name=spelled_as_the_proto)
        assert json.loads(params_from_rest(name, encoded(wire))) == document


REQUESTS = [
    (
        "GetTask",
        {"id": "t", "historyLength": 3},
        conversions.to_compat_get_task_request,
        a2a_pb2.GetTaskRequest,
    ),
    (
        "CancelTask",
        {"id": "t", "metadata": {"a": "b"}},
        conversions.to_compat_cancel_task_request,
        a2a_pb2.CancelTaskRequest,
    ),
    (
        "SubscribeToTask",
        {"id": "t"},
        conversions.to_compat_subscribe_to_task_request,
        a2a_pb2.SubscribeToTaskRequest,
    ),
    (
        "GetTaskPushNotificationConfig",
        {"taskId": "t", "id": "c"},
        conversions.to_compat_get_task_push_notification_config_request,
        a2a_pb2.GetTaskPushNotificationConfigRequest,
    ),
    (
        "ListTaskPushNotificationConfigs",
        {"taskId": "t"},
        conversions.to_compat_list_task_push_notification_config_request,
        a2a_pb2.ListTaskPushNotificationConfigsRequest,
    ),
    (
        "DeleteTaskPushNotificationConfig",
        {"taskId": "t", "id": "c"},
        conversions.to_compat_delete_task_push_notification_config_request,
        a2a_pb2.DeleteTaskPushNotificationConfigRequest,
    ),
    (
        "CreateTaskPushNotificationConfig",
        {"taskId": "t", "id": "c", "url": "u", "authentication": {"scheme": "Bearer"}},
        conversions.to_compat_create_task_push_notification_config_request,
        a2a_pb2.TaskPushNotificationConfig,
    ),
]


@pytest.mark.parametrize(("operation", "document", "convert", "kind"), REQUESTS)
def test_parameters_are_what_the_sdk_sends(operation: str, document: Any, convert: Any, kind: Any) -> None:
    theirs = plain(convert(proto(document, kind), 1).params)
    assert json.loads(params_to_rpc(operation, encoded(document))) == theirs
    assert json.loads(params_from_rpc(operation, encoded(theirs))) == document


def test_what_the_sdk_loses_is_held() -> None:
    part = {"text": "# a", "mediaType": "text/markdown", "filename": "a.md"}
    document = {
        "message": {"messageId": "m", "role": "ROLE_USER", "parts": [part], "referenceTaskIds": ["t"]}
    }
    theirs = conversions.to_compat_stream_response(proto(document), 1)
    assert "text/markdown" not in theirs.model_dump_json()
    for to, back in ((response_to_rpc, response_from_rpc), (response_to_rest, response_from_rest)):
        former = to(encoded(document))
        assert HELD.encode() in former
        assert json.loads(back(former)) == document
