"""A nats-server, a broker and processes around them, for the measuring tests.

Must not know what is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from accept import pulse, readers
from accept.readers import Measured
from e2e import watchers
from e2e.broker import Broker
from e2e.check import Watched
from e2e.faults import process_of, said
from nats_server import NatsServer

from bench.build import build

AGENT = "pulse"


def p99s(windows: list[Measured]) -> list[float]:
    """Give the p99 of each window."""
    return [each.p99_ms for each in windows]


class Asked:
    """A process that answers a line with a line of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, command: str, timeout_s: float = 90) -> Any:
        """Say a line; give the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        async with asyncio.timeout(timeout_s):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process ended")
        return msgspec.json.decode(line)

    async def end(self) -> None:
        """End the process."""
        await _end(self._process)

    async def measure(self, seconds: float) -> Measured:
        """Give what came in so many seconds from now."""
        await self.ask("begin")
        await asyncio.sleep(seconds)
        return msgspec.convert(await self.ask("end"), Measured)


class Stage:
    """What runs: its broker, and the processes started on it."""

    def __init__(self, folder: Path, broker: Broker, nats_url: str, stack: AsyncExitStack) -> None:
        self.broker = broker
        self._folder = folder
        self.nats_url = nats_url
        self._stack = stack
        self._count = 0

    async def pulse(self, *beats: pulse.Beat) -> Asked:
        """Start to publish; any line stops it."""
        return Asked(await self._start("accept.pulse", pulse.Plan(self.nats_url, AGENT, list(beats))))

    async def readers(self, task: str, *, measure: bool, token: str = "", query: str = "") -> Asked:
        """Start a process of readers without connections."""
        plan = readers.Plan(self.broker.host, self.broker.port, task, measure, token, query)
        return Asked(await self._start("accept.readers", plan))

    async def hostile(self, *options: str) -> Asked:
        """Start to burden the broker; any line tells what became of it since the last."""
        programs = await asyncio.to_thread(build)
        process = await asyncio.create_subprocess_exec(
            str(programs.hostile),
            *("--port", str(self.broker.port), *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._stack.push_async_callback(_end, process)
        return Asked(process)

    async def watcher(
        self, task: str, *wanted: watchers.Wanted, receive_bytes: int = 0, crawl_bytes: int = 0
    ) -> tuple[asyncio.subprocess.Process, Path]:
        """Start a process that records what it is given; give it with the file of its records."""
        result = self._folder / f"watched-{self._count}.json"
        watching = list(wanted) or [watchers.Wanted(f"watcher-{self._count}", task, "start")]
        broker = self.broker
        plan = watchers.Plan(
            broker.host, broker.port, watching, 0, 0, 1, str(result), receive_bytes, crawl_bytes
        )
        process = await self._start("e2e.watchers", plan)
        await said(process, "opened")
        return process, result

    async def _start(self, module: str, plan: msgspec.Struct) -> asyncio.subprocess.Process:
        self._count += 1
        path = self._folder / f"{module}-{self._count}.json"
        path.write_bytes(msgspec.json.encode(plan))
        return await self._stack.enter_async_context(process_of(module, path))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@asynccontextmanager
async def stage(folder: Path, settings: Mapping[str, object] | None = None) -> AsyncIterator[Stage]:
    """Run a nats-server and a broker for the length of the block."""
    with NatsServer(folder / "nats") as server:
        broker = Broker(
            folder, [server.url], {"agent.name": AGENT, "stream.retry_ms": 50, **(settings or {})}
        )
        await asyncio.to_thread(broker.start)
        try:
            async with AsyncExitStack() as stack:
                yield Stage(folder, broker, server.url, stack)
        finally:
            await asyncio.to_thread(broker.stop)


async def records_of(process: asyncio.subprocess.Process, result: Path) -> list[Watched]:
    """Wait until all watchers of a process have ended; give their records."""
    async with asyncio.timeout(60):
        await said(process, "ended")
    return msgspec.json.decode(result.read_bytes(), type=list[Watched])
