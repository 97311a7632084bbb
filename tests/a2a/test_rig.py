"""The rig itself, without a broker: real clients of each SDK against real agents of each SDK."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from a2a_rig.awkward import AwkwardAgent, frames, streamed
from a2a_rig.ids import Ids
from a2a_rig.processes import CLIENTS, Agent, Client, Driver, Generation, SdkError
from a2a_rig.wire import V1_REST, WIRES, Door, Wire, numbers, outline, outlines, task_of, text_after

AgentOf = Callable[[Generation], Agent]
DriverOf = Callable[[str], Driver]
DoorTo = Callable[[str], Door]

TURN = [
    *("task submitted", "status working", "artifact out 1 ", "artifact out+ 2 "),
    *("status working hi", "status completed"),
]


def new_id() -> str:
    return uuid.uuid4().hex


# What the SDKs can't do with each other, which is why the broker translates:
BROKEN = {
    ("js-v1", "v03"): "reads v0.3 cards only where its compatibility layer is switched on",
    ("py-v1-jsonrpc", "v03"): "can't read a time without an offset, as v0.3 agents may send it",
    ("js-v03-rest", "v03"): "keeps only the last `data:` line of an event, and the agent sends several",
}


@pytest.mark.parametrize("generation", ["v1", "v03"])
@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_a_client_starts_a_task(
    client: Client, generation: Generation, agent_of: AgentOf, driver_of: DriverOf
) -> None:
    agent = agent_of(generation)
    message_id = new_id()
    call = await driver_of(client.driver).call(
        "stream", agent.url, client.binding, text="chunks 2; say hi", message_id=message_id
    )
    if {(str(client), generation), (client.driver, generation)} & BROKEN.keys():
        with pytest.raises(SdkError):
            await call.rest()
        return
    events = await call.rest()
    assert [client.said(outline(event)) for event in events] == [client.said(words) for words in TURN]
    assert client.text_after(events) == numbers(1, 2)
    assert message_id in [message["messageId"] for message in agent.seen["messages"]]


@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_a_client_gets_cancels_and_is_told_of_errors(
    client: Client, agent_of: AgentOf, driver_of: DriverOf
) -> None:
    agent, driver = agent_of("v1"), driver_of(client.driver)
    card = await driver.ask("card", agent.url)
    assert card["name"] == "Rig"
    call = await driver.call("stream", agent.url, client.binding, text="wait", message_id=new_id())
    task = task_of(await call.next() or {})
    got = await driver.ask("get", agent.url, client.binding, task=task)
    assert got["id"] == task
    canceled = await driver.ask("cancel", agent.url, client.binding, task=task)
    assert canceled["id"] == task
    assert task in agent.seen["canceled"]
    assert outline((await call.rest())[-1]) == "status canceled stopped"
    answer = await driver.ask("send", agent.url, client.binding, text="message hello", message_id=new_id())
    assert "hello" in str(answer)
    with pytest.raises(SdkError, match=r"(?i)not.?found|-32001|404"):
        await driver.ask("get", agent.url, client.binding, task="no-such-task")


@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_a_client_subscribes_and_leaves(client: Client, agent_of: AgentOf, driver_of: DriverOf) -> None:
    agent, driver, gate = agent_of("v1"), driver_of(client.driver), new_id()
    first = await driver.call(
        "stream", agent.url, client.binding, text=f"chunks 2; gate {gate}; chunks 2 3", message_id=new_id()
    )
    task = task_of(await first.next() or {})
    agent.reached(gate)
    second = await driver.call("subscribe", agent.url, client.binding, task=task, headers={"X-Rig": gate})
    assert outline(await second.next() or {}) == "task working 1 2 "
    asked = [each for each in agent.seen["requests"] if each["headers"].get("x-rig") == gate]
    assert len(asked) >= 1
    await first.leave()
    agent.open(gate)
    assert [client.said(outline(event)) for event in await second.rest()] == [
        *(client.said("artifact out+ 3 "), client.said("artifact out+ 4 "), "status completed"),
    ]


async def test_a_driver_reads_ids_beside_the_sdk(driver_of: DriverOf) -> None:
    task = {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}}
    async with AwkwardAgent() as agent:
        block = frames(task)
        agent.answer = streamed([b"id: e-1\n" + block[:10], block[10:], b"id: e-2\n"], cut=True)
        for name in ("py-v1", "js-v1"):
            call = await driver_of(name).call("subscribe", agent.url, "rest", task="t")
            assert outline(await call.next() or {}) == "task working"
            with pytest.raises(SdkError) as raised:
                await call.rest()
            assert raised.value.cursor == "e-1", "half a block was given to nobody"


def test_ids_of_blocks_that_have_ended() -> None:
    ids = Ids()
    for byte in b"id: a-1\r\ndata: x\r\n\r\nid:a-2\n\n: beat\nid: a-3\ndata: y\n":
        ids.feed(bytes([byte]))
    assert ids.last == "a-2"


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_door_speaks_all_wires(wire: Wire, agent_of: AgentOf, door_to: DoorTo) -> None:
    agent = agent_of("v1")
    door = door_to(agent.url)
    answer = await door.ask(wire, "send", text="chunks 3; parts")
    held = answer.result
    task = held.get("task", held)
    assert "COMPLETED" in task["status"]["state"].upper()
    got = (await door.ask(wire, "get", task=task["id"])).result
    assert text_after([{"task": got}]) == numbers(1, 3)
    missing = await door.ask(wire, "get", task="no-such-task")
    assert missing.status == (404 if wire.binding == "rest" else 200)


@pytest.mark.parametrize("generation", ["v1", "v03"])
async def test_a_killed_agent_still_knows_its_tasks(
    generation: Generation, tmp_path: Path, driver_of: DriverOf
) -> None:
    driver = driver_of(f"py-{generation}")
    with Agent(tmp_path, generation) as agent:
        call = await driver.call("stream", agent.url, text="chunks 3; gate never", message_id="m1")
        events = [await call.next() or {} for _ in range(5)]
        task = task_of(events[0])
        assert outline(events[-1]) == "artifact out+ 3 "
        agent.kill9()
        with pytest.raises(SdkError):
            await call.rest()

        def work(kept: dict[str, object]) -> None:
            kept["metadata"] = {"worked": "elsewhere"}

        agent.edit(task, work)
        agent.start()
        got = await driver.ask("get", agent.url, task=task)
        assert text_after([{"task": got}]) == numbers(1, 3)
        assert got["metadata"] == {"worked": "elsewhere"}


async def test_an_awkward_answer_is_given_as_it_stands(door_to: DoorTo) -> None:
    message = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "é"}]}}
    async with AwkwardAgent() as agent:
        agent.answer = streamed([b": hello\n\n", frames(message)])
        door = door_to(agent.url)
        async with door.open(V1_REST, "stream", text="x") as stream:
            found = await stream.rest()
        assert outlines(found) == ["message é"]
        assert stream.read_bytes.startswith(b": hello\n\n")
        assert b"ROLE_USER" in agent.requests[0][1]
