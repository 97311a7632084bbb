"""Sockets that wait for connections: on all addresses of a name, alone or shared with other processes.

Must not know what is served on them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


async def bound(
    host: str,
    port: int,
    *,
    shared: bool = False,
    prepare: Callable[[socket.socket], None] = lambda _listening: None,
) -> list[socket.socket]:
    """Give sockets that are bound to all addresses of a name, on one port, and don't listen yet.

    Args:
        host: a name or an address.
        port: 0 picks a free one.
        shared: whether other processes of this user may be bound there too (SO_REUSEPORT): the kernel gives
            each connection to one of those that listen, by a hash of its two ends.
        prepare: sets what accepted connections inherit.

    Raises:
        OSError: one of the addresses can't be bound to.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, kind, protocol, _name, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            opened.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            prepare(listening)
            wanted = (address[0], port, *address[2:])
            try:
                listening.bind(wanted)
            except OSError as error:
                reason = str(error.strerror).lower()
                raise OSError(error.errno, f"can't bind to {wanted}: {reason}") from None
            port = listening.getsockname()[1]
    except OSError:
        close(opened)
        raise
    return opened


async def reserved(host: str, port: int) -> list[socket.socket]:
    """Give shared sockets that keep a port for processes to come; they never listen themselves.

    Raises:
        OSError: another program listens there, also one that would share it.
    """
    if port:
        # Bound alone first: a second broker would else take half of the first one's connections.
        close(await bound(host, port))
    return await bound(host, port, shared=True)


def close(sockets: list[socket.socket]) -> None:
    """Close sockets."""
    for each in sockets:
        each.close()


def url_of(listening: socket.socket, scheme: str = "http") -> str:
    """Give the URL of a bound socket."""
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
