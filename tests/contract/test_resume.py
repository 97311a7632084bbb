"""Contract 2: what a reconnect gets, the same from the double and from a real server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from brokers import (
    OTHER,
    TASK,
    Backend,
    FakeBackend,
    RealBackend,
    broker,
    child_broker,
    done,
    numbered,
    numbers,
    status,
    subject_of,
    task_record,
    texts,
)
from sse import Frame, data_frames, kinds


def ids(frames: list[Frame]) -> list[str | None]:
    return [frame.id for frame in frames]


async def story(backend: Backend) -> None:
    """Store a task's record, two statuses, and the end: 1, 2, 4, 6; another task writes 3 and 5."""
    await backend.publish(task_record(), status("one"))
    await backend.publish(task_record(OTHER), task=OTHER)
    await backend.publish(status("two"))
    await backend.publish(status("else", OTHER), task=OTHER)
    await backend.publish(done())


# --- a stream without a cursor


async def test_a_stream_opens_with_a_snapshot_and_goes_on_live(backend: Backend) -> None:
    await backend.publish(task_record(), status("one"))
    async with broker(backend) as running:
        stream = await running.watch()
        opened, snapshot = await stream.take(2)
        assert (opened.kind, opened["mode"], opened["cursor"]) == ("stream.open", "snapshot", "epoch1-2")
        assert (opened.id, opened.retry, opened["retry_ms"]) == (None, 10, 10)
        assert (snapshot.kind, snapshot.id, snapshot["partial"]) == ("task.snapshot", "epoch1-2", False)
        assert snapshot["task"]["status"]["message"]["parts"] == [{"text": "one"}]
        await backend.publish(status("two"), done())
        two, completed, end = await stream.rest()
        assert (two.kind, two["text"], two.id, two["seq"]) == ("task.status", "two", "epoch1-3", 3)
        assert (completed["state"], completed["final"], completed.id) == ("completed", True, "epoch1-4")
        assert (end.kind, end["state"], end["reason"], end.id) == (
            "stream.end",
            "completed",
            "task-ended",
            None,
        )
        assert not stream.broken


