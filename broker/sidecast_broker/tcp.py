"""What Linux says of one TCP connection: how much of what was sent its peer has acknowledged; and its reset.

Must not know what is sent, nor who the peer is.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios

BYTES_ACKED_AT = 120
"""Offset of `tcpi_bytes_acked` in `struct tcp_info` (linux/tcp.h)."""


def unacknowledged(fd: int) -> int:
    """Give the bytes in the kernel's send queue that the peer's TCP has not acknowledged (SIOCOUTQ)."""
    if fd < 0:
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0  # closed meanwhile


def acknowledged(fd: int) -> int:
    """Give the bytes that the peer's TCP has acknowledged since it connected; 0: the kernel doesn't say.

    `tcpi_bytes_acked` of `TCP_INFO`, Linux 4.1 and later: never 0 where a handshake has been answered.
    """
    if fd < 0:
        return 0
    try:
        with socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as connection:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED_AT + 8)
    except OSError:
        return 0  # closed meanwhile
    return int.from_bytes(told[BYTES_ACKED_AT:], sys.byteorder)


def reset_at_close(fd: int) -> None:
    """Have a connection end with a reset (`SO_LINGER` of 0): what a peer can't take for an end in good order.

    Raises:
        OSError: it is closed.
    """
    with socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
