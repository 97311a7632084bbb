"""Streams that are sent away one after the other and come back, and shared readings of history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from a2a_rig.wire import WIRES, Wire, request
from access_rig import Ask
from brokers import TASK, FakeBackend, broker, numbered, numbers, task_record, texts, until
from sse import exchange, kinds

from sidecast_broker.answers import Page

AGE = {"stream__age_max_s": 0.4, "stream__retry_ms": 1000}


async def test_an_old_stream_is_sent_away_and_resumes(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(3))
    async with broker(fake, **AGE) as running:
        stream = await running.watch(**{"from": "start"})
        frames = await stream.rest()
        assert kinds(frames)[-1] == "stream.drain"
        assert texts(frames) == numbers(3)
        drain = frames[-1]
        assert drain.retry == drain["reconnect_in_ms"]
        assert 500 <= drain["reconnect_in_ms"] <= 1500
        assert drain.id is None
        await running.until_metric("sidecast_streams_closed_total", reason="age")
        await fake.publish(*numbered(2, 3))
        cursor = [frame.id for frame in frames if frame.id][-1]
        again = await running.watch(headers={"Last-Event-ID": cursor})
        assert texts(await again.take(3)) == ["3", "4"]


async def test_streams_that_began_together_end_one_after_the_other(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    loop = asyncio.get_running_loop()
    async with broker(fake, stream__age_max_s=2, stream__heartbeat_s=0.2) as running:
        began_s = loop.time()

        async def life_s() -> float:
            stream = await running.watch()
            assert kinds(await stream.rest())[-1] == "stream.drain"
            return loop.time() - began_s

        lives = sorted(await asyncio.gather(*(life_s() for _ in range(40))))
        # Between three quarters of it and all of it; what the beat adds stands behind.
        assert lives[0] >= 1.5
        assert lives[-1] - lives[0] > 0.25


async def test_a_drain_is_over_when_all_have_left(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__drain_s=600) as running:
        for _ in range(4):
            await (await running.watch()).take(2)
        drain = asyncio.create_task(running.listening.streams.drain())
        await until(lambda: len(running.listening.streams) == 3)
        await running.leave()
        async with asyncio.timeout(5):
            await drain


@pytest.mark.row("C70")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_no_a2a_client_takes_an_old_stream_for_a_task_that_is_over(
    fake: FakeBackend, wire: Wire
) -> None:
    await fake.publish(task_record(), *numbered(1))
    async with broker(fake, **AGE, stream__a2a_heartbeat_s=0.2) as running:
        method, path, body, headers = request(wire, "subscribe", task=TASK)
        answer = await exchange(running.url, Ask(method, path, body, headers).raw(None))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"The broker ends this stream; subscribe again to go on" in answer
        assert b"COMPLETED" not in answer
        assert b'"final":true' not in answer


async def test_those_who_wait_for_one_history_share_its_reading(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fake.publish(task_record(), *numbered(40))
    async with broker(fake) as running:
        [connection] = fake.connections
        read = connection.read
        starts = []

        def counted(subject: str, start: int, *rest: int) -> Awaitable[Page]:
            starts.append(start)
            return read(subject, start, *rest)

        monkeypatch.setattr(connection, "read", counted)
        streams = await asyncio.gather(*(running.watch(**{"from": "start"}) for _ in range(50)))
        for stream in streams:
            assert texts(await stream.until(lambda frame: frame.json.get("text") == "39")) == numbers(40)
        assert len(starts) == len(set(starts)) == 1
