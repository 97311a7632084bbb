"""Named subscriptions of A2A clients: who comes without a cursor goes on behind what was confirmed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.stage import Stage, begin, chunks
from a2a_rig.wire import WIRES, Door, Wire, numbers, outlines
from brokers import done

DoorTo = Callable[[str], Door]
NAMED = {"Sidecast-Subscription": "inbox"}


async def confirm(door: Door, task: str, sequence: int) -> Any:
    """Confirm up to a sequence; give the answer."""
    body = json.dumps({"id": f"epoch1-{sequence}", "task": task}).encode()
    headers = {"Content-Type": "application/json"}
    return (await door.raw("POST", "/subscriptions/inbox/ack", body, headers)).json


async def confirmed(door: Door, task: str) -> str | None:
    """Give how far it is confirmed."""
    listed = (await door.raw("GET", "/subscriptions")).json["subscriptions"]
    (position,) = [each["acknowledged"] for each in listed if each["task"] == task]
    assert position is None or isinstance(position, str)
    return position


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_it_begins_with_the_task_as_it_was_when_confirmed(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task, door = log.new_task(), door_to(log.url)
    last = await log.publish(task, begin(task), *chunks(task, 1, 2))
    async with door.open(wire, "subscribe", task=task, headers=NAMED) as stream:
        assert outlines(await stream.take(1)) == [f"task submitted {numbers(1, 2)}"]
        assert (await confirm(door, task, last))["acknowledged"] == f"epoch1-{last}"
    end = await log.publish(task, *chunks(task, 3, 4), done(task))
    async with door.open(wire, "subscribe", task=task, headers=NAMED) as stream:
        assert outlines(await stream.rest()) == [
            *(f"task submitted {numbers(1, 2)}", "artifact out+ 3 ", "artifact out+ 4 ", "status completed")
        ]
    # A cursor wins, and confirms what lies before it.
    behind = NAMED | {"Last-Event-ID": f"epoch1-{end - 1}"}
    async with door.open(wire, "subscribe", task=task, headers=behind) as stream:
        assert outlines(await stream.rest()) == [f"task submitted {numbers(1, 4)}", "status completed"]
    assert await confirmed(door, task) == f"epoch1-{end - 1}"
    await door.ask(wire, "subscribe", task=task, headers=NAMED | {"Last-Event-ID": f"epoch1-{end}"})
    assert await confirmed(door, task) == f"epoch1-{end}"
    assert "has ended" in (await door.ask(wire, "subscribe", task=task, headers=NAMED)).body.decode()


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_the_newest_takes_over_and_the_older_ends_with_an_error(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task, door = log.new_task(), door_to(log.url)
    await log.publish(task, begin(task))
    async with door.open(wire, "subscribe", task=task, headers=NAMED) as older:
        await older.take(1)
        async with door.open(wire, "subscribe", task=task, headers=NAMED) as newer:
            await newer.take(1)
            (end,) = await older.rest()
            assert "named subscription" in str(end.data)
            await log.publish(task, *chunks(task, 1, 1))
            assert outlines(await newer.take(1)) == ["artifact out 1 "]


async def test_what_two_heartbeats_have_outlived_is_confirmed(log: Stage, door_to: DoorTo) -> None:
    task, door = log.new_task(), door_to(log.url)
    await log.publish(task, begin(task))
    async with door.open(WIRES[0], "subscribe", task=task, headers=NAMED) as stream:
        await stream.take(1)
        last = await log.publish(task, *chunks(task, 1, 3))
        async with asyncio.timeout(15):
            while await confirmed(door, task) != f"epoch1-{last}":
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("name", ["", "x" * 257])
async def test_what_is_no_name_is_refused(name: str, wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task, door = log.new_task(), door_to(log.url)
    await log.publish(task, begin(task))
    answer = await door.ask(wire, "subscribe", task=task, headers={"Sidecast-Subscription": name})
    assert b"a name" in answer.body
    assert (answer.status == 200) == (wire.binding == "jsonrpc")
