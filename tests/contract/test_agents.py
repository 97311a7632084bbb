"""Several agents of one broker at a real nats-server: what is kept there is kept for each."""

from __future__ import annotations

import json
from typing import Any

from brokers import Broker, RealBackend, ask, broker, status, task_record
from nats_server import request_api
from sse import Watch

from sidecast_schemas.subjects import TaskKey, events_subject

JSON = {"Content-Type": "application/json"}
PREFIXES = {"agent": "", "b": "/agents/b"}


async def stock(real: RealBackend, agent: str, count: int) -> None:
    subject = events_subject(TaskKey("", agent, "t"))
    await real.publish_on(subject, task_record("t"))
    for number in range(count):
        await real.publish_on(subject, status(f"{agent} {number}", "t"))


async def listed(running: Broker, prefix: str) -> list[dict[str, Any]]:
    code, answer = await ask("GET", f"{running.url}{prefix}/subscriptions")
    assert code == 200
    found = answer["subscriptions"]
    assert isinstance(found, list)
    return found


async def test_a_subscription_is_of_one_agent(real: RealBackend) -> None:
    """One name, one task id, two agents: two positions, each confirmed and deleted by itself."""
    query = "from=start&subscription=s&ack=client"
    async with broker(real, agents='{"b": {}}') as running:
        for agent in PREFIXES:
            await stock(real, agent, 3)
        last: dict[str, str] = {}
        for agent, prefix in PREFIXES.items():
            async with Watch(f"{running.url}{prefix}/tasks/t/events?{query}") as watch:
                frames = await watch.take(5)
                assert frames[-1]["text"] == f"{agent} 2"
                last[agent] = frames[2].id or ""
        assert len((await request_api(real.server.url, "CONSUMER.NAMES.SIDECAST", {}))["consumers"]) == 2
        body = json.dumps({"id": last["b"]}).encode()
        code, said = await ask("POST", f"{running.url}/agents/b/subscriptions/s/ack", body, JSON)
        assert (code, said["acknowledged"]) == (200, last["b"])
        confirmed = {agent: await listed(running, prefix) for agent, prefix in PREFIXES.items()}
        assert [len(each) for each in confirmed.values()] == [1, 1]
        assert confirmed["b"][0] != confirmed["agent"][0]
        code, _said = await ask("DELETE", f"{running.url}/agents/b/subscriptions/s", headers=JSON)
        assert code in (200, 204)
        assert [len(await listed(running, prefix)) for prefix in PREFIXES.values()] == [1, 0]
        assert await listed(running, "/agents/other") == []


async def test_nothing_is_made_at_the_server_for_an_agent_that_is_not_served(real: RealBackend) -> None:
    await stock(real, "other", 2)
    async with broker(real, agents='{"b": {}}') as running:
        for path in ("/tasks/t/events?subscription=s&ack=client", "/tasks/t/events", "/events?agent=1"):
            code, _said = await ask("GET", f"{running.url}/agents/other{path}")
            assert code == 404
        code, _said = await ask(
            "POST", f"{running.url}/agents/other/subscriptions/s/ack", b'{"id":"epoch1-1","task":"t"}', JSON
        )
        assert code == 404
        assert not (await request_api(real.server.url, "CONSUMER.NAMES.SIDECAST", {}))["consumers"]
        assert await running.metric("sidecast_tasks") == 0
