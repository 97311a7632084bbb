"""5,000 connections with slow heads, and 1,000 connects a second with bad tokens, leave 500 watchers alone.

The p99 of the watchers stays within twice what it is without them.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest
from accept.pulse import Beat
from accept.readers import Measured
from accept.stage import AGENT, Asked, Stage, stage
from e2e.broker import Broker
from issuer import AUDIENCE, ISSUER, jwks, token

pytestmark = pytest.mark.accept

WATCHERS = 500
RATE = 10.0
SLOW = 5_000
CONNECTS_PER_S = 1_000
ROUNDS = 3
RATIO_MAX = 2.0
WINDOW_S = 12.0
"""Longer than a head may take: meanwhile all slow connections are cut once, and made again."""
SETTLE_S = 12.0
ANSWER_S = 10.0
"""An attacker that does not tell what became of it for so long has failed."""
DESCRIPTORS = SLOW + WATCHERS + 5_000


def processor_s(broker: Broker) -> float:
    """Give the processor time the broker has used."""
    assert broker.process is not None
    fields = Path(f"/proc/{broker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident_mib(broker: Broker) -> float:
    """Give the memory it holds."""
    assert broker.process is not None
    return int(Path(f"/proc/{broker.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20


class Round(NamedTuple):
    """One round: the watchers alone, then beside who wants harm.

    Attributes:
        alone: what the watchers got.
        beside: the same under attack.
        told: what became of the attack meanwhile.
        busy: how much of a core the broker used.
        most_mib: the memory it held.
    """

    alone: Measured
    beside: Measured
    told: dict[str, int]
    busy: float
    most_mib: float


def ratio(rounds: list[Round]) -> float:
    """Give how many times the p99 alone it is under attack, by the medians of all rounds."""
    return median(each.beside.p99_ms for each in rounds) / median(each.alone.p99_ms for each in rounds)


async def take(there: Stage, watchers: Asked, attack: tuple[str, ...]) -> Round:
    """Measure one round."""
    alone = await watchers.measure(WINDOW_S)
    hostile = await there.hostile(*attack)
    try:
        await asyncio.sleep(SETTLE_S)
        await hostile.ask("report", ANSWER_S)
        began_s, used_s = time.monotonic(), processor_s(there.broker)
        beside = await watchers.measure(WINDOW_S)
        busy = (processor_s(there.broker) - used_s) / (time.monotonic() - began_s)
        told = await hostile.ask("report", ANSWER_S)
        most_mib = resident_mib(there.broker)
    finally:
        await hostile.end()
    await watchers.measure(2)
    return Round(alone, beside, told, busy, most_mib)


async def test_who_wants_harm_beside_watchers(tmp_path: Path, report: Callable[[str], None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"this system allows a process {hard} open files, and {DESCRIPTORS} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # what the broker's process inherits
    (tmp_path / "keys.json").write_bytes(jwks("p256"))
    end = int(time.time()) + 3600
    good = token("p256", sub="watcher", exp=end, sidecast_grants=[f"_/{AGENT}/*"])
    bad = token("p256-other", sub="watcher", exp=end, headers={"kid": "p256"})
    settings = {
        "auth.jwt_issuer": ISSUER,
        "auth.jwt_audience": AUDIENCE,
        "auth.jwt_jwks_file": tmp_path / "keys.json",
    }
    attack = (
        *("--slow", str(SLOW), "--rate", str(CONNECTS_PER_S)),
        *("--path", "/tasks/watched/events", "--token", bad),
    )
    rounds: list[Round] = []
    try:
        async with stage(tmp_path, settings) as there:
            await there.pulse(Beat("watched", RATE, 100))
            watchers = await there.readers("watched", measure=True, token=good)
            assert await watchers.ask(f"open {WATCHERS}") == WATCHERS
            assert (await watchers.measure(2)).events > WATCHERS
            assert (await asyncio.to_thread(there.broker.metrics))["sidecast_subscribers{events}"] == WATCHERS
            before_mib = resident_mib(there.broker)
            while len(rounds) < ROUNDS:
                found = await take(there, watchers, attack)
                rounds.append(found)
                alone, beside = found.alone, found.beside
                # At once: a round that ends early must not take the numbers of the others with it.
                report(
                    f"round {len(rounds)}: p99 {alone.p99_ms:.2f} ms alone, {beside.p99_ms:.2f} ms beside; "
                    f"p50 {alone.p50_ms:.2f} and {beside.p50_ms:.2f}; the broker used {found.busy:.2f} of a "
                    f"core and {found.most_mib - before_mib:.0f} MiB more; in {WINDOW_S:g} s: {found.told}"
                )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    report(f"p99 under attack is {ratio(rounds):.2f} times that alone")
    for each in rounds:
        told = each.told
        assert told["slow_open"] >= SLOW * 0.9
        assert told["slow_cut"] >= SLOW * 0.9
        assert told["asked"] >= CONNECTS_PER_S * WINDOW_S * 0.9
        # On two processors that both sides share, the broker may be late with some.
        assert told["unauthenticated"] >= CONNECTS_PER_S * WINDOW_S * 0.8
        assert told["other"] == told["limited"] == 0
        for window in (each.alone, each.beside):
            assert window.ended == 0
            assert window.events >= WATCHERS * RATE * WINDOW_S * 0.9
    assert ratio(rounds) <= RATIO_MAX
