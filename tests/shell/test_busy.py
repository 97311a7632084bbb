"""How a client is turned away for a moment: an EventSource by a frame, who understands a status by one."""

from __future__ import annotations

import asyncio
from typing import Any

from brokers import AS_JSON, TASK, FakeBackend, broker, task_record, until
from shell.test_routes import ALIASES, EVENT_STREAM
from sse import kinds


async def busy(running: Any, reason: str, **query: object) -> None:
    stream = await running.watch(**query)
    assert stream.status == 200
    assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["Cache-Control"] == "no-store, no-transform"
    assert "Content-Length" in stream.headers or stream.headers.get("Transfer-Encoding") == "chunked"
    (frame,) = await stream.rest()
    assert (frame.kind, frame["reason"], frame.id) == ("stream.busy", reason, None)
    assert frame.retry == frame["reconnect_in_ms"] > 0
    for headers, path in ((EVENT_STREAM, "?refusal=status"), (AS_JSON, ""), ({}, "")):
        async with asyncio.timeout(5):
            status_code, body = await running.get(f"/tasks/{TASK}/events{path}", headers)
        assert (status_code, body["error"]["code"]) == (429 if reason == "limit" else 503, reason)


async def test_without_nats_a_stream_is_busy(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    await fake.go_away()
    async with broker(fake, ready=False) as running:
        await busy(running, "unavailable")
        assert await running.metric("sidecast_rejected_total", reason="unavailable") == 4


async def test_at_the_limit_a_stream_is_busy(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__streams_max=2) as running:
        streams = [await running.watch() for _ in range(2)]
        for stream in streams:
            await stream.take(2)
        await busy(running, "limit")
        await streams[0].close()
        await until(lambda: len(running.listening.streams) == 1)
        assert kinds(await (await running.watch()).take(2)) == ["stream.open", "task.snapshot"]


async def test_the_limit_holds_for_those_who_come_at_once(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__streams_max=5) as running:
        streams = await asyncio.gather(*(running.watch() for _ in range(20)))
        first = [(await stream.next()).kind for stream in streams]
        assert (first.count("stream.open"), first.count("stream.busy")) == (5, 15)


async def test_while_draining_a_stream_is_busy(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        await running.listening.streams.drain()
        await busy(running, "draining")


async def test_busy_is_jittered_and_as_named_as_asked(fake: FakeBackend) -> None:
    await fake.go_away()
    async with broker(fake, ready=False) as running:
        frames = [(await (await running.watch()).rest())[0] for _ in range(20)]
        assert len({frame.retry for frame in frames}) > 5
        assert all(750 <= (frame.retry or 0) <= 1750 for frame in frames)
        for path, named in ALIASES.items():
            (frame,) = await (await running.watch(path=path.format(TASK))).rest()
            assert frame.type == ("stream.busy" if named else "message")
        (frame,) = await (await running.watch(named=0)).rest()
        assert frame.type == "message"


async def test_a_refusal_names_when_to_come_back(fake: FakeBackend) -> None:
    await fake.go_away()
    async with broker(fake, ready=False) as running:
        stream = await running.watch(refusal="status")
        assert (stream.status, int(stream.headers["Retry-After"]) >= 1) == (503, True)
