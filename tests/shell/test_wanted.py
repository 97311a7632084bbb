"""What a request's parameters may say of its stream, and what its `Accept` header does."""

from __future__ import annotations

import pytest
from brokers import TASK, FakeBackend, broker, done, task_record
from shell.test_routes import EVENT_STREAM
from sse import kinds


@pytest.mark.parametrize(
    "query",
    [
        "types=nonsense",
        "types=status,nonsense",
        "types=task.task.status",
        "types=Status",
        "from=end",
        "from=",
        "from=Start",
        "named=2",
        "named=",
        "named=yes",
        "heartbeat=no",
        "heartbeat=",
        "refusal=503",
    ],
)
async def test_a_parameter_that_means_nothing_is_refused(fake: FakeBackend, query: str) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        status_code, body = await running.get(f"/tasks/{TASK}/events?{query}", EVENT_STREAM)
        assert (status_code, body["error"]["code"]) == (400, "bad-request")
        assert query.partition("=")[0] in body["error"]["message"]


async def test_a_parameter_of_somebody_else_is_ignored(fake: FakeBackend) -> None:
    await fake.publish(task_record(), done())
    async with broker(fake) as running:
        stream = await running.watch(utm_source="x", _="1")
        assert kinds(await stream.rest()) == ["stream.open", "task.snapshot", "stream.end"]


@pytest.mark.parametrize(
    ("accept", "json_wanted"),
    [
        ("application/json", True),
        ("application/json;q=0.9", True),
        ("Application/JSON", True),
        ("application/json, Text/Event-Stream", False),
        ("application/json, text/event-stream", False),
        ("text/event-stream", False),
        ("*/*", False),
        ("", False),
    ],
)
async def test_an_event_stream_is_what_most_get(fake: FakeBackend, accept: str, json_wanted: bool) -> None:
    await fake.publish(task_record(), done())
    async with broker(fake) as running:
        stream = await running.watch(headers={"Accept": accept})
        assert stream.headers["Content-Type"].startswith(
            "application/json" if json_wanted else "text/event-stream"
        )
