"""The clients in the documentation, as they stand there, at a broker that is killed under them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from a2a_rig.processes import environ
from a2a_rig.stage import Stage
from nats_server import NatsServer, create_stream

ROOT = Path(__file__).parents[2]
LINES_MAX = 10


def client_in(document: str, call: str) -> str:
    """Give the one block of Python of a document that makes a call."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if f"client.{call}(" in block]
    return found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with NatsServer(tmp_path / "nats") as server:
        asyncio.run(create_stream(server.url))
        with Stage(tmp_path, server, "v1", "adapter") as running:
            yield running


class Output:
    """What a client prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""

    async def until(self, pattern: str) -> None:
        """Read until a pattern is found, or to the end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while not re.search(pattern, self.text, re.DOTALL):
                line = await self.process.stdout.readline()
                assert line, f"no {pattern!r} in\n{self.text}"
                self.text += line.decode()

    async def rest(self) -> str:
        """Read to the end; give what was printed from the last Task on that the client was given."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            self.text += (await self.process.stdout.read()).decode()
            assert await self.process.wait() == 0, self.text
        return self.text[self.text.rindex("\ntask {") :]


@contextlib.asynccontextmanager
async def running(code: str, *arguments: str) -> AsyncIterator[Output]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", code, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environ(),
    )
    try:
        yield Output(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def replaced(code: str, old: str, new: str) -> str:
    assert code.count(old) == 1
    return code.replace(old, new)


async def test_the_client_of_the_readme_survives_a_broker_that_is_killed(stage: Stage) -> None:
    code = client_in("README.md", "send_message")
    body = re.search(r"^async def ask.*?(?=^\S*asyncio\.run)", code, re.MULTILINE | re.DOTALL)
    assert body is not None
    assert len(body[0].strip().splitlines()) <= LINES_MAX
    code = replaced(code, "http://127.0.0.1:8480", stage.url)
    code = replaced(code, "Write a report", "chunks 2; gate go; chunks 2 3")
    async with running(code) as client:
        await client.until(r'text: "2 "')
        await asyncio.to_thread(stage.broker.kill9)
        await asyncio.to_thread(stage.broker.start)
        await client.until(r"task \{.*\ntask \{")
        stage.agent.open("go")
        end = await client.rest()
    assert re.findall(r'text: "(\d) "', end) == ["1", "2", "3", "4"]
    assert "TASK_STATE_COMPLETED" in end
    assert len(stage.agent.seen["messages"]) == 1


async def test_the_watching_client_survives_a_broker_that_is_killed(stage: Stage) -> None:
    sending = client_in("README.md", "send_message")
    sending = replaced(sending, "http://127.0.0.1:8480", stage.url)
    sending = replaced(sending, "Write a report", "chunks 2; gate go; chunks 2 3")
    code = replaced(client_in("docs/a2a.md", "subscribe"), "http://127.0.0.1:8480", stage.url)
    async with running(sending) as sender:
        await sender.until(r'text: "2 "')
        (task,) = {each["taskId"] for each in stage.agent.seen["messages"]}
        async with running(code, task) as client:
            await client.until(r"task \{")
            await asyncio.to_thread(stage.broker.kill9)
            await asyncio.to_thread(stage.broker.start)
            await client.until(r"task \{.*\ntask \{")
            stage.agent.open("go")
            end = await client.rest()
        await sender.rest()
    assert "TASK_STATE_COMPLETED" in end
    assert re.findall(r'text: "(\d) "', end)[:4] == ["1", "2", "3", "4"]
