"""Versions and errors on the four wires: rows C40 to C42, C46 to C49 and C55 of the A2A checklist."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.awkward import AwkwardAgent, unary
from a2a_rig.stage import Stage, begin
from a2a_rig.wire import V03_REST, V03_RPC, V1_REST, V1_RPC, WIRES, Door, Wire, outlines, request
from brokers import done

DoorTo = Callable[[str], Door]
StageOf = Callable[..., Stage]

ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


def call(name: str, params: Any, **fields: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": name, "params": params} | fields


@pytest.mark.row("C40")
@pytest.mark.parametrize("headers", [{}, {"A2A-Version": ""}, {"A2A-Version": "0.3"}], ids=str)
async def test_c40_a_missing_version_is_03(headers: dict[str, str], log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    door = door_to(log.url)
    async with door.open(V03_RPC, "subscribe", task=task, headers=headers) as stream:
        (frame,) = await stream.take(1)
        assert frame.result["kind"] == "task"
    method, path, body, _ = request(V1_RPC, "subscribe", task=task)
    answer = await door.raw(method, path, body, headers | {"Content-Type": "application/json"})
    assert b"-32601" in answer.body, "v1.0's method names are none of v0.3"


VERSIONS = ["2.0", "0.2", "1.9", "1", "x", "1.0.0.0", "0.30"]


@pytest.mark.row("C41")
@pytest.mark.parametrize("version", VERSIONS)
async def test_c41_an_unsupported_version(version: str, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    door = door_to(log.url)
    headers = {"A2A-Version": version}
    rpc = await door.ask(V1_RPC, "subscribe", task=task, headers=headers)
    assert rpc.status == 200
    assert rpc.json["error"]["code"] == -32009
    rest = await door.ask(V1_REST, "subscribe", task=task, headers=headers)
    assert rest.status == 400
    assert rest.json["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"
    by_query = await door.raw("GET", f"/tasks/{task}:subscribe?A2A-Version={version}")
    assert (by_query.status, by_query.json) == (rest.status, rest.json)


WAYS: list[tuple[dict[str, str], str]] = [
    ({"A2A-Version": "1.0"}, ""),
    ({"a2a-VERSION": "1.0"}, ""),
    ({"A2A-Version": "1.0.1"}, ""),
    ({}, "A2A-Version=1.0"),
    ({}, "A2A-Version=1.0.7"),
    ({"A2A-Version": "1.0"}, "A2A-Version=0.3"),
]


@pytest.mark.row("C42")
@pytest.mark.parametrize(("headers", "query"), WAYS, ids=str)
async def test_c42_ways_to_say_10(headers: dict[str, str], query: str, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    door = door_to(log.url)
    for wire in (V1_RPC, V1_REST):
        method, path, body, _ = request(wire, "subscribe", task=task, query=query)
        given = headers | {"Content-Type": "application/json"}
        async with door._session.request(method, door.url + path, data=body, headers=given) as response:
            line = await response.content.readuntil(b"\n\n")
        assert b'"task":' in line


@pytest.mark.row("C46", "C49")
async def test_c46_c49_errors_of_v1_json_rpc(stage_of: StageOf, door_to: DoorTo) -> None:
    door = door_to(stage_of("v1", "adapter").url)
    missing = (await door.rpc(call("GetTask", {"id": "none"}))).json
    assert missing["error"]["code"] == -32001
    assert isinstance(missing["error"]["data"], list)
    infos = [each for each in missing["error"]["data"] if each["@type"] == ERROR_INFO]
    assert [(info["reason"], info["domain"]) for info in infos] == [("TASK_NOT_FOUND", "a2a-protocol.org")]
    no_id = (await door.rpc(call("SubscribeToTask", {}))).json
    assert no_id["error"]["code"] == -32602
    (bad,) = [each for each in no_id["error"]["data"] if each["@type"] == BAD_REQUEST]
    assert [each["field"] for each in bad["fieldViolations"]] == ["id"]


@pytest.mark.row("C46", "C47")
@pytest.mark.parametrize(
    ("state", "reason", "code", "status", "grpc"),
    [
        (None, "TASK_NOT_FOUND", -32001, 404, "NOT_FOUND"),
        ("COMPLETED", "UNSUPPORTED_OPERATION", -32004, 400, "FAILED_PRECONDITION"),
    ],
)
async def test_c46_c47_the_brokers_own_errors(
    state: str | None, reason: str, code: int, status: int, grpc: str, log: Stage, door_to: DoorTo
) -> None:
    task, door = log.new_task(), door_to(log.url)
    if state is not None:
        await log.publish(task, begin(task), done(task, state))
    rpc = (await door.ask(V1_RPC, "subscribe", task=task)).json["error"]
    rest = (await door.ask(V1_REST, "subscribe", task=task)).json["error"]
    assert (rpc["code"], rest["code"], rest["status"]) == (code, status, grpc)
    for details in (rpc["data"], rest["details"]):
        (info,) = details
        assert info["@type"] == ERROR_INFO
        assert (info["reason"], info["domain"]) == (reason, "a2a-protocol.org")
        assert all(isinstance(held, str) for held in info["metadata"].values())


@pytest.mark.row("C47")
@pytest.mark.parametrize(
    ("do", "status", "grpc", "reason"),
    [
        ("get", 404, "NOT_FOUND", "TASK_NOT_FOUND"),
        ("subscribe", 404, "NOT_FOUND", "TASK_NOT_FOUND"),
        ("cancel", 404, "NOT_FOUND", "TASK_NOT_FOUND"),
    ],
)
async def test_c47_errors_of_v1_rest(
    do: str, status: int, grpc: str, reason: str, stage_of: StageOf, door_to: DoorTo
) -> None:
    answer = await door_to(stage_of("v1", "adapter").url).ask(V1_REST, do, task="none")
    assert answer.status == status
    error = answer.json["error"]
    assert (error["code"], error["status"]) == (status, grpc)
    assert error["message"]
    (info,) = [each for each in error["details"] if each["@type"] == ERROR_INFO]
    assert (info["reason"], info["domain"]) == (reason, "a2a-protocol.org")


@pytest.mark.row("C48")
async def test_c48_errors_of_v03(log: Stage, door_to: DoorTo) -> None:
    """The broker's own; those of operations that pass through are the agent's own bytes (C71)."""
    door = door_to(log.url)
    rest = await door.ask(V03_REST, "subscribe", task=log.new_task())
    assert rest.status == 404
    assert rest.json["code"] == -32001
    assert isinstance(rest.json["message"], str)
    rpc = await door.ask(V03_RPC, "subscribe", task=log.new_task())
    error = json.loads(rpc.body.decode().removeprefix("data:"))["error"]
    assert error["code"] == -32001
    assert not isinstance(error.get("data"), list)


ENVELOPES: list[tuple[Any, int]] = [
    (b"{", -32700),
    (b"", -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"\xff"}}', -32700),
    ([], -32600),
    ([call("GetTask", {"id": "x"})], -32600),
    (1, -32600),
    ({"id": 1, "method": "GetTask", "params": {"id": "x"}}, -32600),
    (call("GetTask", {"id": "x"}, jsonrpc="1.0"), -32600),
    (call("GetTask", {"id": "x"}, id={"a": 1}), -32600),
    (call("GetTask", {"id": "x"}, id=[1]), -32600),
    (call("GetTask", {"id": "x"}, method=7), -32600),
    (call("NoSuchMethod", {}), -32601),
    (call("message/stream", {}), -32601),
    (call("GetTask", {}), -32602),
    (call("SubscribeToTask", {}), -32602),
    (call("SubscribeToTask", {"id": ""}), -32602),
    (call("SubscribeToTask", {"id": 7}), -32602),
    (call("GetTask", []), -32602),
    (call("SendStreamingMessage", {}), -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","Method":"CancelTask","params":{"id":"x"}}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"x","ID":"y"}}', -32600),
    (
        b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"m","role":'
        b'"ROLE_USER","parts":[{"text":"x"}],"taskId":"x","taskid":"y"}}}',
        -32600,
    ),
]


@pytest.mark.row("C49")
@pytest.mark.parametrize(("body", "code"), ENVELOPES, ids=lambda each: str(each)[:60])
async def test_c49_what_is_no_request(body: Any, code: int, stage_of: StageOf, door_to: DoorTo) -> None:
    stage = stage_of("v1", "adapter")
    before = len(stage.agent.seen["requests"])
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    for path in ("/", "/a2a"):
        answer = await door_to(stage.url).rpc(data, path=path)
        assert (answer.status, answer.media_type) == (200, "application/json")
        assert answer.json["error"]["code"] == code
        assert answer.json["jsonrpc"] == "2.0"
    assert len(stage.agent.seen["requests"]) == before, "the agent was not bothered"


@pytest.mark.row("C49")
@pytest.mark.parametrize("rpc_id", ["1", '"q\\u00fc"', "12345678901234567890", "null", "1.5"])
async def test_c49_the_id_of_an_error_is_the_requests_own(
    rpc_id: str, stage_of: StageOf, door_to: DoorTo
) -> None:
    body = f'{{"jsonrpc":"2.0","id":{rpc_id},"method":"SubscribeToTask","params":{{"id":"none"}}}}'
    answer = await door_to(stage_of("v1", "adapter").url).rpc(body.encode())
    assert f'"id":{rpc_id}'.encode() in answer.body.replace(b'"id": ', b'"id":')


PATHS = [
    ("GET", "/tasks/%FF:subscribe", 400),
    ("GET", "/tasks/%C3%28:subscribe", 400),
    ("POST", "/tasks/..%2fx:subscribe", 404),
    ("POST", "/tasks/../x:subscribe", 400),
    ("POST", "//tasks/x:subscribe", 400),
]


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
async def test_paths_that_are_none(
    method: str, path: str, status: int, stage_of: StageOf, door_to: DoorTo
) -> None:
    stage = stage_of("v1", "adapter")
    before = len(stage.agent.seen["requests"])
    answer = await door_to(stage.url).raw(method, path, b"{}", {"A2A-Version": "1.0"})
    assert answer.status == status
    assert len(stage.agent.seen["requests"]) == before


async def test_a_body_beyond_the_bound_is_refused(stage_of: StageOf, door_to: DoorTo) -> None:
    stage = stage_of("v1", "adapter")
    before = len(stage.agent.seen["requests"])
    answer = await door_to(stage.url).rpc(call("GetTask", {"id": "x" * (5 << 20)}))
    assert answer.status == 413
    assert len(stage.agent.seen["requests"]) == before


REQUIRED = "https://example.org/required/v1"
MESSAGE = {"message": {"messageId": "r", "role": "ROLE_AGENT", "parts": [{"text": "hello"}]}}


@pytest.mark.row("C55")
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c55_a_required_extension(wire: Wire, own_stage: StageOf, door_to: DoorTo) -> None:
    extensions = [{"uri": REQUIRED, "required": True}, {"uri": "urn:other", "required": False}]
    async with AwkwardAgent(capabilities={"streaming": True, "extensions": extensions}) as agent:
        agent.answer = unary(MESSAGE)
        door = door_to(own_stage(agent__url=agent.url, agent__capture="proxy").url)
        for do in ("stream", "send"):
            answer = await door.ask(wire, do, text="x")
            error = answer.json["error"]
            reasons = [each.get("reason") for each in error.get("details") or error["data"]]
            assert reasons[0] == "EXTENSION_SUPPORT_REQUIRED"
            assert (answer.status, error["code"]) == (
                (200, -32008) if wire.binding == "jsonrpc" else (400, 400)
            )
        assert agent.requests == []
        headers = {"A2A-Extensions": f"urn:other, {REQUIRED}"}
        async with door.open(wire, "stream", text="x", headers=headers) as stream:
            assert outlines(await stream.rest()) == ["message hello"]
        (sent, _) = agent.requests[0]
        assert REQUIRED in sent.headers["A2A-Extensions"]


@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("do", ["stream", "send"])
async def test_without_an_agent_a_send_is_an_error(do: Any, wire: Wire, log: Stage, door_to: DoorTo) -> None:
    answer = await door_to(log.url).ask(wire, do, text="x")
    assert b"error" in answer.body or b"code" in answer.body
    assert b"Traceback" not in answer.body
