"""Real agents behind a broker that checks credentials: whose the tasks are that its clients begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from a2a_rig.processes import Agent, Generation
from a2a_rig.wire import WIRES, Door, Wire, outline, task_of
from access_rig import PRINCIPALS
from askers import Askers, bearer
from brokers import RealBackend, broker
from nats_server import read_records

SETUPS: list[Any] = [("v1", "adapter"), ("v1", "proxy"), ("v03", "adapter"), ("v03", "proxy")]


@pytest.mark.row("C07")
@pytest.mark.parametrize(("generation", "capture"), SETUPS)
async def test_who_begins_a_task_owns_it(
    real: RealBackend,
    tmp_path: Path,
    door_to: Callable[[str], Door],
    generation: Generation,
    capture: str,
) -> None:
    options = ("--agent", "agent", *(("--compat",) if generation == "v1" else ()))
    publishes = real.server.url if capture == "adapter" else ""
    with Agent(tmp_path, generation, nats_url=publishes, options=options) as agent:
        settings: dict[str, Any] = {
            "auth__required": "true",
            "auth__refusal_floor_ms": 20,
            "agent__url": agent.url,
            "agent__capture": capture,
        }
        async with broker(real, authenticator=Askers(*PRINCIPALS), **settings) as running:
            door = door_to(running.url)
            for wire in WIRES:
                await _begun(door, wire, real)


async def _begun(door: Door, wire: Wire, real: RealBackend) -> None:
    alice, bob = bearer("alice"), bearer("bob")
    async with door.open(wire, "stream", text="chunks 2; ask more", headers=alice) as stream:
        frames = await stream.rest()
    assert outline(frames[-1].result).startswith("status input-required")
    task = task_of(frames[0].result)
    records = await read_records(real.server.url, f"sidecast.v1.events._.agent.{task}")
    assert {headers.get("Sidecast-Owner") for headers, _payload in records} == {"alice"}

    async with door.open(wire, "subscribe", task=task, headers=alice) as stream:
        assert outline((await stream.take(1))[0].result).startswith("task input-required")
    missing = "x" * len(task)
    for do in ("subscribe", "get", "cancel", "send", "stream"):
        fields = {"text": "done", "message_id": "m"} if do in ("send", "stream") else {}
        answers = [await door.ask(wire, do, task=each, headers=bob, **fields) for each in (task, missing)]
        assert answers[0].status == answers[1].status
        assert answers[0].body == answers[1].body

    async with door.open(wire, "stream", task=task, text="chunks 1; done", headers=alice) as stream:
        assert outline((await stream.rest())[-1].result) == "status completed"
    answer = await door.ask(wire, "send", text="chunks 1; done", headers=alice)
    assert answer.status == 200
    own = await door.ask(wire, "get", task=task, headers=alice)
    assert own.status == 200
    assert b"error" not in own.body
