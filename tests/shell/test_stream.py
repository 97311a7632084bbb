from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
import structlog
from aiohttp import web
from brokers import (
    TASK,
    FakeBackend,
    broker,
    done,
    numbered,
    numbers,
    status,
    task_record,
    texts,
    until,
)
from sse import Stalled, data_frames, exchange, kinds, unchunk

from sidecast_broker.stream import Stream

SMALL = {"stream__send_buffer_bytes": 4096, "stream__buffer_bytes_max": 4096}
"""Buffers that a few dozen events fill."""

PATH = f"/tasks/{TASK}/events"


def long_texts(count: int, first: int = 0) -> list[bytes]:
    """Give statuses of about 2 KB."""
    return [status(f"{number} " + "x" * 1800) for number in range(first, first + count)]


async def one_by_one(backend: FakeBackend, events: list[bytes], pause_s: float = 0.0) -> None:
    """Publish so that each event is written out before the next one comes."""
    for event in events:
        await backend.publish(event)
        for _turn in range(3):
            await asyncio.sleep(pause_s / 3)


async def test_a_client_that_has_left_is_noticed_where_a_wait_swallows_it(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, catch_up = asyncio.Event(), Stream._catch_up

    async def swallow(stream: Stream) -> bool:
        waits.set()
        with contextlib.suppress(asyncio.CancelledError):  # as `asyncio.wait_for` did before Python 3.12
            await asyncio.Event().wait()
        return await catch_up(stream)

    await fake.publish(task_record())
    async with broker(fake) as running:
        monkeypatch.setattr(Stream, "_catch_up", swallow)
        watch = await running.watch()
        await waits.wait()
        await watch.close()
        await until(lambda: not len(running.listening.streams))
        assert await running.metric("sidecast_streams_closed_total", reason="client-gone") == 1


# --- clients that don't keep up


async def test_a_client_that_takes_nothing_is_cut_and_nobody_else_notices(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    with structlog.testing.capture_logs() as logs:
        async with broker(fake, **SMALL, stream__lag_s_max=4.0) as running:
            healthy = await running.watch()
            await healthy.take(2)
            async with Stalled(running.url, PATH) as stalled:
                await stalled.read_until(b"task.snapshot")
                began_s = time.monotonic()
                slowest_s = 0.0
                for number in range(100):
                    sent_s = time.monotonic()
                    await fake.publish(*long_texts(1, number))
                    assert (await healthy.next())["text"].startswith(f"{number} ")
                    slowest_s = max(slowest_s, time.monotonic() - sent_s)
                assert slowest_s < 2
                assert await running.metric("sidecast_lagging_subscribers") >= 1
                assert await running.metric("sidecast_lag_events") > 10
                await until(lambda: len(running.listening.streams) == 1)
                assert 3.9 < time.monotonic() - began_s < 12
                with contextlib.suppress(ConnectionError):
                    while await stalled.read():
                        pass
                assert not stalled.received.endswith(b"\r\n0\r\n\r\n")
            assert await running.metric("sidecast_streams_closed_total", reason="lag") == 1
            # What it got is contiguous, and it continues from there.
            shown = data_frames(stalled.frames)
            again = await running.watch(cursor=shown[-1].id)
            frames = (await again.take(1 + 60 - (len(shown) - 1)))[1:]
            numbers_seen = [frame["text"].split()[0] for frame in shown[1:] + frames]
            assert numbers_seen == numbers(60)
            await fake.publish(done())
            assert kinds(await healthy.rest()) == ["task.status", "stream.end"]
    closed = [line for line in logs if line["event"] == "stream_closed"]
    assert closed[0]["reason"] == "lag"


async def test_a_client_that_pauses_gets_everything_and_is_told_that_it_is_slow(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, **SMALL) as running:
        async with Stalled(running.url, PATH) as paused:
            await paused.read_until(b"task.snapshot")
            await one_by_one(fake, long_texts(200))
            await until(lambda: any(s["behind_events"] for s in running.listening.streams.describe()))
            await one_by_one(fake, [*long_texts(50, 200), done()])
            await paused.read_until(b"stream.end")
            frames = paused.frames
        shown = [frame for frame in frames if frame.kind == "task.status"]
        assert [frame["text"].split()[0] for frame in shown[:-1]] == numbers(250)
        lags = [frame for frame in frames if frame.kind == "stream.lag"]
        assert lags
        assert all(frame["behind_events"] > 0 and frame.id is None for frame in lags)
        assert "stream.gap" not in kinds(frames)
        await until(lambda: not len(running.listening.streams))
        assert await running.metric("sidecast_streams_closed_total", reason="ended") == 1


async def test_a_client_that_falls_behind_memory_reads_on_from_the_stream(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, **SMALL, log__task_bytes_max=8192, nats__page_events=10) as running:
        async with Stalled(running.url, PATH) as paused:
            await paused.read_until(b"task.snapshot")
            await one_by_one(fake, long_texts(100))
            await until(lambda: any(s["behind_events"] for s in running.listening.streams.describe()))
            await fake.publish(done())
            await paused.read_until(b"stream.end")
            shown = [frame for frame in paused.frames if frame.kind == "task.status"]
        assert [frame["text"].split()[0] for frame in shown[:-1]] == numbers(100)
        assert await running.metric("sidecast_replayed_events_total", source="stream") > 50


async def test_a_slow_but_steady_client_is_not_cut(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, **SMALL, stream__lag_s_max=0.4) as running:
        async with Stalled(running.url, PATH) as slow:
            await slow.read_until(b"task.snapshot")
            writing = asyncio.ensure_future(one_by_one(fake, [*long_texts(100), done()], 0.01))
            began_s = time.monotonic()
            while b"stream.end" not in slow.received:
                assert await slow.read(4096)
                await asyncio.sleep(0.02)  # its pace is what is tested
            await writing
            assert time.monotonic() - began_s > 0.8
        assert await running.metric("sidecast_streams_closed_total", reason="lag") == 0


async def test_a_client_that_crashes_is_counted_and_forgotten(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    with structlog.testing.capture_logs() as logs:
        async with broker(fake, **SMALL) as running:
            for behind in (False, True):
                async with Stalled(running.url, PATH) as client:
                    await client.read_until(b"task.snapshot")
                    if behind:
                        await one_by_one(fake, long_texts(100))
                        await until(
                            lambda: any(s["behind_events"] for s in running.listening.streams.describe())
                        )
                    client.reset()
                await until(lambda: not len(running.listening.streams))
            assert await running.metric("sidecast_streams_closed_total", reason="client-gone") == 2
            assert await running.metric("sidecast_subscribers") == 0
    assert not [line for line in logs if line["log_level"] in ("error", "critical")]


async def test_a_client_that_leaves_before_its_stream_opens_leaves_nothing(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, log__idle_s=0.1) as running:
        fake.faults.stall()
        async with Stalled(running.url, PATH):
            await until(lambda: fake.faults.reads)
        fake.faults.flow()
        async with asyncio.timeout(5):
            while await running.metric("sidecast_tasks"):
                await asyncio.sleep(0.01)
        assert await running.metric("sidecast_subscribers") == 0


# --- the connection


async def test_what_arrives_together_is_written_together(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running, Stalled(running.url, PATH) as client:
        await client.read_until(b"task.snapshot")
        await fake.publish(*numbered(100))
        await client.read_until(b'"text":"99"')
        chunks = unchunk(client.received.partition(b"\r\n\r\n")[2])
        assert len(chunks) <= 3
        assert texts(client.frames[2:]) == numbers(100)


async def test_a_connection_serves_one_stream_after_another(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("one"), done())
    async with broker(fake) as running, Stalled(running.url, f"{PATH}?from=start") as client:
        await client.read_until(b"\r\n0\r\n\r\n")
        first = client.received
        client.received = b""
        await asyncio.get_running_loop().sock_sendall(client._socket, client._request)
        await client.read_until(b"\r\n0\r\n\r\n")
        for answer in (first, client.received):
            chunks = unchunk(answer.partition(b"\r\n\r\n")[2])
            assert chunks[-1] == b""
        assert client.received.partition(b"\r\n\r\n")[2] == first.partition(b"\r\n\r\n")[2]


async def test_a_204_leaves_the_connection_usable(fake: FakeBackend) -> None:
    await fake.publish(task_record(), done())
    async with broker(fake) as running, Stalled(running.url, f"{PATH}?last_event_id=epoch1-2") as client:
        for _ in range(2):
            await client.read_until(b"\r\n\r\n")
            head, _blank, body = client.received.partition(b"\r\n\r\n")
            assert (head.split()[1], body) == (b"204", b"")
            client.received = b""
            await asyncio.get_running_loop().sock_sendall(client._socket, client._request)


# --- many streams of one task


async def test_many_watchers_of_many_shapes_get_the_same_story(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        shapes = [{}, {"named": 0}, {"types": "status"}, {"debug": 1}, {"types": "artifact"}]
        streams = [await running.watch(cursor="epoch1-1", **shapes[index % 5]) for index in range(25)]
        for stream in streams:
            await stream.next()
        await fake.publish(*numbered(20))
        late = [await running.watch(cursor="epoch1-1") for _ in range(5)]
        await fake.publish(*numbered(20, first=20), done())
        for index, stream in enumerate(streams):
            wanted = [] if index % 5 == 4 else numbers(40)
            assert texts(await stream.rest()) == wanted
        for stream in late:
            assert texts(await stream.rest()) == numbers(40)


async def test_watchers_that_come_and_go_while_events_flow_see_a_contiguous_run(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        flowing = True

        async def flow() -> int:
            count = 0
            while flowing:
                await fake.publish(*numbered(3, first=count))
                count += 3
                await asyncio.sleep(0.001)
            await fake.publish(done())
            return count

        async def watch(index: int) -> list[str]:
            seen: list[str] = []
            cursor: str | None = "epoch1-1"
            for _attempt in range(6):
                stream = await running.watch(cursor=cursor)
                seen += texts(await stream.take(2 + index))
                cursor = stream.last_id
                await stream.close()
            return seen

        writing = asyncio.ensure_future(flow())
        runs = await asyncio.gather(*(watch(index) for index in range(8)))
        flowing = False
        count = await writing
        for run in runs:
            assert run == numbers(len(run))
        frames = await (await running.watch(cursor="epoch1-1")).rest()
        assert texts(frames) == numbers(count)


async def test_who_has_left_when_a_stream_begins_is_no_error(
    fake: FakeBackend, unharmed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    async def start(_stream: Stream, request: web.BaseRequest) -> None:
        request.protocol.force_close()
        begun.append(request)
        await begin(_stream, request)

    begin = Stream.start
    monkeypatch.setattr(Stream, "start", start)
    await fake.publish(task_record())
    async with broker(fake) as running:
        assert await exchange(running.url, f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == b""
        await until(lambda: begun)
        assert (await running.get("/ui/"))[0] == 200
