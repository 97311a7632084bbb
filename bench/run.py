"""The whole benchmark in one command: every scenario, every way, in turn, round after round.

Must not know what a scenario does.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.metadata
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import msgspec

from bench import nchan
from bench.build import CACHE, NoCompiler, build
from bench.child import ChildFailed
from bench.numbers import NUMBERS, derived
from bench.results import BROKER, Results, Taken, medians, targets
from bench.scenarios import QUICK, SCENARIOS, Context, Scale
from bench.servers import WAYS, Way
from bench.tables import durations_line, machine_line, numbers_table, targets_table
from bench.usage import busy_cores, machine
from sidecast_broker.embedded import find_server

RESULTS = CACHE / "results.json"
NOISE_S = 1.0
NOISE_CORES_MAX = 0.2
SPARE_DESCRIPTORS = 500


class NoDescriptors(RuntimeError):  # noqa: N818 - named as the message reads
    """The limit of open files is too low."""


def _say(text: str) -> None:
    click.echo(text, err=True)


async def _take(
    context: Context, rounds: int, wanted: tuple[str, ...], missing: dict[str, str]
) -> list[Taken]:
    """Run everything; what fails is noted, and the rest goes on."""
    turns = [
        (number, name, way)
        for number in range(1, rounds + 1)
        for name in wanted
        for way in WAYS
        if way.name in SCENARIOS[name].ways and way.name not in missing
    ]
    return [await _take_one(context, number, rounds, name, way) for number, name, way in turns]


async def _take_one(context: Context, number: int, rounds: int, name: str, way: Way) -> Taken:
    began_s = time.monotonic()
    label = f"round {number} of {rounds}: {name}, {way.name}"
    try:
        values = derived(name, await SCENARIOS[name].run(way, context))
    except (ChildFailed, RuntimeError, TimeoutError, OSError) as error:
        seconds = time.monotonic() - began_s
        _say(f"{label}: failed: {error} ({seconds:.0f} s)")
        return Taken(number, name, way.name, error=str(error) or type(error).__name__, seconds=seconds)
    seconds = time.monotonic() - began_s
    head = next(each for each in NUMBERS if each.scenario == name and each.key in values)
    _say(f"{label}: {head.title} {head.show(values[head.key])} ({seconds:.0f} s)")
    return Taken(number, name, way.name, values, seconds=seconds)


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in ("sidecast", "aiohttp", "aiohttp-sse", "uvloop", "nats-py"):
        found[name] = importlib.metadata.version(name)
    found["nats-server"] = _version_of([str(find_server()), "--version"])
    if not nchan.missing():
        found["nginx"] = _version_of([shutil.which("nginx") or "/usr/sbin/nginx", "-v"])
    return found


def _version_of(argv: list[str]) -> str:
    result = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 - found above
    version = re.search(r"v?(\d+\.\d+(\.\d+)*)", result.stdout + result.stderr)
    return version[1] if version else ""


def _noise() -> float:
    """Give how many cores are busy with something else."""
    before = busy_cores()
    time.sleep(NOISE_S)
    return busy_cores(before)[0] / NOISE_S


def _allow_descriptors(needed: int) -> None:
    """Raise the limit of open files for all children.

    Raises:
        NoDescriptors: the system allows fewer.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise NoDescriptors(
            f"{needed:,} open files are needed in one process, {hard:,} are allowed (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(wanted: tuple[str, ...], rounds: int, scale: Scale, *, quick: bool, folder: Path) -> Results:
    """Run the benchmark.

    Raises:
        NoCompiler: the load client can't be compiled.
        NoDescriptors: a process may not open enough files.
    """
    programs = build()
    _allow_descriptors(max(scale.idle, scale.watchers, scale.tasks) + SPARE_DESCRIPTORS)
    missing = {way.name: reason for way in WAYS if (reason := way.missing())}
    noise = _noise()
    if noise > NOISE_CORES_MAX:
        _say(f"This machine is not quiet: {noise:.1f} cores are busy with something else.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    taken_at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%MZ")
    taken = asyncio.run(_take(Context(programs, folder, scale), rounds, wanted, missing))
    return Results(
        taken_at,
        quick,
        machine() | {"busy_cores_before": round(noise, 2)},
        _versions(),
        scale,
        missing,
        taken,
        medians(taken),
        targets(taken),
        {f"{number.scenario}.{number.key}": number.how for number in NUMBERS},
    )


@click.command()
@click.option(
    "--quick", is_flag=True, help="One short round, to see that everything works: judge nothing by it."
)
@click.option("--only", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only these scenarios.")
@click.option(
    "--rounds", type=click.IntRange(1, 99), default=None, help="How often [default: 3; 1 with --quick]."
)
@click.option(
    "--results",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RESULTS,
    help="Where the numbers are written as JSON [default: .cache/bench/results.json].",
)
def main(quick: bool, only: tuple[str, ...], rounds: int | None, path: Path) -> None:
    """Compare the broker with a bare send() loop, the usual aiohttp-sse server and nchan, on this machine.

    Ends with 1 when something could not be measured, or a target does not hold (not judged with --quick).
    """
    wanted = tuple(name for name in SCENARIOS if not only or name in only)
    try:
        results = measure(
            wanted,
            rounds or (1 if quick else 3),
            QUICK if quick else Scale(),
            quick=quick,
            folder=CACHE / "run",
        )
    except (NoCompiler, NoDescriptors) as error:
        raise click.ClickException(str(error)) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    click.echo(f"{machine_line(results)}\n\n{numbers_table(results)}\n\n{targets_table(results.targets)}")
    _say(f"{durations_line(results.taken)}; written to {path}")
    failed = [each for each in results.taken if each.error]
    lost = sum(each.values.get("lost", 0) for each in results.taken if each.way == BROKER)
    broken = [target for target in results.targets if target.holds is False]
    if failed or lost or (broken and not quick):
        sys.exit(1)


if __name__ == "__main__":
    main()
