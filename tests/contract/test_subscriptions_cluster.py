"""Named subscriptions at a cluster whose leader is killed while clients confirm."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from brokers import TASK, subject_of
from confirming import Confirming, consumers_of, publish, sequences_of, until_stored
from e2e.broker import Broker
from nats_server import NatsCluster, create_stream

RATE = 80.0
CLIENTS = 6


async def test_a_killed_leader_takes_no_confirmation_with_it(tmp_path: Path) -> None:
    chance = random.Random(20261127)
    with NatsCluster(tmp_path / "nats") as cluster:
        await create_stream(cluster.urls, num_replicas=3)
        brokers = [Broker(tmp_path, cluster.urls), Broker(tmp_path, cluster.urls)]
        try:
            await asyncio.gather(*(asyncio.to_thread(broker.start) for broker in brokers))
            clients = [
                Confirming(brokers, TASK, f"s{number}", chance, every=4, life_s=(None, 2)[number % 2])
                for number in range(CLIENTS)
            ]
            enough = asyncio.Event()
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                publishing = group.create_task(publish(cluster.urls, [TASK], RATE, enough))
                for client in clients:
                    group.create_task(client.follow())
                await until_stored(clients, 5)
                infos = await consumers_of(cluster.urls)
                cluster.kill9(cluster.NAMES.index(infos[0]["cluster"]["leader"]))
                await until_stored(clients, 5)
                enough.set()
            published = publishing.result()
        finally:
            for broker in brokers:
                broker.stop()
        urls = [node.url for node in cluster.nodes if node.process is not None]
        sequences = await sequences_of(urls, subject_of(TASK))
        infos = await consumers_of(urls)
    assert len(sequences) == published
    assert [problem for client in clients for problem in client.problems(sequences)] == []
    assert [info["ack_floor"]["stream_seq"] for info in infos] == [sequences[-1]] * CLIENTS
    assert [len(info["cluster"]["replicas"]) for info in infos] == [2] * CLIENTS
    print([(c.stored, c.refused, c.latest_s, len(c.lives)) for c in clients])
