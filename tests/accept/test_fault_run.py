"""The full fault runs: 20,000 events on 50 tasks to 500 watchers, on one nats-server and on three."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.faults import (
    Outcome,
    Plan,
    cut_publisher,
    freeze_follower,
    freeze_follower_for_good,
    kill_broker,
    kill_leader,
    kill_server,
    run_faults,
)
from msgspec.structs import replace
from nats_server import NatsCluster, NatsServer

pytestmark = pytest.mark.accept

SINGLE = Plan(
    tasks=50,
    events=400,
    watchers=500,
    rate=400,
    faults=((3_000, kill_broker), (6_500, kill_server), (10_000, cut_publisher), (14_500, kill_broker)),
    duplicate_window_s=3.0,
)
CLUSTER = replace(
    SINGLE,
    faults=(
        (2_500, kill_broker),
        (5_000, kill_leader),
        (9_500, cut_publisher),
        (12_500, freeze_follower),
        (17_500, kill_broker),
    ),
    seed=2,
)
FROZEN = Plan(
    tasks=20,
    events=200,
    watchers=200,
    rate=200,
    faults=((3_600, freeze_follower_for_good),),
    seed=3,
)


def judge(outcome: Outcome, plan: Plan, report: Callable[[str], None]) -> None:
    """Fail unless every watcher has every event of its task once, in order, and soon."""
    report(outcome.describe())
    assert not outcome.log_problems
    assert not outcome.problems
    assert not outcome.dropped
    assert outcome.ended_after_s < 2 * plan.verify_s
    assert outcome.numbers["watchers"] == plan.watchers
    assert outcome.numbers["reconnects"] > 2 * plan.watchers


async def test_one_server(tmp_path: Path, report: Callable[[str], None]) -> None:
    with NatsServer(tmp_path / "nats") as server:
        outcome = await run_faults(tmp_path, SINGLE, server)
    judge(outcome, SINGLE, report)
    assert outcome.numbers["broker_kills"] == 2


async def test_cluster(tmp_path: Path, report: Callable[[str], None]) -> None:
    with NatsCluster(tmp_path / "nats") as cluster:
        outcome = await run_faults(tmp_path, CLUSTER, cluster)
    judge(outcome, CLUSTER, report)
    assert outcome.numbers["broker_kills"] == 2


async def test_the_brokers_own_nats_server_is_frozen_at_the_end(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    with NatsCluster(tmp_path / "nats") as cluster:
        outcome = await run_faults(tmp_path, FROZEN, cluster)
    judge(outcome, FROZEN, report)
