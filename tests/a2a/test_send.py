"""Sending a message through the door: rows C08, C11 to C13, C17, C61 to C63 and C67, and retried sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.raw import Connection
from a2a_rig.stage import Stage, begin, events_in
from a2a_rig.wire import WIRES, Door, Wire, numbers, outline, outlines, request, split, task_of, text_after
from brokers import done, status

DoorTo = Callable[[str], Door]
Crossed = tuple[Stage, Wire]
StageOf = Callable[..., Stage]


def messages_of(stage: Stage, task: str) -> list[str]:
    """Give the texts the agent was asked with about a task."""
    return [each["text"] for each in stage.agent.seen["messages"] if each["taskId"] == task]


@pytest.mark.row("C11")
async def test_a_task_is_started_through_the_door(crossed: Crossed, door_to: DoorTo) -> None:
    stage, wire = crossed
    async with door_to(stage.url).open(wire, "stream", text="chunks 5; say hi") as stream:
        assert stream.media_type == "text/event-stream"
        frames = await stream.rest()
    assert split(frames[0].result)[0] == "task"
    assert text_after([frame.result for frame in frames]) == numbers(1, 5)
    assert outline(frames[-1].result) == "status completed"
    assert len({task_of(frame.result) for frame in frames}) == 1


@pytest.mark.row("C11")
async def test_c11_an_agent_that_does_not_begin_with_the_task(crossed: Crossed, door_to: DoorTo) -> None:
    stage, wire = crossed
    async with door_to(stage.url).open(wire, "stream", text="bare; chunks 3; done") as stream:
        frames = await stream.rest()
    assert split(frames[0].result)[0] == "task"
    assert text_after([frame.result for frame in frames]) == numbers(1, 3)
    assert outline(frames[-1].result) == "status completed"


@pytest.mark.row("C11", "C13")
async def test_c11_c13_a_follow_up_turn_begins_with_the_task_and_ends_with_the_turn(
    crossed: Crossed, door_to: DoorTo
) -> None:
    stage, wire = crossed
    door = door_to(stage.url)
    async with door.open(wire, "stream", text="chunks 2; ask why") as stream:
        frames = await stream.rest()
    assert outline(frames[-1].result) == "status input-required why"
    task = task_of(frames[0].result)
    context = split(frames[0].result)[1]["contextId"]
    async with door.open(wire, "stream", text="chunks 2 3", task=task, context=context) as stream:
        frames = await stream.rest()
    kind, held = split(frames[0].result)
    assert (kind, held["id"]) == ("task", task)
    assert text_after([frame.result for frame in frames]) == numbers(1, 4)
    assert outline(frames[-1].result) == "status completed"
    assert messages_of(stage, task) == ["chunks 2; ask why", "chunks 2 3"]


@pytest.mark.row("C12")
async def test_c12_a_message_is_one_frame_and_the_end(crossed: Crossed, door_to: DoorTo) -> None:
    stage, wire = crossed
    async with door_to(stage.url).open(wire, "stream", text="message hello") as stream:
        frames = await stream.rest()
    assert outlines(frames) == ["message hello"]
    assert frames[0].id is None, "there is nothing to resume"


@pytest.mark.row("C13")
async def test_c13_an_out_of_band_authorisation_leaves_the_stream_open(
    crossed: Crossed, door_to: DoorTo
) -> None:
    stage, wire = crossed
    gate = stage.new_task()
    async with door_to(stage.url).open(wire, "stream", text=f"chunks 1; auth {gate}; chunks 1 2") as stream:
        before = await stream.until("status auth-required")
        await asyncio.to_thread(stage.agent.reached, gate)
        await stream.silent(0.3)
        stage.agent.open(gate)
        after = await stream.rest()
    assert text_after([frame.result for frame in before + after]) == numbers(1, 2)
    assert outline(after[-1].result) == "status completed"


@pytest.mark.row("C13")
async def test_c13_a_turn_that_ends_without_an_end_of_the_task(stage_of: StageOf, door_to: DoorTo) -> None:
    stage = stage_of("v1", "adapter")
    async with door_to(stage.url).open(WIRES[0], "stream", text="chunks 2; open") as stream:
        frames = await stream.rest()
    assert outline(frames[-1].result) == "artifact out+ 2 "


@pytest.mark.row("C17")
async def test_c17_a_client_that_leaves_cancels_nothing(crossed: Crossed, door_to: DoorTo) -> None:
    stage, wire = crossed
    gate = stage.new_task()
    door = door_to(stage.url)
    async with door.open(wire, "stream", text=f"chunks 2; gate {gate}; chunks 2 3") as stream:
        task = task_of((await stream.take(1))[0].result)
        async with door.open(wire, "subscribe", task=task) as other:
            first = await other.take(1)
            await asyncio.to_thread(stage.agent.reached, gate)
            stream.response.close()
            stage.agent.open(gate)
            frames = first + await other.rest()
    assert text_after([frame.result for frame in frames]) == numbers(1, 4)
    assert outline(frames[-1].result) == "status completed"
    assert task not in stage.agent.seen["canceled"]
    assert len(messages_of(stage, task)) == 1


@pytest.mark.row("C17")
async def test_c17_a_client_that_leaves_alone(stage: Stage, door_to: DoorTo) -> None:
    """Nobody watches any more, and the work goes on and is stored."""
    gate = stage.new_task()
    door = door_to(stage.url)
    async with door.open(WIRES[0], "stream", text=f"chunks 1; gate {gate}; chunks 3 2") as stream:
        task = task_of((await stream.take(1))[0].result)
        await asyncio.to_thread(stage.agent.reached, gate)
    stage.agent.open(gate)
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not events or outline(events[-1]) != "status completed":
            events = events_in(await stage.records(task))
    assert text_after(events) == numbers(1, 4)
    assert outline(events[-1]) == "status completed"


async def test_a_retried_send_attaches_to_its_turn(crossed: Crossed, door_to: DoorTo) -> None:
    stage, wire = crossed
    gate = stage.new_task()
    door = door_to(stage.url)
    sent: dict[str, Any] = {"text": f"chunks 2; gate {gate}; chunks 2 3", "message_id": gate}
    async with door.open(wire, "stream", **sent) as stream:
        first = await stream.take(3)
        await asyncio.to_thread(stage.agent.reached, gate)
    task = task_of(first[0].result)
    async with door.open(wire, "stream", **sent) as again:
        head = await again.take(1)
        stage.agent.open(gate)
        frames = head + await again.rest()
    assert split(frames[0].result)[0] == "task"
    assert {task_of(frame.result) for frame in frames} == {task}
    assert text_after([frame.result for frame in frames]) == numbers(1, 4)
    assert outline(frames[-1].result) == "status completed"
    seen = [each for each in stage.agent.seen["messages"] if each["messageId"] == gate]
    assert len(seen) == 1, "the agent was asked once"


async def test_a_send_with_a_cursor_goes_on_where_it_broke(crossed: Crossed, door_to: DoorTo) -> None:
    stage, wire = crossed
    gate = stage.new_task()
    door = door_to(stage.url)
    sent: dict[str, Any] = {"text": f"chunks 3; gate {gate}; chunks 2 4", "message_id": gate}
    async with door.open(wire, "stream", **sent) as stream:
        before = await stream.take(2)
    cursor = before[-1].id
    assert cursor
    async with door.open(wire, "stream", **sent, headers={"Last-Event-ID": cursor}) as again:
        stage.agent.open(gate)
        after = await again.rest()
    deltas = [frame for frame in after if split(frame.result)[0] != "task"]
    assert text_after([frame.result for frame in before + deltas]) == numbers(1, 5)
    assert outline(after[-1].result) == "status completed"
    seen = [each for each in stage.agent.seen["messages"] if each["messageId"] == gate]
    assert len(seen) == 1


@pytest.mark.row("C62")
@pytest.mark.parametrize("setup", [("v1", "adapter"), ("v1", "proxy"), ("v03", "adapter")], ids="-".join)
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c62_an_exception_of_the_agent_is_a_failed_task(
    wire: Wire, setup: tuple[str, str], stage_of: StageOf, door_to: DoorTo
) -> None:
    # Not for a plain agent on a2a-sdk 0.3.x: it leaves the task as it was, and says so when it is asked.
    stage = stage_of(*setup)
    gate = stage.new_task()
    door = door_to(stage.url)
    async with door.open(wire, "stream", text=f"chunks 2; gate {gate}; fail") as stream:
        task = task_of((await stream.take(1))[0].result)
        async with door.open(wire, "subscribe", task=task) as other:
            await other.take(1)
            stage.agent.open(gate)
            for each in (stream, other):
                frames = await each.rest()
                failed = [frame for frame in frames if "error" not in frame.json]
                assert outline(failed[-1].result).startswith("status failed")
                if setup[1] == "adapter":
                    assert b"s3cret" not in each.read_bytes


CANCELS = [
    ("wait", ("v1", "adapter")),
    ("wait", ("v1", "proxy")),
    ("wait", ("v03", "adapter")),
    ("wait", ("v03", "proxy")),
    ("quiet; wait", ("v1", "adapter")),
    ("quiet; wait", ("v1", "proxy")),
    ("quiet; wait", ("v03", "adapter")),
    ("ask more", ("v1", "adapter")),
    ("ask more", ("v1", "proxy")),
    ("ask more", ("v03", "adapter")),
    ("ask more", ("v03", "proxy")),
]


CANCELED = [
    pytest.param(
        *(script, setup, wire),
        id=f"{script.replace(' ', '-')}-{'-'.join(setup)}-{wire}",
        marks=() if row % len(WIRES) == column else pytest.mark.accept,
    )
    for row, (script, setup) in enumerate(CANCELS)
    for column, wire in enumerate(WIRES)
]


@pytest.mark.row("C63")
@pytest.mark.parametrize(("script", "setup", "wire"), CANCELED)
async def test_c63_watchers_see_that_a_task_was_canceled(
    script: str, setup: tuple[str, str], wire: Wire, stage_of: StageOf, door_to: DoorTo
) -> None:
    stage = stage_of(*setup)
    door = door_to(stage.url)
    async with door.open(wire, "stream", text=script) as stream:
        frames = await stream.until("status working")
        task = task_of(frames[0].result)
        if script.startswith("ask"):
            await stream.rest()
        async with door.open(wire, "subscribe", task=task) as other:
            await other.take(1)
            # a2a-sdk 0.3.x never answers where its executor says nothing.
            canceling = asyncio.create_task(door.ask(wire, "cancel", task=task))
            assert outline((await other.rest())[-1].result).startswith("status canceled")
        if not script.startswith("ask"):
            assert outline((await stream.rest())[-1].result).startswith("status canceled")
        canceling.cancel()
        await asyncio.wait([canceling])


@pytest.mark.row("C61")
async def test_c61_nothing_is_delivered_after_the_end(stage: Stage, door_to: DoorTo) -> None:
    gate = stage.new_task()
    door = door_to(stage.url)
    async with door.open(WIRES[0], "stream", text=f"chunks 1; gate {gate}; late") as stream:
        task = task_of((await stream.take(1))[0].result)
        async with door.open(WIRES[1], "subscribe", task=task) as other:
            await other.take(1)
            stage.agent.open(gate)
            for each in (stream, other):
                assert outlines(await each.rest())[-1] == "status completed"
                assert b"after the end" not in each.read_bytes
    got = await door.ask(WIRES[1], "subscribe", task=task)
    assert got.status == 400


@pytest.mark.row("C61")
async def test_c61_what_comes_after_the_end_is_counted(own_stage: StageOf) -> None:
    """Whoever publishes it: here a program that speaks to NATS alone."""
    stage = own_stage()
    task = stage.new_task()
    await stage.publish(task, begin(task))
    async with Connection(stage.url, request(WIRES[0], "subscribe", task=task)) as watching:
        await watching.until(b"\n\n")
        await stage.publish(task, done(task), status("after the end", task), status("and on", task))
        await watching.rest()
        assert outlines(watching.frames) == ["task submitted", "status completed"]
    async with asyncio.timeout(10):
        while stage.broker.metrics().get("sidecast_invalid_events_total{after-terminal}", 0) < 2:
            await asyncio.sleep(0.02)


@pytest.mark.row("C67")
async def test_c67_a_message_makes_no_task(stage: Stage, door_to: DoorTo) -> None:
    door = door_to(stage.url)
    message_id = stage.new_task()
    async with door.open(WIRES[0], "stream", text="message hello", message_id=message_id) as stream:
        await stream.rest()
    (task,) = [each["taskId"] for each in stage.agent.seen["messages"] if each["messageId"] == message_id]
    answer = await door.ask(WIRES[1], "subscribe", task=task)
    unknown = await door.ask(WIRES[1], "subscribe", task=stage.new_task())
    assert (answer.status, answer.body) == (404, unknown.body)
    assert await stage.records(task) == []
