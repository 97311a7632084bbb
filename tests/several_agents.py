"""A broker of three agents, and the paths by which their tasks are asked for.

Must not know what is tested.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from access_rig import RecordingBackend
from brokers import (
    OwnBroker,
    broker,
    done,
    status,
    task_record,
)

from sidecast_schemas.subjects import TaskKey, events_subject

V1 = {"A2A-Version": "1.0"}
HOSTILE = "te/am ..%2f ü"
"""A name whose path is `/agents/te%2Fam%20..%252f%20%C3%BC`."""
HOSTILE_SEGMENT = "te%2Fam%20..%252f%20%C3%BC"
FOREIGN = (
    "/agents/other",
    "/agents/AGENT",
    "/agents/agent%20",
    "/agents/b%00",
    "/agents/%62%2f",
    "/agents/c.",
)
"""Prefixes of agents that aren't served."""

PATHS = {
    "events": "/tasks/{}/events",
    "messages": "/tasks/{}/messages/stream",
    "stream": "/stream/tasks/{}",
    "api": "/api/stream/{}",
    "query": "/a2a/stream?taskId={}",
    "listed": "/events?task={}",
}


@asynccontextmanager
async def several(
    backend: RecordingBackend, agents: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[OwnBroker]:
    """Run a broker of `agent`, `b` and one with a name that needs escapes."""
    tables = {"b": {}, HOSTILE: {"tenant": "acme"}} if agents is None else agents
    async with broker(backend, agents=json.dumps(tables), **changes) as running:
        yield running


async def stock(backend: RecordingBackend, agent: str, task: str, text: str, tenant: str = "") -> None:
    subject = events_subject(TaskKey(tenant, agent, task))
    for payload in (task_record(task), status(text, task), done(task)):
        await backend.publish_on(subject, payload, {"Sidecast-Owner": "alice"})


def texts(frames: list[Any]) -> str:
    return " ".join(json.dumps(frame.json) for frame in frames)
