# ruff: noqa: RUF001 - the multiplication and minus signs are meant
"""The results of a run: medians over its rounds, and whether the targets hold.

Must not know how anything was measured, nor how it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import msgspec

from bench.scenarios import Scale

BROKER = "sidecast"


class Taken(msgspec.Struct, frozen=True):
    """One scenario, run once with one way of serving.

    Attributes:
        round: from 1.
        values: numbers by name; empty where it failed.
        error: why it failed.
        seconds: how long it took, with all that has to be started, waited for and stopped.
    """

    round: int
    scenario: str
    way: str
    values: dict[str, float] = {}
    error: str = ""
    seconds: float = 0.0


class Results(msgspec.Struct, frozen=True):
    """A whole run, as it is written to `results.json`.

    Attributes:
        taken_at: when it began, RFC 3339.
        quick: whether it was too short to judge anything by.
        machine: what it ran on.
        versions: of what ran.
        scale: how large it was.
        missing: ways that could not take part, with the reason.
        taken: everything measured.
        medians: scenario → way → number → median over the rounds.
        targets: what must hold, and whether it does.
        how: number → how it is taken.
    """

    taken_at: str
    quick: bool
    machine: dict[str, object]
    versions: dict[str, str]
    scale: Scale
    missing: dict[str, str]
    taken: list[Taken]
    medians: dict[str, dict[str, dict[str, float]]] = {}
    targets: list[Target] = []
    how: dict[str, str] = {}


class Target(msgspec.Struct, frozen=True):
    """Something that must hold.

    Attributes:
        name: what.
        limit: the bound, as text.
        measured: what was measured, as text; empty where it wasn't.
        holds: whether it does; None where that can't be said.
    """

    name: str
    limit: str
    measured: str
    holds: bool | None


def medians(taken: list[Taken]) -> dict[str, dict[str, dict[str, float]]]:
    """Give the median over the rounds of every number: scenario → way → number."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for each in taken:
        for name, value in each.values.items():
            found.setdefault(each.scenario, {}).setdefault(each.way, {}).setdefault(name, []).append(value)
    return {
        scenario: {
            way: {name: median(values) for name, values in numbers.items()} for way, numbers in ways.items()
        }
        for scenario, ways in found.items()
    }


def ratio(
    taken: list[Taken], scenario: str, upper: tuple[str, tuple[str, ...]], lower: tuple[str, str]
) -> float | None:
    """Give the median over the rounds of a ratio of two ways in the same round; None where there is none.

    Args:
        taken: everything measured.
        scenario: the scenario of both.
        upper: a way, and its numbers to be added up; one it doesn't have counts as 0.
        lower: a way, and its number.
    """
    rounds: dict[int, dict[str, dict[str, float]]] = {}
    for each in taken:
        if each.scenario == scenario and each.values:
            rounds.setdefault(each.round, {})[each.way] = each.values
    ratios = [
        sum(ways[upper[0]].get(name, 0.0) for name in upper[1]) / ways[lower[0]][lower[1]]
        for ways in rounds.values()
        if upper[0] in ways and lower[0] in ways and ways[lower[0]][lower[1]]
    ]
    return median(ratios) if ratios else None


class _Bound(NamedTuple):
    """A target that is one number with a bound."""

    name: str
    scenario: str
    number: str
    limit: str
    show: Callable[[float], str]
    holds: Callable[[float], bool]


