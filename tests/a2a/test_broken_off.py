"""What a client is told where its stream can't go on, or an event not be said: rows C18 and C50."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from a2a_rig.awkward import AwkwardAgent, saying
from a2a_rig.operations import Asked
from a2a_rig.raw import Connection
from a2a_rig.stage import Stage, begin, chunks
from a2a_rig.wire import V03_REST, V03_RPC, WIRES, Door, Frame, Wire, outline, outlines, request
from brokers import done, encode, status
from nats_server import NatsServer, create_stream

DoorTo = Callable[[str], Door]

COUNT = 200


@pytest.mark.row("C18", "C50")
async def test_c50_what_can_not_be_read_again_is_an_error_and_no_end(tmp_path: Path) -> None:
    """Clients fall behind what the broker holds in memory, and NATS, which has the rest, is away."""
    settings = {"log__task_bytes_max": 4096, "stream__buffer_bytes_max": 8192, "nats__request_s": 1}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer(tmp_path / "nats"))
        await create_stream(server.url)
        log = stack.enter_context(Stage(tmp_path, server, **settings))
        task = log.new_task()
        await log.publish(task, begin(task))
        asked = [request(wire, "subscribe", task=task) for wire in WIRES]
        clients = [await stack.enter_async_context(Connection(log.url, each, slow=True)) for each in asked]
        for client in clients:
            await client.until(b"\n\n")
        last = await log.publish(task, *chunks(task, 1, COUNT, pad=15_000))
        async with Connection(log.url, asked[0]) as another:
            # Its Task stands at the last one: the broker has read them all.
            await another.until(f"epoch1-{last}".encode())
        await asyncio.to_thread(server.kill9)
        for client in clients:
            await client.rest()
        await asyncio.to_thread(server.start)
        await log.publish(task, done(task))
        for wire, each, client in zip(WIRES, asked, clients, strict=True):
            first, *frames, end = client.frames
            assert outline(first.result) == "task submitted"
            assert pieces_in(frames) == list(range(1, len(frames) + 1))
            assert 0 < len(frames) < COUNT, "it had not been sent all"
            assert '"code":' in (end.data or "")
            assert (end.event, end.id) == ("error" if wire.version == "1.0" else None, None)
            _task, *rest, ended = await resumed(log.url, each, frames[-1].id)
            assert pieces_in(rest) == list(range(len(frames) + 1, COUNT + 1)), "nothing is lost"
            assert outline(ended.result) == "status completed"


async def resumed(url: str, asked: Asked, cursor: str | None) -> list[Frame]:
    """Come again until the broker has reached NATS, and read to the end."""
    async with asyncio.timeout(15):
        while True:
            async with Connection(url, asked, cursor) as again:
                await again.until(b"\r\n\r\n")
                if not again.received.startswith(b"HTTP/1.1 503 "):
                    await again.rest()
                    return again.frames
            await asyncio.sleep(0.05)


def pieces_in(frames: list[Frame]) -> list[int]:
    """Give the numbers of the pieces."""
    return [int(outline(frame.result).split()[2]) for frame in frames]


def unspeakable(task: str) -> bytes:
    """Give an event that v0.3 has no words for: data that is no object goes into metadata, which are none."""
    held = {"artifactId": "a", "parts": [{"data": 1, "metadata": 5}]}
    return encode({"artifactUpdate": {"taskId": task, "contextId": "context-1", "artifact": held}})


@pytest.mark.row("C50")
@pytest.mark.parametrize("wire", [V03_RPC, V03_REST], ids=str)
async def test_c50_what_v03_can_not_say_is_an_error_in_its_place(
    wire: Wire, log: Stage, door_to: DoorTo
) -> None:
    task = log.new_task()
    door = door_to(log.url)
    await log.publish(task, begin(task))
    async with door.open(wire, "subscribe", task=task) as stream:
        await stream.take(1)
        await log.publish(task, unspeakable(task), status("on", task))
        error, after = await stream.take(2)
        assert outlines([after]) == ["status working on"]
        answer = await door.ask(wire, "subscribe", task=task)
    assert error.json.get("error", error.json)["code"] == -32603
    assert (error.event, error.id) == (None, None)
    assert b"-32603" in answer.body, "nor can the Task be said that holds it"
    assert answer.status == (500 if wire == V03_REST else 200)


@pytest.mark.row("C50")
@pytest.mark.parametrize("wire", [V03_RPC, V03_REST], ids=str)
async def test_c50_a_message_v03_can_not_say_is_an_error(
    wire: Wire, own_stage: Callable[..., Stage], door_to: DoorTo
) -> None:
    async with AwkwardAgent() as agent:
        held = {"messageId": "r", "role": "ROLE_AGENT", "parts": [{"data": 1, "metadata": 5}]}
        agent.answer = saying({"message": held})
        door = door_to(own_stage(agent__url=agent.url, agent__capture="proxy").url)
        answer = await door.ask(wire, "stream", text="x")
    assert b"-32603" in answer.body
    assert answer.status == (500 if wire == V03_REST else 200)
