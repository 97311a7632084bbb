"""What one asker may take, and how more than that is refused."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from askers import Askers, bearer
from brokers import AS_JSON, OTHER, TASK, FakeBackend, OwnBroker, broker, status, task_record, until
from hypothesis import given
from hypothesis import strategies as st
from issuer import Clock
from sse import TIMEOUT_S, Watch, exchange, kinds

from sidecast_broker.core.auth.principal import ANYBODY, Grant, Principal
from sidecast_broker.limits import Asker, Limits, Places, Seat, asker_of
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Auth, Server, Stream
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey, encode_token

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


# --- the A2A door

RPC = (
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA2A-Version: 1.0\r\nAuthorization: Bearer bob\r\n"
    b"Content-Length: 72\r\n\r\n"
    b'{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{"id":"%b"}}'
)


async def test_a2a_streams_are_held_by_the_same_limits(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    rpc = RPC % TASK.encode()
    body = rpc.partition(b"\r\n\r\n")[2]
    rpc = rpc.replace(b"Content-Length: 72", b"Content-Length: %d" % len(body))
    rest = f"GET /tasks/{TASK}:subscribe HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA2A-Version: 1.0\r\n"
    async with checked(fake, stream__streams_per_principal_max=1) as running:
        await opened(running, bearer("bob"))
        answer = await exchange(running.url, rpc)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert b'"code":-32000' in answer
        answer = await exchange(running.url, f"{rest}Authorization: Bearer bob\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert b"RESOURCE_EXHAUSTED" in answer
        assert await running.metric("sidecast_rejected_total", reason="principal-streams") == 2


# --- tickets, and what is counted


def limits(clock: Clock, *, tickets: int = 600, **stream: int) -> Limits:
    return Limits(Stream(**stream), Auth(tickets_per_minute_max=tickets), clock=clock)


def test_tickets_of_a_principal() -> None:
    clock = Clock(0)
    tickets = limits(clock, tickets=2)
    alice, bob = Principal("alice", "jwt"), Principal("bob", "jwt")
    for _ in range(2):
        tickets.ticket(alice)
    with pytest.raises(Refused) as caught:
        tickets.ticket(alice)
    assert (caught.value.code, caught.value.reason) == ("limit", "tickets")
    assert caught.value.response().headers["Retry-After"] == "30"
    tickets.ticket(bob)
    tickets.ticket(Principal("alice", "jwt", tenant="acme"))
    clock.now_s = 30
    tickets.ticket(alice)


def test_retry_after_is_never_too_soon() -> None:
    for wait_s, wanted in ((None, "1"), (0.2, "1"), (1.0, "1"), (1.4, "2"), (59.1, "60")):
        assert Refused("limit", "x", retry_after_s=wait_s).response().headers["Retry-After"] == wanted


def test_who_asks() -> None:
    request = mock.Mock(remote="2001:db8::1")
    assert asker_of(request, ANYBODY) == Asker(None, "2001:db8::/64")
    assert asker_of(request, Principal("a", "jwt")).who == (None, "a")
    assert asker_of(request, Principal("a", "jwt", tenant="t")).who == ("t", "a")
    assert asker_of(mock.Mock(remote=None), ANYBODY) == Asker(None, "")


KEYS = [TaskKey("", "agent", name) for name in "ab"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", None]), st.sampled_from(["", "x"]), st.booleans(), st.booleans()
        ),
        max_size=30,
    )
)
def test_what_has_left_is_counted_nowhere(streams: list[tuple[str | None, str, bool, bool]]) -> None:
    kept = limits(Clock(), streams_max=5, streams_per_principal_max=3, streams_per_task_max=2, waiters_max=2)
    seats: list[tuple[Seat, TaskKey | None]] = []
    for name, address, waits, leaves in streams:
        asker = Asker((None, name) if name else None, address)
        key = None if waits else KEYS[len(seats) % 2]
        with contextlib.suppress(Refused):
            kept.check(asker, key, waits=waits)
            seats.append((kept.take(asker, key, waits=waits), key))
        if leaves and seats:
            seat, _ = seats.pop()
            with contextlib.suppress(Refused):
                kept.settle(seat, KEYS[0])
            seat.leave()
            seat.leave()
    assert len(seats) <= 5
    for seat, _ in seats:
        seat.leave()
    counts = [value for name, value in vars(kept).items() if hasattr(value, "held")]
    assert len(counts) == 6
    assert [len(count) for count in counts] == [0] * 6


# --- connections


@contextlib.asynccontextmanager
async def connections(running: OwnBroker, count: int, source: str = "127.0.0.1") -> AsyncIterator[list[Any]]:
    """Connect so often; give readers and writers."""
    address = urlsplit(running.url)
    made = [
        await asyncio.open_connection(address.hostname, address.port, local_addr=(source, 0))
        for _ in range(count)
    ]
    try:
        yield made
    finally:
        for _reader, writer in made:
            writer.close()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(TIMEOUT_S):
        try:
            return await reader.read(1) == b""
        except ConnectionResetError:
            return True


LIVE = b"GET /tasks/none/events HTTP/1.1\r\nHost: x\r\n\r\n"


async def answers(made: Any) -> bool:
    """Tell whether a connection is served."""
    reader, writer = made
    writer.write(LIVE)
    async with asyncio.timeout(TIMEOUT_S):
        try:
            head: bytes = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        except (ConnectionResetError, asyncio.IncompleteReadError):
            return False
    return head.startswith(b"HTTP/1.1 404")


async def test_connections_of_the_broker(fake: FakeBackend, unharmed: None) -> None:
    async with (
        broker(fake, server__connections_max=3, stream__streams_max=3) as running,
        connections(running, 3) as kept,
    ):
        assert [await answers(made) for made in kept] == [True] * 3
        async with connections(running, 2) as more:
            assert [await is_closed(reader) for reader, _ in more] == [True, True]
        assert await running.metric("sidecast_rejected_total", reason="connections") == 2
        assert [await answers(made) for made in kept] == [True] * 3
        kept[0][1].close()
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                async with connections(running, 1) as one:
                    if await answers(one[0]):
                        break


async def test_connections_of_an_address(fake: FakeBackend, unharmed: None) -> None:
    async with (
        broker(fake, server__connections_per_address_max=2) as running,
        connections(running, 2) as kept,
        connections(running, 2, "127.0.0.2") as others,
    ):
        assert [await answers(made) for made in (*kept, *others)] == [True] * 4
        async with connections(running, 1) as one:
            one[0][1].write(LIVE * 50)  # what it sends is not read
            assert await is_closed(one[0][0])
        assert await running.metric("sidecast_rejected_total", reason="address-connections") == 1
        assert (await running.internal("/livez"))[0] == 200


async def test_a_trusted_proxy_may_have_more(fake: FakeBackend, unharmed: None) -> None:
    async with (
        broker(
            fake,
            server__connections_per_address_max=1,
            server__connections_max=2,
            stream__streams_max=2,
            server__trusted_proxies="127.0.0.2/32",
        ) as running,
        connections(running, 4, "127.0.0.2") as proxy,
    ):
        assert [await answers(made) for made in proxy] == [True] * 4
        async with connections(running, 1) as one:
            assert not await answers(one[0])


def test_a_place_is_counted_until_it_is_left() -> None:
    places = Places(Server(connections_max=3, connections_per_address_max=2), Metrics())
    ipv6 = ["2001:db8::1", "2001:db8::2%eth0", "2001:db8::3"]
    taken = [places.enter(peer) for peer in ipv6]
    assert [place is not None for place in taken] == [True, True, False]
    assert places.enter("::ffff:192.0.2.1") is not None
    assert places.enter("192.0.2.2") is None
    assert len(places) == 3
    assert taken[0] is not None
    places.leave(taken[0])
    assert places.enter("") is not None, "a peer that has no address is one like any other"
    assert places.enter("") is None
    assert len(places) == 3


def test_no_limit_of_connections() -> None:
    places = Places(Server(connections_max=0), Metrics())
    assert all(places.enter(socket.inet_ntoa(bytes([10, 0, 0, n % 3]))) for n in range(1000))