_BOUNDS = (
    _Bound(
        "CPU per delivery by JSON-RPC ÷ by the `events` view",
        *("rpc", "cpu_ratio", "≤ 1.3 ×"),
        lambda value: f"{value:.2f} ×",
        lambda value: value <= 1.3,
    ),
    _Bound(
        "RSS of an idle stream",
        *("idle", "rss_bytes_per_stream", "≤ 14 KB"),
        lambda value: f"{value / 1000:.1f} KB",
        lambda value: value <= 14_000,
    ),
    _Bound(
        "CPU to accept a stream",
        *("idle", "cpu_us_per_accept", "≤ 400 µs"),
        lambda value: f"{value:.0f} µs",
        lambda value: value <= 400,
    ),
    _Bound(
        "tasks × 1 watcher, late, lost or repeated",
        *("tasks", "lost", "0"),
        lambda value: f"{value:.0f}",
        lambda value: value == 0,
    ),
    _Bound(
        "tasks × 1 watcher, latency p50",
        *("tasks", "p50_ms", "< 10 ms"),
        lambda value: f"{value:.2f} ms",
        lambda value: value < 10,
    ),
    _Bound(
        "cold history",
        *("history", "events_per_s", "≥ 20,000 events/s"),
        lambda value: f"{value:,.0f} events/s",
        lambda value: value >= 20_000,
    ),
    _Bound(
        "join, warm",
        *("join", "warm_p50_ms", "< 3 ms"),
        lambda value: f"{value:.2f} ms",
        lambda value: value < 3,
    ),
    _Bound(
        "join, cold",
        *("join", "cold_p50_ms", "< 10 ms"),
        lambda value: f"{value:.2f} ms",
        lambda value: value < 10,
    ),
    _Bound(
        "reconnects, all streaming at another broker",
        *("reconnect", "other_seconds", "≤ 10 s"),
        lambda value: f"{value:.1f} s",
        lambda value: value <= 10,
    ),
    _Bound(
        "reconnects, all streaming at the same broker",
        *("reconnect", "same_seconds", "≤ 10 s"),
        lambda value: f"{value:.1f} s",
        lambda value: value <= 10,
    ),
    _Bound(
        "reconnects, p99 of a watcher meanwhile",
        *("reconnect", "watcher_p99_ms", "< 500 ms"),
        lambda value: f"{value:.0f} ms",
        lambda value: value < 500,
    ),
    _Bound(
        "reconnects, history reads per task",
        *("reconnect", "history_reads", "1"),
        lambda value: f"{value:g}",
        lambda value: value == 1,
    ),
    _Bound(
        "reconnects, lost or repeated",
        *("reconnect", "lost", "0"),
        lambda value: f"{value:.0f}",
        lambda value: value == 0,
    ),
)


def targets(taken: list[Taken]) -> list[Target]:
    """Judge everything that must hold by the medians, ratios by the median of each round's."""
    middle = medians(taken)
    judged = [
        _ratio_of_cpu(taken, "one task × many watchers, CPU per delivery ÷ floor", "fanout", 1.6),
        _throughput(taken),
        _ratio_of_cpu(taken, "tasks × 1 watcher, CPU per event ÷ floor", "tasks", 10),
    ]
    for bound in _BOUNDS:
        value = middle.get(bound.scenario, {}).get(BROKER, {}).get(bound.number)
        if value is None:
            judged.append(Target(bound.name, bound.limit, "", None))
        else:
            judged.append(Target(bound.name, bound.limit, bound.show(value), bound.holds(value)))
    return judged


def _ratio_of_cpu(taken: list[Taken], name: str, scenario: str, limit: float) -> Target:
    floor = ("floor", "cpu_us_per_delivery")
    alone = ratio(taken, scenario, (BROKER, ("cpu_us_per_delivery",)), floor)
    both = ratio(taken, scenario, (BROKER, ("cpu_us_per_delivery", "nats_us_per_delivery")), floor)
    if alone is None or both is None:
        return Target(name, f"≤ {limit:g} ×", "", None)
    return Target(
        name, f"≤ {limit:g} ×", f"{alone:.2f} ×; {both:.2f} × with nats-server's own", alone <= limit
    )


def _throughput(taken: list[Taken]) -> Target:
    name, limit = "saturated throughput ÷ nchan's", "≥ 1.2 ×"
    number = "deliveries_per_s"
    found = ratio(taken, "saturated", (BROKER, (number,)), ("nchan", number))
    if found is None:
        return Target(name, limit, "", None)
    return Target(name, limit, f"{found:.2f} ×", found >= 1.2)
