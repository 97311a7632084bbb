"""Streams of several tasks at a client's own pace: what holds for one task's holds for them, task by task."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from brokers import FakeBackend, OwnBroker, artifact, broker, done, status, task_record, until
from shell.test_stream import SMALL
from sse import Frame, Stalled, Watch, data_frames, kinds

A, B = "task-a", "task-b"
BOTH = f"/events?task={A}&task={B}"
TEXT = "x" * 2000


@pytest.fixture
async def stock(fake: FakeBackend) -> FakeBackend:
    for task in (A, B):
        await fake.publish(task_record(task), artifact("-", task), task=task)
    return fake


async def both(running: OwnBroker, cursor: str | None = "epoch1-4", **query: object) -> Watch:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return await running.watch(path=BOTH + more, cursor=cursor)


def words(frames: list[Frame]) -> dict[str, str]:
    """Give each task's text, as a page that adds chunks has it."""
    found = {A: "", B: ""}
    for frame in frames:
        if frame.kind == "task.artifact":
            found[frame["taskId"]] += frame["text"]
    return found


async def chunks(backend: FakeBackend, count: int) -> dict[str, str]:
    """Publish so many chunks of both tasks in turn, then their ends; give the texts."""
    wanted = {A: "", B: ""}
    for number in range(count):
        task = (A, B)[number // 3 % 2]
        wanted[task] += chr(97 + number % 26)
        await backend.publish(artifact(wanted[task][-1], task, append=True), task=task)
    for task in (A, B):
        await backend.publish(done(task), task=task)
    return wanted


ENDING = ["task.status", "stream.end", "task.status", "stream.end", "stream.end"]


@pytest.mark.parametrize("memory", [{}, {"log__task_bytes_max": 4096, "nats__page_events": 16}])
@pytest.mark.parametrize(
    "query",
    [
        {"max_rate": 200},
        {"batch_ms": 50, "batch_max": 7},
        {"batch_ms": 50, "max_rate": 200},
        {"coalesce": 1},
        {"coalesce": 1, "max_rate": 100},
        {"coalesce": 1, "batch_ms": 50},
    ],
    ids=str,
)
async def test_nothing_is_missing_at_any_pace_from_memory_or_from_the_stream(
    stock: FakeBackend, query: dict[str, object], memory: dict[str, object]
) -> None:
    async with broker(stock, pace__burst=5, **memory) as running:
        live = await both(running, **query)
        await live.next()
        wanted = await chunks(stock, 60)
        late = await both(running, **query)
        for stream in (live, late):
            frames = await stream.rest()
            assert words(frames) == wanted
            assert kinds(frames)[-5:] == ENDING
            assert (len(data_frames(frames)) == 62) == ("coalesce" not in query)
            assert "stream.gap" not in kinds(frames)


async def test_each_id_of_a_thinned_stream_is_a_place_to_go_on_from(stock: FakeBackend) -> None:
    async with broker(stock) as running:
        wanted = await chunks(stock, 40)
        frames = data_frames(await (await both(running, coalesce=1)).rest())
        for number, frame in enumerate(frames):
            if frame.id is None:
                continue
            resumed = await both(running, frame.id, coalesce=1)
            rest = [] if resumed.status == 204 else await resumed.rest()
            told, more = words(frames[: number + 1]), words(rest)
            assert {task: told[task] + more[task] for task in (A, B)} == wanted


async def test_a_rate_holds_over_all_the_tasks_together(stock: FakeBackend) -> None:
    async with broker(stock, pace__burst=5) as running:
        stream = await both(running, max_rate=50)
        await stream.next()
        began_s = time.monotonic()
        await chunks(stock, 30)
        await stream.rest()
        # 32 records, of which 5 come at once.
        assert time.monotonic() - began_s >= 25 / 50


async def test_an_array_holds_the_frames_of_several_tasks_and_the_last_ones_id(stock: FakeBackend) -> None:
    async with broker(stock) as running:
        stream = await both(running, batch="array", batch_ms=50, batch_max=100)
        await stream.next()
        await chunks(stock, 12)
        frames = await stream.rest()
        batches = [frame for frame in frames if frame.kind == "task.batch"]
        inside: list[dict[str, Any]] = [event for frame in batches for event in frame["events"]]
        assert [event["seq"] for event in inside if "seq" in event] == list(range(5, 19))
        assert {event["taskId"] for event in batches[0]["events"]} <= {A, B}
        for frame in batches:
            newest = max(event["seq"] for event in frame["events"] if "seq" in event)
            assert frame.id == f"epoch1-{newest}"


async def test_a_page_of_one_task_is_used_up_in_as_many_batches_as_are_asked_for(fake: FakeBackend) -> None:
    await fake.publish(task_record(A), *(status(f"{number}", A) for number in range(60)), done(A), task=A)
    async with broker(fake, log__task_bytes_max=1024, nats__page_events=20) as running:
        await (await running.watch(A)).rest()
        before = fake.faults.reads
        frames = await (await running.watch(A, "epoch1-1", batch_ms=10, batch_max=2)).rest()
        assert [frame["seq"] for frame in data_frames(frames)] == list(range(2, 63))
        assert fake.faults.reads - before <= 5


def behind(running: OwnBroker) -> bool:
    return any(each["behind_events"] for each in running.listening.streams.describe())


async def test_who_wants_snapshots_when_slow_is_shown_all_tasks_as_they_stand(stock: FakeBackend) -> None:
    async with broker(stock, **SMALL, stream__skip_s=0.2) as running:
        async with Stalled(running.url, f"{BOTH}&slow=snapshot") as slow:
            await slow.read_until(b"task.snapshot")
            for number in range(300):
                await stock.publish(status(f"{number} {TEXT}", (A, B)[number % 2]), task=(A, B)[number % 2])
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await until(lambda: behind(running))
            await asyncio.sleep(0.3)  # its time behind is what is tested
            await slow.read_until(b"stream.gap")
            await until(lambda: not behind(running))
            await stock.publish(status("afterwards", B), done(B), task=B)
            await stock.publish(done(A), task=A)
            await slow.read_until(b"tasks-ended")
            frames = slow.frames
        at = kinds(frames).index("stream.gap")
        gap, *snapshots = frames[at : at + 3]
        assert gap["reason"] == "slow"
        assert {frame["taskId"] for frame in snapshots} == {A, B}
        assert [frame.id is None for frame in snapshots] == [True, False]
        assert frames[at + 3].json.get("text") == "afterwards"
        assert kinds(frames)[-5:] == ENDING


async def test_who_is_slow_is_cut_as_on_one_task(stock: FakeBackend) -> None:
    async with broker(stock, **SMALL, stream__lag_s_max=0.6) as running:
        async with Stalled(running.url, BOTH) as frozen:
            await frozen.read_until(b"task.snapshot")
            for number in range(200):
                await stock.publish(status(f"{number} {TEXT}", A), task=A)
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await until(lambda: not len(running.listening.streams))
        assert await running.metric("sidecast_streams_closed_total", reason="lag") == 1
