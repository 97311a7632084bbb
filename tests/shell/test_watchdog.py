"""When a worker is taken to hang, and when to be busy only."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
import structlog
from brokers import until

from sidecast_broker import watchdog, workers
from sidecast_broker.settings import Settings
from sidecast_broker.watchdog import hung
from sidecast_broker.workers import Worker

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
TICK_S = 1 / 128
LIMIT_TICKS = 30

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Clock:
    """Goes on when it is told to, by a step between two looks; or with each of them.

    Attributes:
        runs: whether it goes on by itself.
    """

    def __init__(self) -> None:
        self.runs = False
        self._now_s = 1000.0
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        self._now_s += TICK_S if self.runs else 0.0
        return self._now_s

    async def pass_ticks(self, count: int, step_s: float = TICK_S) -> None:
        """Have a silence go on for so many ticks, and each of them be seen."""
        for _ in range(count):
            looks = self._looks
            self._now_s += step_s
            await until(lambda looks=looks: self._looks > looks)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr(watchdog, "time", turned)
    monkeypatch.setattr(watchdog, "TICK_S", TICK_S)
    monkeypatch.setattr(watchdog, "ASK_S", 0.0)
    monkeypatch.setattr(watchdog, "HANG_S", LIMIT_TICKS * TICK_S)
    return turned


class Asked:
    """A worker as far as it is asked: answers when it is told to.

    Attributes:
        questions: how often it was asked.
        connections: how often it was connected to.
    """

    def __init__(self) -> None:
        self.questions = 0
        self.connections = 0
        self._writer: asyncio.StreamWriter | None = None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writer = writer
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while question := await reader.readuntil(b"\r\n\r\n"):
                assert question.startswith(b"HEAD /livez HTTP/1.1\r\n")
                self.questions += 1

    def answer(self) -> None:
        assert self._writer is not None
        self._writer.write(OK)


@asynccontextmanager
async def served(path: Path, asked: Asked) -> AsyncIterator[asyncio.Task[float]]:
    """Watch one that is asked; give what becomes of it."""
    server = await asyncio.start_unix_server(asked.connected, path)
    watching = asyncio.create_task(hung(str(path)))
    try:
        await until(lambda: asked.questions == 1)
        yield watching
    finally:
        watching.cancel()
        await asyncio.wait({watching})
        server.close()
        await server.wait_closed()


async def test_who_answers_in_time_is_left_alone_and_who_does_not_hangs(tmp_path: Path, clock: Clock) -> None:
    asked = Asked()
    async with served(tmp_path / "worker", asked) as watching:
        for count in range(1, 4):
            await clock.pass_ticks(LIMIT_TICKS - 1)
            assert not watching.done()
            asked.answer()
            await until(lambda count=count: asked.questions == count + 1)
        await clock.pass_ticks(LIMIT_TICKS)
        assert await watching == LIMIT_TICKS * TICK_S
        assert asked.connections == 1, "one that has no more file descriptors can't accept another"


async def test_time_in_which_nobody_listened_is_no_silence(tmp_path: Path, clock: Clock) -> None:
    asked = Asked()
    async with served(tmp_path / "worker", asked) as watching:
        await clock.pass_ticks(LIMIT_TICKS - 1)
        await clock.pass_ticks(5, step_s=3600.0)
        assert not watching.done()
        await clock.pass_ticks(1)
        assert await watching == LIMIT_TICKS * TICK_S


# --- what is no answer


async def _nothing(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _byte_by_byte(writer: asyncio.StreamWriter) -> None:
    """Begin the answer, and never end its head."""
    writer.write(OK[:-2])
    while True:
        for byte in b"X-More: and more\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)


def _says(answer: bytes) -> Answer:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return say


def _without_end(piece: bytes) -> Answer:
    async def say(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return say


NO_ANSWERS = {
    "nothing": _nothing,
    "hangs-up": _hangs_up,
    "byte-by-byte": _byte_by_byte,
    "garbage": _says(b"\x00\xff\r\n\r\n\x16\x03"),
    "another-protocol": _says(b"220 mail.example ESMTP\r\n"),
    "half-a-head": _says(OK[:-2]),
    "failed": _says(OK.replace(b"200 OK", b"500 Internal Server Error")),
    "draining": _says(OK.replace(b"200 OK", b"503 Service Unavailable")),
    "elsewhere": _says(b"HTTP/1.1 302 Found\r\nLocation: /livez\r\nContent-Length: 0\r\n\r\n"),
    "no-status": _says(OK.replace(b"200", b"2e2")),
    "endless-head": _without_end(b"X-More: and more\r\n" * 100),
    "endless-line": _without_end(b"x" * 10_000),
    "continue-for-ever": _without_end(b"HTTP/1.1 100 Continue\r\n\r\n" * 10),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
async def test_what_is_no_answer_is_silence(tmp_path: Path, clock: Clock, answer: Answer) -> None:
    connections: set[asyncio.Task[None]] = set()
    questions = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal questions
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                questions += 1
                await answer(writer)
        writer.close()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(connected(reader, writer)))

    server = await asyncio.start_unix_server(accepted, tmp_path / "worker")
    try:
        clock.runs = True
        assert await asyncio.wait_for(hung(str(tmp_path / "worker")), 8) == LIMIT_TICKS * TICK_S
        assert questions
    finally:
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        server.close()
        await server.wait_closed()


async def test_so_is_a_socket_that_nobody_listens_at(tmp_path: Path, clock: Clock) -> None:
    clock.runs = True
    assert await hung(str(tmp_path / "nobody")) == LIMIT_TICKS * TICK_S


# --- what follows


async def test_one_that_goes_away_is_not_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_path: str) -> float:
        return 31.26

    monkeypatch.setattr(workers, "hung", at_once)
    worker = Worker(2, tmp_path, Settings(), lambda _number: None)
    process = worker._process = Mock(pid=77, returncode=None)
    with structlog.testing.capture_logs() as lines:
        await worker._kill_when_hung()
        process.send_signal.assert_called_once_with(signal.SIGKILL)
        worker.stop()
        await worker._kill_when_hung()
        process.send_signal.assert_called_once()
    hangs = {"event": "worker_hangs", "worker": 2, "pid": 77, "silent_s": 31.3, "log_level": "error"}
    assert lines == [hangs]
