"""What the kernel says a process and the machine use: CPU, memory of processes, memory of sockets.

Must not know what runs. Source: proc(5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SOCKET_SLABS = ("TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "eventpoll_pwq")
"""The kernel's objects of one connection, by their names in /proc/slabinfo."""


def cpu_s(pid: int) -> float:
    """Give the CPU time of a process in seconds, user and system, in steps of 10 ms."""
    # The second field, the name, may hold spaces and parentheses.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Give the resident memory of a process."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def kernel_bytes() -> int:
    """Give the kernel's memory for connections, of the whole machine: socket objects and socket buffers.

    Objects by /proc/slabinfo, which only root may read; else all of the kernel's objects, by /proc/meminfo.
    """
    try:
        slabs = Path("/proc/slabinfo").read_text()
    except OSError:
        slab = re.search(r"^Slab:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        objects = int(slab[1]) * 1024 if slab else 0
    else:
        objects = sum(
            int(fields[1]) * int(fields[3])
            for line in slabs.splitlines()
            if len(fields := line.split()) > 4 and fields[0] in _SOCKET_SLABS
        )
    buffers = re.search(r"^TCP:.* mem (\d+)$", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return objects + (int(buffers[1]) * _PAGE_BYTES if buffers else 0)


def machine() -> dict[str, object]:
    """Say what this machine is."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cpu": model[1] if model else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 1024**2, 1) if memory else None,
        "kernel": os.uname().release,
    }


def busy_cores(since: tuple[float, float] | None = None) -> tuple[float, float]:
    """Give (busy, all) CPU seconds of the machine since it started, or since an earlier call."""
    numbers = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = numbers[3] + numbers[4]
    total, busy = sum(numbers) / _TICKS_PER_S, (sum(numbers) - idle) / _TICKS_PER_S
    return (busy - since[0], total - since[1]) if since else (busy, total)
