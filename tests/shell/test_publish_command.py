from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.__main__ import main
from sidecast_broker.commands import publish
from sidecast_broker.commands.publish import Line, PublishFailed, TaskPublisher, read_lines


class Pipe(io.RawIOBase):
    """An input that arrives in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read1(self, _: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def contents(*pieces: bytes) -> list[list[tuple[int, int, bytes]]]:
    batches = read_lines(Pipe(*pieces))  # type: ignore[arg-type]
    return [[(line.number, line.offset, line.content) for line in batch] for batch in batches]


def test_lines_are_given_as_they_arrive() -> None:
    assert contents(b"a\nb\n", b"c", b"", b"never") == [[(1, 0, b"a"), (2, 1, b"b")], [(3, 2, b"c")]]
    assert contents(b"a", b"b", b"c\nd", b"\n") == [[(1, 0, b"abc")], [(2, 1, b"d")]]
    assert contents() == []


def test_blank_lines_count_only_as_lines() -> None:
    assert contents(b"\n \na\r\n\n\nb") == [[(3, 0, b"a\r")], [(6, 1, b"b")]]


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "BATCH_LINES_MAX", 2)
    monkeypatch.setattr(publish, "BATCH_BYTES_MAX", 10)
    sizes = [
        [len(content) for _, _, content in batch]
        for batch in contents(b"1\n2\n3\n" + b"x" * 50 + b"\n666666\n666666\n")
    ]
    assert sizes == [[1, 1], [1], [50], [6], [6]]


@given(st.lists(st.binary(max_size=4), max_size=12))
def test_no_line_is_lost_or_moved_wherever_the_input_is_cut(pieces: list[bytes]) -> None:
    pieces = [piece for piece in pieces if piece]
    lines = b"".join(pieces).split(b"\n")
    expected = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    read = [line for batch in contents(*pieces) for line in batch]
    assert [(number, content) for number, _, content in read] == expected
    assert [offset for _, offset, _ in read] == list(range(len(expected)))


class Broker:
    """Stores lines under their deduplication ids, as the internal listener does, and fails as it is told to.

    Attributes:
        failures: for each coming request: how many lines to store before answering with that status, or with
            nothing at all (status 0).
    """

    def __init__(self) -> None:
        self.failures: list[tuple[int, int]] = []
        self.requests: list[tuple[str, dict[str, str], list[bytes]]] = []
        self.stored: dict[str, bytes] = {}
        app = web.Application()
        app.router.add_post("/publish/{task}", self._publish)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self.url = ""

    async def start(self) -> None:
        await self._runner.setup()
        port = unused_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        lines = (await request.read()).splitlines()
        self.requests.append((request.raw_path, dict(request.headers), lines))
        for number, line in enumerate(lines, 1):
            if line == b"bad":
                message = f"line {number}: not an event"
                return web.json_response(
                    {"error": {"code": "invalid-event", "message": message}, "line": number, "stored": []},
                    status=422,
                )
        count, status = self.failures.pop(0) if self.failures else (len(lines), 200)
        base, offset = request.headers["Idempotency-Key"], request.headers["Idempotency-Offset"]
        stored = []
        for index, line in enumerate(lines[:count]):
            self.stored.setdefault(f"{base}-{int(offset) + index}", line)
            stored.append({"sequence": len(self.stored), "id": f"e-{len(self.stored)}"})
        if status == 0:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        error = {} if status == 200 else {"error": {"code": "x", "message": "NATS is away"}}
        return web.json_response({"stored": stored, **error}, status=status)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    broker = Broker()
    await broker.start()
    yield broker
    await broker.stop()


class Clock:
    """Time that passes only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


LINES = [Line(number + 1, number, b"%d" % number) for number in range(5)]


async def send(broker: Broker, lines: list[Line], clock: Clock | None = None, url: str = "") -> TaskPublisher:
    clock = clock or Clock()
    async with aiohttp.ClientSession() as session:
        publisher = TaskPublisher(session, url or broker.url, "t", pause=clock.pause, clock=clock)
        await publisher.publish(lines)
    return publisher


async def test_a_batch_is_one_request(broker: Broker) -> None:
    publisher = await send(broker, LINES)
    ((path, headers, lines),) = broker.requests
    assert (path, headers["Content-Type"]) == ("/publish/t", "application/x-ndjson")
    assert lines == [b"0", b"1", b"2", b"3", b"4"]
    key, offset = headers["Idempotency-Key"], headers["Idempotency-Offset"]
    assert (len(key), offset) == (32, "0")
    assert int(key, 16).bit_length() <= 128
    assert (publisher.stored, publisher.last_id) == (5, "e-5")


