from __future__ import annotations

import socket

import pytest
from shell.test_hub_faults import Numbers, Sink

from sidecast_broker.subscriber import Subscriber


def subscriber(sink: Sink, fd: int) -> Subscriber:
    return Subscriber(Numbers(), sink, chunked=False, buffer_bytes_max=64, wake=lambda _why: None, fd=fd)


def test_bytes_go_to_the_socket_past_the_transport() -> None:
    here, there = socket.socketpair()
    with here, there:
        sink = Sink()
        client = subscriber(sink, here.fileno())
        assert client.send(b"abc") == 0
        assert (there.recv(10), sink.data, client.bytes_sent) == (b"abc", b"", 3)


def test_what_the_socket_does_not_take_goes_through_the_transport() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        sink = Sink()
        client = subscriber(sink, here.fileno())
        data = bytes(range(256)) * 8192
        unsent = client.send(data)
        assert 0 < unsent < len(data)
        assert sink.data == data[-unsent:]
        assert client.send(b"more") == 4  # the socket is full
        assert sink.data.endswith(b"more")
        there.setblocking(False)
        taken = b""
        while len(taken) < len(data) - unsent:
            taken += there.recv(1 << 20)
        assert taken + sink.data == data + b"more"


@pytest.mark.parametrize("queued", [False, True])
def test_order_is_kept_where_the_transport_has_bytes_or_there_is_no_socket(queued: bool) -> None:
    here, there = socket.socketpair()
    with here, there:
        sink = Sink()
        sink.unsent = 5 if queued else 0
        client = subscriber(sink, here.fileno() if queued else -1)
        assert client.send(b"abc") == 3
        assert sink.data == b"abc"


def test_an_error_is_left_to_the_transport() -> None:
    here, there = socket.socketpair()
    sink = Sink()
    client = subscriber(sink, here.fileno())
    there.close()
    assert client.send(b"abc") == 3
    assert sink.data == b"abc"
    here.close()
