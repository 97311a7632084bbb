"""What becomes of clients that don't keep up: cut, to resume, or shown the task as it stands."""

from __future__ import annotations

import asyncio
import time

import pytest
import structlog
from a2a_rig.wire import WIRES, Wire, request
from brokers import (
    TASK,
    Broker,
    FakeBackend,
    OwnBroker,
    broker,
    done,
    numbered,
    status,
    task_record,
    texts,
    until,
)
from shell.test_stream import PATH, SMALL, long_texts, one_by_one
from sse import Stalled, data_frames, kinds

CHANGES = {**SMALL, "stream__skip_s": 0.2}


def behind(running: OwnBroker) -> bool:
    return any(each["behind_events"] for each in running.listening.streams.describe())


# --- ?slow=snapshot


async def test_who_wants_a_snapshot_is_shown_the_task_as_it_stands_and_goes_on(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, **CHANGES) as running:
        async with Stalled(running.url, f"{PATH}?slow=snapshot") as slow:
            await slow.read_until(b"task.snapshot")
            await one_by_one(fake, long_texts(200))
            await until(lambda: behind(running))
            await asyncio.sleep(0.3)  # its time behind is what is tested
            await slow.read_until(b"stream.gap")
            await until(lambda: not behind(running))
            await fake.publish(status("afterwards"), done())
            await slow.read_until(b"stream.end")
            frames = slow.frames
        at = kinds(frames).index("stream.gap")
        lag, gap, snapshot, after = frames[at - 1 : at + 3]
        assert (lag.kind, lag["policy"]) == ("stream.lag", "snapshot")
        assert (gap["reason"], gap.id) == ("slow", None)
        assert gap["requested"] == frames[at - 2].id
        assert (snapshot.kind, snapshot.id) == ("task.snapshot", "epoch1-201")
        said = [message["parts"][0]["text"] for message in snapshot["task"]["history"]]
        assert [text.split()[0] for text in said] == [str(number) for number in range(199)]
        assert after["text"] == "afterwards"
        assert kinds(frames)[at + 3 :] == ["task.status", "stream.end"]
        shown = [text.split()[0] for text in texts(frames[:at])]
        assert shown == [str(number) for number in range(len(shown))]
        assert len(shown) < 150
        assert await running.metric("sidecast_streams_closed_total", reason="lag") == 0


async def test_a_short_pause_is_caught_up_with(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, **SMALL, stream__skip_s=60) as running:
        async with Stalled(running.url, f"{PATH}?slow=snapshot") as slow:
            await slow.read_until(b"task.snapshot")
            await one_by_one(fake, [*long_texts(150), done()])
            await slow.read_until(b"stream.end")
            frames = slow.frames
        assert "stream.gap" not in kinds(frames)
        assert [text.split()[0] for text in texts(frames)] == [str(number) for number in range(150)]


async def test_a_client_with_a_rate_is_caught_up_with_after_each_short_pause(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__send_buffer_bytes=4096, stream__skip_s=1) as running:
        async with Stalled(running.url, f"{PATH}?slow=snapshot&max_rate=200") as slow:

            async def pause(number: int) -> None:
                await until(lambda: running.listening.streams.describe()[0]["lags"] == number)

            await slow.read_until(b"task.snapshot")
            await one_by_one(fake, [*long_texts(500), done()])
            await pause(1)
            await slow.read_until(b'"text":"330 ')  # for longer than it may be behind
            await pause(2)
            await slow.read_until(b"stream.end")
            frames = slow.frames
        assert "stream.gap" not in kinds(frames)
        assert [text.split()[0] for text in texts(frames)] == [str(number) for number in range(500)]


async def test_the_page_of_streams_says_what_was_done(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, **CHANGES) as running:
        async with Stalled(running.url, f"{PATH}?slow=snapshot&batch_ms=20") as slow:
            await slow.read_until(b"task.snapshot")
            await one_by_one(fake, long_texts(200))
            await until(lambda: behind(running))
            await asyncio.sleep(0.3)  # its time behind is what is tested
            await slow.read_until(b"stream.gap")
            _status, answer = await running.internal("/streams")
        [shown] = answer["streams"] if isinstance(answer, dict) else answer
        assert (shown["slow"], shown["skips"], shown["pace"]["batch_ms"]) == ("snapshot", 1, 20)


