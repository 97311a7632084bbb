# ruff: noqa: RUF001 - the multiplication and minus signs are meant
"""Which numbers are shown, what they are called, and how each is taken.

Must not know their values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Number(NamedTuple):
    """One row of the results.

    Attributes:
        scenario: where it comes from.
        key: its name among the scenario's values.
        title: what it is.
        show: writes a value.
        how: how it is taken.
    """

    scenario: str
    key: str
    title: str
    show: Callable[[float], str]
    how: str


def _us(value: float) -> str:
    return f"{value:.1f} µs" if value < 100 else f"{value:.0f} µs"


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:,.0f} ms"


def _s(value: float) -> str:
    return f"{value:.1f} s"


def _times(value: float) -> str:
    return f"{value:.2f} ×"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _kb(value: float) -> str:
    return f"{value / 1000:.1f} KB"


_LATENCY = (
    "from the event's `ts`, set just before it is published, to the return of the `read()` that brought it "
    "(one clock for both); over all deliveries of the run"
)
_CPU = (
    "user and system time of the server's process (`/proc/<pid>/stat`) from the first publish to the last "
    "arrival, by events received"
)
_NATS_CPU = "the same of the nats-server process"
_RATE = "events received on all connections, by the time from the first to the last one"
_LOST = "events published × watchers − events received, and each time `n` did not rise by one on a connection"

_WRONG = ("missing", "holes", "repeats")
"""What adds up to `lost`."""

NUMBERS = (
    Number("fanout", "deliveries_per_s", "deliveries/s", _count, _RATE),
    Number("fanout", "cpu_us_per_delivery", "CPU per delivery", _us, _CPU),
    Number("fanout", "nats_us_per_delivery", "CPU per delivery, nats-server", _us, _NATS_CPU),
    Number("fanout", "p50_ms", "latency p50", _ms, _LATENCY),
    Number("fanout", "p99_ms", "latency p99", _ms, _LATENCY),
    Number("fanout", "p999_ms", "latency p99.9", _ms, _LATENCY),
    Number("fanout", "lost", "late, lost or repeated", _count, _LOST),
    Number("saturated", "deliveries_per_s", "deliveries/s", _count, _RATE),
    Number("saturated", "cpu_us_per_delivery", "CPU per delivery", _us, _CPU),
    Number("saturated", "p99_ms", "latency p99", _ms, _LATENCY),
    Number("saturated", "lost", "late, lost or repeated", _count, _LOST),
    Number("rpc", "rpc_cpu_us_per_delivery", "CPU per delivery, JSON-RPC", _us, _CPU),
    Number(
        "rpc",
        "events_cpu_us_per_delivery",
        "CPU per delivery, `events` view",
        _us,
        "the same right before, of a broker started anew, with as many watchers by the `events` view",
    ),
    Number(
        "rpc", "cpu_ratio", "JSON-RPC ÷ `events` view", _times, "the former by the latter, round by round"
    ),
    Number("rpc", "rpc_p99_ms", "latency p99, JSON-RPC", _ms, _LATENCY),
    Number("rpc", "lost", "late, lost or repeated", _count, f"{_LOST}; in both views"),
    Number(
        "idle",
        "rss_bytes_per_stream",
        "RSS per stream",
        _kb,
        "growth of the server's resident memory (`/proc/<pid>/status`) from a warm server without streams to "
        "one second after the last stream was open, by streams; 1 KB is 1,000 bytes",
    ),
    Number(
        "idle",
        "kernel_bytes_per_connection",
        "kernel memory per connection",
        _kb,
        "growth of the kernel's socket objects (`/proc/slabinfo`: TCP, sock_inode_cache, filp, dentry, "
        "eventpoll) and socket buffers (`/proc/net/sockstat`), by connections: both ends of each, for the "
        "client is on the same machine",
    ),
    Number(
        "idle",
        "cpu_us_per_accept",
        "CPU per accepted stream",
        _us,
        "CPU of the server's process from the first `connect()` to half a second after the last stream was "
        "open, by streams",
    ),
    Number("idle", "accepted_per_s", "streams opened/s", _count, "streams, by the time until all were open"),
    Number("tasks", "deliveries_per_s", "deliveries/s", _count, _RATE),
    Number("tasks", "cpu_us_per_delivery", "CPU per event", _us, _CPU),
    Number("tasks", "nats_us_per_delivery", "CPU per event, nats-server", _us, _NATS_CPU),
    Number("tasks", "p50_ms", "latency p50", _ms, _LATENCY),
    Number("tasks", "p99_ms", "latency p99", _ms, _LATENCY),
    Number("tasks", "p999_ms", "latency p99.9", _ms, _LATENCY),
    Number("tasks", "lost", "late, lost or repeated", _count, _LOST),
    Number(
        "join",
        "warm_p50_ms",
        "join, warm",
        _ms,
        "from `connect()` to the last of the task's 50 events (`?from=start`), one stream after the other; "
        "the task is in the broker's memory; median of the joins",
    ),
    Number(
        "join",
        "cold_p50_ms",
        "join, cold",
        _ms,
        "the same for a task the broker has not seen before",
    ),
    Number(
        "history",
        "events_per_s",
        "cold history events/s",
        _count,
        "events of one task the broker has not seen before, by the time from `connect()` to the last of them",
    ),
    Number("history", "cpu_us_per_event", "CPU per event", _us, "CPU of the broker's process, by events"),
    Number(
        "reconnect",
        "other_seconds",
        "all streaming, another broker",
        _s,
        "from the moment all clients have closed to the first frame of the last one; they connect all at "
        "once, each with its cursor, to a broker that has none of the 100 tasks in memory, while these go on",
    ),
    Number(
        "reconnect",
        "same_seconds",
        "all streaming, the same broker",
        _s,
        "the same once more at the broker they have just left: it has to close as many streams as it opens",
    ),
    Number(
        "reconnect",
        "watcher_p99_ms",
        "p99 of a watcher meanwhile",
        _ms,
        "latency of a stream of another task, with 50 events/s, at that broker; the worse of the two storms",
    ),
    Number(
        "reconnect",
        "history_reads",
        "history reads per task",
        lambda value: f"{value:g}",
        "requests to JetStream's direct get that ask for a task's records, seen by a subscriber to "
        "`$JS.API.DIRECT.GET.SIDECAST`, at the broker that has none in memory; the largest of the 100 tasks",
    ),
    Number("reconnect", "cpu_us", "CPU per reconnect", _us, "CPU of the broker's process, by reconnects"),
    Number(
        "reconnect",
        "lost",
        "lost or repeated",
        _count,
        "each time `n` did not rise by one on a connection, across the reconnects",
    ),
)


def derived(scenario: str, values: dict[str, float]) -> dict[str, float]:
    """Add what is made of several values of one run."""
    if scenario == "rpc":
        ratio = values["rpc_cpu_us_per_delivery"] / values["events_cpu_us_per_delivery"]
        return values | {"cpu_ratio": ratio, "lost": _sum(values, ("events", "rpc"), _WRONG)}
    if scenario == "reconnect":
        worse = {
            "watcher_p99_ms": max(values["other_watcher_p99_ms"], values["same_watcher_p99_ms"]),
            "history_reads": values["other_history_reads_per_task_max"],
            "cpu_us": max(values["other_cpu_us_per_reconnect"], values["same_cpu_us_per_reconnect"]),
        }
        lost = _sum(values, ("other", "same"), ("holes", "repeats", "not_streaming"))
        return values | worse | {"lost": lost}
    if "holes" in values:
        return values | {"lost": sum(values[key] for key in _WRONG)}
    return values


def _sum(values: dict[str, float], names: tuple[str, ...], keys: tuple[str, ...]) -> float:
    return sum(values[f"{name}_{key}"] for name in names for key in keys)
