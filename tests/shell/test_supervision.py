"""What must go on whatever fails: the connection to NATS, and the work in the background."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import nkeys
import pytest
from brokers import (
    AS_JSON,
    TASK,
    FakeBackend,
    RealBackend,
    broker,
    done,
    settings_of,
    status,
    task_record,
    texts,
    until,
)
from nats_server import NatsServer
from sse import kinds
from structlog.testing import capture_logs

from sidecast_broker import background
from sidecast_broker.answers import Away
from sidecast_broker.background import Background
from sidecast_broker.client import Receive, ShortClient
from sidecast_broker.core.fold import Fold
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_broker.positioner import Positioner
from sidecast_broker.stream import Stream
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey

KEY = TaskKey("", "agent", TASK)


class CountedJetStream(JetStream):
    """The connection, that counts how often it is begun."""

    starts = 0

    def start(self) -> None:
        self.starts += 1
        super().start()


def connection(backend: RealBackend, **changes: object) -> CountedJetStream:
    return CountedJetStream(settings_of(backend, **changes).nats, lambda _reason: None)


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that fails the first time it is called."""
    calls = 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("a fault of ours")
        return function(*arguments, **named)

    return failing


# --- the connection


async def test_a_password_that_is_refused_for_a_while_is_tried_again(tmp_path: Path) -> None:
    configuration = tmp_path / "nats.conf"

    def allow(password: str) -> None:
        users = f"{{user: broker, password: {password}}}, {{user: test, password: test}}"
        configuration.write_text(f"authorization {{ users: [{users}] }}\n")

    allow("right")
    with NatsServer(tmp_path / "store", "-c", str(configuration)) as server:
        url = server.url
        server.url = url.replace("//", "//test:test@")
        publisher = RealBackend(server)
        await publisher.create()
        await publisher.publish(task_record())
        server.url = url.replace("//", "//broker:right@")
        connections: list[CountedJetStream] = []

        class Connected(RealBackend):
            def connect(self, nats: Any, on_doubt: Callable[[str], None]) -> JetStream:
                connections.append(CountedJetStream(nats, on_doubt))
                return connections[-1]

        async with broker(Connected(server)) as running:
            stream = await running.watch()
            await stream.take(2)
            allow("another")
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            await until(lambda: connections[0].starts == 2)  # nats-py has given up for good
            assert not connections[0].connected
            await publisher.publish(status("missed"))
            allow("right")
            server.process.send_signal(signal.SIGHUP)
            await publisher.publish(status("on"), done())
            assert texts(await stream.rest()) == ["missed", "on"]
        await publisher.close()


