from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from brokers import FakeBackend, OwnBroker, broker
from hypothesis import given
from hypothesis import strategies as st
from issuer import Clock
from sse import TIMEOUT_S

from sidecast_broker.core.auth.principal import ANYBODY, Principal
from sidecast_broker.limits import Asker, Limits, Places, Seat, asker_of
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Auth, Server, Stream
from sidecast_schemas.subjects import TaskKey


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
            kept.leave(seat)
    assert len(seats) <= 5
    for seat, _ in seats:
        kept.leave(seat)
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
