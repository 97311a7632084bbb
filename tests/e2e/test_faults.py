"""A small fault run: all events to all watchers, whatever is killed or cut meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.faults import Plan, cut_publisher, kill_broker, kill_server, run_faults
from nats_server import NatsServer

PLAN = Plan(
    tasks=10,
    events=200,
    watchers=60,
    rate=200,
    faults=((300, kill_broker), (700, kill_server), (1100, cut_publisher)),
    duplicate_window_s=1.0,
    verify_s=2.0,
    cut_s=2.0,
    cut_bytes=20_000,
    processes=1,
)


@pytest.mark.row("C64")
async def test_every_watcher_has_every_event_once_and_in_order(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        outcome = await run_faults(tmp_path, PLAN, server)
    assert not outcome.log_problems, outcome.describe()
    assert not outcome.problems, outcome.describe()
    assert not outcome.dropped
    assert outcome.ended_after_s < 2 * PLAN.verify_s, outcome.describe()
    assert outcome.numbers["reconnects"] > PLAN.watchers
    print(outcome.describe())
