"""A browser watches a task that was begun at the agent itself: the row C68 in the browser's format."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.stage import Stage, events_in
from a2a_rig.wire import V03_RPC, V1_RPC, Door, numbers, text_after
from sse import Frame, Watch, kinds, target

DoorTo = Callable[[str], Door]
StageOf = Callable[..., Stage]


def text_of(frames: list[Frame]) -> str:
    """Give the text of the artifact after these frames."""
    text = ""
    for frame in frames:
        if frame.kind == "task.snapshot":
            held: list[dict[str, Any]] = frame["task"].get("artifacts", [])
            text = "".join(part["text"] for artifact in held for part in artifact["parts"])
        elif frame.kind == "task.artifact":
            text = (text if frame["append"] else "") + frame["text"]
    return text


async def begun(stage: Stage, door_to: DoorTo, script: str) -> tuple[str, str]:
    """Begin a task at the agent, which the broker hears nothing of; give its id, and what it waits for."""
    wire = V1_RPC if stage.generation == "v1" else V03_RPC
    setting = {"returnImmediately": True} if stage.generation == "v1" else {"blocking": False}
    name = stage.new_task()
    await door_to(stage.agent.url).ask(
        wire, "send", text=f"{script}; gate {name}; chunks 2 3", message_id=name, configuration=setting
    )
    await asyncio.to_thread(stage.agent.reached, name)
    (task,) = [each["taskId"] for each in stage.agent.seen["messages"] if each["messageId"] == name]
    return task, name


@pytest.mark.parametrize("wait_s", [0, 5])
@pytest.mark.parametrize("generation", ["v1", "v03"])
async def test_a_browser_watches_a_task_begun_at_the_agent(
    generation: str, wait_s: float, own_stage: StageOf, door_to: DoorTo
) -> None:
    stage = own_stage(generation, "proxy")
    task, gate = await begun(stage, door_to, "chunks 2")
    async with Watch(stage.url + target(f"/tasks/{task}/events", wait_s=wait_s)) as stream:
        frames = await stream.take(2)
        assert text_of(frames) == numbers(1, 2)
        await asyncio.to_thread(stage.agent.open, gate)
        frames += await stream.rest()
    assert text_of(frames) == numbers(1, 4)
    assert kinds(frames)[-1] == "stream.end"
    assert text_after(events_in(await stage.records(task))) == numbers(1, 4)


@pytest.mark.parametrize("generation", ["v1", "v03"])
async def test_a_task_the_agent_does_not_have_is_unknown(generation: str, stage_of: StageOf) -> None:
    stage = stage_of(generation, "proxy")
    for task in (stage.new_task(), "..%2F..%2Fcontrol%2Fseen", "%2E%2E"):
        async with Watch(stage.url + f"/tasks/{task}/events") as stream:
            assert stream.status == 404
        async with Watch(stage.url + f"/tasks/{task}/events?wait_s=0.2") as stream:
            assert stream.status == 200
            assert kinds(await stream.rest()) == ["stream.end"]
