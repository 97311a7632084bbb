"""The structs: states both ways, and the same JSON as a2a-sdk reads and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from a2a.types import a2a_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, Struct

from sidecast_schemas.codec import StatusUpdateBody, decode_event
from sidecast_schemas.events import (
    ACTIVITY,
    INTERRUPTED_STATES,
    LOSS,
    TASK_STATES,
    TERMINAL_STATES,
    Activity,
    Artifact,
    Loss,
    Message,
    Part,
    Step,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskStatus,
    TaskStatusUpdateEvent,
    Turn,
    TurnRecord,
    kebab_state,
    wire_state,
)
from sidecast_schemas.examples import RESPONSES, TURNS

STATES = {
    "TASK_STATE_SUBMITTED": "submitted",
    "TASK_STATE_WORKING": "working",
    "TASK_STATE_COMPLETED": "completed",
    "TASK_STATE_FAILED": "failed",
    "TASK_STATE_CANCELED": "canceled",
    "TASK_STATE_REJECTED": "rejected",
    "TASK_STATE_INPUT_REQUIRED": "input-required",
    "TASK_STATE_AUTH_REQUIRED": "auth-required",
}


@pytest.mark.parametrize(("wire", "kebab"), STATES.items())
def test_state_translates_both_ways(wire: str, kebab: str) -> None:
    assert kebab_state(wire) == kebab
    assert wire_state(kebab) == wire_state(wire) == wire


@pytest.mark.parametrize(
    "name",
    [
        "",
        "done",
        "cancelled",
        "unknown",
        "unspecified",
        "TASK_STATE_",
        "TASK_STATE_DONE",
        "working ",
        "working\n",
    ],
)
def test_other_names_are_no_states(name: str) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        wire_state(name)


def test_states_are_those_of_the_sdk() -> None:
    assert STATES.keys() == TASK_STATES
    assert TASK_STATES | {"TASK_STATE_UNSPECIFIED"} == set(a2a_pb2.TaskState.keys())
    assert {kebab_state(state) for state in TERMINAL_STATES} == {
        "completed",
        "failed",
        "canceled",
        "rejected",
    }
    assert {kebab_state(state) for state in INTERRUPTED_STATES} == {"input-required", "auth-required"}


def test_a_state_of_a_later_version_has_a_kebab_name() -> None:
    assert kebab_state("TASK_STATE_VERY_NEW") == "very-new"


QUESTION = Message(
    messageId="m-1",
    role="ROLE_AGENT",
    parts=[
        Part(text="Which book? é 😀"),
        Part(raw="AAEC", mediaType="application/octet-stream", filename="a.bin"),
        Part(url="https://example.org/a", metadata={"k": [1, None]}),
        Part(data={"rows": [[1.5, True], []]}),
        Part(data=None),
        Part(text=""),
    ],
    contextId="c",
    taskId="t",
    metadata={"x": {"y": "z"}},
    extensions=["urn:example:extension"],
    referenceTaskIds=["t-0"],
)
REPORT = Artifact(
    artifactId="a",
    parts=[Part(text="# Findings\n", mediaType="text/markdown")],
    name="report.md",
    description="What was found",
    metadata={"pages": 3},
    extensions=["urn:example:extension"],
)
FULL: dict[str, StreamResponse] = {
    "task": StreamResponse(
        task=Task(
            id="t",
            contextId="c",
            status=TaskStatus("TASK_STATE_INPUT_REQUIRED", QUESTION, "2025-11-21T07:06:00.123Z"),
            artifacts=[REPORT],
            history=[QUESTION, Raw(msgspec.json.encode(QUESTION))],
            metadata={"m": 1},
        )
    ),
    "smallest task": StreamResponse(task=Task("t", TaskStatus("TASK_STATE_SUBMITTED"))),
    "message": StreamResponse(message=QUESTION),
    "status with a raw message": StreamResponse(
        statusUpdate=TaskStatusUpdateEvent(
            "t",
            TaskStatus("TASK_STATE_WORKING", Raw(msgspec.json.encode(QUESTION)), "2025-11-21T07:06:00Z"),
            "c",
        )
    ),
    "status with an activity and a loss": StreamResponse(
        statusUpdate=TaskStatusUpdateEvent(
            "t",
            TaskStatus("TASK_STATE_WORKING"),
            metadata={
                ACTIVITY: Activity(
                    "step",
                    progress=0.5,
                    step=Step("s", "Read", "done", 0, 3, 12.5),
                    code="E1",
                    recoverable=True,
                    component="reader",
                ),
                LOSS: Loss(3, 4_096, "message-too-large"),
            },
        )
    ),
    "artifact": StreamResponse(
        artifactUpdate=TaskArtifactUpdateEvent("t", REPORT, "c", True, True, {"m": 1})
    ),
    **{f"example {name}": response for name, response in RESPONSES.items()},
    **{
        f"state {kebab}": StreamResponse(statusUpdate=TaskStatusUpdateEvent("t", TaskStatus(wire)))
        for wire, kebab in STATES.items()
    },
}


@pytest.mark.parametrize("name", FULL)
def test_the_sdk_reads_what_the_structs_write_and_writes_the_same(name: str) -> None:
    document = json.loads(msgspec.json.encode(FULL[name]))
    read = json_format.ParseDict(document, a2a_pb2.StreamResponse(), ignore_unknown_fields=False)
    assert json_format.MessageToDict(read) == document


@pytest.mark.parametrize("name", FULL)
def test_the_codec_reads_what_the_structs_write(name: str) -> None:
    payload = msgspec.json.encode(FULL[name])
    event = decode_event(payload)
    assert event.payload == payload
    assert {event.kind} == json.loads(payload).keys()
    assert msgspec.json.encode(msgspec.json.decode(payload, type=StreamResponse)) == payload


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_record_is_an_event_of_its_own_kind(name: str) -> None:
    event = decode_event(msgspec.json.encode(TURNS[name]))
    assert (event.kind, event.task_id, event.state) == ("turn", None, None)


def test_a_turn_holds_the_message_it_is_about() -> None:
    payload = msgspec.json.encode(TurnRecord(Turn("m-1", "begin", message=QUESTION)))
    assert json.loads(payload)["turn"]["message"] == json.loads(msgspec.json.encode(QUESTION))
    assert decode_event(payload).kind == "turn"


def test_the_codec_reads_what_the_sdk_writes() -> None:
    response = a2a_pb2.StreamResponse()
    response.status_update.task_id = "t"
    response.status_update.context_id = "c"
    response.status_update.status.state = a2a_pb2.TASK_STATE_WORKING
    response.status_update.status.timestamp.GetCurrentTime()
    response.status_update.metadata["k"] = 1
    event = decode_event(json_format.MessageToJson(response).encode())
    assert (event.kind, event.task_id, event.context_id) == ("statusUpdate", "t", "c")
    assert event.state == "TASK_STATE_WORKING"
    with_defaults = json_format.MessageToJson(
        a2a_pb2.StreamResponse(message=a2a_pb2.Message(message_id="m")),
        always_print_fields_with_no_presence=True,
    )
    assert '"taskId": ""' in with_defaults
    assert decode_event(with_defaults.encode()).task_id is None


@given(st.sampled_from([Part, Message, Artifact, Activity, Step, Loss, TaskStatus]), st.data())
def test_what_is_unset_stays_off_the_wire(struct: type[Struct], data: st.DataObject) -> None:
    required: dict[type[Struct], dict[str, Any]] = {
        Message: {"messageId": "m", "role": "ROLE_USER", "parts": [Part(text="x")]},
        Artifact: {"artifactId": "a", "parts": [Part(text="x")]},
        Activity: {"kind": "thought"},
        Step: {"id": "s"},
        TaskStatus: {"state": "TASK_STATE_WORKING"},
    }
    optional = [
        field.name
        for field in msgspec.structs.fields(struct)
        if field.default is UNSET and not field.required
    ]
    unset = data.draw(st.sets(st.sampled_from(optional))) if optional else set()
    value = struct(**required.get(struct, {}), **dict.fromkeys(unset, UNSET))
    assert json.loads(msgspec.json.encode(value)).keys() == required.get(struct, {}).keys()


def test_whole_numbers_come_back_from_the_sdk() -> None:
    sent = RESPONSES["step"]
    response = json_format.ParseDict(json.loads(msgspec.json.encode(sent)), a2a_pb2.StreamResponse())
    payload = json_format.MessageToJson(response)
    assert '"total": 3.0' in payload  # a Struct holds doubles
    body = decode_event(payload.encode()).body
    assert isinstance(body, StatusUpdateBody)
    assert body.metadata is not None
    activity = bytes(body.metadata[ACTIVITY])
    assert msgspec.json.decode(activity, type=Activity) == Activity(
        "step", step=Step("read", "Read the trades", index=0, total=3)
    )


HEAVY = ["asyncio", "socket", "ssl", "nats", "aiohttp", "structlog", "click", "argparse"]


def test_importing_the_schemas_loads_no_network_and_no_event_loop() -> None:
    code = f"import sys, sidecast_schemas.events; print([name for name in {HEAVY} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
