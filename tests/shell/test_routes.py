from __future__ import annotations

import asyncio
import json

import pytest
from brokers import (
    AS_JSON,
    OTHER,
    TASK,
    FakeBackend,
    activity,
    artifact,
    broker,
    done,
    encode,
    status,
    subject_of,
    task_record,
    texts,
    turn,
    until,
)
from sse import data_frames, exchange, kinds

from sidecast_broker.core.frame import HEARTBEAT
from sidecast_schemas.subjects import TaskKey, events_subject

ALIASES = {
    "/tasks/{}/events": True,
    "/tasks/{}/messages/stream": True,
    "/stream/tasks/{}": False,
    "/api/stream/{}": False,
    "/a2a/stream?taskId={}": False,
}
"""Every path of the stream, and whether its frames are named unless asked otherwise."""

EVENT_STREAM = {"Accept": "text/event-stream"}


def with_query(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}"


async def whole_story(backend: FakeBackend) -> None:
    """Store one record of each kind."""
    await backend.publish(
        task_record(),
        turn("m-1", "begin"),
        status("working on it"),
        activity("progress", progress=0.5),
        activity("step", step={"id": "s", "title": "Read"}),
        activity("thought"),
        activity("debug"),
        activity("error", code="E1", recoverable=True),
        artifact("text"),
        encode({"message": {"messageId": "m-2", "role": "ROLE_AGENT", "parts": [{"text": "hello"}]}}),
        status("more?", state="INPUT_REQUIRED"),
        turn("m-1", "end"),
        done(),
    )


ALL = [
    "task.snapshot",
    "task.status",
    "task.progress",
    "task.step",
    "task.thought",
    "task.error",
    "task.artifact",
    "task.message",
    "task.status",
    "task.status",
]

# --- paths


@pytest.mark.parametrize(("path", "named"), ALIASES.items())
async def test_every_alias_is_the_same_stream(fake: FakeBackend, path: str, named: bool) -> None:
    await whole_story(fake)
    async with broker(fake) as running:
        start = with_query(path.format(TASK), "from=start")
        frames = await (await running.watch(path=start)).rest()
        assert kinds(data_frames(frames)) == ALL
        assert all(frame.type == (frame.kind if named else "message") for frame in frames)
        for asked in ("0", "1", "false", "true"):
            frames = await (await running.watch(path=with_query(start, f"named={asked}"))).rest()
            wanted = asked in ("1", "true")
            assert all(frame.type == (frame.kind if wanted else "message") for frame in frames)


async def test_named_or_not_the_data_are_the_same(fake: FakeBackend) -> None:
    await whole_story(fake)
    async with broker(fake) as running:
        named, unnamed = [
            await (await running.watch(named=value, **{"from": "start"})).rest() for value in (1, 0)
        ]
        assert [(f.data, f.id, f.retry) for f in named] == [(f.data, f.id, f.retry) for f in unnamed]


