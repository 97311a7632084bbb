"""Several tasks on one stream, the same from the double and from a real server."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from brokers import (
    AS_JSON,
    Backend,
    OwnBroker,
    RealBackend,
    artifact,
    broker,
    done,
    encode,
    status,
    subject_of,
    task_record,
    turn,
)
from sse import Frame, Watch, data_frames, kinds

A, B, C = "task-a", "task-b", "task-c"


async def both(running: OwnBroker, cursor: str | None = None, *tasks: str, **query: object) -> Watch:
    """Watch tasks a and b, or others."""
    return await watch(running, tasks or (A, B), cursor, **query)


async def watch(
    running: OwnBroker, tasks: tuple[str, ...], cursor: str | None = None, **query: object
) -> Watch:
    listed = "&".join(f"task={quote(task, safe='')}" for task in tasks)
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return await running.watch(path=f"/events?{listed}{more}", cursor=cursor)


def brief(frames: list[Frame]) -> list[tuple[Any, ...]]:
    """Give of each frame what it is, whose, and the text or reason."""
    return [
        (
            frame.kind.partition(".")[2],
            frame.json.get("taskId"),
            frame.json.get("text") or frame.json.get("state") or frame.json.get("reason"),
        )
        for frame in frames
    ]


def seqs(frames: list[Frame]) -> list[int]:
    return [frame["seq"] for frame in data_frames(frames)]


async def story(backend: Backend) -> int:
    """Two tasks in turn, and a third between."""
    for task in (A, B, C):
        await backend.publish(task_record(task), task=task)
    for number in range(3):
        for task in (A, B, C):
            await backend.publish(status(f"{task} {number}", task), task=task)
    return 12


# --- beginning


async def test_it_begins_with_a_snapshot_of_each_task_of_which_the_last_has_an_id(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        stream = await both(running)
        opened, *snapshots = await stream.take(3)
        assert (opened.kind, opened["mode"], opened["cursor"], opened.id) == (
            "stream.open",
            "snapshot",
            "epoch1-12",
            None,
        )
        assert [(frame.kind, frame["taskId"], frame.id) for frame in snapshots] == [
            ("task.snapshot", A, None),
            ("task.snapshot", B, "epoch1-12"),
        ] or [(frame["taskId"], frame.id) for frame in snapshots] == [(B, None), (A, "epoch1-12")]
        await backend.publish(status("more", B), task=B)
        await backend.publish(status("not this", C), task=C)
        await backend.publish(status("less", A), task=A)
        assert brief(await stream.take(2)) == [("status", B, "more"), ("status", A, "less")]
        assert [frame.id for frame in stream.frames[-2:]] == ["epoch1-13", "epoch1-15"]


async def test_a_tasks_end_leaves_the_stream_open_and_the_last_one_ends_it(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        stream = await both(running)
        await stream.take(3)
        await backend.publish(done(A), task=A)
        assert brief(await stream.take(2)) == [("status", A, "completed"), ("end", A, "completed")]
        await backend.publish(status("on", B), done(B), task=B)
        assert brief(await stream.rest()) == [
            ("status", B, "on"),
            ("status", B, "completed"),
            ("end", B, "completed"),
            ("end", None, "tasks-ended"),
        ]
        assert not stream.broken


async def test_from_start_brings_all_events_of_all_tasks_in_the_order_of_the_stream(backend: Backend) -> None:
    await story(backend)
    await backend.publish(done(A), task=A)
    await backend.publish(done(B), task=B)
    async with broker(backend) as running:
        frames = await (await both(running, **{"from": "start"})).rest()
        assert seqs(frames) == [1, 2, 4, 5, 7, 8, 10, 11, 13, 14]
        assert kinds(frames)[-1] == "stream.end"
        one = await (await running.watch(A, **{"from": "start"})).rest()
        assert [frame for frame in data_frames(frames) if frame["taskId"] == A] == data_frames(one)


async def test_from_now_brings_only_what_is_new(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        stream = await both(running, **{"from": "now"})
        opened = await stream.next()
        assert (opened["mode"], opened.id) == ("live", "epoch1-12")
        await backend.publish(status("new", A), task=A)
        assert (await stream.next())["text"] == "new"


# --- resuming


async def test_a_cursor_gets_exactly_the_events_after_it_of_all_the_tasks(backend: Backend) -> None:
    await story(backend)
    await backend.publish(done(B), task=B)
    await backend.publish(done(A), task=A)
    async with broker(backend) as running:
        everything = data_frames(await (await both(running, **{"from": "start"})).rest())
        for cursor in range(14):
            resumed = await (await both(running, f"epoch1-{cursor}")).rest()
            assert resumed[0]["mode"] == "replay"
            assert data_frames(resumed) == [frame for frame in everything if frame["seq"] > cursor]
        assert (await both(running, "epoch1-14")).status == 204
        assert (await both(running, **{"from": "now"})).status == 204


async def test_replay_and_live_are_the_same_bytes(backend: Backend) -> None:
    await backend.publish(task_record(A), task=A)
    await backend.publish(task_record(B), task=B)
    async with broker(backend) as running:
        live = await both(running, "epoch1-2")
        await live.next()
        for number in range(5):
            await backend.publish(status(str(number), A), task=A)
            await backend.publish(artifact(str(number), B, append=number > 0), task=B)
        await backend.publish(done(A), task=A)
        await backend.publish(done(B), task=B)
        await live.rest()
        again = await both(running, "epoch1-2")
        await again.rest()
        assert bytes(again.raw).partition(b"\n\n")[2] == bytes(live.raw).partition(b"\n\n")[2]


@pytest.mark.parametrize(
    ("cursor", "reason"), [("other-3", "epoch"), ("epoch1-99", "ahead"), ("nonsense", "malformed")]
)
async def test_a_cursor_that_means_nothing_is_a_gap_and_snapshots(
    backend: Backend, cursor: str, reason: str
) -> None:
    await story(backend)
    async with broker(backend) as running:
        opened, gap, *snapshots = await (await both(running, cursor)).take(4)
        assert (opened["mode"], gap.kind, gap["reason"], gap["requested"]) == (
            "snapshot",
            "stream.gap",
            reason,
            cursor,
        )
        assert kinds(snapshots) == ["task.snapshot"] * 2


async def test_a_cursor_older_than_one_of_the_tasks_is_expired(backend: Backend) -> None:
    await story(backend)
    await backend.expire(4)
    async with broker(backend) as running:
        _opened, gap, *_snapshots = await (await both(running, "epoch1-2")).take(4)
        assert gap["reason"] == "expired"
        inside = await both(running, "epoch1-5")
        assert seqs(await inside.take(5)) == [7, 8, 10, 11]


# --- what is lost on the way


async def test_what_was_purged_of_a_task_is_a_gap_to_who_resumes_its_agents_stream(backend: Backend) -> None:
    await backend.publish(task_record(B), task=B)
    await backend.publish(task_record(A), *(status(f"a {number}", A) for number in range(4)), task=A)
    await backend.publish(status("later", B), task=B)
    await backend.purge(subject_of(A), keep_from=5)
    async with broker(backend) as running:
        stream = await running.watch(path="/events?agent=1", cursor="epoch1-2")
        opened, gap, *snapshots = await stream.take(4)
        assert (opened["mode"], gap.kind, gap["reason"]) == ("replay", "stream.gap", "expired")
        assert kinds(snapshots) == ["task.snapshot"] * 2
        whole = await running.watch(path="/events?agent=1", cursor="epoch1-5")
        assert [frame["text"] for frame in (await whole.take(3))[1:]] == ["a 3", "later"]


async def test_a_lost_live_message_of_a_silent_task_comes_in_its_place(backend: Backend) -> None:
    await story(backend)
    async with broker(backend, nats__verify_s=0.5) as running:
        stream = await both(running)
        await stream.take(3)
        # Two subscriptions hear of each event: the task's own and the feed's.
        backend.faults.lose(2)
        await backend.publish(status("lost", A), task=A)
        await backend.publish(status("after it", B), task=B)
        assert [frame["text"] for frame in await stream.take(2)] == ["lost", "after it"]
        backend.faults.lose(2)
        await backend.publish(status("lost too", B), task=B)
        assert (await stream.next())["text"] == "lost too"


async def test_an_agents_neighbours_leave_no_hole(backend: Backend) -> None:
    await story(backend)
    async with broker(backend, nats__verify_s=60) as running:
        stream = await both(running)
        await stream.take(3)
        for number in range(10):
            await backend.publish_on("sidecast.v1.events._.neighbour.t", status(str(number), "t"))
            await backend.publish(status(str(number), A), task=A)
            if number == 4:
                backend.faults.lose(4)
                await backend.publish(status("lost", B), task=B)
                await backend.publish(status("lost", A), task=A)
        frames = await stream.until(lambda frame: frame.json.get("text") == "9")
        assert seqs(frames) == [14, 16, 18, 20, 22, 23, 24, 26, 28, 30, 32, 34]


async def test_a_stream_begun_anew_is_a_gap_and_snapshots_of_what_there_is(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        stream = await both(running)
        await stream.take(3)
        await backend.create("epoch2")
        await backend.publish(task_record(A), status("anew", A), task=A)
        gap, *_more = await stream.until(lambda frame: frame.kind in ("task.snapshot", "task.status"))
        assert (gap.kind, gap["reason"]) == ("stream.gap", "epoch")
        await backend.publish(status("and on", A), task=A)
        last = (await stream.until(lambda frame: frame.json.get("text") == "and on"))[-1]
        assert last.id == "epoch2-3"


# --- tasks to come


async def test_listed_tasks_that_have_not_begun_are_waited_for(backend: Backend) -> None:
    await backend.publish(task_record(A), task=A)
    async with broker(backend) as running:
        stream = await both(running, wait_s=30)
        assert kinds(await stream.take(2)) == ["stream.open", "task.snapshot"]
        await backend.publish(status("one", A), task=A)
        await backend.publish(task_record(B), status("two", B), task=B)
        one, record, two = await stream.take(3)
        assert [one["text"], record.kind, record["taskId"], two["text"]] == ["one", "task.snapshot", B, "two"]
        await backend.publish(done(A), task=A)
        await backend.publish(done(B), task=B)
        assert brief(await stream.rest())[-1] == ("end", None, "tasks-ended")


async def test_those_that_never_come_end_alone(backend: Backend) -> None:
    await backend.publish(task_record(A), task=A)
    async with broker(backend) as running:
        stream = await both(running, wait_s=0.2)
        frames = await stream.take(3)
        assert brief(frames)[-1] == ("end", B, "not-found")
        await backend.publish(status("on", A), done(A), task=A)
        assert brief(await stream.rest()) == [
            ("status", A, "on"),
            ("status", A, "completed"),
            ("end", A, "completed"),
            ("end", None, "tasks-ended"),
        ]


async def test_without_waiting_unknown_tasks_are_told_of_at_once_and_alone_they_are_nothing(
    backend: Backend,
) -> None:
    await backend.publish(task_record(A), task=A)
    async with broker(backend) as running:
        stream = await both(running)
        assert brief(await stream.take(3))[1:] == [("snapshot", A, "submitted"), ("end", B, "not-found")]
        assert (await watch(running, (B, C))).status == 404


# --- contexts, and the whole agent


def of_context(context: str, task: str, text: str = "") -> bytes:
    body = {"state": "TASK_STATE_WORKING"}
    if text:
        message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}
        return encode(
            {"statusUpdate": {"taskId": task, "contextId": context, "status": body | {"message": message}}}
        )
    return encode({"task": {"id": task, "contextId": context, "status": body}})


async def test_a_context_brings_its_tasks_and_those_that_join_it(backend: Backend) -> None:
    await backend.publish(of_context("x", A), task=A)
    await backend.publish(of_context("y", B), task=B)
    async with broker(backend) as running:
        stream = await running.watch(path="/events?context=x")
        assert brief(await stream.take(2)) == [("open", None, None), ("snapshot", A, "working")]
        await backend.publish(of_context("y", B, "not here"), task=B)
        await backend.publish(of_context("x", C), of_context("x", C, "new"), task=C)
        assert brief(await stream.take(2)) == [("snapshot", C, "working"), ("status", C, "new")]
        resumed = await running.watch(path="/events?context=x", cursor="epoch1-1")
        assert seqs(await resumed.take(3)) == [4, 5]
        await backend.publish(done(A), task=A)
        assert brief(await stream.take(2))[-1] == ("end", A, "completed")
        await backend.publish(of_context("x", "task-d"), task="task-d")
        assert (await stream.next())["taskId"] == "task-d"


@pytest.mark.parametrize(
    ("first", "begins"),
    [
        (turn("t", "begin"), ["status"]),
        (b"no event", ["status"]),
        # Whose task it is could not be known when it came: shown with all the others as they stand.
        (encode({"statusUpdate": {"taskId": A, "status": {"state": "TASK_STATE_WORKING"}}}), ["gap"]),
    ],
)
async def test_a_task_that_names_its_context_late_is_told_of_from_then_on(
    first: bytes, begins: list[str], backend: Backend
) -> None:
    await backend.publish(task_record(B), task=B)
    async with broker(backend) as running:
        stream = await running.watch(path="/events?context=context-1")
        await stream.take(2)
        await backend.publish(first, task=A)
        await backend.publish(status("decided", B), task=B)  # comes when it was looked at what came before
        await stream.until(lambda frame: frame.json.get("text") == "decided")
        await backend.publish(status("one", A), status("two", A), task=A)
        found = await stream.until(lambda frame: frame.json.get("text") == "two" or ends_with(frame, "two"))
        assert [what for what, _task, _text in brief(found)][:1] == begins
        late = await running.watch(path="/events?context=context-1")
        assert {frame.json.get("taskId") for frame in await late.take(3)} == {None, A, B}
        await backend.publish(status("three", A), task=A)
        for each in (stream, late):
            assert (await each.until("task.status"))[-1]["text"] == "three"


def ends_with(frame: Frame, text: str) -> bool:
    """Tell whether a snapshot shows a text as what was said last."""
    return frame.kind == "task.snapshot" and f'"text":"{text}"' in json.dumps(
        frame.json, separators=(",", ":")
    )


async def test_an_agent_brings_all_its_tasks_and_new_ones(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        stream = await running.watch(path="/events?agent=1")
        frames = await stream.take(4)
        assert {frame["taskId"] for frame in frames[1:]} == {A, B, C}
        assert [frame.id for frame in frames] == [None, None, None, "epoch1-12"]
        await backend.publish(task_record("new"), task="new")
        await backend.publish(done(A), task=A)
        assert brief(await stream.take(3)) == [
            ("snapshot", "new", "submitted"),
            ("status", A, "completed"),
            ("end", A, "completed"),
        ]
        resumed = await running.watch(path="/events?agent=1", cursor="epoch1-3")
        assert seqs(await resumed.take(13)) == list(range(4, 15))


async def test_an_agent_without_tasks_is_waited_on_from_a_position(backend: Backend) -> None:
    async with broker(backend) as running:
        stream = await running.watch(path="/events?agent=1")
        opened = await stream.next()
        assert (opened["mode"], opened.id) == ("live", "epoch1-0")
        await backend.publish(task_record(A), task=A)
        assert (await stream.next()).id == "epoch1-1"


async def test_more_tasks_than_a_stream_begins_with_are_counted_and_followed(backend: Backend) -> None:
    await story(backend)
    async with broker(backend, stream__tasks_per_stream_max=2) as running:
        stream = await running.watch(path="/events?agent=1")
        opened, *snapshots = await stream.take(3)
        assert opened["left_out"] == 1
        assert {frame["taskId"] for frame in snapshots} == {B, C}
        for task in (A, B, C, A):
            await backend.publish(status(f"{task} on", task), task=task)
        assert [frame["taskId"] for frame in await stream.take(4)] == [A, B, C, A]
        assert (await watch(running, (A, B, C))).status == 400


# --- one answer


async def test_json_answers_once_about_all(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        code, answer = await running.get(f"/events?task={A}&task={B}", AS_JSON)
        assert code == 200
        assert answer["cursor"] == "epoch1-12"
        assert {task["task"]["id"]: task["cursor"] for task in answer["tasks"]} == {
            A: "epoch1-10",
            B: "epoch1-11",
        }
        code, answer = await running.get("/events?agent=1", AS_JSON)
        assert len(answer["tasks"]) == 3
        assert (await running.get(f"/events?task={C}x", AS_JSON))[0] == 404


# --- filters and shapes


async def test_types_named_and_batches_are_as_for_one_task(backend: Backend) -> None:
    await backend.publish(task_record(A), task=A)
    await backend.publish(task_record(B), task=B)
    async with broker(backend) as running:
        filtered = await both(running, "epoch1-2", types="artifact", named=0)
        batched = await both(running, "epoch1-2", batch="array")
        joined = await both(running, "epoch1-2", batch_ms=200, coalesce=1)
        for stream in (filtered, batched, joined):
            await stream.next()
        await backend.publish(status("x", A), artifact("1", A), task=A)
        await backend.publish(artifact("1", B), task=B)
        await backend.publish(artifact("2", A, append=True), task=A)
        await backend.publish(artifact("2", B, append=True), artifact("3", B, append=True), task=B)
        await backend.publish(done(A), task=A)
        await backend.publish(done(B), task=B)
        frames = await filtered.rest()
        assert {frame.type for frame in frames} == {"message"}
        assert brief(frames) == [
            ("artifact", A, "1"),
            ("artifact", B, "1"),
            ("artifact", A, "2"),
            ("artifact", B, "2"),
            ("artifact", B, "3"),
            ("status", A, "completed"),
            ("end", A, "completed"),
            ("status", B, "completed"),
            ("end", B, "completed"),
            ("end", None, "tasks-ended"),
        ]
        inside = [
            event for frame in await batched.rest() if frame.kind == "task.batch" for event in frame["events"]
        ]
        assert [event["seq"] for event in inside if "seq" in event] == list(range(3, 11))
        assert [event["taskId"] for event in inside if event["type"] == "stream.end"] == [A, B]
        texts: dict[str, str] = {A: "", B: ""}
        for frame in await joined.rest():
            if frame.kind == "task.artifact":
                texts[frame["taskId"]] += frame["text"]
        assert texts == {A: "12", B: "123"}


# --- hostile input


@pytest.mark.parametrize(
    "query",
    [
        "",
        "task=",
        "task=%FF",
        "task=%zz",
        f"task={'x' * 257}",
        "task=a&agent=1",
        "task=a&context=c",
        "context=",
        "context=a&context=b",
        f"context={'x' * 257}",
        "context=%FF",
        "agent=0",
        "agent=true",
        "agent=1&agent=1",
        "task=a&from=yesterday",
        "task=a&types=none",
        "&".join(f"task=t{number}" for number in range(257)),
    ],
)
async def test_what_makes_no_selection_is_a_bad_request(backend: Backend, query: str) -> None:
    async with broker(backend) as running:
        code, answer = await running.get(f"/events?{query}", AS_JSON)
        assert (code, answer["error"]["code"]) == (400, "bad-request")


async def test_hostile_records_hold_up_nobody(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        stream = await both(running)
        everything = await running.watch(path="/events?agent=1")
        await stream.take(3)
        await everything.take(4)
        for payload in (b"", b"{}", b"\xff", b'{"turn":{"id":"x","phase":"begin"}}', status("x", "other")):
            await backend.publish(payload, task=A)
        await backend.publish_on("sidecast.v1.events._.agent.=!!", status("x", "y"))
        await backend.publish_on("sidecast.v1.events._.agent.a.b", status("x", "y"))
        await backend.publish(status("good", B), task=B)
        assert (await stream.next())["text"] == "good"
        assert (await everything.next())["text"] == "good"


async def test_a_forged_live_message_moves_nothing(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        stream = await both(running)
        await stream.take(3)
        headers = {
            "Nats-Stream": "SIDECAST",
            "Nats-Subject": "sidecast.v1.events._.agent." + A,
            "Nats-Sequence": "5000",
            "Nats-Time-Stamp": "2026-01-01T00:00:00.000000000Z",
            "Nats-Last-Sequence": "4000",
        }
        await backend.send_core(f"sidecast.v1.live._.agent.{A}", status("forged", A), headers)
        await backend.publish(status("real", B), task=B)
        assert (await stream.next())["text"] == "real"


# --- a server that dies


async def test_nothing_is_missing_when_the_server_is_killed_in_between(real: RealBackend) -> None:
    await story(real)
    async with broker(real) as running:
        stream = await both(running)
        await stream.take(3)
        wanted = []
        for round_ in range(3):
            for number in range(20):
                task = (A, B)[number % 2]
                wanted.append(await real.publish(status(f"{round_}.{number}", task), task=task))
            await real.go_away()
            await real.come_back()
        await real.publish(status("last", B), task=B)
        frames = await stream.until(lambda frame: frame.json.get("text") == "last", 30)
        assert seqs(frames)[:-1] == wanted


async def test_interleaved_publishers_come_in_the_order_of_the_stream(backend: Backend) -> None:
    tasks = tuple(f"t{number}" for number in range(8))
    for task in tasks:
        await backend.publish(task_record(task), task=task)
    async with broker(backend) as running:
        streams = [await watch(running, tasks), await running.watch(path="/events?agent=1")]
        for stream in streams:
            await stream.take(len(tasks) + 1)

        async def publish(task: str) -> None:
            for number in range(25):
                await backend.publish(status(str(number), task), task=task)

        await asyncio.gather(*(publish(task) for task in tasks))
        for stream in streams:
            frames = await stream.take(8 * 25)
            assert seqs(frames) == list(range(9, 209))
            assert json.loads(frames[-1].data)["seq"] == 208
