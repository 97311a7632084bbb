from __future__ import annotations

import socket
from collections import Counter

import pytest

from sidecast_broker.sockets import bound, close, reserved, url_of


async def test_a_port_that_is_picked_holds_for_all_addresses() -> None:
    opened = await bound("localhost", 0)
    try:
        assert len({each.getsockname()[1] for each in opened}) == 1
        assert url_of(opened[0]).endswith(f":{opened[0].getsockname()[1]}")
    finally:
        close(opened)


async def test_a_shared_port_is_taken_by_all_who_share_it_and_by_nobody_else() -> None:
    kept = await reserved("127.0.0.1", 0)
    port = kept[0].getsockname()[1]
    [first] = await bound("127.0.0.1", port, shared=True)
    first.listen()
    try:
        [second] = await bound("127.0.0.1", port, shared=True)
        second.close()
        with pytest.raises(OSError, match="address already in use"):
            await bound("127.0.0.1", port)
        # Another broker with workers would share it, and get half of this one's connections.
        with pytest.raises(OSError, match="address already in use"):
            await reserved("127.0.0.1", port)
    finally:
        close([first, *kept])


async def test_what_keeps_a_port_takes_no_connection() -> None:
    kept = await reserved("127.0.0.1", 0)
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(kept[0].getsockname(), timeout=5)
    finally:
        close(kept)


async def test_connections_are_spread_evenly() -> None:
    kept = await reserved("127.0.0.1", 0)
    port = kept[0].getsockname()[1]
    listening = [(await bound("127.0.0.1", port, shared=True))[0] for _ in range(2)]
    taken: Counter[int] = Counter()
    clients: list[socket.socket] = []
    try:
        for each in listening:
            each.listen(1024)
            each.setblocking(False)
        clients += [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(400)]
        for number, each in enumerate(listening):
            while True:
                try:
                    clients.append(each.accept()[0])
                except BlockingIOError:
                    break
                taken[number] += 1
        assert sum(taken.values()) == 400
        # Half of them; seven standard deviations of a fair coin.
        assert 140 <= taken[0] <= 260
    finally:
        close([*clients, *listening, *kept])


@pytest.mark.parametrize("shared", [False, True])
async def test_an_address_of_nobody_is_told(shared: bool) -> None:
    with pytest.raises(OSError, match=r"can't bind to \('192\.0\.2\.1', 0\)"):
        await bound("192.0.2.1", 0, shared=shared)
