"""A stream of several tasks whose histories take long to read is open and beats meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from access_rig import ALICES, OPEN, PRINCIPALS, stocked
from askers import Askers, bearer
from brokers import FakeBackend, broker, done, status, subject_of, task_record, until
from lives import revoke
from sse import Comment, data_frames, exchange, kinds

from sidecast_broker import launch

A, B = "task-a", "task-b"
BOTH = f"/events?task={A}&task={B}"


@pytest.fixture
async def held(fake: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeBackend]:
    """Two tasks, of which the history of one is read when the test says so."""
    monkeypatch.setattr(launch, "HEAD_S", 0.05)
    for task in (A, B):
        await fake.publish(task_record(task), status("one", task), task=task)
    fake.faults.stall(subject_of(B))
    yield fake
    fake.faults.flow()


@pytest.mark.parametrize("path", [BOTH, "/events?context=context-1", "/events?agent=1"])
async def test_the_head_and_heartbeats_come_before_the_tasks_are_read(held: FakeBackend, path: str) -> None:
    async with broker(held, stream__heartbeat_s=0.1) as running:
        stream = await running.watch(path=path)
        assert stream.status == 200
        assert [await stream.item() for _ in range(3)] == [Comment("")] * 3
        [shown] = running.listening.streams.describe()
        assert shown["served"] == "waiting"
        await held.publish(status("two", A), task=A)
        held.faults.flow()
        frames = await stream.take(3)
        assert kinds(frames) == ["stream.open", "task.snapshot", "task.snapshot"]
        await held.publish(status("three", B), task=B)
        await stream.until(lambda frame: frame.json.get("text") == "three")
        [shown] = running.listening.streams.describe()
        assert shown["served"] == "live"


async def test_a_resumed_stream_that_waited_brings_exactly_what_follows_its_cursor(held: FakeBackend) -> None:
    async with broker(held) as running:
        stream = await running.watch(path=BOTH, cursor="epoch1-1")
        for task in (A, B):
            await held.publish(status("two", task), done(task), task=task)
        held.faults.flow()
        frames = await stream.rest()
        assert [frame["seq"] for frame in data_frames(frames)] == list(range(2, 9))
        assert frames[-1]["reason"] == "tasks-ended"


async def test_what_is_read_soon_is_answered_with_a_status(fake: FakeBackend) -> None:
    for task in (A, B):
        await fake.publish(task_record(task), done(task), task=task)
    async with broker(fake) as running:
        assert (await running.watch(path=BOTH, cursor="epoch1-4")).status == 204


async def test_where_nothing_follows_a_stream_that_waited_is_told_so(held: FakeBackend) -> None:
    for task in (A, B):
        await held.publish(done(task), task=task)
    async with broker(held) as running:
        stream = await running.watch(path=BOTH, cursor="epoch1-6")
        assert stream.status == 200
        held.faults.flow()
        [end] = await stream.rest()
        assert (end.kind, end["reason"]) == ("stream.end", "tasks-ended")
        assert await running.metric("sidecast_resumes_total", outcome="ended") == 1


@pytest.mark.parametrize(("refusal", "wanted"), [("stream", ["stream.busy"]), ("status", [])])
async def test_what_can_t_be_read_sends_who_waited_away_for_a_moment(
    held: FakeBackend, refusal: str, wanted: list[str]
) -> None:
    async with broker(held) as running:
        stream = await running.watch(path=f"{BOTH}&refusal={refusal}")
        await until(lambda: len(running.listening.streams))
        await held.go_away()
        held.faults.flow()
        assert kinds(await stream.rest()) == wanted
        assert not stream.broken
        await held.come_back()
        again = await running.watch(path=BOTH)
        assert kinds(await again.take(3)) == ["stream.open", "task.snapshot", "task.snapshot"]
        await until(lambda: len(running.listening.streams) == 1)
        assert await running.metric("sidecast_streams_closed_total", reason="unavailable") == 1


async def test_a_drain_ends_a_stream_that_waits(held: FakeBackend) -> None:
    async with broker(held) as running:
        stream = await running.watch(path=BOTH)
        await until(lambda: len(running.listening.streams))
        await running.listening.streams.drain()
        assert kinds(await stream.rest()) == ["stream.drain"]


@pytest.mark.parametrize("after_head", [False, True])
async def test_who_leaves_before_the_tasks_are_read_leaves_nothing_behind(
    held: FakeBackend, after_head: bool
) -> None:
    async with broker(held, log__idle_s=0.01) as running:
        if after_head:
            stream = await running.watch(path=BOTH)
            await stream.close()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await exchange(running.url, f"GET {BOTH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: not len(running.listening.streams))
        held.faults.flow()
        async with asyncio.timeout(5):
            while await running.metric("sidecast_tasks"):
                await asyncio.sleep(0.01)
        await until(lambda: not held.connections[0]._subscriptions)


async def test_a_waiting_stream_is_counted_as_open(held: FakeBackend) -> None:
    async with broker(held, stream__streams_max=1) as running:
        stream = await running.watch(path=BOTH)
        await until(lambda: len(running.listening.streams))
        began_s = time.monotonic()
        full = await running.watch(path=BOTH)
        assert (await full.next())["reason"] == "limit"
        assert time.monotonic() - began_s < 2
        await stream.close()


async def test_a_task_that_is_revoked_before_it_is_read_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "HEAD_S", 0.05)
    backend = stocked()
    backend.faults.stall(subject_of(OPEN))
    checked = {"authenticator": Askers(*PRINCIPALS), "auth__required": "true"}
    async with broker(backend, auth__refusal_floor_ms=20, **checked) as running:
        path = f"/events?task={ALICES}&task={OPEN}"
        stream = await running.watch(path=path, headers=bearer("alice"))
        await until(lambda: len(running.listening.streams))
        await revoke(running, task=ALICES)
        backend.faults.flow()
        _opened, end, snapshot = await stream.take(3)
        assert (end.kind, end["taskId"], end["reason"]) == ("stream.end", ALICES, "revoked")
        assert (snapshot.kind, snapshot["taskId"]) == ("task.snapshot", OPEN)
        backend.store(OPEN, done(OPEN), owner="alice")
        assert ALICES not in {frame.json.get("taskId") for frame in await stream.rest()}


async def test_an_early_head_is_http_1_0_too(held: FakeBackend) -> None:
    async with broker(held) as running:
        answer = asyncio.create_task(exchange(running.url, f"GET {BOTH} HTTP/1.0\r\n\r\n".encode()))
        await until(lambda: len(running.listening.streams))
        held.faults.flow()
        for task in (A, B):
            await held.publish(done(task), task=task)
        body = (await answer).partition(b"\r\n\r\n")[2]
        assert body.startswith((b":\nretry:", b":\nevent:"))
        assert body.endswith(b"\n\n")
        assert b"tasks-ended" in body
