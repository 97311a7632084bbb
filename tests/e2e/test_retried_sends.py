"""A message that is sent again starts nothing again, at whichever broker, whatever was killed between."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from a2a_rig.processes import Agent
from a2a_rig.wire import (
    V1_REST,
    V1_RPC,
    WIRES,
    Answer,
    Door,
    Wire,
    numbers,
    outline,
    outlines,
    split,
    task_of,
    text_after,
)
from e2e.broker import Broker
from nats_server import NatsServer

TIMEOUT_S = 1.0


class Pair:
    """Two brokers of one agent; a context manager that starts and stops them."""

    def __init__(self, folder: Path, server: NatsServer, agent: Agent, **settings: object) -> None:
        chosen = {
            "agent.name": "pair",
            "agent.url": agent.url,
            "agent.timeout_s": TIMEOUT_S,
            "stream.a2a_heartbeat_s": 0.3,
            "stream.drain_s": 0.2,
            "nats.request_s": 1.0,
        } | {name.replace("__", "."): value for name, value in settings.items()}
        self.server = server
        self.agent = agent
        self.brokers = [Broker(folder, [server.url], chosen) for _ in range(2)]

    def asked(self, message_id: str) -> int:
        """Tell how often the agent was asked with a message."""
        return sum(each["messageId"] == message_id for each in self.agent.seen["messages"])

    def __enter__(self) -> Self:
        for broker in self.brokers:
            broker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            broker.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, server: NatsServer) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp("agent")
    with Agent(folder, nats_url=server.url, options=("--agent", "pair", "--compat")) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, server: NatsServer, agent: Agent) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("brokers"), server, agent) as running:
        yield running


@pytest.fixture
def pair(shared: Pair) -> Pair:
    """Both running, whatever an earlier test has left."""
    for each in (shared.server, *shared.brokers):
        if each.process is None:
            each.start()
    return shared


@pytest.fixture
def message_id() -> str:
    """Give an id that no message has: also the name of a gate of its own."""
    return uuid.uuid4().hex


@pytest.fixture
async def door_to() -> AsyncIterator[Callable[[Broker], Door]]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(), connector=connector) as session:
        yield lambda broker: Door(session, broker.url)


DoorTo = Callable[[Broker], Door]


async def test_twenty_at_once_over_two_brokers_are_one_turn(
    pair: Pair, door_to: DoorTo, message_id: str
) -> None:
    async def send(number: int) -> list[dict[str, Any]]:
        door, wire = door_to(pair.brokers[number // 4 % 2]), WIRES[number % len(WIRES)]
        async with door.open(wire, "stream", text="chunks 4", message_id=message_id) as stream:
            return [frame.result for frame in await stream.rest()]

    answers = await asyncio.gather(*map(send, range(20)))
    assert pair.asked(message_id) == 1
    assert len({task_of(result) for results in answers for result in results}) == 1
    for results in answers:
        assert split(results[0])[0] == "task"
        assert text_after(results) == numbers(1, 4)
        assert outline(results[-1]) == "status completed"


@pytest.mark.parametrize(
    ("wire", "retried_at"), [(WIRES[0], 0), (WIRES[1], 1), (WIRES[2], 1), (WIRES[3], 0)], ids=str
)
async def test_after_its_broker_was_killed_a_send_goes_on_with_its_turn(
    wire: Wire, retried_at: int, pair: Pair, door_to: DoorTo, message_id: str
) -> None:
    first_broker, again_broker = pair.brokers[0], pair.brokers[retried_at]
    sent: dict[str, Any] = {"text": f"chunks 2; gate {message_id}; chunks 2 3", "message_id": message_id}
    async with door_to(first_broker).open(wire, "stream", **sent) as stream:
        (first,) = await stream.take(1)
        await asyncio.to_thread(pair.agent.reached, message_id)
        await asyncio.to_thread(first_broker.kill9)
    if again_broker is first_broker:
        await asyncio.to_thread(first_broker.start)
    async with door_to(again_broker).open(wire, "stream", **sent) as again:
        head = await again.take(1)
        pair.agent.open(message_id)
        frames = head + await again.rest()
    assert split(frames[0].result)[0] == "task"
    assert {task_of(frame.result) for frame in frames} == {task_of(first.result)}
    assert text_after([frame.result for frame in frames]) == numbers(1, 4)
    assert outline(frames[-1].result) == "status completed"
    assert pair.asked(message_id) == 1


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("chunks 3", "status completed"),
        ("chunks 2; ask why", "status input-required why"),
        ("message hello", "message hello"),
    ],
)
async def test_also_when_the_turn_is_over(
    text: str, end: str, pair: Pair, door_to: DoorTo, message_id: str
) -> None:
    for broker in pair.brokers:
        async with door_to(broker).open(V1_RPC, "stream", text=text, message_id=message_id) as stream:
            assert outlines(await stream.rest())[-1] == end
    assert pair.asked(message_id) == 1


async def test_what_the_agent_never_got_may_be_sent_again(
    pair: Pair, door_to: DoorTo, message_id: str
) -> None:
    sent: dict[str, Any] = {"text": "chunks 1", "message_id": message_id}
    await asyncio.to_thread(pair.agent.kill9)
    for broker in pair.brokers:
        assert (await door_to(broker).ask(V1_REST, "stream", **sent)).status == 503
    await asyncio.to_thread(pair.agent.start)
    answer = await until_answered(door_to(pair.brokers[0]), **sent)
    assert b"TASK_STATE_COMPLETED" in answer.body
    assert pair.asked(message_id) == 1


async def until_answered(door: Door, **sent: Any) -> Answer:
    """Send until what was away is back."""
    async with asyncio.timeout(20):
        while (answer := await door.ask(V1_REST, "stream", **sent)).status == 503:
            await asyncio.sleep(0.1)
    return answer


async def test_a_broker_that_died_before_it_knew_the_task_is_succeeded(
    pair: Pair, door_to: DoorTo, message_id: str
) -> None:
    sent: dict[str, Any] = {"text": f"bare; gate {message_id}; chunks 2", "message_id": message_id}
    one, other = pair.brokers
    first = asyncio.create_task(door_to(one).ask(V1_REST, "stream", **sent))
    await asyncio.to_thread(pair.agent.reached, message_id)
    second = asyncio.create_task(door_to(other).ask(V1_REST, "stream", **sent))
    await asyncio.to_thread(one.kill9)
    with pytest.raises(aiohttp.ClientError):
        await first
    async with asyncio.timeout(20):
        while await asyncio.to_thread(pair.asked, message_id) < 2:
            await asyncio.sleep(0.05)
    pair.agent.open(message_id)
    answer = await second
    assert answer.status == 200
    assert b"TASK_STATE_COMPLETED" in answer.body
    (taken,) = [line for line in other.log_lines() if line["event"] == "message_taken_over"]
    assert taken["age_s"] >= TIMEOUT_S


async def test_while_nats_is_away_nothing_is_started(pair: Pair, door_to: DoorTo, message_id: str) -> None:
    sent: dict[str, Any] = {"text": "chunks 2", "message_id": message_id}
    await asyncio.to_thread(pair.server.kill9)
    for broker, wire in zip(pair.brokers, (V1_REST, V1_RPC), strict=True):
        refused = await door_to(broker).ask(wire, "stream", **sent)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert b"not connected to NATS" in refused.body
    assert pair.asked(message_id) == 0
    await asyncio.to_thread(pair.server.start)
    answer = await until_answered(door_to(pair.brokers[0]), **sent)
    assert b"TASK_STATE_COMPLETED" in answer.body
    assert pair.asked(message_id) == 1


async def test_where_messages_are_not_kept_each_broker_knows_its_own(
    tmp_path: Path, server: NatsServer, agent: Agent, door_to: DoorTo, message_id: str
) -> None:
    with Pair(tmp_path, server, agent, nats__messages_age_s=0) as pair:
        for broker in (*pair.brokers, *pair.brokers):
            async with door_to(broker).open(
                V1_REST, "stream", text="chunks 1", message_id=message_id
            ) as stream:
                assert outlines(await stream.rest())[-1] == "status completed"
        assert pair.asked(message_id) == 2


async def test_twenty_at_once_that_want_no_stream_are_one_turn(
    pair: Pair, door_to: DoorTo, message_id: str
) -> None:
    async def send(number: int) -> Answer:
        door, wire = door_to(pair.brokers[number // 4 % 2]), WIRES[number % len(WIRES)]
        how = "stream" if number % 5 == 4 else "send"
        return await door.ask(wire, how, text="chunks 4", message_id=message_id)

    answers = await asyncio.gather(*map(send, range(20)))
    assert pair.asked(message_id) == 1
    tasks = set()
    for number, answer in enumerate(answers):
        assert answer.status == 200
        if number % 5 != 4:
            result = result_of(answer)
            assert outline(result).startswith("task completed")
            assert text_after([result]) == numbers(1, 4)
            tasks.add(task_of(result))
    assert len(tasks) == 1


@pytest.mark.parametrize(("first", "again"), [("send", "send"), ("stream", "send"), ("send", "stream")])
@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("chunks 3", "completed"),
        ("chunks 2; ask why", "input-required"),
        ("message hello", "hello"),
    ],
)
async def test_sent_again_with_or_without_a_stream_to_another_broker(
    first: str, again: str, text: str, end: str, pair: Pair, door_to: DoorTo, message_id: str
) -> None:
    said: dict[str, Any] = {"text": text, "message_id": message_id}
    answers = [
        await door_to(broker).ask(V1_RPC, how, **said)
        for broker, how in zip((*pair.brokers, pair.brokers[0]), (first, again, again), strict=True)
    ]
    assert pair.asked(message_id) == 1
    for answer in answers:
        assert answer.status == 200
        assert end in answer.body.decode().lower().replace("_", "-")


async def test_a_message_to_a_task_is_answered_once(pair: Pair, door_to: DoorTo, message_id: str) -> None:
    begun = await door_to(pair.brokers[0]).ask(
        V1_REST, "send", text="chunks 1; ask why", message_id=message_id
    )
    more: dict[str, Any] = {
        "text": "chunks 2",
        "message_id": f"{message_id}-2",
        "task": task_of(result_of(begun)),
    }
    for wire, broker in zip(WIRES, pair.brokers * 2, strict=True):
        answer = await door_to(broker).ask(wire, "send", **more)
        assert answer.status == 200
        assert outline(result_of(answer)).startswith("task completed")
    assert pair.asked(f"{message_id}-2") == 1


async def test_who_wants_no_stream_and_leaves_finds_the_answer_again(
    pair: Pair, door_to: DoorTo, message_id: str
) -> None:
    said: dict[str, Any] = {"text": f"chunks 2; gate {message_id}; chunks 2 3", "message_id": message_id}
    left = asyncio.create_task(door_to(pair.brokers[0]).ask(V1_REST, "send", **said))
    await asyncio.to_thread(pair.agent.reached, message_id)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    pair.agent.open(message_id)
    answer = await door_to(pair.brokers[1]).ask(V1_REST, "send", **said)
    assert text_after([result_of(answer)]) == numbers(1, 4)
    assert pair.asked(message_id) == 1


def result_of(answer: Answer) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(answer.body)
    return whole["result"] if "jsonrpc" in whole else whole