async def test_from_start_replays_every_retained_event(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        frames = await (await running.watch(**{"from": "start"})).rest()
        assert kinds(frames) == [
            "stream.open",
            "task.snapshot",
            "task.status",
            "task.status",
            "task.status",
            "stream.end",
        ]
        assert frames[0]["mode"] == "replay"
        assert ids(data_frames(frames)) == ["epoch1-1", "epoch1-2", "epoch1-4", "epoch1-6"]


async def test_from_now_brings_only_what_is_new(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(3))
    async with broker(backend) as running:
        stream = await running.watch(**{"from": "now"})
        opened = await stream.next()
        assert (opened["mode"], opened.id, opened["cursor"]) == ("live", "epoch1-4", "epoch1-4")
        await backend.publish(status("new"))
        assert (await stream.next())["text"] == "new"


async def test_from_now_cut_before_its_first_event_resumes_from_the_id_of_its_opening(
    backend: Backend,
) -> None:
    await backend.publish(task_record())
    async with broker(backend) as running:
        stream = await running.watch(**{"from": "now"})
        await stream.next()
        await stream.close()
        await backend.publish(*numbered(3))
        again = await running.watch(cursor=stream.last_id, **{"from": "now"})
        opened, *missed = await again.take(4)
        assert opened["mode"] == "replay"
        assert texts(missed) == numbers(3)


# --- a cursor inside retention


async def test_a_cursor_gets_exactly_the_events_after_it(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        everything = data_frames(await (await running.watch(**{"from": "start"})).rest())
        for index, frame in enumerate(everything[:-1]):
            resumed = await (await running.watch(cursor=frame.id)).rest()
            assert resumed[0]["mode"] == "replay"
            assert data_frames(resumed) == everything[index + 1 :]
        assert await running.metric("sidecast_resumes_total", outcome="replay") == len(everything) - 1


@pytest.mark.parametrize(("sequence", "first"), [(0, 1), (3, 4), (5, 6)])
async def test_a_cursor_another_task_wrote_is_a_position_too(
    backend: Backend, sequence: int, first: int
) -> None:
    await story(backend)
    async with broker(backend) as running:
        frames = await (await running.watch(cursor=f"epoch1-{sequence}")).rest()
        assert frames[0]["mode"] == "replay"
        assert data_frames(frames)[0]["seq"] == first


async def test_a_cursor_newer_than_the_last_look_at_the_stream_is_not_ahead(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, nats__verify_s=60) as running:
        sequence = await backend.publish(task_record(OTHER), status("else", OTHER), task=OTHER)
        stream = await running.watch(cursor=f"epoch1-{sequence}")
        opened = await stream.next()
        assert (opened.kind, opened["mode"]) == ("stream.open", "replay")
        await backend.publish(status("new"))
        assert (await stream.next())["text"] == "new"


async def test_replay_and_live_are_the_same_bytes(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend) as running:
        live = await running.watch(cursor="epoch1-1")
        await live.next()
        await backend.publish(status("one"), status("two"), done())
        await live.rest()
        again = await running.watch(cursor="epoch1-1")
        await again.rest()
        assert again.raw == live.raw


# --- a cursor that can't be continued


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("epoch0-2", "epoch"),
        ("EPOCH1-2", "epoch"),
        ("epoch1-7", "ahead"),
        ("epoch1-9223372036854775807", "ahead"),
        ("epoch1-9223372036854775808", "malformed"),
        ("-1", "malformed"),
        ("1e9", "malformed"),
        ("epoch1-1e9", "malformed"),
        ("epoch1-02", "malformed"),
        ("epoch1--2", "epoch"),
        ("epoch1-", "malformed"),
        ("epoch1-2 ", "malformed"),
        ("epoch1 -2", "malformed"),
        (" ", "malformed"),
        ("epoch1-\u0662", "malformed"),
        ("epoch1-2\0", "malformed"),
        ("epoch1-2\n", "malformed"),
        ("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "malformed"),
        ("x" * 4096, "malformed"),
        ("epoch1-" + "1" * 4096, "malformed"),
    ],
)
async def test_any_other_cursor_gets_a_gap_and_a_snapshot(
    fake: FakeBackend, cursor: str, reason: str
) -> None:
    await fake.publish(task_record(), *numbered(5))
    async with broker(fake) as running:
        stream = await running.watch(last_event_id=cursor)
        opened, gap, snapshot = await stream.take(3)
        assert (opened["mode"], opened.id) == ("snapshot", None)
        assert (gap.kind, gap["reason"], gap.id) == ("stream.gap", reason, None)
        assert gap["requested"] == cursor[:128]
        assert gap["oldest"] == "epoch1-0"
        assert (snapshot.kind, snapshot.id) == ("task.snapshot", "epoch1-6")
        await fake.publish(status("new"))
        assert (await stream.next())["text"] == "new"
        assert await running.metric("sidecast_resumes_total", outcome=reason) == 1


@pytest.mark.parametrize("cursor", ["-1", "x" * 4096, "epoch1-\u0662", "epoch1-1,epoch1-2"])
async def test_a_header_is_as_garbage_as_the_query(fake: FakeBackend, cursor: str) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        frames = await (await running.watch(cursor=cursor)).take(3)
        assert (frames[1].kind, frames[1]["reason"]) == ("stream.gap", "malformed")


async def test_a_garbage_cursor_of_an_ended_task_ends_after_the_snapshot(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        frames = await (await running.watch(cursor="epoch0-1")).rest()
        assert kinds(frames) == ["stream.open", "stream.gap", "task.snapshot", "stream.end"]
        assert frames[2]["state"] == "completed"


# --- what retention has taken


async def test_a_cursor_older_than_retention_has_expired(backend: Backend) -> None:
    await story(backend)
    await backend.expire(2)
    async with broker(backend) as running:
        frames = await (await running.watch(cursor="epoch1-1")).rest()
        assert kinds(frames) == ["stream.open", "stream.gap", "task.snapshot", "stream.end"]
        assert (frames[1]["reason"], frames[1]["requested"]) == ("expired", "epoch1-1")
        assert frames[2]["partial"] is True


async def test_the_oldest_cursor_a_gap_names_can_be_continued(backend: Backend) -> None:
    await story(backend)
    await backend.expire(2)
    async with broker(backend) as running:
        gap = (await (await running.watch(cursor="epoch1-1")).take(2))[1]
        frames = await (await running.watch(cursor=gap["oldest"])).rest()
        assert kinds(frames) == ["stream.open", "task.status", "task.status", "stream.end"]
        assert [frame["seq"] for frame in data_frames(frames)] == [4, 6]


async def test_a_cursor_at_the_edge_of_retention_is_continued(backend: Backend) -> None:
    await story(backend)
    await backend.expire(2)
    async with broker(backend) as running:
        frames = await (await running.watch(cursor="epoch1-2")).rest()
        assert [frame["seq"] for frame in data_frames(frames)] == [4, 6]


@pytest.mark.parametrize("start", ["snapshot", "start"])
async def test_a_task_without_its_beginning_says_so(backend: Backend, start: str) -> None:
    await story(backend)
    await backend.expire(2)
    async with broker(backend) as running:
        frames = await (await running.watch(**{"from": start})).rest()
        assert (frames[1].kind, frames[1]["reason"], frames[1]["requested"]) == (
            "stream.gap",
            "expired",
            None,
        )
        if start == "snapshot":
            assert (frames[2].kind, frames[2]["partial"]) == ("task.snapshot", True)
        else:
            assert kinds(frames[2:]) == ["task.status", "task.status", "stream.end"]
        status_code, answer = await running.get(f"/tasks/{TASK}/events", {"Accept": "application/json"})
        assert (status_code, answer["partial"]) == (200, True)


async def test_a_log_that_begins_with_a_status_is_whole_where_the_stream_is(backend: Backend) -> None:
    await backend.publish(status("one"))
    async with broker(backend) as running:
        opened, snapshot = await (await running.watch()).take(2)
        assert (opened.kind, snapshot.kind, snapshot["partial"]) == ("stream.open", "task.snapshot", False)


async def test_a_purge_the_broker_has_not_noticed_is_no_silent_hole(backend: Backend) -> None:
    await backend.publish(*numbered(6))
    async with broker(backend, nats__verify_s=60) as running:
        await backend.purge(subject_of(TASK), keep_from=5)
        frames = await (await running.watch(cursor="epoch1-2")).take(3)
        assert (frames[1].kind, frames[1]["reason"], frames[2]["partial"]) == ("stream.gap", "expired", True)


async def test_a_purged_task_is_unknown(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        await (await running.watch()).rest()
        await backend.purge(subject_of(TASK))
        await running.until_status(f"/tasks/{TASK}/events", 404)
        stream = await running.watch(OTHER, cursor="epoch1-3")
        assert texts(data_frames(await stream.take(2))) == ["else"]


async def test_a_purged_stream_is_empty_and_its_cursors_have_expired(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        await (await running.watch()).rest()
        await backend.purge()
        await running.until_status(f"/tasks/{TASK}/events", 404)
        await backend.publish(status("reborn"))
        frames = await (await running.watch(cursor="epoch1-4")).take(3)
        assert kinds(frames) == ["stream.open", "stream.gap", "task.snapshot"]
        assert (frames[1]["reason"], frames[2]["partial"], frames[2].id) == ("expired", True, "epoch1-7")
        assert frames[2]["state"] == "working"


async def test_expiry_under_a_caught_up_watcher_changes_nothing_for_it(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(4))
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.expire(3)
        await running.until_answer(TASK, lambda answer: answer.get("partial") is True)
        await backend.publish(status("new"), done())
        assert kinds(await stream.rest()) == ["task.status", "task.status", "stream.end"]


async def test_all_of_a_task_may_expire_under_its_watcher(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(4))
    sequence = await backend.publish(task_record(OTHER), task=OTHER)
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.expire(sequence - 1)
        await running.until_status(f"/tasks/{TASK}/events", 404)
        await backend.publish(status("new"), done())
        frames = await stream.rest()
        assert kinds(frames) == ["task.status", "task.status", "stream.end"]


# --- epochs


async def test_a_stream_whose_metadata_names_no_epoch_has_the_one_of_its_creation(backend: Backend) -> None:
    await backend.create(epoch=None)
    await backend.publish(task_record(), done())
    async with broker(backend) as running:
        frames = data_frames(await (await running.watch(**{"from": "start"})).rest())
        epoch, _dash, sequence = frames[0].last_id.rpartition("-")
        assert (sequence, frames[0].id) == ("1", f"{epoch}-1")
        assert int(epoch, 36) > 1_600_000_000_000
        resumed = await (await running.watch(cursor=frames[0].id)).rest()
        assert kinds(resumed) == ["stream.open", "task.status", "stream.end"]


async def test_the_broker_makes_a_stream_where_there_is_none(backend: Backend) -> None:
    await backend.delete_stream()
    async with broker(backend) as running:
        await backend.publish(task_record(), done())
        frames = await (await running.watch()).rest()
        assert kinds(frames) == ["stream.open", "task.snapshot", "stream.end"]
        epoch = frames[1].last_id.partition("-")[0]
        assert int(epoch, 36) > 1_600_000_000_000


# --- 204


@pytest.mark.parametrize("cursor", ["epoch1-6", "epoch1-7"])
async def test_a_cursor_at_or_after_the_end_of_the_task_gets_204(backend: Backend, cursor: str) -> None:
    await story(backend)
    await backend.publish(task_record("task-3"), task="task-3")
    async with broker(backend) as running:
        stream = await running.watch(cursor=cursor)
        assert (stream.status, await stream.body()) == (204, b"")
        assert await running.metric("sidecast_resumes_total", outcome="ended") == 1
        assert await running.metric("sidecast_streams_opened_total") == 0


async def test_from_now_on_an_ended_task_gets_204(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        assert (await running.watch(**{"from": "now"})).status == 204


async def test_an_event_source_that_saw_the_end_is_stopped(backend: Backend) -> None:
    await story(backend)
    async with broker(backend) as running:
        for start in ("snapshot", "start"):
            stream = await running.watch(**{"from": start})
            assert (await stream.rest())[-1].kind == "stream.end"
            assert (await running.watch(cursor=stream.last_id)).status == 204


async def test_records_after_the_end_are_nothing_to_wait_for(backend: Backend) -> None:
    await story(backend)
    await backend.publish(status("too late"))
    async with broker(backend) as running:
        assert (await running.watch(cursor="epoch1-6")).status == 204
        frames = await (await running.watch(cursor="epoch1-4")).rest()
        assert kinds(frames) == ["stream.open", "task.status", "stream.end"]
        assert await running.metric("sidecast_invalid_events_total", reason="after-terminal") == 1


# --- where the cursor comes from


@pytest.mark.parametrize(
    ("header", "query", "start", "sequences"),
    [
        ("epoch1-4", "epoch1-1", "start", [6]),
        (None, "epoch1-2", "start", [4, 6]),
        (None, None, "start", [1, 2, 4, 6]),
        ("", "epoch1-2", "start", [4, 6]),
        (None, "", "start", [1, 2, 4, 6]),
        (None, None, "snapshot", [6]),
    ],
)
async def test_the_header_goes_before_the_query_and_that_before_from(
    backend: Backend, header: str | None, query: str | None, start: str, sequences: list[int]
) -> None:
    await story(backend)
    async with broker(backend) as running:
        more = {"last_event_id": query} if query is not None else {}
        stream = await running.watch(cursor=header, **more, **{"from": start})
        frames = data_frames(await stream.rest())
        assert [frame["seq"] for frame in frames] == sequences


async def test_the_query_is_decoded_once(fake: FakeBackend) -> None:
    await fake.create("a.b~c_d-e")
    await fake.publish(task_record(), done())
    async with broker(fake) as running:
        path = f"/tasks/{TASK}/events?last_event_id={quote('a.b~c_d-e-1', safe='').replace('-', '%2D')}"
        assert kinds(await (await running.watch(path=path)).rest())[0:2] == ["stream.open", "task.status"]
        path = f"/tasks/{TASK}/events?last_event_id={quote('a%2Eb-1')}"
        gap = (await (await running.watch(path=path)).take(2))[1]
        assert (gap["reason"], gap["requested"]) == ("malformed", "a%2Eb-1")


# --- the broker is killed


async def test_a_killed_broker_loses_nothing(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with child_broker(real, tmp_path / "log") as child:
        stream = await child.watch()
        await stream.take(2)
        await real.publish(*numbered(3))
        assert texts(await stream.take(3)) == numbers(3)
        child.kill9()
        assert await stream.rest() == []
        assert stream.broken
        await real.publish(*numbered(3, first=3))
        await child.restart()
        again = await child.watch(cursor=stream.last_id)
        assert (await again.next())["mode"] == "replay"
        assert texts(await again.take(3)) == numbers(3, first=3)
        await real.publish(done())
        assert kinds(await again.rest()) == ["task.status", "stream.end"]
        assert (await child.watch(cursor=again.last_id)).status == 204
