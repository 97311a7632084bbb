"""Capture by the broker and by the adapter: agents that are killed, nothing doubled, equal logs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.stage import Stage, events_in
from a2a_rig.wire import (
    V03_RPC,
    V1_REST,
    V1_RPC,
    WIRES,
    Door,
    numbers,
    outline,
    outlines,
    split,
    task_of,
    text_after,
)

DoorTo = Callable[[str], Door]
StageOf = Callable[..., Stage]

CAPTURE = "urn:sidecast:capture:v1"


async def test_no_event_is_doubled(stage: Stage, door_to: DoorTo) -> None:
    """What the agent said is stored once, whoever captured it, and however many watched."""
    gate = stage.new_task()
    door = door_to(stage.url)
    async with door.open(V1_RPC, "stream", text=f"chunks 3; gate {gate}; say hi; chunks 3 4") as stream:
        first = await stream.take(1)
        task = task_of(first[0].result)
        async with door.open(V1_REST, "subscribe", task=task) as other:
            await other.take(1)
            await asyncio.to_thread(stage.agent.reached, gate)
            await door.ask(V1_REST, "get", task=task)
            stage.agent.open(gate)
            await stream.rest()
            await other.rest()
    await door.ask(V1_REST, "get", task=task)
    events = events_in(await stage.records(task))
    assert [outline(event) for event in events if split(event)[0] == "artifact"] == [
        f"artifact out{'+' if number > 1 else ''} {number} " for number in range(1, 7)
    ]
    states = [outline(event) for event in events if split(event)[0] == "status"]
    assert states == ["status working", "status working hi", "status completed"]
    assert [split(event)[0] for event in events].count("task") == 1
    assert split(events[0])[0] == "task"


@pytest.mark.parametrize("generation", ["v1", "v03"])
async def test_an_agent_that_is_killed_and_restarted(
    generation: str, own_stage: StageOf, door_to: DoorTo
) -> None:
    """In capture by the broker: watchers stay, and get what the agent did where nobody watched."""
    stage = own_stage(generation, "proxy")
    door = door_to(stage.url)
    async with door.open(V1_RPC, "stream", text="chunks 3; gate never") as stream:
        before = await stream.until("artifact out+ 3 ")
        task = task_of(before[0].result)
        context = split(before[0].result)[1]["contextId"]
        async with door.open(V1_REST, "subscribe", task=task) as watcher:
            seen = await watcher.take(1)
            await asyncio.to_thread(stage.agent.kill9)

            def work(kept: dict[str, Any]) -> None:
                text = {"text": "4 "} if generation == "v1" else {"kind": "text", "text": "4 "}
                kept["artifacts"][0]["parts"].append(text)

            stage.agent.edit(task, work)
            await asyncio.to_thread(stage.agent.start)
            marked = await watcher.take(1)
            assert text_after([frame.result for frame in seen + marked]) == numbers(1, 4)
            assert CAPTURE in marked[-1].raw.decode(), "an update that stands for what was missed says so"
            async with door.open(
                V1_RPC, "stream", text="chunks 2 5", task=task, context=context
            ) as next_turn:
                turn = await next_turn.rest()
            rest = await watcher.rest()
    assert outline(turn[-1].result) == "status completed"
    assert text_after([frame.result for frame in turn]) == numbers(1, 6)
    assert text_after([frame.result for frame in seen + marked + rest]) == numbers(1, 6)
    assert outlines(rest)[-1] == "status completed"
    assert text_after(events_in(await stage.records(task))) == numbers(1, 6)


async def test_a_send_stream_whose_agent_is_killed_does_not_look_complete(
    own_stage: StageOf, door_to: DoorTo
) -> None:
    """The agent comes back with its task ended; who sent the message sees the end, or that there is more."""
    stage = own_stage("v1", "proxy")
    door = door_to(stage.url)
    async with door.open(V1_RPC, "stream", text="chunks 3; gate never") as stream:
        before = await stream.until("artifact out+ 3 ")
        task = task_of(before[0].result)
        await asyncio.to_thread(stage.agent.kill9)

        def end(kept: dict[str, Any]) -> None:
            kept["status"]["state"] = "TASK_STATE_COMPLETED"

        stage.agent.edit(task, end)
        await asyncio.to_thread(stage.agent.start)
        after = await stream.rest()
    assert after, "a clean end looks like completion"
    last = after[-1]
    assert last.event == "error" or outline(last.result) == "status completed"
    async with asyncio.timeout(10):
        while outline(events_in(await stage.records(task))[-1]) != "status completed":
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("generation", ["v1", "v03"])
async def test_a_broker_that_is_killed_goes_on_capturing(
    generation: str, own_stage: StageOf, door_to: DoorTo
) -> None:
    stage = own_stage(generation, "proxy")
    door = door_to(stage.url)
    gate = stage.new_task()
    sent: dict[str, Any] = {"text": f"chunks 3; gate {gate}; chunks 2 4", "message_id": gate}
    async with door.open(V1_RPC, "stream", **sent) as stream:
        before = await stream.until("artifact out+ 3 ")
        task = task_of(before[0].result)
    await asyncio.to_thread(stage.broker.kill9)
    await asyncio.to_thread(stage.broker.start)
    cursor = {"Last-Event-ID": before[-1].id or ""}
    async with door.open(V1_REST, "subscribe", task=task, headers=cursor) as watcher:
        first = await watcher.take(1)
        stage.agent.open(gate)
        after = first + await watcher.rest()
    assert text_after([frame.result for frame in after]) == numbers(1, 5)
    assert outlines(after)[-1] == "status completed"
    assert len(stage.agent.seen["messages"]) == 1
    events = events_in(await stage.records(task))
    assert text_after(events) == numbers(1, 5)


async def test_an_agent_s_doubled_task_does_not_double_the_log(own_stage: StageOf, door_to: DoorTo) -> None:
    """a2a-sdk 0.3 saves a chunk once for each open stream; each stream says it once, and so does the log."""
    stage = own_stage("v03", "proxy")
    door, agent = door_to(stage.url), door_to(stage.agent.url)
    first, second = stage.new_task(), stage.new_task()
    script = f"chunks 3; gate {first}; chunks 2 4; say hi; gate {second}; done"
    async with door.open(V1_RPC, "stream", text=script, message_id=first) as stream:
        task = task_of((await stream.until("artifact out+ 3 "))[0].result)
    await asyncio.to_thread(stage.broker.kill9)
    await asyncio.to_thread(stage.broker.start)
    async with door.open(V1_REST, "subscribe", task=task) as watcher, contextlib.AsyncExitStack() as stack:
        seen = await watcher.take(1)
        for _ in range(2):
            await stack.enter_async_context(agent.open(V03_RPC, "subscribe", task=task))
        async with asyncio.timeout(10):
            # The message, a subscription of the broker, and two of others.
            while [each["method"] for each in stage.agent.seen["requests"]].count("POST") < 4:
                await asyncio.sleep(0.02)
        await asyncio.to_thread(stage.agent.open, first)
        seen += await watcher.until("status working hi")
        assert text_after([frame.result for frame in seen]) == numbers(1, 5)
        await asyncio.to_thread(stage.broker.kill9)
        await asyncio.to_thread(stage.agent.open, second)
        await stack.aclose()
    doubled = (await agent.ask(V03_RPC, "get", task=task)).result
    assert text_after([{"task": doubled}]) != numbers(1, 5), "or nothing is tested here"
    await asyncio.to_thread(stage.broker.start)
    async with asyncio.timeout(10):
        while outline(events_in(await stage.records(task))[-1]) != "status completed":
            await asyncio.sleep(0.05)
    events = events_in(await stage.records(task))
    assert [outline(event) for event in events if split(event)[0] == "artifact"] == [
        f"artifact out{'+' if number > 1 else ''} {number} " for number in range(1, 6)
    ]


@pytest.mark.parametrize("capture", ["adapter", "proxy"])
async def test_get_task_while_the_agent_is_away(capture: str, own_stage: StageOf, door_to: DoorTo) -> None:
    """Answered from the log, and marked: it may be older than what the agent knows."""
    stage = own_stage("v1", capture)
    door = door_to(stage.url)
    async with door.open(V1_RPC, "stream", text="chunks 3; ask why") as stream:
        task = task_of((await stream.rest())[0].result)
    await asyncio.to_thread(stage.agent.kill9)
    for wire in WIRES:
        answer = await door.ask(wire, "get", task=task)
        assert answer.status == 200
        held = answer.result
        assert text_after([{"task": held}]) == numbers(1, 3)
        assert outline({"task": held}).startswith("task input-required")
        assert any(key.startswith("urn:sidecast:") for key in held["metadata"]), "marked"
        unknown = await door.ask(wire, "get", task=stage.new_task())
        assert b"-32001" in unknown.body or unknown.status == 404


@pytest.mark.row("C66")
async def test_c66_the_log_of_an_adapter_and_of_the_broker_say_the_same(
    stage_of: StageOf, door_to: DoorTo
) -> None:
    found = []
    for setup in (("v1", "adapter"), ("v1", "proxy"), ("v03", "adapter"), ("v03", "proxy")):
        stage = stage_of(*setup)
        async with door_to(stage.url).open(V1_RPC, "stream", text="chunks 3; parts; say hi") as stream:
            task = task_of((await stream.rest())[0].result)
        found.append([outline(event) for event in events_in(await stage.records(task))])
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][0] == "task submitted"
    assert found[0][-1] == "status completed"


@pytest.mark.row("C66")
@pytest.mark.accept
@pytest.mark.parametrize(("generation", "sdk"), [("v03", "0.3.8"), ("v1", "1.0.0")])
async def test_c66_an_early_sdk_of_each_generation_publishes_the_same(
    generation: str, sdk: str, own_stage: StageOf, stage_of: StageOf, door_to: DoorTo
) -> None:
    """Making an environment for it is what takes long."""
    found = []
    for stage in (own_stage(generation, "adapter", sdk=sdk), stage_of("v1", "adapter")):
        async with door_to(stage.url).open(V1_RPC, "stream", text="chunks 3; parts; say hi") as stream:
            frames = await stream.rest()
        records = events_in(await stage.records(task_of(frames[0].result)))
        found.append([outline(event) for event in records])
        assert outlines(frames) == found[-1]
    assert found[0] == found[1]
