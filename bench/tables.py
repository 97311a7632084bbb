# ruff: noqa: RUF001 - the multiplication and minus signs are meant
"""Results as Markdown tables.

Must not know where they are shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from bench.numbers import NUMBERS
from bench.results import Results, Taken, Target
from bench.scenarios import ALL, IN_FLIGHT, STORM_TASKS, Scale

MARKS = {True: "yes", False: "**no**", None: "not measured"}


def titles(scale: Scale) -> dict[str, str]:
    """Say what each scenario does, with its numbers."""
    return {
        "fanout": f"1 task × {scale.watchers:,} watchers, {scale.rate:g} events/s",
        "saturated": f"1 task × {scale.watchers:,} watchers, {IN_FLIGHT} events in flight",
        "rpc": f"1 task × {scale.watchers:,} watchers by JSON-RPC, {scale.rate:g} events/s",
        "idle": f"{scale.idle:,} idle streams",
        "tasks": f"{scale.tasks:,} tasks × 1 watcher, {scale.tasks_rate:,.0f} events/s",
        "join": f"{scale.joins} joins, one after the other",
        "history": f"a task of {scale.history:,} events",
        "reconnect": f"{scale.idle:,} reconnects, {STORM_TASKS} tasks",
    }


def numbers_table(results: Results) -> str:
    """Write all medians: a row for each number, a column for each way."""
    title_of = titles(results.scale)
    rows, shown = [], ""
    for number in NUMBERS:
        ways = results.medians.get(number.scenario)
        if ways is None:
            continue
        cells = [number.show(ways[way][number.key]) if number.key in ways.get(way, {}) else "" for way in ALL]
        if any(cells):
            title = "" if number.scenario == shown else title_of[number.scenario]
            shown = number.scenario
            rows.append((title, number.title, *cells))
    heads = (f"{way} ({results.missing[way]})" if way in results.missing else way for way in ALL)
    return _table(("scenario", "number", *heads), rows)


def targets_table(targets: list[Target]) -> str:
    """Write what must hold, and whether it does."""
    rows = [(target.name, target.limit, target.measured, MARKS[target.holds]) for target in targets]
    return _table(("target", "limit", "measured", "holds"), rows)


def how_table(scale: Scale) -> str:
    """Write how each number is taken."""
    title_of = titles(scale)
    rows, shown, above = [], "", ""
    for number in NUMBERS:
        title = "" if number.scenario == shown else title_of[number.scenario]
        rows.append((title, number.title, "as above" if number.how == above else number.how))
        shown, above = number.scenario, number.how
    return _table(("scenario", "number", "how it is taken"), rows)


def machine_line(results: Results) -> str:
    """Say in one line what ran where and when."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    rounds = max((each.round for each in results.taken), default=0)
    warning = "**A quick run: judge nothing by it.** " if results.quick else ""
    return (
        f"{warning}{results.taken_at}, {rounds} round{'s' * (rounds != 1)} "
        f"of {results.scale.seconds:g} s, medians; "
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}; {versions}."
    )


def durations_line(taken: list[Taken]) -> str:
    """Say in one line how long each scenario took, all its rounds and ways together."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for each in taken:
        seconds[each.scenario] += each.seconds
    parts = ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds.items())
    return f"{parts}; {sum(seconds.values()):.0f} s altogether"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
