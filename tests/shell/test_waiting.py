from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

import pytest
from brokers import AS_JSON, OTHER, TASK, FakeBackend, broker, done, status, task_record, texts, until
from sse import EndOfStream, data_frames, kinds

NOT_FOUND = b'event: stream.end\ndata: {"type":"stream.end","state":null,"reason":"not-found"}\n\n'


async def test_a_task_that_comes_in_time_is_streamed(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        stream = await running.watch(wait_s=30)
        assert stream.status == 200
        await until(lambda: len(running.listening.streams))
        await fake.publish(task_record())
        opened, snapshot = await stream.take(2)
        assert (opened.kind, opened["mode"], snapshot.kind) == ("stream.open", "snapshot", "task.snapshot")
        assert snapshot["partial"] is False
        await fake.publish(status("one"), done())
        assert kinds(await stream.rest()) == ["task.status", "task.status", "stream.end"]


async def test_a_task_that_never_comes_ends_with_not_found(fake: FakeBackend) -> None:
    async with broker(fake, stream__heartbeat_s=0.1) as running:
        began_s = time.monotonic()
        stream = await running.watch(wait_s=0.5)
        assert kinds(await stream.rest()) == ["stream.end"]
        assert 0.4 < time.monotonic() - began_s < 2.0
        beats = len(stream.comments)
        assert stream.raw == b":\n" * beats + NOT_FOUND
        assert 2 <= beats <= 6
        assert not stream.broken
        assert await running.metric("sidecast_streams_closed_total", reason="not-found") == 1


async def test_the_end_of_a_wait_can_be_unnamed(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        stream = await running.watch(wait_s=0.1, named=0)
        (end,) = await stream.rest()
        assert (end.type, end.kind) == ("message", "stream.end")


async def test_without_a_wait_a_task_that_is_not_there_is_unknown(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        for wait in ("", "?wait_s=0", "?wait_s=0.0"):
            status_code, body = await running.get(f"/tasks/{TASK}/events{wait}")
            assert (status_code, body["error"]["code"]) == (404, "not-found")


@pytest.mark.parametrize(
    "wait",
    [
        "-1",
        "-0.1",
        "60.1",
        "61",
        "1e9",
        "nan",
        "inf",
        "-inf",
        "",
        " ",
        "ten",
        "1_0",
        "0x5",
        "5s",
        "\u0665",
        "5\0",
    ],
)
async def test_a_wait_that_is_no_number_of_seconds_in_bounds_is_refused(fake: FakeBackend, wait: str) -> None:
    async with broker(fake) as running:
        status_code, body = await running.get(f"/tasks/{TASK}/events?wait_s={quote(wait)}")
        assert (status_code, body["error"]["code"]) == (400, "bad-request")
        assert "wait_s" in body["error"]["message"]


async def test_a_wait_longer_than_the_operator_allows_is_refused(fake: FakeBackend) -> None:
    async with broker(fake, stream__wait_s_max=5) as running:
        assert (await running.get(f"/tasks/{TASK}/events?wait_s=6"))[0] == 400
        assert (await running.watch(wait_s=5)).status == 200


@pytest.mark.parametrize("start", ["snapshot", "start", "now"])
async def test_what_began_during_the_wait_is_whole(fake: FakeBackend, start: str) -> None:
    async with broker(fake) as running:
        stream = await running.watch(wait_s=30, **{"from": start})
        await until(lambda: len(running.listening.streams))
        await fake.publish(task_record(), status("one"), done())
        frames = await stream.rest()
        assert kinds(frames)[0] == "stream.open"
        assert kinds(frames)[-1] == "stream.end"
        if start == "snapshot":
            assert frames[1].kind == "task.snapshot"
            assert data_frames(frames)[-1]["state"] == "completed"
        else:
            assert kinds(data_frames(frames)) == ["task.snapshot", "task.status", "task.status"]


async def test_a_cursor_goes_with_a_wait(fake: FakeBackend) -> None:
    await fake.publish(task_record(OTHER), task=OTHER)
    async with broker(fake) as running:
        stream = await running.watch(cursor="epoch1-1", wait_s=30)
        await until(lambda: len(running.listening.streams))
        await fake.publish(task_record(), status("one"))
        opened, *frames = await stream.take(3)
        assert opened["mode"] == "replay"
        assert kinds(frames) == ["task.snapshot", "task.status"]
        broken = await running.watch("task-3", cursor="garbage", wait_s=30)
        await until(lambda: len(running.listening.streams) == 2)
        await fake.publish(task_record("task-3"), task="task-3")
        assert kinds(await broken.take(3)) == ["stream.open", "stream.gap", "task.snapshot"]


async def test_a_task_that_is_there_is_not_waited_for(fake: FakeBackend) -> None:
    await fake.publish(task_record(), done())
    async with broker(fake) as running:
        stream = await running.watch(wait_s=30)
        assert kinds(await stream.rest()) == ["stream.open", "task.snapshot", "stream.end"]
        assert (await running.watch(wait_s=30, **{"from": "now"})).status == 204


async def test_a_first_record_lost_on_the_way_is_found_for_those_who_wait(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        stream = await running.watch(wait_s=30)
        await until(lambda: len(running.listening.streams))
        fake.faults.lose(1)
        await fake.publish(task_record())
        assert kinds(await stream.take(2)) == ["stream.open", "task.snapshot"]


async def test_a_first_record_that_is_no_event_makes_the_task_known(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        stream = await running.watch(wait_s=30)
        await until(lambda: len(running.listening.streams))
        await fake.publish(b"not json")
        frames = await stream.take(2)
        assert kinds(frames) == ["stream.open", "task.snapshot"]
        await fake.publish(status("one"))
        assert texts([await stream.next()]) == ["one"]


async def test_one_who_stops_waiting_leaves_the_others_waiting(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        streams = [await running.watch(wait_s=30) for _ in range(5)]
        await until(lambda: len(running.listening.streams) == 5)
        await streams[2].close()
        await until(lambda: len(running.listening.streams) == 4)
        await fake.publish(task_record())
        for index in (0, 1, 3, 4):
            assert kinds(await streams[index].take(2)) == ["stream.open", "task.snapshot"]


async def test_a_wait_outlives_nats(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        stream = await running.watch(wait_s=30)
        await until(lambda: len(running.listening.streams))
        await fake.go_away()
        await fake.publish(task_record())
        await fake.come_back()
        assert kinds(await stream.take(2)) == ["stream.open", "task.snapshot"]


async def test_a_drain_ends_a_wait(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        stream = await running.watch(wait_s=30)
        await until(lambda: len(running.listening.streams))
        await running.listening.streams.drain()
        assert kinds(await stream.rest()) == ["stream.drain"]


async def test_visible_heartbeats_are_sent_during_a_wait(fake: FakeBackend) -> None:
    async with broker(fake, stream__heartbeat_s=0.1) as running:
        stream = await running.watch(wait_s=0.5, heartbeat="event")
        frames = await stream.rest()
        assert set(kinds(frames[:-1])) == {"stream.heartbeat"}
        assert frames[-1].kind == "stream.end"


async def test_the_one_answer_waits_for_nothing(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        assert (await running.get(f"/tasks/{TASK}/events?wait_s=30", AS_JSON))[0] == 404


async def test_a_wait_leaves_nothing_behind(fake: FakeBackend) -> None:
    async with broker(fake, log__idle_s=0.1) as running:
        await (await running.watch(wait_s=0.1)).rest()
        async with asyncio.timeout(5):
            while await running.metric("sidecast_tasks"):
                await asyncio.sleep(0.01)
        stream = await running.watch(wait_s=0.1)
        with pytest.raises(EndOfStream):
            await stream.take(2)
