"""Named subscriptions at a cluster whose nodes are killed and frozen, one after the other and two at once.

Clients confirm at two brokers through all of it; what they are told and given is checked event by event.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import subject_of
from confirming import Confirming, consumers_of, publish, sequences_of, until_stored
from e2e.broker import Broker
from nats_server import NatsCluster, create_stream

pytestmark = pytest.mark.accept

TASKS = [f"task-{number}" for number in range(4)]
RATE = 30.0
CLIENTS_PER_TASK = 10
FROZEN_S = 6.0
"""Longer than followers wait for a leader before they elect another, and than a request may take."""
SEED = 20261127


class Harassment:
    """What goes wrong with a cluster under clients that confirm.

    Attributes:
        story: what happened, one line each.
    """

    def __init__(self, cluster: NatsCluster, clients: list[Confirming]) -> None:
        self.story: list[str] = []
        self._cluster = cluster
        self._clients = clients

    async def go(self) -> None:
        """Do everything, each once confirmations are stored again."""
        for fault in (self._kill, self._freeze, self._kill, self._lose_quorum, self._freeze, self._kill):
            await until_stored(self._clients, 3)
            refused, began_s = self._refused(), time.monotonic()
            what = await fault()
            await until_stored(self._clients, 3)
            took_s = time.monotonic() - began_s
            self.story.append(
                f"{what}, stored by all again after {took_s:.1f} s, {self._refused() - refused} refused"
            )

    def _refused(self) -> int:
        return sum(client.refused for client in self._clients)

    async def _leader(self) -> int:
        """Give the node that leads most of the subscriptions' consumers."""
        infos = await consumers_of(self._cluster.urls)
        [(name, _count)] = Counter(info["cluster"]["leader"] for info in infos).most_common(1)
        return self._cluster.NAMES.index(name)

    async def _kill(self) -> str:
        node = await self._leader()
        self._cluster.kill9(node)
        await until_stored(self._clients, 3)
        await asyncio.to_thread(self._cluster.restart, node)
        return f"n{node} killed"

    async def _freeze(self) -> str:
        node = await self._leader()
        print("freeze", time.monotonic())
        self._cluster.freeze(node)
        await asyncio.sleep(FROZEN_S)
        print("thaw", time.monotonic())
        self._cluster.thaw(node)
        return f"n{node} frozen for {FROZEN_S:g} s"

    async def _lose_quorum(self) -> str:
        first = await self._leader()
        nodes = [first, (first + 1) % 3]
        for node in nodes:
            self._cluster.kill9(node)
        await asyncio.sleep(FROZEN_S)
        await asyncio.gather(*(asyncio.to_thread(self._cluster.restart, node) for node in nodes))
        return f"n{nodes[0]} and n{nodes[1]} killed, started again after {FROZEN_S:g} s"


async def test_confirmations_through_leader_changes(tmp_path: Path, report: Callable[[str], None]) -> None:
    chance = random.Random(SEED)
    with NatsCluster(tmp_path / "nats") as cluster:
        await create_stream(cluster.urls, num_replicas=3)
        brokers = [Broker(tmp_path, cluster.urls), Broker(tmp_path, cluster.urls)]
        try:
            await asyncio.gather(*(asyncio.to_thread(broker.start) for broker in brokers))
            clients = {
                task: [
                    Confirming(
                        brokers, task, f"{task} {number}", chance, every=6, life_s=(None, 1)[number % 2]
                    )
                    for number in range(CLIENTS_PER_TASK)
                ]
                for task in TASKS
            }
            crowd = [client for group in clients.values() for client in group]
            harassment = Harassment(cluster, crowd)
            enough = asyncio.Event()
            async with asyncio.timeout(300), asyncio.TaskGroup() as group:
                publishing = group.create_task(publish(cluster.urls, TASKS, RATE, enough))
                for client in crowd:
                    group.create_task(client.follow())
                await harassment.go()
                enough.set()
        finally:
            for broker in brokers:
                broker.stop()
        report("; ".join(harassment.story))
        held = {task: await sequences_of(cluster.urls, subject_of(task)) for task in TASKS}
        infos = await consumers_of(cluster.urls)
    assert sum(map(len, held.values())) == publishing.result()
    assert [
        problem for task in TASKS for client in clients[task] for problem in client.problems(held[task])
    ] == []
    report(
        f"{len(crowd)} clients, {sum(client.stored for client in crowd)} confirmations stored, "
        f"{sum(client.refused for client in crowd)} refused for the moment, the slowest answer after "
        f"{max(client.latest_s for client in crowd):.1f} s; "
        f"{sum(len(client.lives) for client in crowd)} streams"
    )
    floors = Counter(info["ack_floor"]["stream_seq"] for info in infos)
    assert floors == {sequences[-1]: CLIENTS_PER_TASK for sequences in held.values()}
