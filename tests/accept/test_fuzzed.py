"""100,000 inputs of any form to a broker that is a process of its own: all are answered, nothing is wrong.

`FUZZ_SEED` and `FUZZ_COUNT` in the environment try others; into the folder `FUZZ_KEEP` goes the first input
with each kind of answer that no kept one has.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import pytest
from attacks import keyring
from attacks.fuzzing import SETTINGS, stock, withstand
from attacks.inputs import Input, corpus, some
from attacks.outcome import check_shares
from brokers import ChildBroker, RealBackend, child_broker
from nats_server import NatsServer
from recording_agent import RecordingAgent

pytestmark = pytest.mark.accept

SEED = int(os.environ.get("FUZZ_SEED", "40000"))
COUNT = int(os.environ.get("FUZZ_COUNT", "100000"))
CONNECTIONS = 48
BETWEEN = 1_000
"""Inputs after which the process is looked at."""
WARM = 10_000
"""Inputs after which what grows at first has grown: what is remembered of tokens, revocations and turns."""
GROWTH_MIB_MAX = 150
SECONDS_MAX = 360


def wrong_lines(log: Path) -> list[str]:
    """Give the lines of a log that tell of a fault: errors, stack traces, and what no logger has written."""
    found = []
    for line in log.read_text().splitlines():
        said = json.loads(line) if line.startswith("{") else {"level": "none"}
        if said["level"] in ("none", "error", "critical") or "exception" in said or "Traceback" in line:
            found.append(line)
    return found


def resident_mib(broker: ChildBroker) -> float:
    """Give the memory it holds."""
    assert broker._process is not None
    return int(Path(f"/proc/{broker._process.pid}/statm").read_text().split()[1]) * 4096 / 2**20


class Looks:
    """Looks at the process between inputs.

    Attributes:
        warm_mib: the memory it held when it had seen `WARM`.
    """

    def __init__(self, broker: ChildBroker) -> None:
        self._broker = broker
        self.warm_mib = 0.0

    def between(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Pass inputs on."""
        for number, given in enumerate(inputs):
            if number % BETWEEN == 0:
                self.look(f"found in the {BETWEEN} inputs before {given.name}")
            if number == min(WARM, COUNT // 2):
                self.warm_mib = resident_mib(self._broker)
            yield given

    def look(self, where: str) -> None:
        """Check that it runs and has said nothing of a fault."""
        assert self._broker._process is not None
        assert self._broker._process.poll() is None, where
        assert wrong_lines(self._broker.log) == [], where


async def test_100_000_inputs_are_answered(tmp_path: Path, report: Callable[[str], None]) -> None:
    with NatsServer(tmp_path / "nats") as server:
        backend = RealBackend(server)
        await backend.create()
        await stock(backend)
        settings = SETTINGS | keyring.settings(tmp_path)
        async with (
            RecordingAgent() as agent,
            child_broker(backend, tmp_path / "log", agent__url=agent.url, **settings) as running,
        ):
            looks = Looks(running)
            began_s = time.monotonic()
            inputs = looks.between(chain(corpus(), some(SEED, 0, COUNT)))
            outcome = await withstand(backend, running, agent, inputs, CONNECTIONS)
            took_s = time.monotonic() - began_s
            looks.look("at the end")
            growth_mib = resident_mib(running) - looks.warm_mib
        await backend.close()
    report(
        f"{outcome.report()}\n  {took_s:.0f} s, {outcome.sent / took_s:.0f} inputs a second; the broker held "
        f"{looks.warm_mib:.0f} MiB after the first, and {growth_mib:.0f} MiB more at the end"
    )
    if folder := os.environ.get("FUZZ_KEEP"):
        outcome.keep_firsts(Path(folder))
    assert outcome.keep(tmp_path) == []
    assert outcome.sent == COUNT + len(corpus())
    check_shares(outcome)
    assert {304, 408, 413, 415, 421, 422} <= outcome.statuses.keys()
    assert growth_mib < GROWTH_MIB_MAX
    assert took_s < SECONDS_MAX
