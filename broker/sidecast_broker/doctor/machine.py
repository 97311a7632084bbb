"""Looks at the limits of the system the broker runs on.

Must not know NATS or HTTP.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from sidecast_broker.doctor.finding import Finding
from sidecast_broker.settings import Server, Stream

OWN_DESCRIPTORS = 100
"""Files and sockets beside those of clients: NATS, the agent, listeners, the log."""
BYTES_PER_STREAM = 13 * 1024
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def look_at_limits(
    server: Server,
    stream: Stream,
    log_bytes_max: int,
    *,
    somaxconn: Path = SOMAXCONN,
    cgroup_memory: Path = CGROUP_MEMORY,
) -> Iterator[Finding]:
    """Compare what the settings allow with what the system does."""
    wanted = server.connections_max or stream.streams_max
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < wanted + OWN_DESCRIPTORS:
        yield Finding(
            "limits",
            "warn",
            f"{files:,} open files are allowed, and server.connections_max is {wanted:,}",
            f"raise the limit to {wanted + OWN_DESCRIPTORS:,} (ulimit -n, LimitNOFILE=), or lower "
            "server.connections_max and stream.streams_max",
        )
    else:
        yield Finding("limits", "ok", f"open files: {files:,}, for {wanted:,} connections")
    waiting = _number(somaxconn)
    if waiting is not None and waiting < server.backlog:
        yield Finding(
            "limits",
            "warn",
            f"the system lets {waiting:,} connections wait to be accepted, and server.backlog is "
            f"{server.backlog:,}: a storm of reconnects is refused sooner",
            f"sysctl net.core.somaxconn={server.backlog}",
        )
    memory = _number(cgroup_memory)
    needed = log_bytes_max + (stream.streams_max or wanted) * BYTES_PER_STREAM
    if memory is not None and memory < needed:
        yield Finding(
            "limits",
            "warn",
            f"memory is limited to {memory // 2**20:,} MiB, and records and streams may take "
            f"{needed // 2**20:,} MiB by the settings",
            "raise the limit, or lower log.bytes_max or stream.streams_max",
        )


def _number(file: Path) -> int | None:
    """Give the number a file holds; None where there is none, as in `max`."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
