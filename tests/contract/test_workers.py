"""A broker of several processes: one port, one internal listener, and no worker's death is the others'."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import jwt
from brokers import (
    TASK,
    ChildBroker,
    RealBackend,
    child_broker,
    numbered,
    numbers,
    task_record,
    texts,
    until,
)
from lives import JSON
from sse import EndOfStream, Watch, exchange, kinds

STREAMS = 24
SECRET = "s" * 32
HANG_S = 5.0


class Impatient(ChildBroker):
    """One that gives a silent worker up sooner."""

    program = (
        "-c",
        "from sidecast_broker import watchdog; from sidecast_broker.__main__ import main; "
        f"watchdog.HANG_S = {HANG_S}; watchdog.ASK_S = 0.1; main()",
    )


@asynccontextmanager
async def workers(
    real: RealBackend, folder: Path, kind: type[ChildBroker] = ChildBroker, **changes: object
) -> AsyncIterator[ChildBroker]:
    """Run a broker of two workers."""
    async with child_broker(real, folder / "log", kind, server__workers=2, **changes) as child:
        yield child


async def opened(child: ChildBroker, count: int = STREAMS) -> list[Watch]:
    """Open streams, up to their snapshot."""
    streams = [await child.watch() for _ in range(count)]
    for stream in streams:
        await stream.take(2)
    return streams


async def of_workers(child: ChildBroker) -> dict[int, list[str]]:
    """Give the peers of the streams of each worker."""
    found: dict[int, list[str]] = {1: [], 2: []}
    for stream in (await child.internal("/streams"))[1]["streams"]:
        found[stream["worker"]].append(stream["peer"])
    return found


async def until_ready(child: ChildBroker, count: int = 2) -> None:
    async with asyncio.timeout(20):
        while (await child.internal("/readyz"))[1]["workers"]["ready"] != count:
            await asyncio.sleep(0.05)


async def test_they_are_one_broker(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path) as child:
        streams = await opened(child)
        held = await of_workers(child)
        assert all(held.values()), "the kernel gives connections to both"
        assert sum(map(len, held.values())) == STREAMS
        status_code, ready = await child.internal("/readyz")
        assert (status_code, ready["status"], ready["streams"]) == (200, "ok", STREAMS)
        assert ready["workers"] == {"configured": 2, "ready": 2}
        assert ready["nats"]["connected"]
        assert await child.metric("sidecast_subscribers", format="events") == STREAMS
        assert await child.metric("sidecast_streams_opened_total", format="events") == STREAMS
        assert await child.metric("sidecast_workers") == 2
        body = b"\n".join(numbered(5))
        kind = {"Content-Type": "application/x-ndjson"}
        status_code, answer = await child.internal(f"/publish/{TASK}", "POST", body, kind)
        assert (status_code, len(answer["stored"])) == (200, 5)
        for stream in streams:
            assert texts(await stream.take(5)) == numbers(5)
        await child.until_metric("sidecast_events_delivered_total", 5 * STREAMS, format="events")
        assert len(child.logged("listening")) == 1


async def test_a_killed_worker_is_started_again_and_its_watchers_resume(
    real: RealBackend, tmp_path: Path
) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path) as child:
        streams = await opened(child)
        await real.publish(*numbered(3))
        for stream in streams:
            await stream.take(3)
        counted = await child.metric("sidecast_streams_opened_total", format="events")
        os.kill(child.workers()[1], signal.SIGKILL)
        await real.publish(*numbered(3, 3))
        broken = 0
        for stream in streams:
            frames = []
            try:
                frames = await stream.take(3)
            except (aiohttp.ClientError, EndOfStream):
                broken += 1
                seen = texts(frames)
                stream = await child.watch(cursor=stream.last_id)
                frames = await stream.until(lambda frame: frame.json.get("text") == "5")
                assert seen == []
            assert texts(frames) == numbers(3, 3)
        assert 0 < broken < STREAMS
        await until_ready(child)
        await until(lambda: child.logged("worker_restarted"))
        assert [line["code"] for line in child.logged("worker_died")] == [-signal.SIGKILL]
        assert await child.metric("sidecast_worker_restarts_total") == 1
        # What the dead one has counted is not forgotten: a counter that falls would be counted twice.
        assert await child.metric("sidecast_streams_opened_total", format="events") == counted + broken
        assert await child.metric("sidecast_subscribers", format="events") == STREAMS


async def test_a_worker_that_hangs_is_killed_and_another_takes_its_place(
    real: RealBackend, tmp_path: Path
) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path, Impatient) as child:
        streams = await opened(child)
        held, pid = await of_workers(child), child.workers()[2]
        os.kill(pid, signal.SIGSTOP)
        await real.publish(*numbered(3))
        taken = [asyncio.create_task(stream.take(3, 60)) for stream in streams]
        passed_on = asyncio.create_task(exchange(child.internal_url, published_by(2), 60))
        await until(lambda: sum(each.done() for each in taken) >= len(held[1]), 60)
        await until(lambda: child.logged("worker_restarted"), 60)
        outcomes = await asyncio.gather(*taken, return_exceptions=True)
        broken = [
            stream
            for stream, outcome in zip(streams, outcomes, strict=True)
            if isinstance(outcome, EndOfStream)
        ]
        assert [texts(frames) for frames in outcomes if isinstance(frames, list)] == [numbers(3)] * len(
            held[1]
        )
        assert len(broken) == len(held[2])
        for stream in broken:
            again = await child.watch(cursor=stream.last_id)
            assert texts(await again.until(lambda frame: frame.json.get("text") == "2")) == numbers(3)
        head, _, body = (await passed_on).partition(b"\r\n\r\n")
        assert (head[:12], json.loads(body)["error"]["code"]) == (b"HTTP/1.1 503", "unavailable")
        await until_ready(child)
        assert [(line["worker"], line["pid"], line["level"]) for line in child.logged("worker_hangs")] == [
            (2, pid, "error")
        ]
        assert [line["code"] for line in child.logged("worker_died")] == [-signal.SIGKILL]
        assert await child.metric("sidecast_worker_restarts_total") == 1


def published_by(worker: int) -> bytes:
    """Give a request to publish that this one of two workers answers."""
    path = next(
        path for path in (f"/publish/t{n}" for n in range(99)) if zlib.crc32(path.encode()) % 2 == worker - 1
    )
    body = task_record(path.rpartition("/")[2])
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def test_nobody_is_killed_for_a_time_in_which_all_stood_still(
    real: RealBackend, tmp_path: Path
) -> None:
    """As on a machine that is suspended, or in a container that is paused."""
    async with workers(real, tmp_path, Impatient) as child:
        pids = child.workers()
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        try:
            # By then both have been asked, and have not answered.
            await asyncio.sleep(1)
            child.signal(signal.SIGSTOP)
            await asyncio.sleep(HANG_S + 2)
        finally:
            child.signal(signal.SIGCONT)
            for pid in pids.values():
                os.kill(pid, signal.SIGCONT)
        await until_ready(child)
        assert child.workers() == pids
        assert child.logged("worker_hangs") == child.logged("worker_died") == []


async def test_one_started_again_takes_no_client_before_it_can_serve(
    real: RealBackend, tmp_path: Path
) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path) as child:
        await opened(child)
        pid = child.workers()[2]
        real.server.freeze()
        try:
            os.kill(pid, signal.SIGKILL)
            # The next one runs, and has not reached the stream.
            await until(lambda: any(line["worker"] == 2 for line in child.logged("stream_away")))
            await opened(child)
            assert not child.logged("worker_restarted")
        finally:
            real.server.thaw()
        await until(lambda: child.logged("worker_restarted"))
        await opened(child)
        assert all((await of_workers(child)).values())


async def test_sigterm_drains_all_and_exits_with_0(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path, stream__drain_s=1) as child:
        streams = await opened(child)
        pids = child.workers().values()
        child.signal(signal.SIGTERM)
        drained = await asyncio.gather(*(stream.rest() for stream in streams))
        assert [kinds(frames) for frames in drained] == [["stream.drain"]] * STREAMS
        assert await child.ended() == 0
        assert Counter(line["reason"] for line in child.logged("stream_closed")) == {"drain": STREAMS}
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert child.logged("worker_died") == []


async def test_a_signal_to_each_process_drains_as_one_to_the_first(real: RealBackend, tmp_path: Path) -> None:
    """What stops a service may send it to every process of the service, as systemd does."""
    await real.publish(task_record())
    async with workers(real, tmp_path, stream__drain_s=1) as child:
        streams = await opened(child)
        for pid in child.workers().values():
            os.kill(pid, signal.SIGTERM)
        await until(lambda: len(child.logged("draining")) == 2)
        child.signal(signal.SIGTERM)
        drained = await asyncio.gather(*(stream.rest() for stream in streams))
        assert [kinds(frames) for frames in drained] == [["stream.drain"]] * STREAMS
        assert await child.ended() == 0
        assert child.logged("worker_died") == []


async def test_a_second_signal_ends_all_at_once(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path, stream__drain_s=600) as child:
        await opened(child)
        child.signal(signal.SIGTERM)
        await until(lambda: len(child.logged("draining")) == 3)
        child.signal(signal.SIGTERM)
        assert await child.ended() == 0


async def test_drain_by_an_operator(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path, stream__drain_s=1) as child:
        streams = await opened(child)
        status_code, answer = await child.internal("/drain", "POST", b"{}", JSON)
        assert (status_code, answer) == (202, {"status": "draining", "streams": STREAMS, "drain_s": 1})
        assert (await child.internal("/readyz"))[0] == 503
        drained = await asyncio.gather(*(stream.rest() for stream in streams))
        assert [kinds(frames) for frames in drained] == [["stream.drain"]] * STREAMS
        assert await child.ended() == 0
        assert child.logged("worker_died") == []


async def test_a_drain_waits_for_no_worker_that_hangs(real: RealBackend, tmp_path: Path) -> None:
    async with workers(real, tmp_path) as child:
        pid = child.workers()[2]
        os.kill(pid, signal.SIGSTOP)
        try:
            status_code, _answer = await child.internal("/drain", "POST", b"{}", JSON)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert status_code == 202
        assert await child.ended() == 0
        assert child.logged("worker_died") == []


async def test_when_the_supervisor_is_killed_the_workers_drain(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path) as child:
        streams = await opened(child)
        pids = child.workers().values()
        child.kill9()
        drained = await asyncio.gather(*(stream.rest() for stream in streams))
        assert [kinds(frames) for frames in drained] == [["stream.drain"]] * STREAMS
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


async def test_a_worker_that_hangs_holds_up_no_probe(real: RealBackend, tmp_path: Path) -> None:
    async with workers(real, tmp_path) as child:
        pid = child.workers()[2]
        os.kill(pid, signal.SIGSTOP)
        try:
            status_code, ready = await child.internal("/readyz")
            assert (status_code, ready["workers"]) == (200, {"configured": 2, "ready": 1})
            assert (await child.internal("/livez"))[0] == 200
        finally:
            os.kill(pid, signal.SIGCONT)
        await until_ready(child)


# --- credentials


async def test_every_worker_asks_for_credentials_and_takes_the_tickets_of_the_others(
    real: RealBackend, tmp_path: Path
) -> None:
    await real.publish(task_record())
    claims = {"iss": "https://issuer", "aud": "sidecast", "exp": 4_102_444_800, "sub": "alice"}
    rights = {"sidecast_grants": ["*/*/*"], "sidecast_rights": ["admin"]}
    token = jwt.encode(claims | rights, SECRET, "HS256")
    credential = {"Authorization": f"Bearer {token}"}
    auth = {"auth__jwt_issuer": "https://issuer", "auth__jwt_audience": "sidecast"}
    async with workers(real, tmp_path, auth__jwt_secret=SECRET, **auth) as child:
        for path, method in (("/streams", "GET"), ("/drain", "POST"), ("/revoke", "POST")):
            status_code, _ = await child.internal(path, method, b"{}" if method == "POST" else b"", JSON)
            assert status_code == 401
        assert (await child.internal("/streams", headers={"Host": "evil.example"} | credential))[0] == 421
        assert (await child.internal("/streams", headers=credential))[1] == {"streams": []}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{child.url}/tickets", json={"tasks": [TASK]}, headers=credential) as made,
        ):
            ticket = (await made.json())["ticket"]
        streams = [await child.watch(ticket=ticket) for _ in range(STREAMS)]
        for stream in streams:
            assert kinds(await stream.take(2)) == ["stream.open", "task.snapshot"]
        streams_by_worker = Counter(
            each["worker"] for each in (await child.internal("/streams", headers=credential))[1]["streams"]
        )
        assert set(streams_by_worker) == {1, 2}
        body = json.dumps({"task": TASK}).encode()
        assert (await child.internal("/revoke", "POST", body, JSON | credential))[0] == 200
        ended = await asyncio.gather(*(stream.rest() for stream in streams))
        assert {frames[-1]["reason"] for frames in ended} == {"revoked"}
        assert len(child.logged("ticket_secret_random")) == 1


# --- what comes in


HOSTILE = [
    (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 404 "),
    (b"PUT /streams HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 405 "),
    (b"GET /streams HTTP/1.1\r\nHost: evil\r\n\r\n", b" 421 "),
    (b"GET http://worker/streams HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 400 "),
    (b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", b" 415 "),
    (b"POST /publish/%00 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", b" 415 "),
    (b"POST /publish/..%2f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", b" 4"),
    (
        b"POST /revoke HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b" 400 ",
    ),
    (b"\x16\x03\x01\x02\x00\r\n\r\n", b" 400 "),
    (b"GET /streams HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n", b" 431 "),
    # A # is sent on as three characters.
    (b"GET /readyz?" + b"#" * 4000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 431 "),
    (b"GET /streams?" + b"#" * 4000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 431 "),
]
"""What comes in, and how the status line of the answer begins behind the version."""


async def test_hostile_requests_are_answered_as_by_one_process(real: RealBackend, tmp_path: Path) -> None:
    """By the same process one after the other: starting one for each would take longer than all of them."""
    wrong = {}
    async with workers(real, tmp_path) as child:
        for request_bytes, answer in HOSTILE:
            sent = request_bytes.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost", 1)
            answered = await exchange(child.internal_url, sent)
            if not answered[8:].startswith(answer):
                wrong[request_bytes[:80]] = answered
            assert (await child.internal("/readyz"))[0] == 200, request_bytes
        assert wrong == {}


async def test_a_body_beyond_the_limit_is_refused(real: RealBackend, tmp_path: Path) -> None:
    async with workers(real, tmp_path) as child:
        status_code, _ = await child.internal(f"/publish/{TASK}", "POST", b"x" * (5 << 20), JSON)
        assert status_code == 413


# --- starting


async def test_a_worker_that_can_not_serve_says_why_and_nothing_is_left(
    real: RealBackend, tmp_path: Path
) -> None:
    (tmp_path / "crt").write_text("no certificate")
    files = {"server__tls_certificate": tmp_path / "crt", "server__tls_key": tmp_path / "crt"}
    child = ChildBroker(real, tmp_path / "log", server__workers=2, **files)
    child.start()
    assert await child.ended() == 1
    assert "Error: " in (told := (tmp_path / "log").read_text())
    assert str(tmp_path / "crt") in told
    assert "Traceback" not in told