async def test_who_takes_nothing_is_cut_whatever_it_wants(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, **CHANGES, stream__lag_s_max=0.6) as running:
        async with Stalled(running.url, f"{PATH}?slow=snapshot") as frozen:
            await frozen.read_until(b"task.snapshot")
            await one_by_one(fake, long_texts(100))
            began_s = time.monotonic()
            await until(lambda: not len(running.listening.streams))
            assert time.monotonic() - began_s < 3
        assert await running.metric("sidecast_streams_closed_total", reason="lag") == 1


# --- A2A: cut, so that nobody takes it for completion


def stalled(running: Broker, wire: Wire, http: str = "1.1", query: str = "") -> Stalled:
    """Give an A2A subscriber that reads only when told to."""
    method, path, body, headers = request(wire, "subscribe", task=TASK, query=query)
    client = Stalled(running.url, path)
    lines = [f"{method} {path} HTTP/{http}", "Host: x", "Accept: text/event-stream"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    client._request = "\r\n".join([*lines, "", ""]).encode() + (body or b"")
    return client


@pytest.mark.parametrize("http", ["1.0", "1.1"])
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_an_a2a_client_that_takes_nothing_is_cut_so_that_it_can_tell(
    fake: FakeBackend, wire: Wire, http: str
) -> None:
    await fake.publish(task_record())
    with structlog.testing.capture_logs() as logs:
        async with (
            broker(fake, **SMALL, stream__lag_s_max=0.5) as running,
            stalled(running, wire, http) as slow,
        ):
            await slow.read_until(b"data: ")
            await one_by_one(fake, long_texts(100))
            await until(lambda: not len(running.listening.streams))
            reset = False
            try:
                while await slow.read():
                    pass
            except ConnectionError:
                reset = True
            head, _blank, body = slow.received.partition(b"\r\n\r\n")
            chunked = b"chunked" in head.lower()
            assert chunked is (http == "1.1")
            # The body's end is told by the last chunk, or else by that of the connection.
            assert not body.endswith(b"0\r\n\r\n") if chunked else reset
            assert b"COMPLETED" not in body
            assert b"completed" not in body
    assert [line["reason"] for line in logs if line["event"] == "stream_closed"] == ["lag"]


@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("name", ["slow=snapshot", "coalesce=1", "batch=array", "slow=x"])
async def test_nothing_is_left_out_of_a2a(fake: FakeBackend, wire: Wire, name: str) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running, stalled(running, wire, query=name) as client:
        await client.read_until(b"}")
        assert name.partition("=")[0].encode() in client.received.partition(b"\r\n\r\n")[2]
        assert (
            b"text/event-stream" not in client.received.partition(b"\r\n\r\n")[0]
            or b"-32602" in client.received
        )
        assert not len(running.listening.streams)


# --- a rate that is too low


async def test_a_client_that_its_own_rate_makes_late_is_cut(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, pace__late_s_max=1, pace__burst=1, stream__lag_s_max=0.8) as running:
        stream = await running.watch(cursor="epoch1-1", max_rate=10)
        await fake.publish(*numbered(200))
        frames = await stream.rest()
        assert stream.broken
        shown = texts(frames)
        assert shown == [str(number) for number in range(len(shown))]
        assert 5 < len(shown) < 60
        assert await running.metric("sidecast_streams_closed_total", reason="lag") == 1


async def test_or_shown_the_task_as_it_stands(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    changes = {"pace__late_s_max": 1, "pace__burst": 1, "stream__lag_s_max": 0.8}
    async with broker(fake, **changes) as running:
        stream = await running.watch(cursor="epoch1-1", max_rate=10, slow="snapshot")
        await fake.publish(*numbered(200))
        frames = await stream.until("task.snapshot")
        assert (frames[-2].kind, frames[-2]["reason"]) == ("stream.gap", "slow")
        assert frames[-1].id == "epoch1-201"
        await fake.publish(done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]


async def test_who_keeps_its_rate_is_left_alone(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, pace__late_s_max=1, stream__lag_s_max=0.4) as running:
        stream = await running.watch(cursor="epoch1-1", max_rate=500)
        for first in range(0, 60, 4):
            await fake.publish(*numbered(4, first))
            await asyncio.sleep(0.1)  # longer than a late one would be left alone
        await fake.publish(done())
        assert len(data_frames(await stream.rest())) == 61
