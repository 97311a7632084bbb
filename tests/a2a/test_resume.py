"""Resuming A2A streams: rows C29 to C33 of the A2A checklist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.stage import Stage, begin, chunks
from a2a_rig.wire import (
    V03_RPC,
    WIRES,
    Door,
    Frame,
    Wire,
    numbers,
    outline,
    outlines,
    split,
    text_after,
)
from brokers import done
from nats_server import NatsServer, request_api

DoorTo = Callable[[str], Door]
RESUME = "urn:sidecast:resume:v1"


def by_header(cursor: str) -> dict[str, Any]:
    return {"headers": {"Last-Event-ID": cursor}}


def by_query(cursor: str) -> dict[str, Any]:
    return {"query": f"last_event_id={cursor}"}


def by_metadata(cursor: str) -> dict[str, Any]:
    return {"metadata": {RESUME: {"lastEventId": cursor}}}


WAYS = [(wire, way) for wire in WIRES for way in (by_header, by_query)] + [(V03_RPC, by_metadata)]


@pytest.mark.row("C29", "C31", "C32")
@pytest.mark.parametrize(("wire", "way"), WAYS, ids=lambda each: getattr(each, "__name__", str(each)))
async def test_c29_c31_c32_every_event_after_the_cursor_once(
    wire: Wire, way: Callable[[str], dict[str, Any]], log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    cursor = await log.publish(task, begin(task), *chunks(task, 1, 3))
    await log.publish(task, *chunks(task, 4, 5))
    async with door_to(log.url).open(wire, "subscribe", task=task, **way(f"epoch1-{cursor}")) as stream:
        first = await stream.take(3)
        await log.publish(task, *chunks(task, 6, 7), done(task))
        frames = first + await stream.rest()
    kind, held = split(frames[0].result)
    assert kind == "task"
    assert frames[0].id == f"epoch1-{cursor}", "the Task stands where the client left"
    assert text_after([{"task": held}]) == numbers(1, 3)
    assert outlines(frames[1:]) == [
        *(f"artifact out+ {number} " for number in (4, 5, 6, 7)),
        "status completed",
    ]
    assert text_after([frame.result for frame in frames]) == numbers(1, 7)


@pytest.mark.row("C29")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c29_from_each_id_of_a_stream(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    door = door_to(log.url)
    async with door.open(wire, "subscribe", task=task) as stream:
        first = await stream.take(1)
        await log.publish(task, *chunks(task, 1, 4), done(task))
        frames = first + await stream.rest()
    for index, frame in enumerate(frames[:-1]):
        async with door.open(wire, "subscribe", task=task, **by_header(frame.id or "")) as stream:
            again = await stream.rest()
        assert [each.id for each in again[1:]] == [each.id for each in frames[index + 1 :]]
        assert [each.result for each in again[1:]] == [each.result for each in frames[index + 1 :]]


def gap_of(frame: Frame) -> str:
    """Give the reason for which a Task stands in for what a cursor asked for."""
    marks = split(frame.result)[1]["metadata"]["urn:sidecast:log:v1"]
    return str(marks["gap"]["reason"])


BAD = [
    "epoch1-999999999",
    "other-1",
    "nonsense",
    "epoch1-",
    "epoch1-18446744073709551616",
    "epoch1--1",
    "a" * 500,
]


@pytest.mark.row("C30")
@pytest.mark.parametrize("cursor", BAD, ids=lambda cursor: cursor[:20])
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c30_a_cursor_that_is_none_gives_a_fresh_snapshot(
    wire: Wire, cursor: str, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    last = await log.publish(task, begin(task), *chunks(task, 1, 3))
    async with door_to(log.url).open(wire, "subscribe", task=task, **by_header(cursor)) as stream:
        first = await stream.take(1)
        await log.publish(task, *chunks(task, 4, 4), done(task))
        frames = first + await stream.rest()
    assert outlines(frames) == [f"task submitted {numbers(1, 3)}", "artifact out+ 4 ", "status completed"]
    assert frames[0].id == f"epoch1-{last}", "another id than the one asked for: a reset"
    assert gap_of(frames[0]), "and it says so"


@pytest.mark.row("C30")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c30_an_expired_cursor_gives_a_fresh_snapshot(
    wire: Wire, log: Stage, door_to: DoorTo, nats_of_a2a: NatsServer
) -> None:
    task = log.new_task()
    old = await log.publish(task, begin(task))
    lost = await log.publish(task, *chunks(task, 1, 1))
    last = await log.publish(task, *chunks(task, 2, 3))
    body = {"filter": log.subject(task), "seq": lost + 1}
    await request_api(nats_of_a2a.url, "STREAM.PURGE.SIDECAST", body)
    async with door_to(log.url).open(wire, "subscribe", task=task, **by_header(f"epoch1-{old}")) as stream:
        (first,) = await stream.take(1)
        await stream.silent(0.3)
    assert split(first.result)[0] == "task"
    assert first.id == f"epoch1-{last}", "another id than the one asked for: a reset"
    assert gap_of(first) == "expired"


@pytest.mark.row("C30")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c30_the_sequence_of_another_task_is_a_place_in_this_ones_log(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task, other = log.new_task(), log.new_task()
    await log.publish(task, begin(task), *chunks(task, 1, 2))
    foreign = await log.publish(other, begin(other))
    await log.publish(other, *chunks(other, 50, 52))
    await log.publish(task, *chunks(task, 3, 4), done(task))
    async with door_to(log.url).open(
        wire, "subscribe", task=task, **by_header(f"epoch1-{foreign}")
    ) as stream:
        frames = await stream.rest()
    assert outlines(frames) == [
        *(f"task submitted {numbers(1, 2)}", "artifact out+ 3 ", "artifact out+ 4 ", "status completed"),
    ]
    assert other.encode() not in stream.read_bytes


@pytest.mark.row("C32")
async def test_c32_without_a_cursor_it_is_a_snapshot_and_live(log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task), *chunks(task, 1, 2))
    for metadata in (None, {}, {RESUME: {}}, {RESUME: "x"}, {"other": {"lastEventId": "epoch1-1"}}):
        async with door_to(log.url).open(V03_RPC, "subscribe", task=task, metadata=metadata) as stream:
            assert outlines(await stream.take(1)) == [f"task submitted {numbers(1, 2)}"]


@pytest.mark.row("C33")
@pytest.mark.parametrize("script", ["again; chunks 2; again; say hi; again", "bare; chunks 1; again; done"])
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c33_a_stream_has_one_task_frame(
    wire: Wire, script: str, stage: Stage, door_to: DoorTo
) -> None:
    async with door_to(stage.url).open(wire, "stream", text=script) as stream:
        frames = await stream.rest()
    assert [split(frame.result)[0] for frame in frames].count("task") == 1
    assert outline(frames[-1].result) == "status completed"
