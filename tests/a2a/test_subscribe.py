"""Subscribing to a task through the door: rows C01 to C10, C44, C45 and C68 of the A2A checklist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.stage import Stage, begin, chunks, events_in
from a2a_rig.wire import (
    V03_REST,
    V03_RPC,
    V1_REST,
    V1_RPC,
    WIRES,
    Door,
    Wire,
    numbers,
    outline,
    outlines,
    split,
    text_after,
)
from brokers import done, status, until

DoorTo = Callable[[str], Door]
Crossed = tuple[Stage, Wire]

TERMINAL = ["COMPLETED", "FAILED", "CANCELED", "REJECTED"]
INTERRUPTED = ["INPUT_REQUIRED", "AUTH_REQUIRED"]


def error_of(answer: Any) -> dict[str, Any]:
    """Give the error of an answer of any wire."""
    body: dict[str, Any] = answer.json
    found: dict[str, Any] = body.get("error", body)
    return found


@pytest.mark.row("C01")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c01_first_comes_the_task_as_it_stands(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task), *chunks(task, 1, 3), status("reading", task))
    async with door_to(log.url).open(wire, "subscribe", task=task) as stream:
        (first,) = await stream.take(1)
        kind, held = split(first.result)
    assert (kind, held["id"]) == ("task", task)
    assert outline(first.result) == f"task working {numbers(1, 3)}"
    assert "reading" in str(held["status"]["message"])


@pytest.mark.row("C02")
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c02_live_events_follow_the_snapshot_without_gap_or_double(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task, count = log.new_task(), 120
    await log.publish(task, begin(task))
    door = door_to(log.url)
    opened = 0

    async def watch() -> tuple[str, list[str]]:
        nonlocal opened
        async with door.open(wire, "subscribe", task=task) as stream:
            opened += 1
            frames = await stream.rest()
        return text_after([frame.result for frame in frames]), outlines(frames)

    publishing = asyncio.create_task(log.publish(task, *chunks(task, 1, count)))
    watching = []
    while not publishing.done():
        watching.append(asyncio.create_task(watch()))
        await asyncio.sleep(0.01)
    await until(lambda: opened == len(watching))
    await log.publish(task, done(task))
    texts = [text for text, _ in await asyncio.gather(*watching)]
    assert len(texts) > 3
    assert set(texts) == {numbers(1, count)}


@pytest.mark.row("C03")
@pytest.mark.parametrize("state", TERMINAL)
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c03_the_stream_ends_behind_the_terminal_event(
    wire: Wire, state: str, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    async with door_to(log.url).open(wire, "subscribe", task=task) as stream:
        await stream.take(1)
        await log.publish(task, done(task, state))
        assert outlines(await stream.rest()) == [f"status {state.lower()}"]


@pytest.mark.row("C04")
@pytest.mark.parametrize("state", INTERRUPTED)
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c04_the_stream_stays_open_where_the_task_waits(
    wire: Wire, state: str, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    name = state.lower().replace("_", "-")
    door = door_to(log.url)
    async with door.open(wire, "subscribe", task=task) as early:
        await early.take(1)
        await log.publish(task, status("why", task, state))
        assert outlines(await early.take(1)) == [f"status {name} why"]
        async with door.open(wire, "subscribe", task=task) as late:
            assert outlines(await late.take(1)) == [f"task {name}"]
            await late.silent(0.3)
            await log.publish(task, status("on", task), done(task))
            for stream in (early, late):
                assert outlines(await stream.rest()) == ["status working on", "status completed"]


@pytest.mark.row("C05")
@pytest.mark.parametrize("state", TERMINAL)
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c05_a_terminal_task_can_not_be_subscribed_to(
    wire: Wire, state: str, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    last = await log.publish(task, begin(task), done(task, state))
    door = door_to(log.url)
    for headers in ({}, {"Last-Event-ID": f"epoch1-{last}"}):
        answer = await door.ask(wire, "subscribe", task=task, headers=headers)
        error = error_of(answer)
        assert (answer.status, error["code"]) == ((200, -32004) if wire.binding == "jsonrpc" else (400, 400))
        details = error.get("details") or error["data"]
        assert [each["reason"] for each in details if "reason" in each] == ["UNSUPPORTED_OPERATION"]


@pytest.mark.row("C05")
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c05_with_a_cursor_before_the_end_the_rest_is_given(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    cursor = await log.publish(task, begin(task), *chunks(task, 1, 2))
    await log.publish(task, *chunks(task, 3, 4), done(task))
    headers = {"Last-Event-ID": f"epoch1-{cursor}"}
    async with door_to(log.url).open(wire, "subscribe", task=task, headers=headers) as stream:
        frames = await stream.rest()
    assert outlines(frames) == [
        *(f"task submitted {numbers(1, 2)}", "artifact out+ 3 ", "artifact out+ 4 ", "status completed"),
    ]


@pytest.mark.row("C06")
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c06_an_unknown_task_is_not_found(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    answer = await door_to(log.url).ask(wire, "subscribe", task=log.new_task())
    error = error_of(answer)
    assert (answer.status, error["code"]) == ((200, -32001) if wire.binding == "jsonrpc" else (404, 404))
    details = error.get("details") or error["data"]
    assert [each["reason"] for each in details if "reason" in each] == ["TASK_NOT_FOUND"]


@pytest.mark.row("C09")
@pytest.mark.parametrize("do", ["subscribe", "stream"])
async def test_c09_an_error_before_the_stream_is_plain_json(do: Any, log: Stage, door_to: DoorTo) -> None:
    answer = await door_to(log.url).ask(V1_RPC, do, task=log.new_task(), text="x")
    assert (answer.status, answer.media_type) == (200, "application/json")
    assert answer.json["error"]["code"] < 0


@pytest.mark.row("C10")
@pytest.mark.parametrize("do", ["subscribe", "stream"])
async def test_c10_v03_is_told_in_a_stream_of_one_event_without_a_name(
    do: Any, log: Stage, door_to: DoorTo
) -> None:
    async with door_to(log.url).open(V03_RPC, do, task=log.new_task(), text="x", rpc_id="q7") as stream:
        assert (stream.response.status, stream.media_type) == (200, "text/event-stream")
        (frame,) = await stream.rest()
    assert frame.event is None
    assert frame.id is None
    assert frame.json["id"] == "q7"
    assert frame.json["error"]["code"] < 0


FORMS = [
    (V1_REST, {"verb": "GET"}),
    (V1_REST, {"verb": "POST"}),
    (V03_REST, {"verb": "GET"}),
    (V03_REST, {"verb": "POST"}),
    (V1_RPC, {"prefix": "/a2a"}),
    (V03_RPC, {"prefix": "/a2a"}),
]


@pytest.mark.row("C44")
@pytest.mark.parametrize("name", ["plain-{}", "a/b:c {}", "ünï {}?x=%41"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form[0]}-{'-'.join(form[1].values())[1:]}")
async def test_c44_paths_verbs_and_encoded_ids(
    form: tuple[Wire, dict[str, str]], name: str, log: Stage, door_to: DoorTo
) -> None:
    task = name.format(log.new_task())
    await log.publish(task, begin(task))
    wire, fields = form
    for agent in ("", f"/agents/{log.name}"):
        given: dict[str, Any] = fields | {"prefix": agent + fields.get("prefix", "")}
        async with door_to(log.url).open(wire, "subscribe", task=task, **given) as stream:
            assert stream.response.status == 200
            assert outlines(await stream.take(1)) == ["task submitted"]


@pytest.mark.row("C44", "C45")
@pytest.mark.parametrize("verb", ["GET", "POST"])
async def test_c44_a_tenant_may_stand_before_the_path(verb: str, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task), tenant="acme")
    for prefix in ("", f"/agents/{log.name}"):
        given: dict[str, Any] = {"verb": verb, "tenant": "acme", "prefix": prefix}
        async with door_to(log.url).open(V1_REST, "subscribe", task=task, **given) as stream:
            assert outlines(await stream.take(1)) == ["task submitted"]


@pytest.mark.row("C44")
async def test_c44_an_event_source_can_subscribe(log: Stage, door_to: DoorTo) -> None:
    """A browser's EventSource can only GET, and sets no header but Last-Event-ID."""
    task = log.new_task()
    await log.publish(task, begin(task))
    door = door_to(log.url)
    path = f"/tasks/{task}:subscribe?A2A-Version=1.0"
    async with door._session.get(door.url + path, headers={"Accept": "text/event-stream"}) as response:
        line = await response.content.readuntil(b"\n\n")
    assert b'{"task":' in line


