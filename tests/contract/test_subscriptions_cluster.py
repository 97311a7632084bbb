"""Named subscriptions at a cluster whose leader is killed while clients confirm."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
from brokers import TASK, Broker, RealBackend, ask, broker, numbered, subject_of, task_record
from confirming import Confirming, consumers_of, publish, sequences_of, until_stored
from e2e.broker import Broker as BrokerProcess
from nats_server import NatsCluster, create_stream

from sidecast_broker.answers import StreamInfo
from sidecast_broker.consumers import Consumers, Made
from sidecast_broker.jetstream import JetStream

RATE = 80.0
CLIENTS = 6


async def test_a_killed_leader_takes_no_confirmation_with_it(tmp_path: Path) -> None:
    chance = random.Random(20261127)
    with NatsCluster(tmp_path / "nats") as cluster:
        await create_stream(cluster.urls, num_replicas=3)
        brokers = [BrokerProcess(tmp_path, cluster.urls) for _ in range(2)]
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


async def confirmed(running: Broker, path: str) -> None:
    """Open the subscription from the task's beginning, leave it, and confirm the fourth event."""
    stream = await running.watch(subscription="s", ack="client", **{"from": "start"})
    await stream.take(1)
    await stream.close()
    body = json.dumps({"id": "epoch1-4", "task": TASK}).encode()
    assert (await ask("POST", f"{running.url}{path}", body, {"Content-Type": "application/json"}))[0] == 200


async def test_a_leader_that_was_replaced_is_not_believed(
    real: RealBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = Consumers.get

    async def outdated(consumers: Consumers, name: str) -> Made | None:
        made = await get(consumers, name)
        return made and made._replace(state=made.state._replace(floor=2), leader="n9")

    await real.publish(task_record(), *numbered(6))
    async with broker(real) as running:
        await confirmed(running, "/subscriptions/s/ack")
        with monkeypatch.context() as patched:
            patched.setattr(Consumers, "get", outdated)
            code, answer = await running.get(f"/tasks/{TASK}/events?subscription=s&refusal=status")
        assert (code, answer["error"]["code"]) == (503, "unavailable")
        stream = await running.watch(subscription="s", ack="client")
        assert (await stream.next())["cursor"] == "epoch1-4"


async def test_a_stream_s_leader_that_lags_behind_the_position_is_not_believed(
    real: RealBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = JetStream.info
    looked_for: list[int] = []

    async def nothing(_stream: JetStream, sequence: int) -> None:
        looked_for.append(sequence)

    async def behind(stream: JetStream) -> StreamInfo:
        # Only of who has found nothing: others would take it for a stream that has gone backwards.
        last = looked_for.pop() - 1 if looked_for else None
        told = await info(stream)
        return told if last is None else told._replace(last=last)

    await real.publish(task_record(), *numbered(6))
    async with broker(real) as running:
        await confirmed(running, "/subscriptions/s/ack")
        with monkeypatch.context() as patched:
            patched.setattr(JetStream, "at", nothing)
            patched.setattr(JetStream, "info", behind)
            code, answer = await running.get(f"/tasks/{TASK}/events?subscription=s&refusal=status")
        assert (code, answer["error"]["code"]) == (503, "unavailable")
        stream = await running.watch(subscription="s", ack="client")
        assert (await stream.next())["cursor"] == "epoch1-4"
