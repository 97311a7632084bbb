"""The demo as a user runs it: one command, then somebody watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecast_broker.commands.event_source import EventSourceParser, ServerSentEvent

START_S = 60.0

TEXT = "# Notes\n\n" + "\n\n".join(
    f"## Part {number}\n\nThe broker keeps the events of part {number}. Anyone can watch them."
    for number in range(12)
)


@contextlib.asynccontextmanager
async def demo(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecast_broker", "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A killed demo can't remove its temporary directory.
        env=os.environ | {"TMPDIR": str(Path(arguments[0]).parent)},
    )
    try:
        async with asyncio.timeout(START_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def read_until(process: asyncio.subprocess.Process, pattern: str) -> re.Match[str]:
    """Read the demo's output up to the line in which the pattern is found."""
    assert process.stdout is not None
    seen = []
    while line := (await process.stdout.readline()).decode():
        seen.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"no {pattern!r} in\n{''.join(seen)}")


async def watch(url: str) -> list[ServerSentEvent]:
    parser = EventSourceParser()
    events: list[ServerSentEvent] = []
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        async for chunk in response.content.iter_any():
            events += parser.feed(chunk)
    return events


async def frames(asking: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> list[dict[str, Any]]:
    """Give the events of an A2A stream."""
    parser = EventSourceParser()
    async with asking as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        return [json.loads(event.data) for event in parser.feed(await response.read())]


def children(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(int(stat.parent.name))
    return found


async def until_gone(pids: set[int]) -> None:
    async with asyncio.timeout(20):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.02)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "notes.md"
    path.write_text(TEXT)
    return path


async def test_a_task_of_the_demo_can_be_watched_to_its_end_and_again_afterwards(file: Path) -> None:
    async with demo(str(file), "--tasks", "1", "--port", "0", "--pace", "0") as process:
        url = (await read_until(process, r"curl -N (\S+)"))[1]
        live = await watch(url + "?from=start")
        await read_until(process, "All tasks are over")
        replayed = await watch(url + "?from=start")
        parts = children(process.pid)
        assert len(parts) == 3
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    await until_gone(parts)

    assert live[-1].type == "stream.end"
    assert json.loads(live[-1].data)["state"] == "completed"
    deliverable = [event for event in live if event.type.startswith("task.")]
    assert deliverable == [event for event in replayed if event.type.startswith("task.")]

    data = [json.loads(event.data) for event in deliverable]
    steps = [each["step"] for each in data if each["type"] == "task.step"]
    assert [(step["title"], step["state"]) for step in steps] == [
        *(("read", "running"), ("read", "done"), ("analyse", "running"), ("analyse", "done")),
        *(("write report", "running"), ("write report", "done")),
    ]
    assert any(each["type"] == "task.thought" for each in data)
    progress = [each["progress"] for each in data if each["type"] == "task.progress"]
    assert progress == sorted(progress)
    report = "".join(each["text"] for each in data if each["type"] == "task.artifact")
    assert report.startswith("# Report on notes.md")
    assert "| broker | 12 |" in report


async def test_the_demo_works_through_the_a2a_door(file: Path) -> None:
    async with demo(str(file), "--tasks", "1", "--port", "0", "--pace", "0.1") as process:
        metrics = (await read_until(process, r"health and metrics on (\S+)"))[1] + "/metrics"
        card = (await read_until(process, r"A2A +(http\S+)"))[1]
        line = await read_until(process, r"curl -N -H '([\w-]+): ([\d.]+)' (\S+)")
        async with aiohttp.ClientSession() as session:
            async with session.get(metrics) as answer:
                # Of nobody else: the demo's own client sent the message here.
                assert 'sidecast_streams_opened_total{format="a2a-jsonrpc-1.0"} 1.0' in await answer.text()
            async with session.get(card) as answer:
                urls = {each["url"] for each in (await answer.json())["supportedInterfaces"]}
            watched = await frames(session.get(line[3], headers={line[1]: line[2]}))
            await read_until(process, "All tasks are over")
            message = {"messageId": "own", "role": "ROLE_USER", "parts": [{"text": "another report"}]}
            own = await frames(
                session.post(
                    f"{min(urls)}/message:stream",
                    json={"message": message},
                    headers={"A2A-Version": "1.0"},
                )
            )
    broker = card.partition("/.well-known")[0]
    assert urls == {broker, f"{broker}/a2a"}
    for each in (watched, own):
        assert list(each[0]) == ["task"]
        assert each[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert line[3] == f"{broker}/tasks/{watched[0]['task']['id']}:subscribe"


async def test_the_demo_exits_when_asked_to_and_leaves_nothing(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with demo(str(file), "--tasks", "2", "--port", port, "--pace", "0", "--exit") as process:
            await read_until(process, f"Port {port} is taken")
            await read_until(process, "Task 1 of 2")
            parts = children(process.pid)
            await read_until(process, "Task 2 of 2")
            await read_until(process, "completed after")
            assert await process.wait() == 0
    assert len(parts) == 3
    await until_gone(parts)


async def test_a_killed_demo_takes_its_parts_with_it(file: Path) -> None:
    async with demo(str(file), "--tasks", "1", "--port", "0", "--pace", "10") as process:
        await read_until(process, "curl -N")
        parts = children(process.pid)
        assert len(parts) == 3
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    await until_gone(parts)


async def test_a_task_that_fails_fails_the_demo(tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe\x00")
    async with demo(str(file), "--tasks", "1", "--port", "0", "--exit") as process:
        await read_until(process, "failed after")
        await read_until(process, "Error: 1 of 1 tasks did not complete")
        assert await process.wait() == 1
