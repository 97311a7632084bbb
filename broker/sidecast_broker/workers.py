"""The worker processes of a broker: started, told apart, started again when they die or hang, stopped.

Must not know what a worker serves, nor who asks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from sidecast_broker.background import Background
from sidecast_broker.embedded import start_child
from sidecast_broker.settings import Settings
from sidecast_broker.watchdog import hung

logger = structlog.get_logger(__name__)

START_S_MAX = 30.0
"""Time a worker may take until it listens: Python's start on a busy machine, times the number of workers."""
RESTART_S_MIN = 0.1
RESTART_S_MAX = 5.0
STEADY_S = 30.0
"""Who has lived so long is started again at once when it dies."""
KILL_S = 5.0
"""How long one that is told to end at once may take."""


class StartFailed(RuntimeError):  # noqa: N818 - named as the message reads
    """A worker says why it can't serve, or doesn't begin to."""


class Report(msgspec.Struct, frozen=True):
    """The one line a worker writes to standard output: where it listens, or why it doesn't."""

    url: str = ""
    error: str = ""


class Orders(msgspec.Struct, frozen=True):
    """What a worker reads from standard input, to its end: secrets have no place in arguments.

    Attributes:
        number: which one it is, from 1.
        internal_path: where it listens for this process.
        overview_path: where it asks this process for what all workers know.
        settings: all settings.
    """

    number: int
    internal_path: str
    overview_path: str
    settings: Settings


class Running(NamedTuple):
    """A worker that serves.

    Attributes:
        number: which one, from 1.
        path: of the socket of its internal listener.
        pid: its process.
    """

    number: int
    path: str
    pid: int


def overview_path(folder: Path) -> str:
    """Give the socket in the workers' folder at which they ask for what all of them know."""
    return str(folder / "overview")


class Worker:
    """One process after the other.

    Args:
        number: from 1.
        folder: where its sockets are; nobody else can look into it.
        settings: all settings, with the port that is shared.
        on_death: called with the number when one has died that was not told to.

    Attributes:
        url: of the public listener.
    """

    def __init__(
        self, number: int, folder: Path, settings: Settings, on_death: Callable[[int], None]
    ) -> None:
        self.number = number
        self.url = ""
        self._folder = folder
        self._settings = settings
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._path = ""
        self._serves = False
        self._started = 0
        self._stopped = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    @property
    def running(self) -> Running | None:
        """What serves at the moment; None: it is being started."""
        process = self._process
        if process is None or process.returncode is not None or not self._serves:
            return None
        return Running(self.number, self._path, process.pid)

    async def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            StartFailed: it doesn't.
        """
        self._serves = False
        self._started += 1
        self._path = str(self._folder / f"{self.number}.{self._started}")
        orders = msgspec.json.encode(
            Orders(self.number, self._path, overview_path(self._folder), self._settings)
        )
        process = self._process = await start_child(
            [sys.executable, "-m", "sidecast_broker.commands.worker"],
            # When this process is killed, they drain: their clients find the next broker in good order.
            death_signal=signal.SIGTERM,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            async with asyncio.timeout(START_S_MAX):
                with contextlib.suppress(ConnectionError):
                    process.stdin.write(orders)
                    await process.stdin.drain()
                process.stdin.close()
                line = await process.stdout.readline()
            report = msgspec.json.decode(line, type=Report) if line else Report(error=await _ended(process))
        except TimeoutError:
            await self.kill()
            raise StartFailed(f"worker {self.number} did not listen within {START_S_MAX:g} s") from None
        except BaseException:
            await self.kill()
            raise
        if report.error:
            await process.wait()
            raise StartFailed(report.error)
        self.url = report.url
        self._serves = True

    def watch(self) -> None:
        """Begin to start it again whenever it dies."""
        self._watch = asyncio.get_running_loop().create_task(
            self._keep_running(), name=f"worker-{self.number}"
        )

    async def _keep_running(self) -> None:
        delay_s = RESTART_S_MIN
        while not self._stopped.is_set():
            assert self._process is not None
            began_s = time.monotonic()
            watchdog = Background(f"watchdog-{self.number}", self._kill_when_hung)
            watchdog.start()
            code = await self._process.wait()
            self._serves = False
            await watchdog.close()
            if self._stopped.is_set():
                return
            logger.error("worker_died", worker=self.number, pid=self._process.pid, code=code)
            self._on_death(self.number)
            if time.monotonic() - began_s >= STEADY_S:
                delay_s = RESTART_S_MIN
            await self._start_again(delay_s)
            delay_s = min(delay_s * 2, RESTART_S_MAX)

    async def _kill_when_hung(self) -> None:
        silent_s = await hung(self._path)
        # One that goes away has the time of a drain, however it spends it.
        if not self._stopped.is_set():
            pid = self._process and self._process.pid
            logger.error("worker_hangs", worker=self.number, pid=pid, silent_s=round(silent_s, 1))
            self.signal(signal.SIGKILL)

    async def _start_again(self, delay_s: float) -> None:
        while not await self._stopped_within(delay_s):
            delay_s = min(delay_s * 2, RESTART_S_MAX)
            try:
                await self.start()
            except (StartFailed, OSError) as error:
                if not self._stopped.is_set():
                    logger.error(
                        "worker_not_restarted", worker=self.number, error=str(error), again_in_s=delay_s
                    )
                continue
            if self._stopped.is_set():
                self.signal(signal.SIGTERM)
            logger.info("worker_restarted", worker=self.number, pid=self.running and self.running.pid)
            return

    async def _stopped_within(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._stopped.wait()
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let it end: from here on none follows it."""
        self._stopped.set()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that is gone gets none."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self) -> None:
        """Wait until the process has ended that is the last one."""
        if self._watch is not None:
            await self._watch
        if self._process is not None:
            await self._process.wait()

    async def kill(self) -> None:
        """End it without a chance to refuse."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()


class Workers:
    """All workers of a broker.

    Args:
        count: how many.
        folder: where their sockets are.
        settings: as each of them gets them.
        on_death: called with its number when one has died.
    """

    def __init__(self, count: int, folder: Path, settings: Settings, on_death: Callable[[int], None]) -> None:
        self._all = [Worker(number, folder, settings, on_death) for number in range(1, count + 1)]

    @property
    def running(self) -> list[Running]:
        """Those that serve, by number."""
        return [running for worker in self._all if (running := worker.running) is not None]

    @property
    def url(self) -> str:
        """The public listener's."""
        return self._all[0].url

    def __len__(self) -> int:
        return len(self._all)

    async def start(self) -> None:
        """Start all at once, and look after them from then on.

        Raises:
            StartFailed: one of them can't serve; then none does.
        """
        outcomes = await asyncio.gather(*(worker.start() for worker in self._all), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            await self._kill()
            raise failures[0]
        for worker in self._all:
            worker.watch()

    def drain(self) -> None:
        """Have all of them do what SIGTERM does."""
        for worker in self._all:
            worker.stop()
            worker.signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Wait until all have ended."""
        await asyncio.gather(*(worker.ended() for worker in self._all))

    async def close(self) -> None:
        """End all that still run."""
        for worker in self._all:
            worker.stop()
        if any(worker.running for worker in self._all):
            self.drain()
            for worker in self._all:
                worker.signal(signal.SIGINT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_S):
                    await asyncio.shield(self.ended())
        await self._kill()

    async def _kill(self) -> None:
        await asyncio.gather(*(worker.kill() for worker in self._all))


async def _ended(process: asyncio.subprocess.Process) -> str:
    code: Any = await process.wait()
    return f"a worker ended with {code} before it listened"
