"""Brokers among the processes of the same container and user: found, told to end, and waited for.

Must not know how a broker drains.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

from sidecast_broker.configuration import ENV_OF_CLIENTS
from sidecast_broker.settings import ENV_PREFIX


def brokers(environ: Mapping[str, str], proc: Path = Path("/proc")) -> list[int]:
    """Give the process ids of this user's brokers with these settings; of one with workers, the first only.

    Args:
        environ: the environment; a hook in a container has that of the container's broker.
        proc: where the system shows its processes.
    """
    settings = _settings(
        f"{name}={value}".encode(errors="surrogateescape") for name, value in environ.items()
    )
    parents = {}
    for directory in proc.iterdir():
        try:
            if not directory.name.isdecimal() or directory.stat().st_uid != os.geteuid():
                continue
            if not _serves((directory / "cmdline").read_bytes().split(b"\0")):
                continue
            if _settings((directory / "environ").read_bytes().split(b"\0")) == settings:
                # The name in brackets before the state may hold anything.
                stat = (directory / "stat").read_text(errors="replace")
                parents[int(directory.name)] = int(stat.rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    return sorted(pid for pid, parent in parents.items() if parent not in parents)


def _settings(variables: Iterable[bytes]) -> frozenset[bytes]:
    ours = ENV_PREFIX.encode()
    clients = tuple(f"{name}=".encode() for name in ENV_OF_CLIENTS)
    return frozenset(each for each in variables if each.startswith(ours) and not each.startswith(clients))


def _serves(arguments: list[bytes]) -> bool:
    return any(
        program.rpartition(b"/")[2] == b"sidecast" and word == b"serve"
        for program, word in itertools.pairwise(arguments)
    )


def terminate(pids: list[int]) -> None:
    """Send SIGTERM to processes, and wait until they have ended.

    Raises:
        PermissionError: one isn't this user's.
    """
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            waiting = select.poll()
            waiting.register(handle, select.POLLIN)
            waiting.poll()
        except ProcessLookupError:
            continue
        finally:
            os.close(handle)
