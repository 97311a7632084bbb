"""What Linux says of a TCP connection, against what its peer has been seen to do."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from sidecast_broker.tcp import acknowledged, reset_at_close, unacknowledged


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a connection's two ends; the second takes at most a few kilobytes before it is read from."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(listening.getsockname())
        writer, _address = listening.accept()
        with reader, writer:
            reader.settimeout(10)
            yield writer, reader


def fill(writer: socket.socket) -> int:
    """Send until the kernel takes no more; give how many bytes it has taken."""
    writer.setblocking(False)
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += writer.send(b"x" * 4096)
    return taken


def test_what_a_peer_does_not_take_is_not_acknowledged(pair: tuple[socket.socket, socket.socket]) -> None:
    writer, reader = pair
    fd = writer.fileno()
    before = acknowledged(fd)
    assert unacknowledged(fd) == 0
    sent = fill(writer)
    assert unacknowledged(fd) > sent // 2
    # The peer may acknowledge at any time: what it had before is no more than it has after.
    had = acknowledged(fd) - before
    assert 0 <= had <= sent - unacknowledged(fd)
    left = sent
    while left:
        left -= len(reader.recv(65536))
    while unacknowledged(fd):
        pass  # its kernel acknowledges by itself, within 40 ms
    assert acknowledged(fd) - before == sent


def test_a_peer_that_was_sent_nothing_has_acknowledged_the_handshake(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    assert acknowledged(pair[1].fileno()) > 0


@pytest.mark.parametrize("ask", [unacknowledged, acknowledged])
def test_of_a_connection_that_is_closed_or_was_none_nothing_is_known(ask: Callable[[int], int]) -> None:
    with socket.socket() as closed:
        fd = closed.fileno()
    assert (ask(fd), ask(-1)) == (0, 0)


def test_a_reset_is_no_end_in_good_order(pair: tuple[socket.socket, socket.socket]) -> None:
    writer, reader = pair
    reset_at_close(writer.fileno())
    writer.close()
    with pytest.raises(ConnectionResetError):
        reader.recv(1)


def test_closed_without_one_it_is(pair: tuple[socket.socket, socket.socket]) -> None:
    writer, reader = pair
    writer.close()
    assert reader.recv(1) == b""
