"""What clients of v0.3 get: rows C10, C36, C39, C48 and C49."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.stage import Stage, begin, chunks
from a2a_rig.wire import V03_REST, V03_RPC, Door, Wire, split
from brokers import done, encode, status

DoorTo = Callable[[str], Door]
StageOf = Callable[..., Stage]

MESSAGE = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "x"}]}


def call(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "q", "method": method, "params": params}


REFUSED = [
    (call("tasks/resubscribe", {"id": "none"}), -32001),
    (call("tasks/resubscribe", {"id": "ENDED"}), -32004),
    (call("tasks/resubscribe", {}), -32602),
    (call("tasks/resubscribe", {"id": 7}), -32602),
    (call("message/stream", {}), -32602),
    (call("message/stream", {"message": MESSAGE | {"taskId": "none"}}), -32001),
    (call("message/stream", {"message": MESSAGE | {"taskId": "ENDED"}}), -32004),
]


@pytest.mark.row("C10", "C48", "C49")
@pytest.mark.parametrize(("body", "code"), REFUSED, ids=lambda each: str(each)[:90])
async def test_c10_each_error_before_a_stream_is_one_event(
    body: dict[str, Any], code: int, stage_of: StageOf, door_to: DoorTo
) -> None:
    stage = stage_of("v1", "proxy")
    task = stage.new_task()
    await stage.publish(task, begin(task), done(task))
    answer = await door_to(stage.url).rpc(json.dumps(body).replace("ENDED", task).encode(), None)
    assert (answer.status, answer.media_type) == (200, "text/event-stream")
    (line,) = answer.body.decode().split("\n\n")[:-1]
    said = json.loads(line.removeprefix("data: "))
    assert (said["jsonrpc"], said["id"], said["error"]["code"]) == ("2.0", "q", code)
    assert not isinstance(said["error"].get("data"), list)


NO_REQUESTS: list[tuple[Any, int]] = [
    (b"{", -32700),
    ([], -32600),
    ({"id": 1, "method": "tasks/get", "params": {"id": "x"}}, -32600),
    (call("SubscribeToTask", {"id": "x"}), -32601),
    (call("tasks/rewind", {"id": "x"}), -32601),
    (call("tasks/get", {}), -32602),
    (call("tasks/cancel", {"id": 7}), -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"id":"x","ID":"y"}}', -32600),
]


@pytest.mark.row("C48", "C49")
@pytest.mark.parametrize(("body", "code"), NO_REQUESTS, ids=lambda each: str(each)[:60])
async def test_c49_what_is_no_request_of_v03(
    body: Any, code: int, stage_of: StageOf, door_to: DoorTo
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await door_to(stage_of("v1", "adapter").url).rpc(data, None)
    assert (answer.status, answer.media_type) == (200, "application/json")
    assert answer.json["error"]["code"] == code
    assert not isinstance(answer.json["error"].get("data"), list)


STATES = {
    "SUBMITTED": "submitted",
    "WORKING": "working",
    "INPUT_REQUIRED": "input-required",
    "AUTH_REQUIRED": "auth-required",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELED": "canceled",
    "REJECTED": "rejected",
}


@pytest.mark.row("C36")
@pytest.mark.parametrize(("stored", "spelled"), STATES.items())
async def test_c36_states_roles_and_kinds(stored: str, spelled: str, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    asked = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "do it"}]}
    await log.publish(task, begin(task, history=[asked]), *chunks(task, 1, 1))
    async with door_to(log.url).open(V03_RPC, "subscribe", task=task) as stream:
        (first,) = await stream.take(1)
        await log.publish(task, status("said", task, stored))
        (said,) = await stream.take(1)
    (user,) = first.result["history"]
    assert (user["kind"], user["role"]) == ("message", "user")
    assert user["parts"] == [{"kind": "text", "text": "do it"}]
    assert first.result["artifacts"][0]["parts"] == [{"kind": "text", "text": "1 "}]
    assert said.result["status"]["state"] == spelled
    assert said.result["status"]["message"]["role"] == "agent"
    assert said.result["status"]["message"]["kind"] == "message"


@pytest.mark.row("C39")
@pytest.mark.parametrize("wire", [V03_RPC, V03_REST], ids=str)
async def test_c39_numbers_keep_their_spelling_and_unknown_fields_stay(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    numbers = b'{"big":12345678901234567,"exact":1.50,"int":1,"exp":1E3}'
    event = {"taskId": task, "contextId": "context-1", "status": {"state": "TASK_STATE_WORKING"}}
    payload = encode({"statusUpdate": event | {"generation": 2, "metadata": {"n": 0}}})
    await log.publish(task, begin(task))
    async with door_to(log.url).open(wire, "subscribe", task=task) as stream:
        await stream.take(1)
        await log.publish(task, payload.replace(b'{"n":0}', b'{"n":' + numbers + b"}"))
        (said,) = await stream.take(1)
    assert numbers in said.raw
    # Python's REST clients of v0.3 refuse fields they don't know, wherever those stand but in metadata.
    assert b'"generation":2' in said.raw
    held = split(said.result)[1]
    assert held["generation" if wire == V03_RPC else "metadata"]
