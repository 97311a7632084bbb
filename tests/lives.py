"""Brokers that check credentials with an end, and streams of all formats that such credentials open.

Must not know what is tested.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
from a2a_rig.wire import WIRES, Door, Stream, Wire
from askers import EVERYTHING, Askers, bearer
from brokers import TASK, OwnBroker
from sse import Watch, kinds

from sidecast_broker.core.auth.principal import Principal

JSON = {"Content-Type": "application/json"}
AS_JSON = {"Accept": "application/json"}
WITHIN_S = 5.0
PATH = f"/tasks/{TASK}/events"

ROOT = Principal("root", "jwt", grants=(EVERYTHING,), rights=frozenset({"admin"}))
ALICE = Principal("alice", "jwt", grants=(EVERYTHING,), credential_id="t-1")
BOB = Principal("bob", "jwt", grants=(EVERYTHING,), credential_id="t-2")

CHECKED: dict[str, Any] = {
    "auth__required": "true",
    "auth__refusal_floor_ms": 0,
    "authenticator": Askers(ROOT, ALICE, BOB),
}


def ending(in_s: float) -> dict[str, Any]:
    """Give a broker's settings with a carol whose credential ends soon."""
    carol = Principal("carol", "jwt", grants=(EVERYTHING,), ends_at_s=time.time() + in_s)
    return CHECKED | {"authenticator": Askers(ROOT, ALICE, BOB, carol)}


async def revoke(running: OwnBroker, who: str = "root", **body: str) -> None:
    """Revoke something, as somebody who may."""
    body_bytes = json.dumps(body).encode()
    status, answer = await running.internal("/revoke", "POST", body_bytes, bearer(who) | JSON)
    assert status == 200, answer


@asynccontextmanager
async def opened(running: OwnBroker, who: str) -> AsyncIterator[tuple[Watch, dict[Wire, Stream]]]:
    """Open a stream of each of the five formats, and take its first frames."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=bearer(who)))
        door = Door(session, running.url)
        browser = await running.watch(headers=bearer(who))
        assert kinds(await browser.take(2)) == ["stream.open", "task.snapshot"]
        streams = {}
        for wire in WIRES:
            streams[wire] = await stack.enter_async_context(door.open(wire, "subscribe", task=TASK))
            await streams[wire].take(1)
        yield browser, streams


async def assert_broken_off(wire: Wire, stream: Stream, status: int, grpc: str) -> None:
    """Check that a stream ends by an error, so that nobody takes it for the end of the task."""
    (error,) = await stream.rest()
    assert error.id is None
    assert error.event == ("error" if wire.version == "1.0" else None)
    said = error.json.get("error", error.json)
    assert said["code"] == (status if wire == ("1.0", "rest") else -32000)
    assert said.get("status", grpc) == grpc