@pytest.mark.row("C45")
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_c45_a_tenant_sees_its_own_tasks_only(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task), tenant="acme")
    door = door_to(log.url)
    async with door.open(wire, "subscribe", task=task, tenant="acme") as stream:
        assert outlines(await stream.take(1)) == ["task submitted"]
    nobody = await door.ask(wire, "subscribe", task=log.new_task(), tenant="globex")
    for tenant in ("globex", ""):
        answer = await door.ask(wire, "subscribe", task=task, tenant=tenant)
        assert (answer.status, answer.body) == (nobody.status, nobody.body), "as if it weren't there"


@pytest.mark.row("C68")
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "at-once"])
async def test_c68_a_task_that_was_not_begun_by_a_stream(
    blocking: bool, crossed: Crossed, door_to: DoorTo
) -> None:
    stage, wire = crossed
    gate = stage.new_task()
    door = door_to(stage.url)
    setting = {"returnImmediately": not blocking} if wire.version == "1.0" else {"blocking": blocking}
    sending = asyncio.create_task(
        door.ask(
            wire, "send", text=f"chunks 2; gate {gate}; chunks 2 3", configuration=setting, message_id=gate
        )
    )
    await asyncio.to_thread(stage.agent.reached, gate)
    (task,) = [each["taskId"] for each in stage.agent.seen["messages"] if each["messageId"] == gate]
    if not blocking:
        answer = await sending
        assert task in answer.body.decode()
        if stage.capture == "adapter":
            await stage.known(task)
        async with door.open(wire, "subscribe", task=task) as stream:
            first = await stream.take(1)
            stage.agent.open(gate)
            frames = first + await stream.rest()
        assert text_after([frame.result for frame in frames]) == numbers(1, 4)
        assert outline(frames[-1].result) == "status completed"
        return
    if stage.capture == "adapter":
        # In capture by the broker, what a blocking agent does is known to nobody before it answers.
        await stage.known(task)
        async with door.open(wire, "subscribe", task=task) as stream:
            first = await stream.take(1)
            stage.agent.open(gate)
            frames = first + await stream.rest()
        assert text_after([frame.result for frame in frames]) == numbers(1, 4)
    stage.agent.open(gate)
    held = (await sending).result
    held = held.get("task", held)
    assert text_after([{"task": held}]) == numbers(1, 4)
    await stage.known(task)
    async with asyncio.timeout(10):
        while text_after(events_in(await stage.records(task))) != numbers(1, 4):
            await asyncio.sleep(0.02)
