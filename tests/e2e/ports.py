"""Ports that stay ours while nobody listens on them.

A port in the range the kernel picks from for outgoing connections may be taken while its process is being
restarted; clients that retry it can even connect to themselves there.
"""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 10_000, 30_000


def fixed_ports(count: int) -> list[int]:
    """Give loopback ports that nobody listens on, and that the kernel gives to no outgoing connection."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(LOWEST, HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
