"""Writes the sizing table of docs/install.md from the numbers in docs/benchmarks.md.

Must not know how those are measured.
"""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from sidecast_broker.reference import rewrite
from sidecast_broker.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
SHARE_MAX = 0.6
"""How much of a core is planned for: the rest is for crowds that reconnect."""
BASE_BYTES = 70_000_000
"""A process without streams: 67 MB of resident memory on x86-64, five seconds after its start."""
LOADS = (
    (100, 20, 5),
    (1_000, 1, 50),
    (1_000, 1_000, 4),
    (10_000, 500, 2),
    (50_000, 500, 2),
    (100_000, 100, 4),
)
"""Watchers, tasks that are watched at once, events a second of each task."""
COLUMNS = (
    *("watchers", "tasks watched", "events/s of each", "deliveries/s"),
    *("brokers or workers", "cores", "memory of each", "cores of NATS"),
)


@dataclass(frozen=True)
class Costs:
    """What the benchmarks say.

    Attributes:
        delivery_us: CPU of one event to one of many watchers.
        event_us: CPU of one event to its only watcher.
        nats_us: the same of nats-server.
        stream_bytes: an idle stream, with the kernel's memory for its connection.
    """

    delivery_us: float
    event_us: float
    nats_us: float
    stream_bytes: float

    @property
    def following_us(self) -> float:
        """CPU of an event before anybody is sent it."""
        return self.event_us - self.delivery_us


def measured(text: str) -> Costs:
    """Read the benchmarks' table.

    Args:
        text: docs/benchmarks.md.
    """
    rows: dict[tuple[str, str], str] = {}
    scenario = ""
    for line in text.partition("<!-- results:begin -->")[2].partition("<!-- results:end -->")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6:
            scenario = cells[0] or scenario
            rows[scenario, cells[1]] = cells[5]

    def number(begins: str, what: str) -> float:
        (found,) = (
            cell for (name, of), cell in rows.items() if name.startswith(begins) and of == what and cell
        )
        return float(re.sub(r"[^\d.]", "", found))

    many, single, idle = "1 task × 1,000 watchers, 50 ", "1,000 tasks × 1 watcher", "10,000 idle streams"
    return Costs(
        number(many, "CPU per delivery"),
        number(single, "CPU per event"),
        number(single, "CPU per event, nats-server"),
        1_000 * (number(idle, "RSS per stream") + number(idle, "kernel memory per connection")),
    )


def processes(costs: Costs, watchers: int, tasks: int, rate: float) -> int:
    """Give how many processes share a load, each of which follows all tasks.

    Raises:
        ValueError: following the tasks takes all of a core.
    """
    left = SHARE_MAX - costs.following_us * tasks * rate / 1e6
    if left <= 0:
        raise ValueError("no number of processes is enough: divide the agents")
    by_cpu = math.ceil(watchers * rate * costs.delivery_us / 1e6 / left)
    return max(by_cpu, math.ceil(watchers / Settings().stream.streams_max))


def table(text: str) -> str:
    """Give the table, and how it was computed, as Markdown."""
    costs = measured(text)
    log_bytes = Settings().log.bytes_max
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---:|" * len(COLUMNS)]
    for watchers, tasks, rate in LOADS:
        count = processes(costs, watchers, tasks, rate)
        followed = tasks * rate * count
        cores = (watchers * rate * costs.delivery_us + followed * costs.following_us) / 1e6
        memory = BASE_BYTES + log_bytes + costs.stream_bytes * watchers / count
        cells = (
            *(f"{watchers:,}", f"{tasks:,}", f"{rate:,}", f"{watchers * rate:,}", f"{count}"),
            *(f"{cores:.2f}", f"{math.ceil(memory / 2**20 / 10) * 10} MiB"),
            f"{max(0.01, costs.nats_us * followed / 1e6):.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    how = f"""Computed from [benchmarks](benchmarks.md), for events of 420 bytes, and not measured as a whole:
        {costs.delivery_us:g} µs of CPU for a delivery, and {costs.following_us:.1f} µs for an event of a
        watched task in each process that watches it ({costs.event_us:g} µs with its only delivery),
        taken as if each process watched every task; {costs.nats_us:g} µs of NATS for each of the latter.
        There are as many processes as leave each of them at {SHARE_MAX:.0%} of a core, for crowds that
        come back, and within `stream.streams_max`. Memory is {BASE_BYTES / 1e6:.0f} MB for a process,
        {costs.stream_bytes / 1e3:.1f} KB for a stream with the kernel's part, and `log.bytes_max`
        ({log_bytes >> 20} MiB) at its fullest; the folded Task of each watched task comes on top where it
        is larger than its recent events. `resources.limits.memory` of a broker sums up its workers."""
    return "\n".join([*lines, "", textwrap.fill(" ".join(how.split()), 124, break_on_hyphens=False)])


def written() -> str:
    """Give docs/install.md with the table as it should be."""
    benchmarks = (DOCS / "benchmarks.md").read_text()
    return rewrite((DOCS / "install.md").read_text(), {"sizing": lambda: table(benchmarks)})


if __name__ == "__main__":
    (DOCS / "install.md").write_text(written())
