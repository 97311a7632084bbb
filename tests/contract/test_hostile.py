"""Input made to break things: a clear answer or a counted skip; no widened subscription, no forged field."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from brokers import (
    AS_JSON,
    OTHER,
    TASK,
    Backend,
    FakeBackend,
    RealBackend,
    broker,
    done,
    encode,
    status,
    subject_of,
    task_record,
    texts,
    turn,
)
from sse import Parser, data_frames, exchange, kinds

IDS = [
    "*",
    ">",
    ".",
    "..",
    "_",
    "=",
    "a.b",
    "a.*",
    "a.>",
    "agent.task-1",
    "task-1.",
    "$JS.API.>",
    "a b",
    " ",
    "\t",
    "\r\n",
    "a\r\nPUB x 1\r\n1",
    "a\nid: 7",
    "\0",
    "a\0b",
    "%",
    "%2E",
    "%FF",
    "../../etc",
    "a/b",
    "a?b=c",
    "a#b",
    "\u2028",
    "\u202e",
    "\ufeff",
    "e\u0301",
    "\u00e9",
    "\U0001f600",
    "x" * 128,
    "x" * 129,
    "x" * 256,
    "\u00e9" * 128,
]


@pytest.mark.parametrize("task", IDS, ids=range(len(IDS)))
async def test_any_id_is_one_task_and_no_other(fake: FakeBackend, task: str) -> None:
    await fake.publish(task_record(), status("of task-1"))
    await fake.publish(task_record("agent.task-1"), task="agent.task-1")
    async with broker(fake) as running:
        path = f"/tasks/{quote(task, safe='')}/events"
        if task != "agent.task-1":
            assert (await running.get(path, AS_JSON))[0] == 404
            await fake.publish(task_record(task), task=task)
        stream = await running.watch(path=path, **{"from": "start"})
        (snapshot,) = data_frames(await stream.take(2))
        assert (snapshot["taskId"], snapshot["task"]["id"]) == (task, task)
        await fake.publish(status("not yours"))
        await fake.publish(done(task), task=task)
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]
        same = await running.watch(path=f"/a2a/stream?taskId={quote(task, safe='')}")
        assert (await same.next())["taskId"] == task


async def test_the_real_server_takes_every_id(real: RealBackend) -> None:
    for task in IDS:
        await real.publish(task_record(task), task=task)
    async with broker(real) as running:
        streams = [await running.watch(path=f"/tasks/{quote(task, safe='')}/events") for task in IDS]
        for task, stream in zip(IDS, streams, strict=True):
            assert (await stream.take(2))[1]["task"]["id"] == task
        for task in IDS:
            await real.publish(status(f"of {task}", task), done(task), task=task)
        for task, stream in zip(IDS, streams, strict=True):
            assert texts(await stream.rest()) == [f"of {task}"]


@pytest.mark.parametrize(
    "target",
    [
        "%FF",
        "a%FFb",
        "%C3",
        "%ED%A0%80",
        "%F4%90%80%80",
        "%C0%AE",
        "%",
        "%2",
        "%GG",
        "a%",
        "x" * 257,
        "x" * 7000,
        "%C3%A9" * 129,
    ],
)
async def test_what_can_be_no_id_is_refused(fake: FakeBackend, target: str) -> None:
    async with broker(fake) as running:
        for path in (f"/tasks/{target}/events", f"/stream/tasks/{target}", f"/a2a/stream?taskId={target}"):
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            head, _blank, body = (await exchange(running.url, request)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert json.loads(body)["error"]["code"] == "bad-request"


async def test_an_escape_is_not_decoded_twice(fake: FakeBackend) -> None:
    for task in ("%FF", "%2E", "."):
        await fake.publish(task_record(task), done(task), task=task)
    async with broker(fake) as running:
        for target, task in (("%25FF", "%FF"), ("%252E", "%2E"), ("%2E", ".")):
            stream = await running.watch(path=f"/tasks/{target}/events")
            assert (await stream.rest())[1]["taskId"] == task
        assert (await running.get("/tasks/%FF/events"))[0] == 400


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"http://evil.example/tasks/task-1/events", 400),
        (b"http://evil.example/stream/tasks/task-1", 400),
        (b"http://evil.example/a2a/stream?taskId=task-1", 400),
        (b"//evil.example/tasks/task-1/events", 404),
        (b"//tasks/task-1/events", 404),
        (b"/tasks//task-1/events", 404),
        (b"/tasks/task-1//events", 404),
        (b"/./tasks/task-1/events", 404),
        (b"/x/../tasks/task-1/events", 404),
        (b"/tasks/../tasks/task-1/events", 404),
        (b"/tasks/x/../task-1/events", 404),
        (b"/tasks/task-1/events/", 404),
        (b"/tasks/task-1/events%2F", 404),
        (b"/tasks%2Ftask-1/events", 404),
        (b"/TASKS/task-1/events", 404),
        (b"/tasks/task-1/events;x", 404),
        (b"*", 400),
        (b"tasks/task-1/events", 400),
        (b"/tasks/task-1/events\0", 400),
        (b"/tasks/\xff/events", 400),
        (b"/tasks/task-1/\r", 400),
    ],
)
async def test_a_strange_target_leads_nowhere(fake: FakeBackend, target: bytes, wanted: int) -> None:
    await fake.publish(task_record(), done())
    async with broker(fake) as running:
        request = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await exchange(running.url, request)
        assert int(answer.split()[1]) in {wanted, 400}
        assert (await running.watch()).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        b"Last-Event-ID: " + b"x" * 7000,
        b"Last-Event-ID: epoch1-1\r\nLast-Event-ID: epoch1-2",
        b"Last-Event-ID: \xff\xfe",
        b"Last-Event-ID: epoch1-1\t",
        b"Accept: " + b"text/event-stream," * 300,
        b"Accept: \xff",
    ],
)
async def test_a_strange_header_gets_a_stream_all_the_same(fake: FakeBackend, lines: bytes) -> None:
    await fake.publish(task_record(), status("one"), done())
    async with broker(fake) as running:
        request = b"GET /tasks/task-1/events HTTP/1.0\r\n" + lines + b"\r\n\r\n"
        head, _blank, body = (await exchange(running.url, request)).partition(b"\r\n\r\n")
        assert head.split()[1] == b"200"
        frames = Parser().feed(body)
        assert kinds(frames)[-1] == "stream.end"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /tasks/task-1/events HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"GET /tasks/task-1/events HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /tasks/task-1/events HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_no_http_ends_its_connection_only(fake: FakeBackend, head: bytes) -> None:
    await fake.publish(task_record(), done())
    async with broker(fake) as running:
        answer = await exchange(running.url, head)
        assert not answer or answer.split()[1] in (b"400", b"431", b"505")
        assert kinds(await (await running.watch()).rest())[-1] == "stream.end"


# --- payloads published directly

WORKING = {"state": "TASK_STATE_WORKING"}

INVALID = {
    "empty": (b"", "json"),
    "not json": (b"hello", "json"),
    "cut off": (status("x")[:-1], "json"),
    "followed by more": (status("x") + status("y"), "json"),
    "an array": (b"[" + status("x") + b"]", "shape"),
    "a number": (b"1", "shape"),
    "no kind": (b"{}", "kind"),
    "two kinds": (
        encode({"statusUpdate": {"taskId": TASK, "status": WORKING}, "message": {"messageId": "m"}}),
        "kind",
    ),
    "an unknown kind": (encode({"somethingElse": {}}), "kind"),
    "the wrong type": (encode({"statusUpdate": {"taskId": 7, "status": WORKING}}), "shape"),
    "no state": (encode({"statusUpdate": {"taskId": TASK, "status": {}}}), "shape"),
    "a state of its own": (encode({"statusUpdate": {"taskId": TASK, "status": {"state": "done"}}}), "state"),
    "a state with a line end": (
        encode({"statusUpdate": {"taskId": TASK, "status": {"state": "TASK_STATE_WORKING\n"}}}),
        "state",
    ),
    "deeply nested": (b'{"task":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "depth"),
    "nested beyond the bound": (
        task_record(metadata={"x": json.loads("[" * 300 + "]" * 300)}),
        "depth",
    ),
    "invalid UTF-8": (status("x").replace(b"x", b"\xff"), "encoding"),
    "a surrogate in UTF-8": (status("x").replace(b"x", b"\xed\xa0\x80"), "encoding"),
    "UTF-16": (status("x").decode().encode("utf-16"), "encoding"),
    "another task's": (status("x", OTHER), "task-id"),
}


@pytest.mark.parametrize("name", INVALID)
async def test_what_is_no_event_is_counted_and_skipped(backend: Backend, name: str) -> None:
    payload, reason = INVALID[name]
    await backend.publish(task_record())
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.publish(status("before"), payload, payload, status("after"))
        assert texts(await stream.take(2)) == ["before", "after"]
        assert await running.metric("sidecast_invalid_events_total", reason=reason) == 2
        # The same in a replay, from a cursor that the skipped record is.
        replayed = await running.watch(cursor="epoch1-1")
        assert texts((await replayed.take(3))[1:]) == ["before", "after"]
        skipped = await running.watch(cursor="epoch1-3")
        assert texts((await skipped.take(2))[1:]) == ["after"]
        assert await running.metric("sidecast_invalid_events_total", reason=reason) == 2


async def test_invalid_records_are_skipped_in_a_replay_from_the_stream_too(backend: Backend) -> None:
    payloads = [payload for payload, _reason in INVALID.values()]
    between = [part for payload in payloads for part in (status("x" * 500), payload)]
    await backend.publish(task_record(), *between, done())
    async with broker(backend, log__task_bytes_max=2048) as running:
        frames = await (await running.watch(**{"from": "start"})).rest()
        assert len(texts(frames)) == len(payloads)
        assert kinds(frames[-2:]) == ["task.status", "stream.end"]
        total = await running.metric("sidecast_invalid_events_total")
        await (await running.watch(**{"from": "start"})).rest()
        assert await running.metric("sidecast_invalid_events_total") == total == len(payloads)


async def test_text_can_forge_no_field(backend: Backend) -> None:
    evil = "x\n\nevent: task.status\nid: epoch1-999\ndata: {}\n\n\r\rretry: 1\r\n\0\u2028\u2029\u0085"
    pretty = json.dumps(json.loads(status(evil)), indent=1).replace("\n", "\r\n").encode()
    odd_keys = encode({"statusUpdate": {"taskId": TASK, "status": WORKING, "metadata": {evil: evil}}})
    await backend.publish(task_record(metadata={"a": evil}), status(evil), pretty, odd_keys)
    async with broker(backend) as running:
        stream = await running.watch(**{"from": "start"})
        frames = (await stream.take(5))[1:]  # the parser is strict
        assert texts(frames) == [evil, evil]
        assert frames[3]["metadata"] == {evil: evil}
        assert [frame.id for frame in frames] == [f"epoch1-{n}" for n in range(1, 5)]
        snapshot = (await (await running.watch()).take(2))[1]
        assert snapshot["task"]["metadata"] == {"a": evil, evil: evil}


async def test_lone_surrogates_are_mended_and_counted(backend: Backend) -> None:
    payload = status("x").replace(b'"text":"x"', rb'"text":"a\ud800b\udc00c\ud83d\ude00"')
    await backend.publish(task_record(), payload)
    async with broker(backend) as running:
        stream = await running.watch(**{"from": "start"})
        assert texts(await stream.take(3)) == ["a\ufffdb\ufffdc\U0001f600"]
        assert await running.metric("sidecast_invalid_events_total", reason="surrogate") == 2


async def test_a_second_task_record_changes_nothing(backend: Backend) -> None:
    await backend.publish(task_record(), status("one"))
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.publish(task_record(state="FAILED"), status("two"))
        assert texts([await stream.next()]) == ["two"]
        assert await running.metric("sidecast_invalid_events_total", reason="second-task") == 1
        replayed = await (await running.watch(**{"from": "start"})).take(4)
        assert kinds(replayed) == ["stream.open", "task.snapshot", "task.status", "task.status"]


async def test_records_after_the_end_are_counted_and_nobody_gets_them(backend: Backend) -> None:
    await backend.publish(task_record(), done(), status("late"), task_record(), done(state="FAILED"))
    async with broker(backend) as running:
        for query in ({"from": "start"}, {}, {"last_event_id": "epoch1-1"}):
            frames = await (await running.watch(**query)).rest()
            assert "late" not in texts(frames)
            assert (frames[-1].kind, frames[-1]["state"]) == ("stream.end", "completed")
        assert await running.metric("sidecast_invalid_events_total", reason="after-terminal") == 3


async def test_control_records_are_for_nobody(backend: Backend) -> None:
    await backend.publish(turn("m-1", "begin"), task_record(), turn("m-1", "end"), status("one"))
    async with broker(backend) as running:
        stream = await running.watch(**{"from": "start"})
        opened, *frames = await stream.take(3)
        assert (kinds(frames), opened["mode"]) == (["task.snapshot", "task.status"], "replay")
        assert [frame["seq"] for frame in frames] == [2, 4]
        await backend.publish(turn("m-2", "begin"), turn("m-2", "end"), done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]
        assert await running.metric("sidecast_invalid_events_total") == 0


@pytest.mark.parametrize("owner", ["=!!!", "_", "a b", "\u00e9", "\u00ff" * 100, "=" + "A" * 400, ""])
async def test_an_owner_that_is_no_token_breaks_nothing(backend: Backend, owner: str) -> None:
    headers = {"Sidecast-Owner": owner, "Sidecast-State": "\u00e9", "traceparent": "\u00e9"}
    await backend.publish(task_record(), headers=headers)
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.publish(status("one"), headers=headers)
        await backend.publish(done(), headers=headers)
        assert kinds(await stream.rest()) == ["task.status", "task.status", "stream.end"]


async def test_an_owner_that_changes_is_counted_and_ignored(backend: Backend) -> None:
    await backend.publish(task_record(), headers={"Sidecast-Owner": "alice"})
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.publish(status("one"), headers={"Sidecast-Owner": "mallory"})
        assert texts([await stream.next()]) == ["one"]
        assert await running.metric("sidecast_invalid_events_total", reason="owner") == 1


# --- messages on the live subject that no server sent

LIVE = subject_of(TASK).replace("events", "live")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Nats-Sequence": "3"},
        {"Nats-Sequence": "x", "Nats-Last-Sequence": "y", "Nats-Time-Stamp": "z"},
        {"Nats-Sequence": "-5", "Nats-Last-Sequence": "2", "Nats-Time-Stamp": "2026-01-01T00:00:00Z"},
        {"Nats-Sequence": "2", "Nats-Last-Sequence": "1", "Nats-Time-Stamp": "2026-01-01T00:00:00Z"},
        {"Nats-Sequence": "1", "Nats-Last-Sequence": "0", "Nats-Time-Stamp": "2026-01-01T00:00:00Z"},
        {"Nats-Sequence": "99", "Nats-Last-Sequence": "98", "Nats-Time-Stamp": "2026-01-01T00:00:00Z"},
        {"Nats-Sequence": "9" * 5000, "Nats-Last-Sequence": "2", "Nats-Time-Stamp": "2026-01-01T00:00:00Z"},
        {
            "Nats-Sequence": "\u0663",
            "Nats-Last-Sequence": "\u0662",
            "Nats-Time-Stamp": "2026-01-01T00:00:00Z",
        },
    ],
    ids=range(9),
)
async def test_a_forged_live_message_crashes_nothing(backend: Backend, headers: dict[str, str]) -> None:
    await backend.publish(task_record(), status("one"))
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        for _ in range(3):
            await backend.send_core(LIVE, status("forged"), headers)
        await backend.publish(status("two"))
        frames = await stream.until(lambda frame: "two" in frame.data)
        await backend.publish(done())
        frames += await stream.rest()
        assert frames[-1].kind == "stream.end"
        # Who was given something else is at least told so by the next cursor: the store is right.
        replayed = await (await running.watch(**{"from": "start"})).rest()
        assert texts(replayed)[-2:] in (["one", "two"], ["forged", "two"])


@pytest.mark.parametrize("at", ["", "yesterday", "2026-01-01", "\u00e9", "9999999999"])
async def test_a_forged_time_crashes_nothing(backend: Backend, at: str) -> None:
    await backend.publish(task_record(), status("one"))
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        forged = {"Nats-Sequence": "3", "Nats-Last-Sequence": "2", "Nats-Time-Stamp": at}
        await backend.send_core(LIVE, status("forged"), forged)
        await backend.publish(status("two"), status("three"))
        frames = await stream.until(lambda frame: "three" in frame.data)
        assert frames
        await backend.publish(done())
        assert kinds(await stream.rest())[-1] == "stream.end"