async def test_what_is_dropped_while_others_are_subscribed_stays_dropped(
    real: RealBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[int] = []
    connected = connection(real)
    connected.start()
    await until(lambda: connected.connected)
    for token in range(4):
        await connected.subscribe(token, f"x.{token}", lambda stored: got.append(stored.sequence))
    receive = ShortClient.receive

    async def drop_meanwhile(client: ShortClient, subject: str, handler: Receive) -> Any:
        if subject == "x.1":
            for token in (0, 1, 2):  # one before it, itself, and one after it
                await connected.unsubscribe(token)
        return await receive(client, subject, handler)

    monkeypatch.setattr(ShortClient, "receive", drop_meanwhile)
    await connected.reconnect("test")
    await until(lambda: connected.connected)
    for token in range(4):
        headers = {names.SEQUENCE: str(token), names.LAST_SEQUENCE: "0"}
        headers[names.TIME_STAMP] = "2026-01-01T00:00:00Z"
        await real.send_core(f"x.{token}", status(), headers)
    await until(lambda: 3 in got)
    assert got == [3]
    await connected.close()


TRUNCATED = "-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n"


@pytest.mark.parametrize("spoiled", ["", TRUNCATED, f"{TRUNCATED}-----BEGIN USER NKEY SEED-----\nSUA", None])
async def test_a_credentials_file_that_is_spoiled_is_read_again(tmp_path: Path, spoiled: str | None) -> None:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    configuration = tmp_path / "nats.conf"
    # Without operators the server doesn't look at a JWT; with a key it asks for a signature.
    configuration.write_text(
        f"no_auth_user: anyone\n"
        f"authorization {{ users: [{{nkey: {public}}}, {{user: anyone, password: anyone}}] }}\n"
    )
    credentials = tmp_path / "broker.creds"
    if spoiled is not None:
        credentials.write_text(spoiled)
    with NatsServer(tmp_path / "store", "-c", str(configuration)) as server:
        connected = connection(RealBackend(server), nats__credentials_file=credentials)
        with capture_logs() as logs:
            connected.start()
            await until(lambda: "nats_away" in [line["event"] for line in logs])
        assert not connected.connected
        credentials.write_text(
            f"{TRUNCATED}-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
        )
        await until(lambda: connected.connected)
        await connected.close()


# --- work in the background


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what failed begin anew without a pause."""
    monkeypatch.setattr(background, "RESTART_S", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_work_that_fails_is_logged_and_begun_anew() -> None:
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ValueError("a fault of ours")
        await asyncio.get_running_loop().create_future()

    worker = Background("worker", work)
    with capture_logs() as logs:
        worker.start()
        await until(lambda: begun == 3)
    await worker.close()
    assert [(line["event"], line["part"]) for line in logs] == [("background_failed", "worker")] * 2
    assert begun == 3


async def closes(close: Coroutine[Any, Any, None]) -> bool:
    closing = asyncio.get_running_loop().create_task(close)
    await asyncio.wait({closing}, timeout=10)
    ended = closing.done()
    closing.cancel()
    return ended


async def test_work_that_keeps_a_cancellation_to_itself_is_canceled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "CANCEL_AGAIN_S", 0.01, raising=False)
    kept: list[asyncio.CancelledError] = []
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError as cancellation:
            kept.append(cancellation)
        await asyncio.get_running_loop().create_future()

    worker = Background("worker", work)
    worker.start()
    await begun.wait()
    assert await closes(worker.close())
    assert len(kept) == 1


@pytest.mark.parametrize("turns", range(6))
async def test_a_positioner_that_is_closed_in_the_moment_of_a_doubt_ends(
    turns: int, fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "CANCEL_AGAIN_S", 3600, raising=False)
    stream = fake.connect(settings_of(fake).nats, lambda reason: positioner.doubt(reason))
    positioner = Positioner(stream, 3600)
    stream.start()
    positioner.start()
    await positioner.known.wait()
    positioner.doubt("one more look")
    for _ in range(turns):
        await asyncio.sleep(0)
    ended = await closes(positioner.close())
    await stream.close()
    assert ended


async def test_work_that_has_not_begun_can_be_closed() -> None:
    await Background("worker", asyncio.Event().wait).close()  # type: ignore[arg-type]


@pytest.mark.usefixtures("at_once")
async def test_a_fault_of_the_positioner_costs_one_look(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        stream = await running.watch()
        await stream.take(2)
        with capture_logs() as logs:
            monkeypatch.setattr(Positioner, "_look", once(Positioner._look))
            await until(lambda: "positioner" in [line.get("part") for line in logs])
        fake.faults.lose(1)
        await fake.publish(done())
        assert kinds(await stream.rest()) == ["task.status", "stream.end"]


@pytest.mark.usefixtures("at_once")
async def test_a_fault_of_the_sweeper_costs_one_round(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hubs, "_evict", once(Hubs._evict))
    await fake.publish(task_record())
    async with broker(fake, log__idle_s=0.05) as running:
        with capture_logs() as logs:
            assert (await running.get(f"/tasks/{TASK}/events", AS_JSON))[0] == 200
            await until(lambda: "sweeper" in [line.get("part") for line in logs])
        async with asyncio.timeout(5):
            while await running.metric("sidecast_tasks"):
                pass


@pytest.mark.usefixtures("at_once")
async def test_a_fault_of_the_beat_costs_one_round(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stream, "check", once(Stream.check))
    await fake.publish(task_record())
    async with broker(fake, stream__heartbeat_s=1, stream__lag_s_max=1) as running:
        with capture_logs() as logs:
            stream = await running.watch(heartbeat="event")
            await stream.take(2)
            await until(lambda: "beat" in [line.get("part") for line in logs])
        assert (await stream.next()).kind == "stream.heartbeat"


# --- a task that can't go on


@pytest.fixture
def tripping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one event fail the first time it is added up."""
    apply = Fold.apply
    tripped = False

    def trip(fold: Fold, event: Any, sequence: int) -> bool:
        nonlocal tripped
        if b"boom" in event.payload and not tripped:
            tripped = True
            raise ValueError("a fault of ours")
        return apply(fold, event, sequence)

    monkeypatch.setattr(Fold, "apply", trip)


async def fail_a_repair(fake: FakeBackend) -> None:
    fake.faults.lose(1)
    await fake.publish(status("boom"), status("after"))


@pytest.mark.usefixtures("tripping")
async def test_a_task_whose_repair_fails_breaks_off_and_is_read_anew(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("before"))
    async with broker(fake, log__idle_s=0.05) as running:
        stream = await running.watch()
        await stream.take(2)
        with capture_logs() as logs:
            await fail_a_repair(fake)
            assert await stream.rest() == []
            await until(lambda: "stream_closed" in [line["event"] for line in logs])
        assert stream.broken  # not a clean end: that would tell a client that all is said
        assert [line["reason"] for line in logs if line["event"] == "stream_closed"] == ["failed"]
        assert "repair_failed" in [line["event"] for line in logs]
        again = await running.watch(cursor=stream.last_id)
        await fake.publish(done())
        frames = await again.rest()
        assert texts(frames) == ["boom", "after"]
        assert frames[-1].kind == "stream.end"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Hubs]:
    """The hubs of each broker that is started."""
    hubs: list[Hubs] = []
    start = Hubs.start

    def keep(each: Hubs) -> None:
        hubs.append(each)
        start(each)

    monkeypatch.setattr(Hubs, "start", keep)
    return hubs


@pytest.mark.usefixtures("tripping")
async def test_one_who_waits_for_a_repair_that_fails_is_not_given_half_a_task(
    fake: FakeBackend, opened: list[Hubs]
) -> None:
    await fake.publish(task_record())
    async with broker(fake, nats__verify_s=5):
        (hubs,) = opened
        hubs.release(await hubs.acquire(KEY))
        fake.faults.lose(1)
        end = await fake.publish(status("boom"))
        with pytest.raises(Away):
            await hubs.acquire(KEY, end)
        assert (await hubs.acquire(KEY, end)).end == end


async def test_a_stream_that_broke_off_takes_no_user_from_the_next(
    fake: FakeBackend, opened: list[Hubs]
) -> None:
    await fake.publish(task_record())
    async with broker(fake):
        (hubs,) = opened
        old = await hubs.acquire(KEY)
        hubs._fail(KEY, old)
        new = await hubs.acquire(KEY)
        assert new is not old
        hubs.release(old)
        assert hubs.watchers(KEY) == 1
        hubs.release(new)
        assert hubs.watchers(KEY) == 0
