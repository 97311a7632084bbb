"""Order, completeness and independence of streams: rows C14 to C16, C18, C19 and C65 of the A2A checklist."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from a2a_rig.raw import LAST_CHUNK, unchunked
from a2a_rig.stage import Stage, begin, chunks
from a2a_rig.wire import (
    V1_REST,
    WIRES,
    Door,
    Wire,
    numbers,
    outline,
    outlines,
    parse_frame,
    request,
    split,
    state_of,
    text_after,
)
from brokers import done, status
from nats_server import NatsServer, request_api

DoorTo = Callable[[str], Door]
StageOf = Callable[..., Stage]

COUNT = 300


async def watch(
    door: Door, wire: Wire, task: str, ready: asyncio.Event | None = None
) -> list[dict[str, Any]]:
    """Subscribe and give all events."""
    async with door.open(wire, "subscribe", task=task) as stream:
        first = await stream.take(1)
        if ready is not None:
            ready.set()
        return [frame.result for frame in first + await stream.rest()]


@pytest.mark.row("C14", "C19")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c14_c19_every_event_once_and_in_order(wire: Wire, log: Stage, door_to: DoorTo) -> None:
    task, ready = log.new_task(), asyncio.Event()
    await log.publish(task, begin(task))
    watching = asyncio.create_task(watch(door_to(log.url), wire, task, ready))
    await ready.wait()
    statuses = [status(str(number), task) for number in range(1, COUNT + 1)]
    mixed = [event for pair in zip(chunks(task, 1, COUNT), statuses, strict=True) for event in pair]
    await log.publish(task, *mixed, done(task))
    expected = []
    for number in range(1, COUNT + 1):
        sign = "+" if number > 1 else ""
        expected += [f"artifact out{sign} {number} ", f"status working {number}"]
    assert [outline(event) for event in await watching] == [
        *("task submitted", *expected, "status completed"),
    ]


@pytest.mark.row("C15")
async def test_c15_all_watchers_get_the_same(log: Stage, door_to: DoorTo) -> None:
    task = log.new_task()
    await log.publish(task, begin(task))
    door = door_to(log.url)
    ready = [asyncio.Event() for _ in range(5 * len(WIRES))]
    watching = [
        asyncio.create_task(watch(door, WIRES[index % len(WIRES)], task, each))
        for index, each in enumerate(ready)
    ]
    for each in ready:
        await each.wait()
    await log.publish(task, *chunks(task, 1, COUNT), done(task))
    found = await asyncio.gather(*watching)
    for offset in range(len(WIRES)):
        same = {json.dumps(events) for events in found[offset :: len(WIRES)]}
        assert len(same) == 1
        assert text_after(json.loads(same.pop())) == numbers(1, COUNT)


def stalled_socket(log: Stage, task: str) -> socket.socket:
    """Give a connection that has asked for a stream and reads nothing of it."""
    method, path, _, headers = request(V1_REST, "subscribe", task=task, verb="GET")
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.connect((log.broker.host, log.broker.port))
    lines = [f"{method} {path} HTTP/1.1", f"Host: {log.broker.host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    found.sendall("\r\n".join([*lines, "", ""]).encode())
    return found


@pytest.mark.row("C16")
async def test_c16_one_that_stalls_or_dies_disturbs_nobody(log: Stage, door_to: DoorTo) -> None:
    task, ready = log.new_task(), asyncio.Event()
    await log.publish(task, begin(task))
    stalled = [stalled_socket(log, task) for _ in range(3)]
    killed = stalled_socket(log, task)
    watching = asyncio.create_task(watch(door_to(log.url), V1_REST, task, ready))
    await ready.wait()
    killed.close()
    began = asyncio.get_running_loop().time()
    await log.publish(task, *chunks(task, 1, 100, pad=20_000), done(task))
    events = await watching
    took = asyncio.get_running_loop().time() - began
    for each in stalled:
        each.close()
    assert len(events) == 102
    assert [outline(event).split()[1] for event in events[1:-1]] == ["out", *["out+"] * 99]
    assert took < 5, "nobody waited for them"


@pytest.mark.row("C18")
async def test_c18_one_too_slow_is_never_given_a_hole_or_a_clean_end(
    own_stage: StageOf, nats_of_a2a: NatsServer
) -> None:
    log = own_stage(log__task_bytes_max=4096, stream__buffer_bytes_max=8192)
    task, last = log.new_task(), 200
    await log.publish(task, begin(task))
    client = await asyncio.to_thread(stalled_socket, log, task)
    await log.publish(task, *chunks(task, 1, last, pad=30_000))
    # What it hasn't been sent is gone for good before it reads on.
    await request_api(nats_of_a2a.url, "STREAM.PURGE.SIDECAST", {"filter": log.subject(task), "keep": 1})
    await log.publish(task, done(task))
    reader, writer = await asyncio.open_connection(sock=client)
    received = b""
    broken = False
    try:
        async with asyncio.timeout(15):
            while not received.endswith(LAST_CHUNK) and (data := await reader.read(65536)):
                received += data
    except ConnectionError:
        broken = True
    writer.close()
    body = unchunked(received)
    clean = received.endswith(LAST_CHUNK)
    blocks = [block for block in body.split(b"\n\n")[:-1] if block.strip(b":\n")]
    frames = [parse_frame(block) for block in blocks]
    errors = [frame for frame in frames if frame.event == "error"]
    events = [frame.result for frame in frames if frame.event != "error"]
    # A fresh Task may stand in for what is gone; between two of them nothing is missing.
    found = 0
    for event in events:
        words = outline(event).split()
        if words[0] == "artifact":
            assert int(words[2]) == found + 1, "a hole"
            found += 1
        elif words[0] == "task":
            found = sum(word.isdigit() for word in words)
    kind, held = split(events[-1])
    whole = kind in ("task", "status") and state_of(held["status"]) == "completed" and found == last
    assert whole or errors or broken or not clean, "a clean end looks like completion"
    assert not whole or clean


@pytest.mark.row("C65")
async def test_c65_what_is_published_twice_is_delivered_once(log: Stage, door_to: DoorTo) -> None:
    task, ready = log.new_task(), asyncio.Event()
    await log.publish(task, begin(task))
    watching = asyncio.create_task(watch(door_to(log.url), V1_REST, task, ready))
    await ready.wait()
    first, second = chunks(task, 1, 2)
    for _ in range(3):
        await log.publish(task, first, headers={"Nats-Msg-Id": f"{task}-1"})
    await log.publish(task, second, headers={"Nats-Msg-Id": f"{task}-2"})
    await log.publish(task, done(task))
    assert [outline(event) for event in await watching][1:] == [
        *("artifact out 1 ", "artifact out+ 2 ", "status completed"),
    ]


@pytest.mark.row("C70")
async def test_c70_draining_is_told_from_completion(own_stage: StageOf, door_to: DoorTo) -> None:
    log = own_stage()
    task = log.new_task()
    await log.publish(task, begin(task), *chunks(task, 1, 2))
    door = door_to(log.url)
    streams = []
    async with asyncio.TaskGroup() as group:

        async def until_the_end(wire: Wire) -> None:
            async with door.open(wire, "subscribe", task=task) as stream:
                cursor = (await stream.take(1))[0].id
                opened.release()
                try:
                    rest = await stream.rest()
                except aiohttp.ClientPayloadError:
                    rest = []
                else:
                    assert rest, f"{wire}: a clean end looks like completion"
                    assert '"code":' in (rest[-1].data or "")
                    assert rest[-1].event == ("error" if wire.version == "1.0" else None)
                    assert rest[-1].id is None
                streams.append((wire, cursor, [each for each in rest if each.id is not None]))

        opened = asyncio.Semaphore(0)
        for wire in WIRES:
            group.create_task(until_the_end(wire))
        for _ in WIRES:
            await opened.acquire()
        await asyncio.to_thread(log.broker.stop)
    assert len(streams) == len(WIRES)
    await log.publish(task, *chunks(task, 3, 4), done(task))
    await asyncio.to_thread(log.broker.start)
    for wire, cursor, seen in streams:
        assert seen == []
        async with door.open(wire, "subscribe", task=task, headers={"Last-Event-ID": cursor or ""}) as stream:
            assert outlines(await stream.rest())[-3:] == [
                *("artifact out+ 3 ", "artifact out+ 4 ", "status completed"),
            ]