async def test_what_was_not_stored_is_sent_again_under_its_own_offset(broker: Broker) -> None:
    broker.failures = [(2, 503), (0, 503), (3, 200)]
    publisher = await send(broker, LINES)
    assert [lines for _, _, lines in broker.requests][1:] == [[b"2", b"3", b"4"]] * 2
    assert [headers["Idempotency-Offset"] for _, headers, _ in broker.requests] == [
        "0",
        "2",
        "2",
    ]
    assert list(broker.stored.values()) == [b"0", b"1", b"2", b"3", b"4"]
    assert publisher.stored == 5


async def test_a_lost_answer_stores_nothing_twice(broker: Broker) -> None:
    broker.failures = [(3, 0), (5, 200)]
    await send(broker, LINES)
    assert len(broker.requests) == 2
    assert list(broker.stored.values()) == [b"0", b"1", b"2", b"3", b"4"]


async def test_the_lines_before_a_refused_one_are_stored(broker: Broker) -> None:
    lines = [*LINES[:3], Line(7, 3, b"bad"), Line(8, 4, b"after")]
    with pytest.raises(PublishFailed, match=r"^line 7: 422 not an event$"):
        await send(broker, lines)
    assert list(broker.stored.values()) == [b"0", b"1", b"2"]


async def test_a_refused_first_line_stores_nothing(broker: Broker) -> None:
    with pytest.raises(PublishFailed, match=r"^line 7: 422 not an event$"):
        await send(broker, [Line(7, 0, b"bad"), Line(8, 1, b"after")])
    assert not broker.stored


async def test_a_refusal_after_some_lines_names_the_first_that_is_not_stored(broker: Broker) -> None:
    broker.failures = [(2, 409)]
    with pytest.raises(PublishFailed, match=r"^line 3: 409 NATS is away$"):
        await send(broker, LINES)
    assert len(broker.requests) == 1


async def test_an_answer_that_does_not_add_up_is_a_failure(broker: Broker) -> None:
    broker.failures = [(2, 200)]
    with pytest.raises(PublishFailed, match="stored 2 of 5"):
        await send(broker, LINES)


async def test_it_gives_up_before_duplicates_could_be_stored(broker: Broker) -> None:
    broker.failures = [(0, 503)] * 100
    clock = Clock()
    with pytest.raises(PublishFailed, match=r"line 1: 503 NATS is away; gave up after 60 s"):
        await send(broker, LINES, clock)
    assert 30 < clock.now <= 60
    assert max(clock.pauses) <= 5


async def test_progress_prolongs_its_patience(broker: Broker) -> None:
    broker.failures = [failure for _ in range(4) for failure in [*[(0, 503)] * 10, (1, 503)]]
    clock = Clock()
    await send(broker, LINES, clock)
    assert clock.now > 60
    assert list(broker.stored.values()) == [b"0", b"1", b"2", b"3", b"4"]


async def test_no_broker_is_given_up_too(broker: Broker) -> None:
    clock = Clock()
    with pytest.raises(PublishFailed, match=r"line 1: .*gave up"):
        await send(broker, LINES, clock, f"http://127.0.0.1:{unused_port()}")


async def run(broker: Broker, lines: bytes, *arguments: str, **env: str) -> Any:
    arguments = ("publish", "a/b", "--url", broker.url, *arguments)
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, input=lines, env=env)


async def test_the_command_publishes_standard_input(broker: Broker) -> None:
    lines = b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(1200))
    result = await run(
        broker, lines, "--tenant", "acme", "--agent", "planner", "--owner", "a b", SIDECAST_TOKEN="secret"
    )
    assert (result.exit_code, result.stdout) == (0, "1200 events stored, the last as e-1200\n")
    assert list(broker.stored.values()) == lines.splitlines()
    for path, headers, sent in broker.requests:
        assert path == "/publish/a%2Fb?tenant=acme&agent=planner&owner=a+b"
        assert headers["Authorization"] == "Bearer secret"
        assert len(sent) <= publish.BATCH_LINES_MAX


async def test_the_command_names_the_refused_line(broker: Broker) -> None:
    result = await run(broker, b"1\n\n2\nbad\n3\n")
    assert result.exit_code == 1
    assert result.stderr == "2 events stored\nError: line 4: 422 not an event\n"


async def test_the_command_with_nothing_to_do(broker: Broker) -> None:
    result = await run(broker, b"\n\n")
    assert (result.exit_code, result.stdout, broker.requests) == (0, "0 events stored\n", [])


def test_a_closed_standard_input_holds_no_event() -> None:
    program = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "sidecast_broker", "publish", "t"]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0 events stored\n", "")