async def test_the_headers_of_a_stream(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        headers = (await running.watch()).headers
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-store, no-transform"
        assert headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in headers


async def test_each_frame_carries_what_every_frame_carries(fake: FakeBackend) -> None:
    await whole_story(fake)
    async with broker(fake) as running:
        stream = await running.watch(debug=1, **{"from": "start"})
        frames = await stream.rest()
        for frame in data_frames(frames):
            assert (frame["taskId"], frame["contextId"]) == (TASK, "context-1")
            assert frame.id == f"epoch1-{frame['seq']}"
            assert frame["at"].endswith("Z")
        assert [frame["seq"] for frame in data_frames(frames)] == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
        for frame in frames:
            assert frame.data == json.dumps(frame.json, separators=(",", ":"), ensure_ascii=False)
        assert [frame.id for frame in frames if frame.kind.startswith("stream.")] == [None, None]


# --- filters


@pytest.mark.parametrize(
    ("types", "wanted"),
    [
        ("status", ["task.snapshot", "task.status", "task.status", "task.status"]),
        ("artifact", ["task.snapshot", "task.artifact", "task.status", "task.status"]),
        ("task.artifact", ["task.snapshot", "task.artifact", "task.status", "task.status"]),
        ("progress,step", ["task.snapshot", "task.progress", "task.step", "task.status", "task.status"]),
        (" progress , step,,", ["task.snapshot", "task.progress", "task.step", "task.status", "task.status"]),
        ("message", ["task.snapshot", "task.message", "task.status", "task.status"]),
        ("debug", ["task.snapshot", "task.status", "task.status"]),
        ("stream.open", ["task.snapshot", "task.status", "task.status"]),
        ("", ALL),
    ],
)
async def test_a_filter_never_hides_what_decides(fake: FakeBackend, types: str, wanted: list[str]) -> None:
    await whole_story(fake)
    async with broker(fake) as running:
        frames = await (await running.watch(types=types, **{"from": "start"})).rest()
        assert kinds(data_frames(frames)) == wanted
        assert [frame["state"] for frame in data_frames(frames)[-2:]] == ["input-required", "completed"]
        assert (frames[0].kind, frames[-1].kind) == ("stream.open", "stream.end")


async def test_a_filter_holds_live_as_in_a_replay(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        live = [await running.watch(cursor="epoch1-1", types=types) for types in ("artifact", "status")]
        for stream in live:
            await stream.next()
        await fake.publish(status("one"), artifact("two"), done())
        artifacts, statuses = [kinds(await stream.rest()) for stream in live]
        assert artifacts == ["task.artifact", "task.status", "stream.end"]
        assert statuses == ["task.status", "task.status", "stream.end"]


async def test_debug_comes_only_to_those_who_ask(fake: FakeBackend) -> None:
    await whole_story(fake)
    async with broker(fake) as running:
        for query, count in (("debug=1", 1), ("debug=true", 1), ("debug=0", 0), ("types=debug&debug=1", 1)):
            stream = await running.watch(path=f"/tasks/{TASK}/events?from=start&{query}")
            assert kinds(await stream.rest()).count("task.debug") == count


# --- the one answer


async def test_who_accepts_json_gets_one_answer(fake: FakeBackend) -> None:
    await whole_story(fake)
    async with broker(fake) as running:
        status_code, answer = await running.get(f"/tasks/{TASK}/events", AS_JSON)
        assert status_code == 200
        assert set(answer) == {"task", "state", "progress", "steps", "cursor"}
        assert (answer["state"], answer["progress"], answer["cursor"]) == ("completed", 0.5, "epoch1-13")
        assert answer["task"]["id"] == TASK
        assert answer["steps"] == [{"id": "s", "title": "Read"}]


async def test_the_cursor_of_the_answer_is_where_a_stream_continues(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("one"))
    async with broker(fake) as running:
        _status, answer = await running.get(f"/tasks/{TASK}/events", AS_JSON)
        stream = await running.watch(cursor=answer["cursor"])
        await fake.publish(status("two"))
        assert texts((await stream.take(2))[1:]) == ["two"]


# --- refusals


@pytest.mark.parametrize("path", ALIASES)
async def test_an_unknown_task_is_404_in_json(fake: FakeBackend, path: str) -> None:
    async with broker(fake) as running:
        for headers in (EVENT_STREAM, AS_JSON, {}):
            status_code, body = await running.get(path.format("nothing"), headers)
            assert status_code == 404
            assert body == {
                "error": {"code": "not-found", "message": "there is no such task, or it is not yours"}
            }
        assert await running.metric("sidecast_rejected_total", reason="not-found") == 3
        assert await running.metric("sidecast_tasks") == 0


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ALIASES)
async def test_a_stream_can_only_be_gotten(fake: FakeBackend, path: str, method: str) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        lines = (
            f"{method} {path.format(TASK)} HTTP/1.1",
            "Host: x",
            "Content-Length: 0",
            "Connection: close",
        )
        request = "\r\n".join((*lines, "", ""))
        head, _blank, body = (await exchange(running.url, request.encode())).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nAllow: GET\r\n" in head
        if method != "HEAD":
            assert json.loads(body)["error"]["code"] == "method-not-allowed"


@pytest.mark.parametrize(
    "path", ["/nothing", "/tasks/", "/tasks/x/events/", "/a2a/", "/v2/tasks/x/y", "/message"]
)
async def test_an_unknown_path_is_404_in_json(fake: FakeBackend, path: str) -> None:
    async with broker(fake) as running:
        status_code, body = await running.get(path)
        assert (status_code, body["error"]["code"]) == (404, "not-found")


@pytest.mark.parametrize(
    "query", ["", "?taskId=", "?taskId=a&taskId=b", "?taskid=a", "?taskId=%FF", "?taskId=%G"]
)
async def test_a_task_id_in_the_query_stands_there_once(fake: FakeBackend, query: str) -> None:
    async with broker(fake) as running:
        status_code, body = await running.get(f"/a2a/stream{query}")
        assert (status_code, body["error"]["code"]) == (400, "bad-request")


@pytest.mark.parametrize(
    ("task", "target"),
    [
        ("a b", "a%20b"),
        ("a b", "a+b?"),
        ("a/b", "a%2Fb"),
        ("a&b=c", "a%26b%3Dc"),
        ("a%41", "a%2541"),
        ("\u00e9\U0001f600", "%C3%A9%F0%9F%98%80"),
    ],
)
async def test_ids_are_decoded_once(fake: FakeBackend, task: str, target: str) -> None:
    await fake.publish(task_record(task), done(task), task=task)
    async with broker(fake) as running:
        paths = [f"/tasks/{target}/events", f"/a2a/stream?taskId={target}"]
        for path in paths[1:] if target.endswith("?") else paths:
            stream = await running.watch(path=path.removesuffix("?"))
            assert (await stream.rest())[1]["taskId"] == task


# --- heartbeats and old clients


async def test_a_heartbeat_is_a_colon_and_a_line_feed(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__heartbeat_s=0.1) as running:
        stream = await running.watch()
        await stream.take(2)
        before = len(stream.raw)
        await stream.item()
        await stream.item()
        assert bytes(stream.raw[before:]) == HEARTBEAT * 2 == b":\n:\n"
        await fake.publish(status("one"))
        assert texts([await stream.next()]) == ["one"]


async def test_a_heartbeat_can_be_an_event(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__heartbeat_s=0.1) as running:
        stream = await running.watch(heartbeat="event")
        frames = await stream.take(4)
        assert kinds(frames) == ["stream.open", "task.snapshot", "stream.heartbeat", "stream.heartbeat"]
        assert (frames[2].id, frames[2].json, stream.comments) == (None, {"type": "stream.heartbeat"}, [])
        (plain,) = (await (await running.watch(heartbeat="event", named=0)).take(3))[2:]
        assert (plain.type, plain.kind) == ("message", "stream.heartbeat")


async def test_heartbeats_only_break_silence(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__heartbeat_s=0.4) as running:
        stream = await running.watch()
        await stream.take(2)
        for number in range(10):
            await fake.publish(status(str(number)))
            assert texts([await stream.next()]) == [str(number)]
            await asyncio.sleep(0.05)  # the passing of time is what is tested
        assert stream.comments == []


async def test_an_http_1_0_client_gets_unframed_bytes_and_the_end_of_the_connection(
    fake: FakeBackend,
) -> None:
    await fake.publish(task_record(), status("one"))
    async with broker(fake, stream__heartbeat_s=0.1) as running:
        modern = await running.watch()
        request = f"GET /tasks/{TASK}/events HTTP/1.0\r\n\r\n".encode()
        answer = asyncio.ensure_future(exchange(running.url, request))
        await until(lambda: len(running.listening.streams) == 2)
        await modern.take(2)
        for _ in range(2):
            await modern.item()  # then the other one has had a heartbeat too
        await fake.publish(status("two"), done())
        await modern.rest()
        head, _blank, body = (await answer).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 ")
        assert b"transfer-encoding" not in head.lower()
        assert b"content-length" not in head.lower()
        assert body.replace(b":\n", b"") == bytes(modern.raw).replace(b":\n", b"")
        assert b":\n" in body


async def test_an_http_1_0_client_gets_a_replay_unframed_too(fake: FakeBackend) -> None:
    await whole_story(fake)
    async with broker(fake) as running:
        modern = await running.watch(**{"from": "start"})
        await modern.rest()
        request = f"GET /tasks/{TASK}/events?from=start HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode()
        _head, _blank, body = (await exchange(running.url, request)).partition(b"\r\n\r\n")
        assert body == modern.raw


# --- who is meant


async def test_the_broker_serves_its_own_agent_and_tenant(fake: FakeBackend) -> None:
    for key in (TaskKey("", "agent", TASK), TaskKey("acme", "agent", TASK), TaskKey("acme", "planner", TASK)):
        await fake.publish_on(events_subject(key), task_record(metadata={"of": list(key)}))
    assert subject_of(TASK) == events_subject(TaskKey("", "agent", TASK))
    for environ, key in (
        ({}, ["", "agent", TASK]),
        ({"agent__tenant": "acme"}, ["acme", "agent", TASK]),
        ({"agent__tenant": "acme", "agent__name": "planner"}, ["acme", "planner", TASK]),
    ):
        async with broker(fake, **environ) as running:
            _opened, snapshot = await (await running.watch()).take(2)
            assert snapshot["task"]["metadata"] == {"of": key}


async def test_a_required_credential_is_asked_for(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, auth__required="true") as running:
        for task in (TASK, OTHER):
            stream = await running.watch(task)
            assert (stream.status, stream.headers["WWW-Authenticate"]) == (401, 'Bearer realm="sidecast"')
