"""The bytes of streams on the four wires: rows C20 to C25, C27, C28, C34 to C39, C60 and C74."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.processes import Driver
from a2a_rig.stage import HEARTBEAT_S, Stage, begin, chunks
from a2a_rig.wire import V03_REST, V03_RPC, V1_REST, V1_RPC, WIRES, Door, Frame, Wire, outline, split
from brokers import artifact, done, encode, status

from sidecast_broker.settings import Settings

DoorTo = Callable[[str], Door]
Crossed = tuple[Stage, Wire]
StageOf = Callable[..., Stage]


async def frames_of(
    stage: Stage, door: Door, wire: Wire, *payloads: bytes, task: str, **fields: Any
) -> list[Frame]:
    """Subscribe to a new task, store events and the end, and give all frames."""
    await stage.publish(task, begin(task))
    async with door.open(wire, "subscribe", task=task, **fields) as stream:
        first = await stream.take(1)
        await stage.publish(task, *payloads, done(task))
        return first + await stream.rest()


@pytest.mark.row("C20")
@pytest.mark.parametrize("rpc_id", [1, "1", "ü-“id”", 12345678901234567, ""])
@pytest.mark.parametrize("wire", [V1_RPC, V03_RPC], ids=str)
async def test_c20_each_frame_is_a_response_to_the_request(
    wire: Wire, rpc_id: object, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    for frame in await frames_of(log, door_to(log.url), wire, status("a", task), task=task, rpc_id=rpc_id):
        assert frame.json.keys() == {"jsonrpc", "id", "result"}
        assert frame.json["jsonrpc"] == "2.0"
        assert frame.json["id"] == rpc_id
        assert type(frame.json["id"]) is type(rpc_id)


@pytest.mark.row("C21")
@pytest.mark.parametrize("wire", [V1_REST, V03_REST], ids=str)
async def test_c21_each_rest_frame_is_the_bare_event(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    frames = await frames_of(log, door_to(log.url), wire, status("a", task), *chunks(task, 1, 1), task=task)
    assert [list(frame.json) for frame in frames] == [
        ["task"],
        ["statusUpdate"],
        ["artifactUpdate"],
        ["statusUpdate"],
    ]


@pytest.mark.row("C22", "C24")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c22_c24_headers(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    headers = {"Accept-Encoding": "gzip, br"}
    async with door_to(log.url).open(wire, "subscribe", task=task, headers=headers) as stream:
        given = stream.response.headers
    assert stream.response.status == 200
    assert stream.media_type == "text/event-stream"
    assert {"no-store", "no-cache"} & {each.strip() for each in given["Cache-Control"].split(",")}
    assert given["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in given


@pytest.mark.row("C20", "C21", "C22", "C24")
async def test_c22_c24_the_stream_of_a_message_is_framed_the_same(crossed: Crossed, door_to: DoorTo) -> None:
    stage, wire = crossed
    async with door_to(stage.url).open(wire, "stream", text="chunks 2", rpc_id="q-1") as stream:
        frames = await stream.rest()
    given = stream.response.headers
    assert (stream.response.status, stream.media_type) == (200, "text/event-stream")
    assert {"no-store", "no-cache"} & {each.strip() for each in given["Cache-Control"].split(",")}
    assert given["X-Accel-Buffering"] == "no"
    for frame in frames:
        if wire.binding == "jsonrpc":
            assert frame.json == {"jsonrpc": "2.0", "id": "q-1", "result": frame.result}
        else:
            assert len(frame.json) == 1
            assert next(iter(frame.json)) in ("task", "statusUpdate", "artifactUpdate")


@pytest.mark.row("C23")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c23_an_event_is_one_line(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    pretty = json.dumps(json.loads(status("one\ntwo\rthree\u2028four", task)), indent=2).encode()
    frames = await frames_of(log, door_to(log.url), wire, pretty.replace(b"\n", b"\r\n"), task=task)
    for frame in frames:
        assert frame.fields.count("data") == 1
        assert b"\r" not in frame.raw
    assert "one\ntwo\rthree\u2028four" in outline(frames[1].result)


@pytest.mark.row("C23")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c23_a_task_larger_than_clients_take_is_an_explicit_error(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    await log.publish(task, begin(task), *chunks(task, 1, 6, pad=900_000))
    async with door_to(log.url).open(wire, "subscribe", task=task) as stream:
        if stream.media_type == "text/event-stream":
            (first,) = await stream.take(1)
            said = first.raw
        else:
            said = await stream.whole()
    assert len(said) < 4096
    assert b'"code":' in said


@pytest.mark.row("C25")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c25_a_heartbeat_is_a_bare_comment_line(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    async with door_to(log.url).open(wire, "subscribe", task=task) as stream:
        await stream.take(1)
        already = len(stream.read_bytes)
        await stream.silent(HEARTBEAT_S * 3.5)
        beats = stream.read_bytes[already:]
        await log.publish(task, done(task))
        await stream.rest()
    assert beats in (b":\n" * 3, b":\n" * 2, b":\n" * 4)
    assert b":\n\n" not in stream.read_bytes, "a blank line would make an event of it"


@pytest.mark.row("C25")
def test_c25_the_period_is_short_by_default() -> None:
    assert Settings().stream.a2a_heartbeat_s <= 4


@pytest.mark.row("C27", "C28")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c27_c28_ids_are_resume_points_and_retry_stands_beside_data(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    begun = await log.publish(task, begin(task), status("a", task))
    async with door_to(log.url).open(wire, "subscribe", task=task) as stream:
        first = await stream.take(1)
        sequences = [await log.publish(task, event) for event in [*chunks(task, 1, 3), done(task)]]
        frames = first + await stream.rest()
    assert [frame.id for frame in frames] == [f"epoch1-{each}" for each in (begun, *sequences)]
    for block in stream.read_bytes.split(b"\n\n"):
        if b"retry:" in block or b"id:" in block:
            assert b"data:" in block


@pytest.mark.row("C27")
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c27_a_send_stream_has_resume_points_too(
    wire: Wire, stage_of: StageOf, door_to: DoorTo
) -> None:
    stage = stage_of("v1", "adapter")
    async with door_to(stage.url).open(wire, "stream", text="chunks 3") as stream:
        frames = await stream.rest()
    sequences = [int((frame.id or "").partition("-")[2]) for frame in frames]
    assert sequences == sorted(set(sequences))


RICH = encode(
    {
        "artifactUpdate": {
            "taskId": "TASK",
            "contextId": "context-1",
            "artifact": {
                "artifactId": "rich",
                "name": "rich",
                "description": "d",
                "extensions": ["urn:x"],
                "metadata": {"n": 12345678901234567, "f": 1.0, "i": 1},
                "parts": [
                    {"text": "hi"},
                    {"raw": "aGk=", "mediaType": "text/plain", "filename": "hi.txt"},
                    {"url": "https://example.org/x", "mediaType": "text/html"},
                    {"data": {"n": 1, "deep": [True, None, "é"]}},
                    {"data": [1, 2]},
                ],
            },
            "append": False,
            "lastChunk": True,
        }
    }
)


@pytest.mark.row("C34", "C36")
async def test_c34_c36_the_v03_json_rpc_form(log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    payloads = [status("hello", task), RICH.replace(b"TASK", task.encode())]
    frames = await frames_of(log, door_to(log.url), V03_RPC, *payloads, task=task)
    first, said, rich, end = (frame.json["result"] for frame in frames)
    assert (first["kind"], first["id"], first["contextId"]) == ("task", task, "context-1")
    assert first["status"]["state"] == "submitted"
    assert (said["kind"], said["taskId"], said["contextId"]) == ("status-update", task, "context-1")
    assert said["final"] is False
    assert said["status"]["state"] == "working"
    message = said["status"]["message"]
    assert (message["kind"], message["role"]) == ("message", "agent")
    assert message["parts"] == [{"kind": "text", "text": "hello"}]
    assert rich["kind"] == "artifact-update"
    assert rich["artifact"]["parts"][:4] == [
        {"kind": "text", "text": "hi"},
        {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "hi.txt"}},
        {"kind": "file", "file": {"uri": "https://example.org/x", "mimeType": "text/html"}},
        {"kind": "data", "data": {"n": 1, "deep": [True, None, "é"]}},
    ]
    assert rich["artifact"]["parts"][4]["kind"] == "data"
    assert rich["artifact"]["parts"][4]["data"] == {"value": [1, 2]}
    assert rich["lastChunk"] is True
    assert (end["status"]["state"], end["final"]) == ("completed", True)


@pytest.mark.row("C35")
@pytest.mark.parametrize(
    ("state", "subscribed", "sent"),
    [("INPUT_REQUIRED", False, True), ("COMPLETED", True, True), ("WORKING", False, False)],
)
async def test_c35_final_on_a_subscription(
    state: str, subscribed: bool, sent: bool, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    for wire in (V03_RPC, V03_REST):
        own = log.new_task()
        await log.publish(own, begin(own))
        async with door_to(log.url).open(wire, "subscribe", task=own) as stream:
            await stream.take(1)
            await log.publish(own, status("why", own, state))
            (frame,) = await stream.take(1)
        assert split(frame.result)[1].get("final", False) is subscribed


@pytest.mark.row("C35")
@pytest.mark.parametrize("wire", [V03_RPC, V03_REST], ids=str)
async def test_c35_final_where_a_send_stream_ends(wire: Wire, stage: Stage, door_to: DoorTo) -> None:
    for script, last in (
        ("chunks 2; ask why", "status input-required why"),
        ("chunks 2", "status completed"),
    ):
        async with door_to(stage.url).open(wire, "stream", text=script) as stream:
            frames = await stream.rest()
        assert outline(frames[-1].result) == last
        assert split(frames[-1].result)[1]["final"] is True
        finals = [frame for frame in frames if split(frame.result)[1].get("final")]
        assert len(finals) == 1


@pytest.mark.row("C37")
async def test_c37_the_v03_rest_form(log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    async with door_to(log.url).open(V03_REST, "subscribe", task=task) as stream:
        first = await stream.take(1)
        said = [status("hello", task), RICH.replace(b"TASK", task.encode()), done(task, "CANCELED")]
        await log.publish(task, *said)
        frames = first + await stream.rest()
    opened, working, rich, end = (frame.json for frame in frames)
    assert opened["task"]["id"] == task
    assert opened["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"
    message = working["statusUpdate"]["status"].get("message") or working["statusUpdate"]["status"]["update"]
    assert message["role"] == "ROLE_AGENT"
    assert message["content"] == [{"text": "hello"}]
    parts = rich["artifactUpdate"]["artifact"]["parts"]
    assert parts[0] == {"text": "hi"}
    assert parts[2]["file"] == {"fileWithUri": "https://example.org/x", "mimeType": "text/html"}
    assert parts[3] == {"data": {"data": {"n": 1, "deep": [True, None, "é"]}}}
    assert end["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELLED"
    assert end["statusUpdate"]["final"] is True


CANONICAL = [
    {"text": "hi"},
    {"raw": "aGk=", "mediaType": "text/plain", "filename": "hi.txt"},
    {"url": "https://example.org/x", "mediaType": "text/html"},
    {"data": {"n": 1, "deep": [True, None, "é"]}},
]


@pytest.mark.row("C38")
async def test_c38_each_kind_of_part_survives_the_way(
    stage: Stage, driver_of: Callable[[str], Driver], door_to: DoorTo
) -> None:
    async with door_to(stage.url).open(V1_REST, "stream", text="parts") as stream:
        frames = await stream.rest()
    (found,) = [each for frame in frames if (each := split(frame.result))[0] == "artifact"]
    assert found[1]["artifact"]["parts"] == CANONICAL
    call = await driver_of("py-v03").call("stream", stage.url, text="parts", message_id=stage.new_task())
    (held,) = [held for event in await call.rest() if (held := split(event)[1]) and "artifact" in held]
    assert held["artifact"]["parts"] == [
        {"kind": "text", "text": "hi"},
        {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "hi.txt"}},
        {"kind": "file", "file": {"uri": "https://example.org/x", "mimeType": "text/html"}},
        {"kind": "data", "data": {"n": 1, "deep": [True, None, "é"]}},
    ]


@pytest.mark.row("C39", "C74")
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c39_c74_unknown_fields_and_numbers_pass_unchanged(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    metadata = '{"big":12345678901234567,"exact":1.50,"int":1,"exp":1E3}'
    stored = [
        f'{{"statusUpdate":{{"taskId":"{task}","contextId":"context-1","status":{{"state":"TASK_STATE_WORKING",'
        f'"mood":"good"}},"metadata":{metadata},"generation":{generation}}}}}'.encode()
        for generation in (2, 3)
    ]
    frames = await frames_of(log, door_to(log.url), wire, *stored, task=task)
    for payload, frame in zip(stored, frames[1:3], strict=True):
        assert payload in frame.raw


@pytest.mark.row("C39")
async def test_c39_the_snapshot_keeps_them_too(log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    held = '{"state":"TASK_STATE_WORKING","mood":"good","timestamp":"2026-01-01T00:00:00.123456Z"}'
    payload = f'{{"statusUpdate":{{"taskId":"{task}","contextId":"context-1","status":{held}}}}}'
    await log.publish(
        task,
        begin(task, generation=1, metadata={"big": 12345678901234567}),
        artifact("a", task),
        payload.encode(),
    )
    async with door_to(log.url).open(V1_REST, "subscribe", task=task) as stream:
        (first,) = await stream.take(1)
    assert b'"big":12345678901234567' in first.raw
    assert b'"mood":"good"' in first.raw
    assert b'"generation":1' in first.raw


@pytest.mark.row("C60")
async def test_c60_times_are_utc(crossed: Crossed, door_to: DoorTo) -> None:
    """The v0.3 agent sends times without an offset."""
    stage, wire = crossed
    async with door_to(stage.url).open(wire, "stream", text="chunks 1; say hi") as stream:
        frames = await stream.rest()
    times = [
        split(frame.result)[1]["status"]["timestamp"]
        for frame in frames
        if "timestamp" in split(frame.result)[1].get("status", {})
    ]
    assert times
    assert all(time.endswith(("Z", "+00:00")) for time in times)
    if wire.version == "1.0":
        assert all(time.endswith("Z") for time in times)
