"""What passes through to the agent, and what becomes of its awkward answers: rows C71 and C72."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.awkward import AwkwardAgent, frames, saying, streamed, unary
from a2a_rig.stage import Stage
from a2a_rig.wire import V03_RPC, V1_REST, V1_RPC, WIRES, Door, Wire, numbers, outlines, text_after
from aiohttp import web

DoorTo = Callable[[str], Door]
StageOf = Callable[..., Stage]

TASK = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}
MESSAGE = {"message": {"messageId": "r", "role": "ROLE_AGENT", "parts": [{"text": "hello"}]}}


def update(task: str, state: str) -> dict[str, Any]:
    return {"statusUpdate": {"taskId": task, "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}}}


def piece(task: str, number: int) -> dict[str, Any]:
    artifact = {"artifactId": "out", "parts": [{"text": f"{number} "}]}
    return {"artifactUpdate": {"taskId": task, "contextId": "c", "artifact": artifact, "append": number > 1}}


@pytest.mark.row("C71")
async def test_c71_answers_are_the_agents_own_bytes(stage: Stage, door_to: DoorTo) -> None:
    """In the agent's own version, each answer is the same as if the broker weren't there."""
    through, direct = door_to(stage.url), door_to(stage.agent.url)
    version = "1.0" if stage.agent.generation == "v1" else "0.3"
    rpc, rest = (Wire(version, "jsonrpc"), Wire(version, "rest"))  # type: ignore[arg-type]
    held = (await through.ask(rpc, "send", text="chunks 2; parts; say hi")).result
    task = held.get("task", held)["id"]
    for wire in (rpc, rest):
        for do, name in (("get", task), ("get", "none"), ("cancel", task), ("cancel", "none")):
            ours, theirs = [await door.ask(wire, do, task=name) for door in (through, direct)]
            assert (ours.status, ours.body) == (theirs.status, theirs.body)
            assert ours.media_type == theirs.media_type


CONFIGS = [
    ("POST", "/tasks/{}/pushNotificationConfigs", {"id": "p1", "url": "https://example.org/hook"}),
    ("GET", "/tasks/{}/pushNotificationConfigs/p1", None),
    ("GET", "/tasks/{}/pushNotificationConfigs", None),
    ("DELETE", "/tasks/{}/pushNotificationConfigs/p1", None),
    ("GET", "/tasks/{}/pushNotificationConfigs/p1", None),
]


@pytest.mark.row("C71")
async def test_c71_push_configurations_pass(stage_of: StageOf, door_to: DoorTo) -> None:
    stage = stage_of("v1", "adapter")
    through, direct = door_to(stage.url), door_to(stage.agent.url)
    headers = {"A2A-Version": "1.0", "Content-Type": "application/json"}
    tasks = []
    for door in (through, direct):
        held = (await door.ask(V1_REST, "send", text="ask more")).result["task"]
        tasks.append(held["id"])
    for method, path, body in CONFIGS:
        answers = []
        for door, task in zip((through, direct), tasks, strict=True):
            data = None if body is None else json.dumps(body | {"taskId": task}).encode()
            answers.append(await door.raw(method, path.format(task), data, headers))
        ours, theirs = answers
        assert ours.status == theirs.status
        assert ours.body.replace(tasks[0].encode(), b"T") == theirs.body.replace(tasks[1].encode(), b"T")


@pytest.mark.row("C71")
async def test_c71_list_and_query_pass(stage_of: StageOf, door_to: DoorTo) -> None:
    stage = stage_of("v1", "adapter")
    through, direct = door_to(stage.url), door_to(stage.agent.url)
    held = (await through.ask(V1_REST, "send", text="chunks 1; ask more")).result["task"]
    headers = {"A2A-Version": "1.0"}
    for path in (
        f"/tasks?contextId={held['contextId']}&pageSize=1&includeArtifacts=true",
        f"/tasks/{held['id']}?historyLength=1",
        f"/tasks/{held['id']}?historyLength=0",
    ):
        ours, theirs = [await door.raw("GET", path, headers=headers) for door in (through, direct)]
        assert (ours.status, ours.json) == (theirs.status, theirs.json)
        assert held["id"] in str(ours.json)


@pytest.mark.row("C72")
@pytest.mark.parametrize("do", ["send", "stream"])
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c72_headers_that_pass_and_headers_that_dont(
    wire: Wire, do: Any, own_stage: StageOf, door_to: DoorTo
) -> None:
    async with AwkwardAgent() as agent:
        agent.answer = unary(MESSAGE) if do == "send" else saying(MESSAGE)
        door = door_to(own_stage(agent__url=agent.url, agent__capture="proxy").url)
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        passing = {
            "A2A-Extensions": "urn:a, urn:b",
            "X-A2A-Extensions": "urn:c",
            "Authorization": "Bearer token",
            "traceparent": trace,
            "X-Custom": "kept",
        }
        stripped = {
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "gone",
            "Keep-Alive": "timeout=5",
            "TE": "trailers",
            "Proxy-Authorization": "Basic eA==",
            "Sidecast-Principal": "root",
            "Sidecast-Owner": "root",
        }
        answer = await door.ask(wire, do, text="x", headers=passing | stripped)
        assert answer.status == 200
        assert b"hello" in answer.body
        ((sent, body),) = agent.requests
        for name, value in passing.items():
            assert sent.headers.get(name) == value, name
        assert sent.headers["A2A-Version"] == "1.0"
        for name in ("X-Hop", "Keep-Alive", "TE", "Proxy-Authorization", "Sidecast-Owner"):
            assert name not in sent.headers
        assert sent.headers.get("Sidecast-Principal", "") != "root"
        assert sent.headers["Host"] == agent.url.removeprefix("http://")
        assert b'"text": "x"' in body or b'"text":"x"' in body


@pytest.mark.row("C72")
async def test_c72_headers_of_the_answer(own_stage: StageOf, door_to: DoorTo) -> None:
    async with AwkwardAgent() as agent:
        agent.answer = unary(
            MESSAGE, headers={"A2A-Extensions": "urn:a", "X-Custom": "1", "Keep-Alive": "timeout=1"}
        )
        door = door_to(own_stage(agent__url=agent.url, agent__capture="proxy").url)
        answer = await door.ask(V1_REST, "send", text="x")
        assert answer.headers["A2A-Extensions"] == "urn:a"
        assert "Keep-Alive" not in answer.headers


def wrapped(events: list[dict[str, Any]], rpc_id: object) -> list[str]:
    """Write events as JSON, in an envelope where there is an id."""
    return [
        json.dumps(each if rpc_id is None else {"jsonrpc": "2.0", "id": rpc_id, "result": each}, indent=1)
        for each in events
    ]


def spelled(texts: list[str], style: str) -> list[bytes]:
    """Write events in an awkward but legal style, as pieces that are sent one by one."""
    end = "\r\n" if style in ("crlf", "split") else "\r" if style == "cr" else "\n"
    blocks = []
    for number, text in enumerate(texts):
        lines = [f"data: {line}" for line in text.split("\n")]
        if style == "compact":
            lines = ["data:" + json.dumps(json.loads(text))]
        blocks.append(
            end.join([f": note {number}", f"id: agent-{number}", "retry: 5", *lines, "", f": beat{end}"])
        )
    whole = ("\ufeff" if style == "bom" else "") + end.join(blocks)
    data = whole.encode()
    if style == "split":
        return [data[index : index + 1] for index in range(len(data))]
    return [data]


STYLES = ["lf", "crlf", "cr", "bom", "split", "compact"]


@pytest.mark.row("C72")
async def test_c72_an_agents_stream_is_understood_however_it_is_spelled(
    own_stage: StageOf, door_to: DoorTo
) -> None:
    async with AwkwardAgent() as agent:
        door = door_to(own_stage(agent__url=agent.url, agent__capture="proxy").url)
        for style in STYLES:
            task = f"täsk ✓ {style}"
            events = [
                {"task": TASK | {"id": task}},
                *(piece(task, number) for number in (1, 2)),
                update(task, "COMPLETED"),
            ]

            async def answer(
                request: web.Request,
                body: bytes,
                events: list[dict[str, Any]] = events,
                style: str = style,
            ) -> web.StreamResponse:
                rpc_id = json.loads(body)["id"] if request.path == "/" else None
                return await streamed(spelled(wrapped(events, rpc_id), style))(request, body)

            agent.answer = answer
            async with door.open(V1_RPC, "stream", text="x") as stream:
                found = await stream.rest()
            assert text_after([frame.result for frame in found]) == numbers(1, 2), style
            assert outlines(found)[-1] == "status completed", style
            assert b"agent-" not in stream.read_bytes, "the ids are the broker's own"


BROKEN: list[tuple[str, Callable[[], Any]]] = [
    ("500", lambda: plain(500, b"oops")),
    ("404", lambda: plain(404, b"oops")),
    ("302", lambda: plain(302, b"", {"Location": "http://127.0.0.1:1/elsewhere"})),
    ("no-json", lambda: plain(200, b"<html>s3cret</html>", {"Content-Type": "text/html"})),
    ("empty", lambda: plain(200, b"", {"Content-Type": "application/json"})),
    ("empty-stream", lambda: streamed([])),
    ("cut", lambda: streamed([b": hello\n\n"], cut=True)),
    ("no-event", lambda: streamed([b"data: nonsense\n\n"])),
    ("other-id", lambda: streamed([frames(MESSAGE, rpc_id="another")])),
]


def plain(status: int, body: bytes, headers: dict[str, str] | None = None) -> Any:
    async def answer(_request: web.Request, _body: bytes) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


@pytest.mark.parametrize(("name", "answer"), BROKEN, ids=[name for name, _ in BROKEN])
async def test_a_broken_answer_is_an_error_and_never_silence(
    name: str, answer: Callable[[], Any], stage_of: StageOf, door_to: DoorTo
) -> None:
    async with AwkwardAgent() as agent:
        agent.answer = answer()
        stage = stage_of_own(stage_of, agent)
        for wire in WIRES:
            got = await door_to(stage.url).ask(wire, "stream", text="x", message_id=f"m-{name}-{wire}")
            if name == "other-id" and b"hello" in got.body:
                continue
            assert b'"code"' in got.body, f"{wire}: {got}"
            assert b"Traceback" not in got.body
            assert b"s3cret" not in got.body
            if wire == V1_REST:
                assert got.status >= 400
            if wire == V03_RPC:
                assert got.media_type == "text/event-stream"


def stage_of_own(stage_of: StageOf, agent: AwkwardAgent) -> Stage:
    """Give a stage beside an agent of the test; not one that is shared, for its address is its own."""
    stage: Stage = stage_of(agent__url=agent.url, agent__capture="proxy", agent__timeout_s=3)
    return stage


async def test_an_agent_that_is_away_is_an_error(own_stage: StageOf, door_to: DoorTo) -> None:
    async with AwkwardAgent() as agent:
        url = agent.url
    door = door_to(own_stage(agent__url=url, agent__capture="proxy").url)
    for wire in WIRES:
        for do in ("stream", "send"):
            answer = await door.ask(wire, do, text="x")
            assert b'"code"' in answer.body


async def test_a_redirect_is_not_followed(own_stage: StageOf, door_to: DoorTo) -> None:
    async with AwkwardAgent() as elsewhere, AwkwardAgent() as agent:
        agent.answer = plain(307, b"", {"Location": f"{elsewhere.url}/message:send"})
        door = door_to(own_stage(agent__url=agent.url, agent__capture="proxy").url)
        await door.ask(V1_REST, "send", text="x")
        await door.ask(V1_REST, "get", task="t")
        assert len(agent.requests) == 2
        assert elsewhere.requests == []


NOT_OURS = [("GET", "/admin"), ("GET", "/control/seen"), ("POST", "/x/y/z"), ("GET", "/metrics")]


@pytest.mark.parametrize(("method", "path"), NOT_OURS)
async def test_nothing_else_passes(method: str, path: str, stage_of: StageOf, door_to: DoorTo) -> None:
    stage = stage_of("v1", "adapter")
    before = len(stage.agent.seen["requests"])
    answer = await door_to(stage.url).raw(method, path, headers={"A2A-Version": "1.0"})
    assert answer.status in (404, 405)
    assert len(stage.agent.seen["requests"]) == before


async def test_what_is_named_passes(own_stage: StageOf, door_to: DoorTo) -> None:
    async with AwkwardAgent() as agent:
        agent.answer = plain(200, b"there", {"Content-Type": "text/plain"})
        door = door_to(own_stage(agent__url=agent.url, agent__passthrough="/files").url)
        answer = await door.raw("GET", "/files/a%2Fb%20c?q=%C3%BC&x=1")
        assert (answer.status, answer.body) == (200, b"there")
        ((sent, _),) = agent.requests
        assert sent.raw_path == "/files/a%2Fb%20c?q=%C3%BC&x=1"
        other = await door.raw("GET", "/filesystem")
        assert other.status == 404


async def test_an_agent_that_is_slow_to_begin(own_stage: StageOf, door_to: DoorTo) -> None:
    """The stream opens once its first event is there."""
    gate = asyncio.Event()
    async with AwkwardAgent() as agent:

        async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
            await gate.wait()
            return await saying(MESSAGE)(request, body)

        agent.answer = answer
        door = door_to(own_stage(agent__url=agent.url, agent__capture="proxy").url)
        asking = [asyncio.create_task(door.ask(wire, "stream", text="x")) for wire in WIRES]
        async with asyncio.timeout(10):
            while len(agent.requests) < len(WIRES):
                await asyncio.sleep(0.01)
        gate.set()
        for each in asking:
            assert b"hello" in (await each).body
