"""Two real agents of either generation behind one broker: each at its own prefix, unseen by the other's."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from a2a_rig.processes import CLIENTS, Agent, Client, Driver, Generation
from a2a_rig.wire import V1_RPC, WIRES, Door, Wire, numbers, outline, task_of, text_after
from e2e.broker import Broker
from nats_server import NatsServer, read_records
from sse import Watch, kinds

from sidecast_schemas.subjects import TaskKey, events_subject

DoorTo = Callable[[str], Door]
SECOND = "team/two ü"
"""The second agent's name; its path needs escapes."""
SECOND_PATH = "/agents/team%2Ftwo%20%C3%BC"


class Pair(NamedTuple):
    """A broker, its default agent, and another one."""

    broker: Broker
    server: NatsServer
    agents: dict[str, Agent]

    async def records(self, agent: str, task: str) -> list[Any]:
        """Give what is stored of a task of an agent."""
        return await read_records(self.server.url, events_subject(TaskKey("", agent, task)))


SETUPS: list[Any] = [(("v1", "proxy"), ("v03", "adapter")), (("v03", "proxy"), ("v1", "proxy"))]


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: "-".join(map("-".join, setup)))
def pair(
    request: pytest.FixtureRequest, nats_of_a2a: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("a2a-pair")
    first = f"first{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:

        def started(name: str, generation: Generation, capture: str) -> Agent:
            options = ("--agent", name, *(("--compat",) if generation == "v1" else ()))
            publishes = nats_of_a2a.url if capture == "adapter" else ""
            return stack.enter_context(Agent(folder, generation, nats_url=publishes, options=options))

        (generation, capture), (other_generation, other_capture) = request.param
        agents = {
            first: started(first, generation, capture),
            SECOND: started(SECOND, other_generation, other_capture),
        }
        settings = {
            "agent.name": first,
            "agent.url": agents[first].url,
            "agent.capture": capture,
            "agents": json.dumps({SECOND: {"url": agents[SECOND].url, "capture": other_capture}}),
            "stream.drain_s": 0.2,
        }
        yield Pair(stack.enter_context(Broker(folder, [nats_of_a2a.url], settings)), nats_of_a2a, agents)


def prefixes(pair: Pair) -> dict[str, str]:
    first = next(iter(pair.agents))
    return {first: f"/agents/{first}", SECOND: SECOND_PATH}


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_one_message_id_begins_a_task_at_each_agent(wire: Wire, pair: Pair, door_to: DoorTo) -> None:
    message_id = str(uuid.uuid4())
    tasks = {}
    for name, prefix in prefixes(pair).items():
        door = door_to(pair.broker.url + prefix)
        for _again in range(2):
            sent = {"text": "chunks 3", "message_id": message_id}
            async with door.open(wire, "stream", **sent) as stream:
                frames = await stream.rest()
            assert outline(frames[-1].result) == "status completed"
            assert text_after([frame.result for frame in frames]) == numbers(1, 3)
            assert tasks.setdefault(name, task_of(frames[0].result)) == task_of(frames[0].result)
    assert len(set(tasks.values())) == 2
    for name, agent in pair.agents.items():
        heard = [each for each in agent.seen["messages"] if each["messageId"] == message_id]
        assert len(heard) == 1
        assert await pair.records(name, tasks[name])
        other = next(each for each in pair.agents if each != name)
        assert await pair.records(other, tasks[name]) == []


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_task_is_not_there_by_the_path_of_another_agent(
    wire: Wire, pair: Pair, door_to: DoorTo
) -> None:
    first = prefixes(pair)
    for name, prefix in first.items():
        own = door_to(pair.broker.url + prefix)
        async with own.open(wire, "stream", text="chunks 2; ask more") as stream:
            task = task_of((await stream.rest())[0].result)
        missing = str(uuid.uuid4())
        others = [each for each in (*first.values(), "/agents/nobody") if each != prefix]
        for elsewhere in others:
            door = door_to(pair.broker.url + elsewhere)
            for do in ("subscribe", "get", "cancel"):
                answers = [await door.ask(wire, do, task=each) for each in (task, missing)]
                assert answers[0].status == answers[1].status
                unnamed = [
                    answer.body.replace(each.encode(), b"")
                    for answer, each in zip(answers, (task, missing), strict=True)
                ]
                assert unnamed[0] == unnamed[1]
        got = await own.ask(wire, "get", task=task)
        assert got.status == 200
        assert task.encode() in got.body
        async with own.open(wire, "subscribe", task=task) as stream:
            assert outline((await stream.take(1))[0].result).startswith("task input-required")
        assert name in pair.agents


async def test_a_browser_watches_each_where_its_path_says(pair: Pair, door_to: DoorTo) -> None:
    for name, prefix in prefixes(pair).items():
        async with door_to(pair.broker.url + prefix).open(
            V1_RPC, "stream", text="say hi; chunks 2"
        ) as stream:
            task = task_of((await stream.rest())[0].result)
        url = f"{pair.broker.url}{prefix}/tasks/{task}/events?from=start"
        async with Watch(url) as watch:
            frames = await watch.rest()
        assert kinds(frames)[-1] == "stream.end"
        assert frames[-1].json["state"] == "completed"
        for elsewhere in ("", *prefixes(pair).values()):
            if elsewhere == prefix or (not elsewhere and name != SECOND):
                continue
            answer = await door_to(pair.broker.url).raw("GET", f"{elsewhere}/tasks/{task}/events")
            assert answer.status == 404


async def test_an_agent_that_is_gone_takes_no_other_along(
    nats_of_a2a: NatsServer, tmp_path: Path, door_to: DoorTo
) -> None:
    with Agent(tmp_path, "v1", options=("--compat",)) as one, Agent(tmp_path, "v03") as two:
        tables = json.dumps({"two": {"url": two.url}})
        settings = {
            "agent.name": f"one{uuid.uuid4().hex[:8]}",
            "agent.url": one.url,
            "agent.capture": "proxy",
            "agents": tables,
        }
        with Broker(tmp_path, [nats_of_a2a.url], settings) as broker:
            door, other = door_to(f"{broker.url}/agents/two"), door_to(broker.url)
            async with door.open(V1_RPC, "stream", text="chunks 2; gate never") as stream:
                await stream.take(1)
                await asyncio.to_thread(one.kill9)
                answer = await other.ask(V1_RPC, "send", text="chunks 1")
                assert b"error" in answer.body
                assert (await door.ask(V1_RPC, "send", text="chunks 1")).status == 200


@pytest.mark.parametrize(
    "client", [each for each in CLIENTS if each.binding == "jsonrpc" or each.driver == "py-v1"], ids=str
)
async def test_sdk_clients_find_each_agent_by_its_card(
    client: Client, pair: Pair, driver_of: Callable[[str], Driver]
) -> None:
    driver = driver_of(client.driver)
    for agent, prefix in prefixes(pair).items():
        # The SDK for JavaScript resolves the card's path as a link: beside the last segment, not below it.
        url = f"{pair.broker.url}{prefix}{'/' if client.language == 'js' else ''}"
        message_id = str(uuid.uuid4())
        sent = await driver.call("stream", url, client.binding, text="chunks 3", message_id=message_id)
        events = await sent.rest()
        assert client.text_after(events) == numbers(1, 3)
        assert outline(events[-1]) == "status completed"
        assert await pair.records(agent, task_of(events[0]))
