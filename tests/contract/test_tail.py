"""What is lost on the way, purged, or stored anew: no watcher ever misses an event without being told."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from brokers import (
    OTHER,
    TASK,
    Backend,
    FakeBackend,
    RealBackend,
    activity,
    artifact,
    broker,
    done,
    numbered,
    numbers,
    status,
    subject_of,
    task_record,
    texts,
    until,
)
from sse import Frame, data_frames, kinds


def cursors(frames: list[Frame]) -> list[tuple[str, int]]:
    return [(frame["type"], frame["seq"]) for frame in data_frames(frames)]


# --- live messages that go astray


async def test_a_lost_live_message_is_read_again(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, nats__verify_s=60) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.publish(status("0"))
        assert texts([await stream.next()]) == ["0"]
        backend.faults.lose(3)
        await backend.publish(*numbered(4, first=1))
        assert texts(await stream.take(4)) == numbers(4, first=1)
        assert backend.faults.lost == 3
        assert await running.metric("sidecast_tail_repairs_total", cause="hole") == 1


async def test_a_lost_end_of_a_task_is_found_within_two_periods(backend: Backend) -> None:
    await backend.publish(task_record())
    verify_s = 2.0
    async with broker(backend, nats__verify_s=verify_s) as running:
        stream = await running.watch()
        await stream.take(2)
        backend.faults.lose(1)
        began_s = time.monotonic()
        await backend.publish(done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]
        assert time.monotonic() - began_s < 2 * verify_s
        assert await running.metric("sidecast_tail_repairs_total", cause="positioning") == 1


async def test_a_lost_last_message_is_found_among_many_tasks(backend: Backend) -> None:
    tasks = [f"t-{number}" for number in range(20)]
    for task in tasks:
        await backend.publish(task_record(task), task=task)
    async with broker(backend) as running:
        streams = [await running.watch(task) for task in tasks]
        for stream in streams:
            await stream.take(2)
        backend.faults.lose(1)
        await backend.publish(status("lost", tasks[7]), task=tasks[7])
        for task in tasks[8:]:
            await backend.publish(status("seen", task), task=task)
        assert [frame["text"] for frame in [await stream.next() for stream in streams[7:]]] == [
            "lost",
            *["seen"] * 12,
        ]


@pytest.mark.parametrize(
    "order",
    [(0, 0, 1, 1, 2, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1, 0, 2), (2,), (0, 2), (1, 2, 0, 1), ()],
)
async def test_doubled_and_reordered_messages_come_once_and_in_order(
    backend: Backend, order: tuple[int, ...]
) -> None:
    await backend.publish(task_record())
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        backend.faults.hold()
        await backend.publish(*numbered(3))
        await until(lambda: backend.faults.held == 3)
        await backend.faults.release(*order)
        assert texts(await stream.take(3)) == numbers(3)
        await backend.publish(done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]


async def test_a_message_that_comes_late_during_the_repair_is_not_doubled(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        backend.faults.hold()
        await backend.publish(*numbered(4))
        await until(lambda: backend.faults.held == 4)
        backend.faults.stall()
        await backend.faults.release(2, 3, 0, 1)
        backend.faults.flow()
        await backend.publish(done())
        frames = await stream.rest()
        assert texts(frames) == numbers(4)
        assert len(frames) == 6


@pytest.mark.parametrize("short", [1, 2, 5])
async def test_short_answers_are_asked_for_again(backend: Backend, short: int) -> None:
    await backend.publish(task_record(), *numbered(10))
    async with broker(backend) as running:
        backend.faults.answer_short(8, short)
        stream = await running.watch(cursor="epoch1-1")
        assert texts((await stream.take(11))[1:]) == numbers(10)
        backend.faults.lose(9)
        backend.faults.answer_short(8, short)
        await backend.publish(*numbered(10))
        assert texts(await stream.take(10)) == numbers(10)


@pytest.mark.parametrize("reads", [1, 3, 8])
async def test_a_replica_that_is_behind_hides_nothing(backend: Backend, reads: int) -> None:
    await backend.publish(task_record(), *numbered(5))
    async with broker(backend) as running:
        backend.faults.answer_stale(reads, 3)
        stream = await running.watch(cursor="epoch1-1")
        assert texts((await stream.take(6))[1:]) == numbers(5)
        backend.faults.lose(3)
        backend.faults.answer_stale(reads, 7)
        await backend.publish(*numbered(4))
        assert texts(await stream.take(4)) == numbers(4)


async def test_a_task_known_to_be_stored_is_never_unknown(backend: Backend) -> None:
    await backend.publish(task_record(OTHER), task=OTHER)
    async with broker(backend, nats__verify_s=60) as running:
        waiting = await running.watch(wait_s=30)
        await until(lambda: running.listening.streams)
        backend.faults.lose(1)
        await backend.publish(task_record())
        assert kinds(await (await running.watch()).take(2)) == ["stream.open", "task.snapshot"]
        assert kinds(await waiting.take(2)) == ["stream.open", "task.snapshot"]


# --- NATS goes away


async def test_a_broker_that_starts_without_nats_recovers_when_it_comes(backend: Backend) -> None:
    await backend.publish(task_record())
    await backend.go_away()
    async with broker(backend, ready=False) as running:
        for path in ("/livez", "/readyz"):
            assert (await running.internal(path))[0] == 200
        assert (await running.internal("/readyz"))[1]["nats"] == {
            "connected": False,
            "stream": "SIDECAST",
            "epoch": None,
            "last_sequence": None,
        }
        assert kinds(await (await running.watch()).rest()) == ["stream.busy"]
        await backend.come_back()
        await running.ready()
        assert kinds(await (await running.watch()).take(2)) == ["stream.open", "task.snapshot"]
        assert (await running.internal("/readyz"))[1]["nats"]["connected"] is True


async def test_a_watcher_outlives_the_death_of_nats(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, stream__heartbeat_s=0.3) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.publish(status("before"))
        assert texts([await stream.next()]) == ["before"]
        await backend.go_away()
        await stream.item()  # a heartbeat
        assert stream.comments == [""]
        # What is in memory is served, what is not is turned away for a moment.
        resumed = await running.watch(cursor="epoch1-1")
        assert texts((await resumed.take(2))[1:]) == ["before"]
        assert kinds(await (await running.watch(OTHER)).rest()) == ["stream.busy"]
        await backend.come_back()
        await backend.publish(status("after"), done())
        for each in (stream, resumed):
            assert kinds(frames := await each.rest()) == ["task.status", "task.status", "stream.end"]
            assert texts(frames) == ["after"]


# --- the stream is purged, or another one


async def test_a_purge_under_a_watcher_is_followed_by_what_is_new(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(4))
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.purge()
        await running.until_status(f"/tasks/{TASK}/events", 404)
        await backend.publish(status("new"), done())
        assert kinds(await stream.rest()) == ["task.status", "task.status", "stream.end"]


async def test_a_missed_message_that_was_deleted_is_a_gap(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, nats__verify_s=60) as running:
        stream = await running.watch()
        await stream.take(2)
        backend.faults.hold()
        await backend.publish(*numbered(3))
        await until(lambda: backend.faults.held == 3)
        await backend.delete(3)
        await backend.faults.release(0, 2)
        first, gap, snapshot = await stream.take(3)
        assert texts([first]) == ["0"]
        assert (gap.kind, gap["reason"], gap["requested"]) == ("stream.gap", "expired", "epoch1-2")
        assert (snapshot.kind, snapshot.id, snapshot["partial"]) == ("task.snapshot", "epoch1-4", True)
        await backend.publish(done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]


async def test_after_a_hole_a_stream_from_the_start_tells_of_it_once_and_replays_what_is_whole(
    backend: Backend,
) -> None:
    await backend.publish(task_record())
    async with broker(backend, nats__verify_s=60) as running:
        stream = await running.watch()
        await stream.take(2)
        backend.faults.hold()
        await backend.publish(*numbered(3))
        await until(lambda: backend.faults.held == 3)
        await backend.delete(3)
        await backend.faults.release(0, 2)
        await stream.take(3)
        await backend.publish(done())
        frames = await (await running.watch(**{"from": "start"})).rest()
        assert kinds(frames) == ["stream.open", "stream.gap", "task.status", "task.status", "stream.end"]
        assert [frame["seq"] for frame in data_frames(frames)] == [4, 5]
        frames = await (await running.watch(cursor="epoch1-2")).rest()
        assert kinds(frames) == ["stream.open", "stream.gap", "task.snapshot", "stream.end"]
        frames = await (await running.watch(cursor="epoch1-3")).rest()
        assert kinds(frames) == ["stream.open", "task.status", "task.status", "stream.end"]


@pytest.mark.parametrize("epoch", ["epoch1", "epoch2", None])
async def test_a_stream_made_anew_under_a_watcher_is_a_gap_of_epochs(
    backend: Backend, epoch: str | None
) -> None:
    await backend.publish(task_record(), *numbered(3))
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.create(epoch)
        await backend.publish(status("elsewhere", OTHER), task=OTHER)
        await backend.publish(task_record(), status("anew"))
        frames = await stream.until(
            lambda frame: "anew" in frame.data and not frame.kind.startswith("stream.")
        )
        gap = frames[0]
        assert (gap.kind, gap["reason"], gap["requested"]) == ("stream.gap", "epoch", "epoch1-4")
        assert kinds(frames)[1] in ("task.snapshot", "task.status")
        await backend.publish(done())
        await stream.rest()
        new, _dash, sequence = stream.last_id.rpartition("-")
        assert (new != "epoch1", sequence) == (True, "4")
        assert new == epoch or epoch != "epoch2"
        # No cursor of the old stream is taken for one of the new, and the new ones are positions.
        gap = (await (await running.watch(cursor="epoch1-2")).take(2))[1]
        assert (gap.kind, gap["reason"]) == ("stream.gap", "epoch")
        replay = await (await running.watch(cursor=f"{new}-2")).rest()
        assert kinds(replay) == ["stream.open", "task.status", "task.status", "stream.end"]


async def test_a_deleted_stream_is_made_again(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(3))
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.delete_stream()
        gap = await stream.next()
        assert (gap.kind, gap["reason"]) == ("stream.gap", "epoch")
        await backend.publish(task_record(), status("anew"), done())
        frames = await stream.rest()
        assert kinds(frames)[-2:] == ["task.status", "stream.end"]
        assert [frame["seq"] for frame in data_frames(frames)][-1] == 3


async def test_a_fresh_stream_is_whole(backend: Backend) -> None:
    await backend.publish(status("one"))
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.create("epoch2")
        await backend.publish(status("anew"))
        frames = await stream.until(lambda frame: "anew" in frame.data)
        assert kinds(frames)[0] == "stream.gap"
        assert kinds(await (await running.watch()).take(2)) == ["stream.open", "task.snapshot"]


async def test_sequences_that_go_backwards_begin_a_new_epoch(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(5))
    async with broker(fake) as running:
        stream = await running.watch()
        await stream.take(2)
        fake.server.go_backwards(3)
        gap, snapshot = await stream.take(2)
        assert (gap.kind, gap["reason"], snapshot.kind) == ("stream.gap", "epoch", "task.snapshot")
        assert fake.server.epoch != "epoch1"
        assert snapshot.id == f"{fake.server.epoch}-3"
        await fake.publish(status("new"), done())
        assert kinds(await stream.rest()) == ["task.status", "task.status", "stream.end"]


async def test_a_server_restored_from_an_older_disk_begins_a_new_epoch(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(2))
    async with broker(real) as running:
        stream = await running.watch()
        await stream.take(2)

        async def forgotten() -> None:
            await real.publish(*numbered(3, first=2))
            assert texts(await stream.take(3, timeout_s=15)) == numbers(3, first=2)

        await real.go_backwards(forgotten)
        gap, snapshot = await stream.take(2, timeout_s=15)
        assert (gap.kind, gap["reason"], gap["requested"]) == ("stream.gap", "epoch", "epoch1-6")
        assert (snapshot.kind, snapshot["seq"]) == ("task.snapshot", 3)
        assert not snapshot.last_id.startswith("epoch1-")
        await real.publish(done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]


async def test_sequences_that_went_backwards_and_on_again_are_noticed_too(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(5))
    async with broker(fake, nats__verify_s=0.5) as running:
        stream = await running.watch()
        await stream.take(2)
        fake.server.go_backwards(3)
        await fake.publish(*numbered(6, first=100))
        frames = await stream.until(lambda frame: "105" in frame.data)
        assert (frames[0].kind, frames[0]["reason"]) == ("stream.gap", "epoch")


# --- more than memory holds


async def test_a_task_larger_than_its_log_is_replayed_from_the_stream(backend: Backend) -> None:
    count = 20_000
    events = [activity("progress", progress=number / count) for number in range(count)]
    await backend.publish(task_record(), *events)
    async with broker(backend, log__task_bytes_max=64 * 1024, nats__page_events=1000) as running:
        stream = await running.watch(**{"from": "start"})
        await stream.take(2)
        frames = await stream.take(count, timeout_s=30)
        assert [frame.id for frame in frames] == [f"epoch1-{number + 2}" for number in range(count)]
        assert frames[-1]["progress"] == (count - 1) / count
        assert await running.metric("sidecast_log_bytes") <= 2 * 64 * 1024
        assert await running.metric("sidecast_replayed_events_total", source="stream") > count * 0.9
        snapshot = (await (await running.watch()).take(2))[1]
        assert (snapshot["progress"], snapshot["partial"]) == ((count - 1) / count, False)
        await backend.publish(done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]


async def test_the_snapshot_is_the_fold_of_all_however_small_the_log(backend: Backend) -> None:
    pieces = [artifact(str(number), append=number > 0) for number in range(300)]
    await backend.publish(task_record(), *pieces)
    async with broker(backend, log__task_bytes_max=2048) as running:
        answer = await running.until_answer(TASK, lambda answer: "task" in answer)
        parts = answer["task"]["artifacts"][0]["parts"]
        assert [part["text"] for part in parts] == numbers(300)
        resumed = await running.watch(cursor="epoch1-2")
        assert texts((await resumed.take(300))[1:]) == numbers(299, first=1)


async def test_a_partial_task_larger_than_its_log_is_replayed_after_one_gap(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(300), done())
    await backend.expire(100)
    async with broker(backend, log__task_bytes_max=2048) as running:
        frames = await (await running.watch(**{"from": "start"})).rest()
        assert kinds(frames[:2]) == ["stream.open", "stream.gap"]
        assert texts(frames) == numbers(201, first=99)
        assert kinds(frames[-2:]) == ["task.status", "stream.end"]


async def test_the_end_read_from_the_stream_before_it_comes_live_ends_the_stream(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(300))
    async with broker(backend, log__task_bytes_max=2048, nats__verify_s=0.5) as running:
        first = await running.watch()
        await first.take(2)
        backend.faults.lose(1)
        await backend.publish(done())
        behind = await running.watch(cursor="epoch1-2")
        assert kinds((await behind.rest())[-2:]) == ["task.status", "stream.end"]
        assert kinds(await first.rest()) == ["task.status", "stream.end"]


async def test_what_follows_the_end_is_not_replayed_from_the_stream_either(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(300))
    async with broker(backend, log__task_bytes_max=2048, nats__verify_s=0.5) as running:
        first = await running.watch()
        await first.take(2)
        backend.faults.lose(2)
        await backend.publish(done(), status("too late"))
        behind = await running.watch(cursor="epoch1-2")
        frames = await behind.rest()
        assert kinds(frames[-2:]) == ["task.status", "stream.end"]
        assert (frames[-2]["state"], "too late" in texts(frames)) == ("completed", False)


async def test_a_client_that_had_the_end_from_another_broker_is_told_that_it_is_one(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, nats__verify_s=0.5) as running:
        await (await running.watch()).take(2)
        backend.faults.lose(1)
        sequence = await backend.publish(done())
        elsewhere = await running.watch(cursor=f"epoch1-{sequence}")
        assert kinds(await elsewhere.rest()) == ["stream.open", "stream.end"]


async def test_a_cursor_another_task_wrote_is_replayed_from_the_stream(backend: Backend) -> None:
    await backend.publish(task_record())
    await backend.publish(task_record(OTHER), task=OTHER)
    await backend.publish(*numbered(300), done())
    async with broker(backend, log__task_bytes_max=2048) as running:
        frames = await (await running.watch(cursor="epoch1-2")).rest()
        assert kinds(frames)[0] == "stream.open"
        assert texts(frames) == numbers(300)


async def test_a_log_that_a_burst_outgrows_hides_nothing(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, log__task_bytes_max=2048) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.publish(*numbered(300), done())
        frames = await stream.rest()
        assert texts(frames) == numbers(300)
        assert "stream.lag" not in kinds(frames)


async def test_purged_under_a_reader_that_is_behind_memory_is_a_gap(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(600))
    async with broker(backend, log__task_bytes_max=2048, nats__page_events=20) as running:
        stream = await running.watch(cursor="epoch1-2")
        backend.faults.stall()
        opened = await stream.next()
        assert opened["mode"] == "replay"
        await backend.purge(subject_of(TASK), keep_from=590)
        backend.faults.flow()
        frames = await stream.until("stream.gap")
        assert (frames[-1]["reason"], kinds([await stream.next()])) == ("expired", ["task.snapshot"])
        shown = [int(text) for text in texts(frames)]
        assert shown == list(range(1, 1 + len(shown)))
        await backend.publish(done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]


# --- sharing and letting go


async def test_many_who_come_at_once_share_one_reading(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(100))
    async with broker(backend, nats__page_events=50) as running:
        streams = await asyncio.gather(*(running.watch() for _ in range(30)))
        for stream in streams:
            await stream.take(2)
        assert backend.faults.reads <= 4
        assert await running.metric("sidecast_tasks") == 1


async def test_a_task_nobody_watches_leaves_memory(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(10))
    async with broker(backend, log__idle_s=0.1) as running:
        stream = await running.watch()
        await stream.take(2)
        assert (await running.metric("sidecast_tasks"), await running.metric("sidecast_log_bytes") > 0) == (
            1,
            True,
        )
        await stream.close()
        async with asyncio.timeout(5):
            while await running.metric("sidecast_tasks"):
                await asyncio.sleep(0.01)
        assert await running.metric("sidecast_log_bytes") == 0
        again = await running.watch(cursor="epoch1-2")
        assert texts((await again.take(10))[1:]) == numbers(9, first=1)


async def test_a_publisher_may_not_forge_what_the_server_says(backend: Backend) -> None:
    forged = {
        "Nats-Sequence": "9999",
        "Nats-Last-Sequence": "1",
        "Nats-Subject": subject_of(OTHER),
        "Nats-Time-Stamp": "1999-01-01T00:00:00Z",
        "Nats-Num-Pending": "7",
        "Nats-UpTo-Sequence": "1",
        "nats-sequence": "8888",
    }
    await backend.publish(task_record(), headers=forged)
    async with broker(backend) as running:
        stream = await running.watch(**{"from": "start"})
        assert cursors(await stream.take(2)) == [("task.snapshot", 1)]
        await backend.publish(status("live"), headers=forged)
        backend.faults.lose(1)
        await backend.publish(status("repaired"), headers=forged)
        await backend.publish(done(), headers=forged)
        frames = await stream.rest()
        assert cursors(frames) == [("task.status", 2), ("task.status", 3), ("task.status", 4)]
        assert not any(frame["at"].startswith("1999") for frame in data_frames(frames))
        status_code, body = await running.get(f"/tasks/{OTHER}/events")
        assert (status_code, json.dumps(body).count("not-found")) == (404, 1)
