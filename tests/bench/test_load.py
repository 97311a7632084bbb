from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.build import Programs
from bench.child import ChildFailed, child
from bench.load import load
from bench.usage import cpu_s, resident_bytes

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def event(n: int, age_s: float = 0.0) -> bytes:
    ts = time.time_ns() - int(age_s * 1e9)
    return b'id: e-%d\nevent: task.status\ndata: {"metadata":{"n":%d,"ts":%d}}\n\n' % (n, n, ts)


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


class Scripted:
    """A server that answers the request number i with `answer(i, request)` and keeps the connection open."""

    def __init__(self, answer: Callable[[int, str], bytes], *, bytes_at_once: int) -> None:
        self.requests: list[str] = []
        self._answer = answer
        self._bytes_at_once = bytes_at_once

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        number = len(self.requests)
        self.requests.append(request)
        answer = self._answer(number, request)
        for start in range(0, len(answer), self._bytes_at_once):
            writer.write(answer[start : start + self._bytes_at_once])
            await asyncio.sleep(0)
        await reader.read()
        writer.close()


@asynccontextmanager
async def scripted(
    answer: Callable[[int, str], bytes], bytes_at_once: int = 1 << 20
) -> AsyncIterator[tuple[Scripted, int]]:
    script = Scripted(answer, bytes_at_once=bytes_at_once)
    server = await asyncio.start_server(script.take, "127.0.0.1", 0)
    try:
        yield script, server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def report_on(programs: Programs, folder: Path, answer: bytes, *, ready: str, at_once: int) -> object:
    async with (
        scripted(lambda _number, _request: answer, at_once) as (_script, port),
        load(programs.load, port, "/", folder, connections=1, ready=ready) as clients,
    ):
        assert clients.connected.ready == 1
        return await clients.report()


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
@pytest.mark.parametrize("chunk_size", [0, 1, 5, 1 << 20])
async def test_events_are_found_however_they_are_cut(
    programs: Programs, tmp_path: Path, chunk_size: int, at_once: int
) -> None:
    body = b": hi\n\n" + b"".join(event(n) for n in range(1, 6))
    answer = HEAD + b"\r\n" + body
    if chunk_size:
        answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, chunk_size)
    report = await report_on(programs, tmp_path, answer, ready="5", at_once=at_once)
    assert (report.events, report.holes, report.repeats) == (5, 0, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("numbers", "holes", "repeats"),
    [((4, 5, 6), 0, 0), ((1, 2, 4), 1, 0), ((1, 2, 2), 0, 1), ((3, 1, 2), 0, 2), ((1, 3, 2), 1, 1)],
)
async def test_what_is_missing_or_comes_twice_is_noticed(
    programs: Programs, tmp_path: Path, numbers: tuple[int, ...], holes: int, repeats: int
) -> None:
    answer = HEAD + b"\r\n" + b"".join(map(event, numbers))
    report = await report_on(programs, tmp_path, answer, ready="3", at_once=1 << 20)
    assert (report.events, report.holes, report.repeats) == (3, holes, repeats)  # type: ignore[attr-defined]


async def test_a_snapshot_is_no_event_though_it_repeats_one(programs: Programs, tmp_path: Path) -> None:
    snapshot = b'id: e-0\nevent: task.snapshot\ndata: {"task":{"metadata":{"n":1,"ts":5}}}\n\n'
    answer = HEAD + b"\r\n" + snapshot + event(1)
    report = await report_on(programs, tmp_path, answer, ready="1", at_once=1 << 20)
    assert (report.events, report.repeats) == (1, 0)  # type: ignore[attr-defined]


async def test_latency_is_the_age_of_an_event_on_arrival(programs: Programs, tmp_path: Path) -> None:
    ages = [0.5] * 97 + [3.0] * 3
    answer = HEAD + b"\r\n" + b"".join(event(n, age) for n, age in enumerate(ages))
    report = await report_on(programs, tmp_path, answer, ready="100", at_once=1 << 20)
    latency = report.latency_ms  # type: ignore[attr-defined]
    assert 500 <= latency.p50 < 600
    assert 500 <= latency.p90 < 600
    assert 3000 <= latency.p99 < 3200
    assert 3000 <= latency.max < 3200


async def test_a_mark_begins_a_new_count_and_keeps_the_order(programs: Programs, tmp_path: Path) -> None:
    async with child("floor", [str(programs.floor)], tmp_path) as floor:
        port = (await floor.answer())["port"]
        async with load(programs.load, port, "/", tmp_path, connections=20) as clients:
            for _run in range(2):
                await clients.mark()
                sent = await floor.ask("send all 1000 0.05 420")
                report = await clients.wait(sent["sent"], 5.0)
                assert report.events == sent["sent"] == sent["events"] * 20
                assert report.fewest == report.most == sent["events"]
                assert report.ready == 20
            assert report.repeats > 0  # the floor counts from 1 again: what had been before the mark is known
            assert 400 < report.bytes / report.events < 440


async def test_the_floor_gives_each_event_to_one_connection_in_turn(
    programs: Programs, tmp_path: Path
) -> None:
    async with child("floor", [str(programs.floor)], tmp_path) as floor:
        port = (await floor.answer())["port"]
        async with load(programs.load, port, "/", tmp_path, connections=10) as clients:
            sent = await floor.ask("send one 5000 0.1 420")
            report = await clients.wait(sent["sent"], 5.0)
    assert report.events == sent["events"]
    assert report.most - report.fewest <= 1
    assert (report.holes, report.repeats) == (0, 0)


