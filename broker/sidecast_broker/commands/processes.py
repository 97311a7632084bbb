"""Brokers among the processes of the same container and user: found, told to end, and waited for.

Must not know how a broker drains.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
from pathlib import Path


def brokers(proc: Path = Path("/proc")) -> list[int]:
    """Give the process ids of this user's brokers; of one with workers, the first process only.

    Args:
        proc: where the system shows its processes.
    """
    parents = {}
    for directory in proc.iterdir():
        try:
            if directory.name.isdecimal() and directory.stat().st_uid == os.geteuid():
                arguments = (directory / "cmdline").read_bytes().split(b"\0")
                if _serves(arguments):
                    # The name in brackets before the state may hold anything.
                    stat = (directory / "stat").read_text(errors="replace")
                    parents[int(directory.name)] = int(stat.rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    return sorted(pid for pid, parent in parents.items() if parent not in parents)


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
