"""How streams beyond a limit are refused, in every form, by a broker."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from a2a_rig.awkward import AwkwardAgent
from a2a_rig.wire import V03_REST, V03_RPC, V1_REST, V1_RPC, WIRES, Wire, request
from access_rig import Ask
from askers import Askers, bearer
from brokers import AS_JSON, OTHER, TASK, FakeBackend, OwnBroker, broker, status, task_record, until
from sse import TIMEOUT_S, Watch, exchange, kinds

from sidecast_broker.core.auth.principal import Grant, Principal
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import encode_token

GRANT = Grant("", "agent", None)
ASKERS = Askers(
    Principal("alice", "jwt", grants=(GRANT,)),
    Principal("bob", "jwt", grants=(GRANT,)),
    Principal("carol", "jwt"),
    Principal("dave", "jwt"),
)
BEHIND_PROXY = {"server__trusted_proxies": "127.0.0.0/8"}


def behind(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


def checked(fake: FakeBackend, **changes: object) -> contextlib.AbstractAsyncContextManager[OwnBroker]:
    """Run a broker that asks for credentials."""
    return broker(fake, authenticator=ASKERS, auth__required="true", auth__refusal_floor_ms=20, **changes)


async def refused(running: OwnBroker, reason: str, headers: dict[str, str], **query: object) -> None:
    """Check that a stream is refused, in both forms, and counted."""
    before = await running.metric("sidecast_rejected_total", reason=reason)
    stream = await running.watch(headers=headers, **query)
    (frame,) = await stream.rest()
    assert (stream.status, frame.kind, frame["reason"]) == (200, "stream.busy", reason)
    assert frame.retry == frame["reconnect_in_ms"] > 0
    stream = await running.watch(headers=headers, refusal="status", **query)
    assert stream.status == 429
    assert int(stream.headers["Retry-After"]) >= 1
    assert f'"reason": "{reason}"' in (body := (await stream.body()).decode())
    assert '"code": "limit"' in body
    assert await running.metric("sidecast_rejected_total", reason=reason) == before + 2


async def opened(running: OwnBroker, headers: dict[str, str], **query: object) -> Watch:
    stream = await running.watch(headers=headers, **query)
    assert (await stream.next()).kind == "stream.open"
    return stream


# --- streams at once


async def test_streams_of_a_principal(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with checked(fake, stream__streams_per_principal_max=2) as running:
        streams = [await opened(running, bearer("bob")) for _ in range(2)]
        await refused(running, "principal-streams", bearer("bob"))
        await opened(running, bearer("alice"))
        await streams[0].close()
        await until(lambda: len(running.listening.streams) == 2)
        await opened(running, bearer("bob"))


async def test_without_credentials_all_are_not_one_principal(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__streams_per_principal_max=1) as running:
        for _ in range(3):
            await opened(running, {})


async def test_streams_of_an_address(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__streams_per_address_max=2, **BEHIND_PROXY) as running:
        for address in ("203.0.113.9", "203.0.113.10", "2001:db8::1"):
            for _ in range(2):
                await opened(running, behind(address))
            await refused(running, "address-streams", behind(address))
        await refused(running, "address-streams", behind("2001:db8::ffff:1"))
        await refused(running, "address-streams", behind("6.6.6.6, 203.0.113.9"))
        await refused(running, "address-streams", behind("[2001:db8::7]:99, 127.0.0.3"))
        await opened(running, behind("2001:db8:0:1::1"))


async def test_streams_of_a_task(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    await fake.publish(task_record(OTHER), task=OTHER)
    async with checked(fake, stream__streams_per_task_max=2) as running:
        for name in ("alice", "bob"):
            await opened(running, bearer(name))
        await refused(running, "task-streams", bearer("alice"))
        await opened(running, bearer("alice"), task=OTHER)


async def test_a_full_task_is_told_to_nobody_who_may_not_see_it(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with checked(fake, stream__streams_per_task_max=1) as running:
        await opened(running, bearer("alice"))
        for task in (TASK, "missing"):
            status_code, _ = await running.get(f"/tasks/{task}/events", bearer("carol"))
            assert status_code == 404
            stream = await running.watch(task, headers=bearer("carol"), wait_s=0.2)
            assert kinds(await stream.rest()) == ["stream.end"]


async def test_the_limit_holds_for_those_who_come_at_once(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with checked(
        fake, stream__streams_per_principal_max=5, stream__waiters_per_principal_max=5
    ) as running:
        streams = await asyncio.gather(*(running.watch(headers=bearer("bob")) for _ in range(20)))
        first = [(await stream.next()).kind for stream in streams]
        assert (first.count("stream.open"), first.count("stream.busy")) == (5, 15)


async def test_an_answer_at_once_is_held_by_the_same_limits(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with checked(fake, stream__streams_per_principal_max=1) as running:
        await opened(running, bearer("bob"))
        status_code, body = await running.get(f"/tasks/{TASK}/events", bearer("bob") | AS_JSON)
        assert (status_code, body["error"]["reason"]) == (429, "principal-streams")


# --- waiting


async def test_waiters_of_the_broker(fake: FakeBackend) -> None:
    await fake.publish(task_record(OTHER), task=OTHER)
    async with broker(fake, stream__waiters_max=2, stream__waiters_per_principal_max=0) as running:
        waiting = [await running.watch(wait_s=30) for _ in range(2)]
        await until(lambda: len(running.listening.streams) == 2)
        await refused(running, "waiters", {}, wait_s=30)
        await opened(running, {}, task=OTHER, wait_s=30)  # nothing to wait for
        await fake.publish(task_record())
        assert (await waiting[0].next()).kind == "stream.open"
        await running.watch("another", wait_s=30)
        await until(lambda: len(running.listening.streams) == 4)


@pytest.mark.parametrize("task", [TASK, "missing"])
async def test_waiters_of_a_principal_whatever_they_wait_for(fake: FakeBackend, task: str) -> None:
    await fake.publish(task_record())  # somebody else's to carol
    async with checked(fake, stream__waiters_per_principal_max=2) as running:
        waiting = [await running.watch(task, headers=bearer("carol"), wait_s=30) for _ in range(2)]
        await until(lambda: len(running.listening.streams) == 2)
        await refused(running, "principal-waiters", bearer("carol"), task=task, wait_s=30)
        await running.watch(task, headers=bearer("dave"), wait_s=30)
        await until(lambda: len(running.listening.streams) == 3)
        await waiting[0].close()
        await until(lambda: len(running.listening.streams) == 2)
        await running.watch(task, headers=bearer("carol"), wait_s=30)
        await until(lambda: len(running.listening.streams) == 3)


async def test_who_waits_takes_no_room_at_a_task_of_somebody_else(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with checked(fake, stream__streams_per_task_max=1) as running:
        await running.watch(headers=bearer("carol"), wait_s=30)
        await until(lambda: len(running.listening.streams) == 1)
        await opened(running, bearer("alice"))


async def test_of_those_who_waited_a_task_takes_as_many_as_it_may(fake: FakeBackend) -> None:
    async with checked(fake, stream__streams_per_task_max=1) as running:
        waiting = [await running.watch(headers=bearer("carol"), wait_s=30, named=0) for _ in range(3)]
        await until(lambda: len(running.listening.streams) == 3)
        owner = {names.OWNER: encode_token("carol")}
        await fake.publish(task_record(), status("one"), headers=owner)
        first = [await stream.next() for stream in waiting]
        assert sorted(kinds(first)) == ["stream.busy", "stream.busy", "stream.open"]
        for stream, frame in zip(waiting, first, strict=True):
            if frame.kind == "stream.busy":
                assert (frame.type, frame["reason"]) == ("message", "task-streams")
                assert await stream.rest() == []
                assert not stream.broken
        assert len(running.listening.streams) == 1
        assert await running.metric("sidecast_streams_closed_total", reason="limit") == 2


# --- how often


async def test_streams_asked_for_from_one_address(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with checked(fake, stream__opens_per_address_per_minute_max=3, **BEHIND_PROXY) as running:
        # Whoever guesses credentials is held back like whoever has one.
        for _ in range(3):
            status_code, _ = await running.get(f"/tasks/{TASK}/events", behind("6.6.6.6") | bearer("x"))
            assert status_code == 401
        await refused(running, "address-opens", behind("6.6.6.6") | bearer("x"))
        await refused(running, "address-opens", behind("6.6.6.6") | bearer("alice"))
        await opened(running, behind("203.0.113.9") | bearer("alice"))


async def test_new_streams_of_the_broker(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with checked(fake, stream__opens_per_s_max=5) as running:
        # Who has no credential uses nothing up.
        for _ in range(20):
            assert (await running.get(f"/tasks/{TASK}/events", bearer("x")))[0] == 401
        began_s = time.monotonic()
        streams = await asyncio.gather(*(running.watch(headers=bearer("bob")) for _ in range(40)))
        first = [await stream.next() for stream in streams]
        count = kinds(first).count("stream.open")
        assert 5 <= count <= 5 + 5 * (time.monotonic() - began_s) + 1
        assert {frame["reason"] for frame in first if frame.kind == "stream.busy"} == {"opens"}


async def test_a_storm_comes_back_and_all_get_in(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__opens_per_s_max=20) as running:

        async def come_back() -> None:
            while (frame := await (await running.watch()).next()).kind != "stream.open":
                assert frame.kind == "stream.busy"
                await asyncio.sleep((frame.retry or 0) / 1000)

        async with asyncio.timeout(TIMEOUT_S * 2):
            await asyncio.gather(*(come_back() for _ in range(40)))


async def test_a_burst_is_let_in_and_the_rest_is_spread(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__opens_per_s_max=1, stream__opens_burst_max=10) as running:
        for _ in range(10):
            await opened(running, {})
        waits = []
        for _ in range(20):
            [frame] = await (await running.watch()).rest()
            waits.append(frame["reconnect_in_ms"])
        # One a second, each with a jitter of its own.
        assert waits[-1] > 10_000 > 1750 > min(waits)


# --- the A2A door


@pytest.mark.row("C69")
@pytest.mark.parametrize("do", ["subscribe", "stream"])
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a2a_streams_are_held_by_the_same_limits(fake: FakeBackend, wire: Wire, do: str) -> None:
    await fake.publish(task_record())
    async with (
        AwkwardAgent() as agent,
        checked(fake, agent__url=agent.url, stream__streams_per_principal_max=1) as running,
    ):
        await opened(running, bearer("bob"))
        head, body = await asked_of(running, wire, do, "bob")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 5\r\n" in head + b"\r\n"
        assert b"text/event-stream" not in head
        assert TOO_MANY[wire] in body
        assert len(running.listening.streams) == 1
        assert agent.requests == [], "no turn is begun whose stream nobody gets"
        assert await running.metric("sidecast_rejected_total", reason="principal-streams") == 1


@pytest.mark.row("C69")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_an_a2a_stream_that_can_not_be_served_now_is_no_stream(fake: FakeBackend, wire: Wire) -> None:
    await fake.publish(task_record())
    async with checked(fake) as running:
        fake.server.leaderless = True
        head, _body = await asked_of(running, wire, "subscribe", "dave")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in head
        assert b"text/event-stream" not in head
        assert len(running.listening.streams) == 0


TOO_MANY = {
    V1_RPC: b'"code":-32000',
    V1_REST: b"RESOURCE_EXHAUSTED",
    V03_RPC: b'"code":-32000',
    V03_REST: b'"code":-32000',
}


async def asked_of(running: OwnBroker, wire: Wire, do: str, who: str) -> tuple[bytes, bytes]:
    """Ask for an A2A stream; give the head of the answer, and its body."""
    method, path, body, headers = request(wire, do, task=TASK, text="go", message_id="m")
    raw = Ask(method, path, body, headers).raw(who)
    head, _, answered = (await exchange(running.url, raw)).partition(b"\r\n\r\n")
    return head, answered