async def test_a_storm_comes_back_with_the_last_id_and_checks_across_it(
    programs: Programs, tmp_path: Path
) -> None:
    def answer(number: int, request: str) -> bytes:
        if "Last-Event-ID" not in request:
            return HEAD + b"\r\n" + event(1) + event(2)
        # The first to come back is sent everything it misses, the second one too little.
        numbers = (3, 4) if number == 2 else (4,)
        return HEAD + b"\r\n" + b"".join(map(event, numbers))

    async with (
        scripted(answer) as (script, port),
        load(programs.load, port, "/t-%d", tmp_path, connections=2, modulo=2, ready="2") as clients,
    ):
        await clients.mark()
        stormed = await clients.storm(port, 5.0)
        report = await clients.report()
    assert stormed.ready == stormed.connections == 2
    assert [request.count("Last-Event-ID: e-2\r\n") for request in script.requests] == [0, 0, 1, 1]
    assert {request.split(" ")[1] for request in script.requests[2:]} == {"/t-0", "/t-1"}
    assert (report.events, report.holes, report.repeats) == (3, 1, 0)


async def test_a_body_is_posted_by_each_connection_with_its_own_number(
    programs: Programs, tmp_path: Path
) -> None:
    posted: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
        assert length is not None
        posted.append(head.split(b"\r\n")[0] + b" " + await reader.readexactly(int(length[1])))
        result = b'{"jsonrpc":"2.0","id":"0","result":{"statusUpdate":{"metadata":{"n":1,"ts":5}}}}'
        writer.write(HEAD + b"\r\nid: e-1\ndata: " + result + b"\n\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    body = '{"id":"%03d","task":"bench-0"}'
    async with load(
        programs.load, port, "/?t=%d", tmp_path, connections=12, modulo=2, body=body, ready="frame"
    ) as clients:
        report = await clients.report()
    assert sorted(posted) == sorted(
        b'POST /?t=%d HTTP/1.1 {"id":"%03d","task":"bench-0"}' % (number % 2, number) for number in range(12)
    )
    assert (report.events, report.fewest, report.most) == (12, 1, 1)
    server.close()


@pytest.mark.parametrize("option", ["--path", "--body"])
async def test_a_request_too_long_is_refused_before_anything_is_sent(
    programs: Programs, tmp_path: Path, option: str
) -> None:
    async with child("load", [str(programs.load), "--port", "1", option, "x" * 5000], tmp_path) as client:
        with pytest.raises(ChildFailed, match="too long"):
            await client.answer()


async def test_who_is_sent_away_for_a_moment_comes_back_when_told(programs: Programs, tmp_path: Path) -> None:
    def answer(number: int, _request: str) -> bytes:
        if number == 0:
            return HEAD + b"\r\nevent: stream.busy\nretry: 30\ndata: {}\n\n"
        return HEAD + b"\r\n" + event(1)

    class Busy(Scripted):
        async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not self.requests:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(answer(0, ""))
                writer.close()
            else:
                await super().take(reader, writer)

    busy = Busy(answer, bytes_at_once=1 << 20)
    server = await asyncio.start_server(busy.take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with load(programs.load, port, "/", tmp_path, connections=1, ready="frame") as clients:
        assert clients.connected.ready == 1
        assert clients.connected.retries == 1
        assert clients.connected.ready_ms is not None
        assert clients.connected.ready_ms.max >= 30
    server.close()


async def test_opening_in_turn_never_opens_two_at_once(programs: Programs, tmp_path: Path) -> None:
    open_now = most = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        await reader.readuntil(b"\r\n\r\n")
        open_now += 1
        most = max(most, open_now)
        writer.write(HEAD + b"\r\n" + event(1) + event(2))
        await reader.read()
        open_now -= 1
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with load(programs.load, port, "/", tmp_path, connections=10, ready="2", in_turn=True) as clients:
        assert clients.connected.ready == 10
    # The next one may have come before the end of the last was read here.
    assert most <= 2
    server.close()


async def test_a_refusal_is_counted_and_a_dead_port_is_not_ready(programs: Programs, tmp_path: Path) -> None:
    argv = [str(programs.load), "--port", "1", "--connections", "1", "--timeout", "0.1"]
    async with child("load", argv, tmp_path) as client:
        assert (await client.answer())["ready"] == 0
    async with scripted(lambda _number, _request: b"HTTP/1.1 503 Away\r\n\r\n") as (_script, port):
        argv = [str(programs.load), "--port", str(port), "--timeout", "0.1"]
        async with child("load", argv, tmp_path) as client:
            answer = await client.answer()
    assert (answer["ready"], answer["refused"]) == (0, 1)


async def test_a_child_that_ends_says_why(programs: Programs, tmp_path: Path) -> None:
    async with child("load", [str(programs.load), "--port", "0"], tmp_path) as client:
        with pytest.raises(ChildFailed, match="--port is needed"):
            await client.answer()


async def test_a_process_is_measured_by_what_the_kernel_says(programs: Programs, tmp_path: Path) -> None:
    async with child("floor", [str(programs.floor)], tmp_path) as floor:
        port = (await floor.answer())["port"]
        async with load(programs.load, port, "/", tmp_path, connections=1):
            before = cpu_s(floor.pid)
            await floor.ask("send all 0 0.2 420")
            assert 0.02 <= cpu_s(floor.pid) - before <= 0.4
            assert 100_000 < resident_bytes(floor.pid) < 20_000_000
