"""A stream from its opening to its end, through the real parts: what it costs others, and what it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import (
    OTHER,
    TASK,
    Backend,
    RealBackend,
    artifact,
    broker,
    child_broker,
    done,
    numbered,
    numbers,
    status,
    task_record,
    texts,
    until,
)
from sse import Stalled, kinds

PATH = f"/tasks/{TASK}/events"


async def test_a_stream_lives_from_the_first_record_to_the_last(backend: Backend) -> None:
    async with broker(backend, stream__heartbeat_s=0.2) as running:
        waiting = await running.watch(wait_s=30)
        await until(lambda: len(running.listening.streams))
        await backend.publish(task_record())
        assert kinds(await waiting.take(2)) == ["stream.open", "task.snapshot"]
        await backend.publish(*numbered(5))
        assert texts(await waiting.take(5)) == numbers(5)
        await waiting.item()
        assert waiting.comments[-1] == ""
        await backend.publish(status("sure?", state="INPUT_REQUIRED"))
        (asked,) = await waiting.take(1)
        assert (asked["state"], asked["final"]) == ("input-required", False)
        await backend.publish(status("thanks"), artifact("result"), done())
        assert kinds(await waiting.rest()) == ["task.status", "task.artifact", "task.status", "stream.end"]
        await until(lambda: not len(running.listening.streams))
        assert await running.metric("sidecast_streams_closed_total", reason="ended") == 1


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELED", "REJECTED"])
async def test_every_terminal_state_ends_a_stream(backend: Backend, state: str) -> None:
    await backend.publish(task_record())
    async with broker(backend) as running:
        stream = await running.watch()
        await stream.take(2)
        await backend.publish(done(state=state))
        last, end = await stream.rest()
        assert (last["state"], last["final"], end["state"]) == (state.lower(), True, state.lower())


async def test_a_task_that_begins_ended_is_told_and_over(backend: Backend) -> None:
    await backend.publish(task_record(state="COMPLETED"))
    async with broker(backend) as running:
        frames = await (await running.watch()).rest()
        assert kinds(frames) == ["stream.open", "task.snapshot", "stream.end"]
        assert (await running.watch(cursor=frames[1].id)).status == 204


async def test_a_hundred_watchers_and_one_who_takes_nothing(backend: Backend) -> None:
    await backend.publish(task_record())
    small = {"stream__send_buffer_bytes": 4096, "stream__buffer_bytes_max": 4096, "stream__lag_s_max": 3}
    async with broker(backend, **small) as running:
        streams = [await running.watch(cursor="epoch1-1") for _ in range(100)]
        for stream in streams:
            await stream.next()
        async with Stalled(running.url, PATH) as stalled:
            await stalled.read_until(b"task.snapshot")
            for number in range(50):
                await backend.publish(status(f"{number}", metadata={"padding": "x" * 3000}))
            everybody = await asyncio.gather(*(stream.take(50) for stream in streams))
            assert all(texts(frames) == numbers(50) for frames in everybody)
            await until(lambda: len(running.listening.streams) == 100)
            # Where the broker is late, the kernel has found that nothing is taken.
            reasons = ("lag", "client-gone")
            closed = [await running.metric("sidecast_streams_closed_total", reason=each) for each in reasons]
            assert sum(closed) == 1
        await backend.publish(done())
        ends = await asyncio.gather(*(stream.rest() for stream in streams))
        assert all(kinds(frames) == ["task.status", "stream.end"] for frames in ends)


async def test_many_tasks_do_not_mix(backend: Backend) -> None:
    tasks = [f"t-{index}" for index in range(30)]
    async with broker(backend) as running:
        streams = [await running.watch(task, wait_s=30) for task in tasks]
        for task in tasks:
            await backend.publish(task_record(task), task=task)
        for number in range(10):
            for task in tasks:
                await backend.publish(status(f"{task} {number}", task), task=task)
        for task in tasks:
            await backend.publish(done(task), task=task)
        for task, stream in zip(tasks, streams, strict=True):
            frames = await stream.rest()
            shown = [text for frame in frames if frame.kind == "task.status" for text in texts([frame])]
            # What came before its snapshot is in there.
            assert shown == [f"{task} {number}" for number in range(10)][10 - len(shown) :]
            assert {frame["taskId"] for frame in frames if "taskId" in frame.json} == {task}


async def test_two_brokers_give_the_same_ids(backend: Backend) -> None:
    await backend.publish(task_record(), *numbered(3))
    async with broker(backend) as one, broker(backend) as other:
        first = await one.watch(cursor="epoch1-1")
        await first.take(3)
        await first.close()
        second = await other.watch(cursor=first.last_id)
        assert texts((await second.take(2))[1:]) == ["2"]
        await backend.publish(done())
        assert kinds(await second.rest()) == ["task.status", "stream.end"]
        assert (await one.watch(cursor=second.last_id)).status in (200, 204)


# --- a broker of its own


@pytest.mark.row("C70")
async def test_sigterm_drains_and_another_broker_goes_on(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    changes = {"stream__drain_s": 0.3}
    async with child_broker(real, tmp_path / "one", **changes) as one:
        streams = [await one.watch() for _ in range(5)]
        for stream in streams:
            await stream.take(2)
        process = one.terminate()
        drained = await asyncio.gather(*(stream.rest() for stream in streams))
        assert [kinds(frames) for frames in drained] == [["stream.drain"]] * 5
        assert not any(stream.broken for stream in streams)
        assert await asyncio.to_thread(process.wait, 10) == 0
        assert {line["reason"] for line in one.logged("stream_closed")} == {"drain"}
        await real.publish(status("meanwhile"), done())
        await one.restart()
        for stream in streams:
            frames = await (await one.watch(cursor=stream.last_id)).rest()
            assert kinds(frames) == ["stream.open", "task.status", "task.status", "stream.end"]


async def test_a_client_process_that_is_stopped_is_cut_and_resumes_whole(
    real: RealBackend, tmp_path: Path
) -> None:
    await real.publish(task_record(), task=TASK)
    await real.publish(task_record(OTHER), task=OTHER)
    small = {
        "stream__send_buffer_bytes": 4096,
        "stream__buffer_bytes_max": 4096,
        "stream__lag_s_max": 1,
        "stream__heartbeat_s": 1,
    }
    seen = tmp_path / "seen"
    async with child_broker(real, tmp_path / "log", **small) as child:
        healthy = await child.watch()
        await healthy.take(2)
        command = [sys.executable, "-c", _CLIENT, child.url + PATH, str(seen)]
        client = subprocess.Popen(command)
        try:
            await until(lambda: seen.exists() and "epoch1-" in seen.read_text())
            os.kill(client.pid, signal.SIGSTOP)
            for number in range(150):
                await real.publish(status(f"{number}", metadata={"padding": "x" * 3000}))
            # With so small a buffer it may be told of lag between events.
            taken = await healthy.until(lambda frame: frame.json.get("text") == "149")
            assert texts(taken) == numbers(150)
            await until(lambda: [line["reason"] for line in child.logged("stream_closed")] == ["lag"])
            os.kill(client.pid, signal.SIGCONT)
            assert await asyncio.to_thread(client.wait, 10) == 0
        finally:
            client.kill()
            client.wait()
        # All it could read is contiguous, and what follows its last id completes it.
        frames = [json.loads(line) for line in seen.read_text().splitlines()]
        got = [frame["text"] for frame in frames if "text" in frame]
        await real.publish(done())
        rest = await (await child.watch(cursor=f"epoch1-{frames[-1]['seq']}")).rest()
        assert got + texts(rest) == numbers(150)


_CLIENT = r"""
import json, socket, sys, urllib.parse
address = urllib.parse.urlsplit(sys.argv[1])
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
client.connect((address.hostname, address.port))
client.sendall(f"GET {address.path} HTTP/1.0\r\n\r\n".encode())
rest = b""
with open(sys.argv[2], "w") as seen:
    while True:
        try:
            data = client.recv(4096)
        except ConnectionError:
            break
        if not data:
            break
        *blocks, rest = (rest + data).split(b"\n\n")
        for block in blocks:
            name, ident, text = b"", b"", b""
            for line in block.split(b"\n"):
                if line.startswith(b"id: "):
                    ident = line[4:]
                if line.startswith(b"data: "):
                    text = line[6:]
            if ident:
                frame = json.loads(text)
                kept = {"id": ident.decode(), "seq": frame["seq"]}
                if "text" in frame:
                    kept["text"] = frame["text"]
                print(json.dumps(kept), file=seen, flush=True)
"""
