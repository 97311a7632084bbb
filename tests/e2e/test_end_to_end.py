"""From the agent's code to the client's screen: adapter, JetStream, a broker process, a real HTTP client."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from a2a.helpers.proto_helpers import new_task
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    Message,
    Part,
    Role,
    SendMessageRequest,
    TaskState,
)
from e2e.broker import Broker
from e2e.check import Item, Watched, check, label, labels_in
from e2e.proxy import Proxy
from nats_server import NatsServer, create_stream
from sse import EndOfStream, Frame, Watch, data_frames, kinds

from sidecast_adapters import Publisher
from sidecast_adapters.a2a import publishing

AGENT = "planner"
VERIFY_S = 1.0
SETTINGS = {"agent.name": AGENT, "nats.verify_s": VERIFY_S, "stream.retry_ms": 20}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
def broker(tmp_path: Path, server: NatsServer) -> Iterator[Broker]:
    with Broker(tmp_path, [server.url], SETTINGS) as running:
        yield running


def text_of(frame: Frame) -> str:
    return str(frame.json.get("text", ""))


async def test_what_the_agent_says_is_what_the_client_sees(server: NatsServer, broker: Broker) -> None:
    async with (
        Publisher(server.url, agent=AGENT) as publisher,
        Watch(f"{broker.url}/tasks/one/events?from=start&wait_s=10") as watch,
    ):
        async with publisher.task("one", context_id="talk") as task:
            await task.status("working", "Reading the trades")
            await task.progress(0.5, "chunk 1 of 2")
            async with task.artifact("report.md", media_type="text/markdown") as report:
                await report.write("# Findings\n")
                await report.write("None.\n")
        frames = await watch.rest()
        followed = data_frames(frames)
        assert kinds(frames) == [
            *("stream.open", "task.snapshot", "task.status", "task.progress"),
            *("task.artifact", "task.artifact", "task.artifact", "task.status", "stream.end"),
        ]
        assert [text_of(frame) for frame in followed[1:5]] == [
            *("Reading the trades", "chunk 1 of 2", "# Findings\n", "None.\n")
        ]
        assert {frame["contextId"] for frame in followed} == {"talk"}
        assert frames[-1]["state"] == "completed"

        async with Watch(f"{broker.url}/tasks/one/events") as late:
            late_frames = await late.rest()
        assert kinds(late_frames) == ["stream.open", "task.snapshot", "stream.end"]
        artifact = late_frames[1]["task"]["artifacts"][0]
        assert "".join(part["text"] for part in artifact["parts"]) == "# Findings\nNone.\n"

        # From any event on, a reconnect gives exactly the rest, and nothing after the end.
        for index, frame in enumerate(followed):
            headers = {"Last-Event-ID": frame.last_id}
            async with Watch(f"{broker.url}/tasks/one/events", headers) as again:
                if frame is followed[-1]:
                    assert again.status == 204
                else:
                    assert data_frames(await again.rest()) == followed[index + 1 :]


class Reader(AgentExecutor):
    """Works on a message in three steps."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        state = TaskState.TASK_STATE_SUBMITTED
        await event_queue.enqueue_event(new_task(context.task_id, context.context_id, state))
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        for index, word in enumerate(context.get_user_input().split()):
            await updater.add_artifact([Part(text=word)], artifact_id="words", append=index > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


async def test_an_a2a_agent_is_watched_with_one_line(server: NatsServer, broker: Broker) -> None:
    async with Publisher(server.url, agent=AGENT) as publisher:
        handler = DefaultRequestHandler(
            agent_executor=publishing(Reader(), publisher),
            task_store=InMemoryTaskStore(),
            agent_card=AgentCard(name="reader", capabilities=AgentCapabilities(streaming=True)),
        )
        message = Message(message_id="m1", role=Role.ROLE_USER, parts=[Part(text="all of it")])
        answer = await handler.on_message_send(SendMessageRequest(message=message), ServerCallContext())
        assert await publisher.flush(5)
        await handler.aclose()
        async with Watch(f"{broker.url}/tasks/{answer.id}/events?from=start") as watch:
            frames = await watch.rest()
    assert kinds(frames)[-2:] == ["task.status", "stream.end"]
    assert [text_of(frame) for frame in frames if frame.kind == "task.artifact"] == ["all", "of", "it"]
    assert frames[-1]["state"] == "completed"


async def watched(broker: Broker, task: str, done: asyncio.Event) -> Watched:
    """Follow a task from its start until its end; say when the stream has opened."""
    items = []
    async with Watch(f"{broker.url}/tasks/{task}/events?from=start&wait_s=10") as watch:
        done.set()
        while True:
            try:
                frame = await watch.next(20)
            except EndOfStream:
                break
            kind = frame.kind
            if kind == "task.snapshot":
                items.append(Item("snapshot", frame.id or "", labels_in(json.dumps(frame["task"]))))
            elif kind.startswith("task."):
                items.append(Item("event", frame.id or "", labels_in(text_of(frame))))
            elif kind == "stream.end":
                items.append(Item("end"))
    return Watched("client", task, "start", items)


async def test_the_stale_of_two_publishers_stops_and_says_so(
    server: NatsServer, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    opened = asyncio.Event()
    watching = asyncio.create_task(watched(broker, "one", opened))
    await opened.wait()
    async with Publisher(server.url, agent=AGENT) as old, Publisher(server.url, agent=AGENT) as new:
        stale = old.task("one")
        stale.open()
        stale.announce()
        for number in range(1, 51):
            await stale.status("working", label("one", number))
        assert await old.flush(10)
        async with new.task("one") as successor:
            for number in range(51, 101):
                await successor.status("working", label("one", number))
            assert await new.flush(10)
            with caplog.at_level(logging.ERROR, "sidecast_adapters"):
                for number in range(901, 911):
                    await stale.status("working", label("one", number))
                assert await old.flush(10)
            assert stale.fenced
            assert old.counts.fenced_tasks == 1
            assert old.counts.dropped_events == 10
            assert any("stale" in record.getMessage() for record in caplog.records)
            await stale.status("completed", label("one", 999))
            await successor.status("completed", label("one", 101))
        assert new.counts.dropped_events == 0
        stale.close()
    assert check({"one": 101}, [await watching]) == []


@pytest.mark.row("C65")
async def test_of_two_publishers_at_once_one_wins_and_order_holds(server: NatsServer, broker: Broker) -> None:
    opened = asyncio.Event()
    watching = asyncio.create_task(watched(broker, "one", opened))
    await opened.wait()
    async with Publisher(server.url, agent=AGENT) as left, Publisher(server.url, agent=AGENT) as right:
        tasks = [(publisher, publisher.task("one")) for publisher in (left, right)]
        for name, (_publisher, task) in zip(("left", "right"), tasks, strict=True):
            task.open()
            task.announce()
            for number in range(1, 201):
                await task.status("working", label(name, number))
        await asyncio.gather(left.flush(10), right.flush(10))
        [winner] = [task for _publisher, task in tasks if not task.fenced]
        await winner.status("completed", "over")
        for _publisher, task in tasks:
            task.close()
    record = await watching
    # What each got stored is the beginning of what it said, in order; of the winner's nothing is missing.
    given = [item.labels[0] for item in record.items if item.kind == "event" and item.labels]
    counts = {}
    for name in ("left", "right"):
        numbers = [number for who, number in given if who == name]
        assert numbers == list(range(1, len(numbers) + 1))
        counts[name] = len(numbers)
    assert max(counts.values()) == 200
    ids = [int(item.id.rpartition("-")[2]) for item in record.items if item.id]
    assert ids == sorted(set(ids))


async def test_a_lost_last_event_is_found_within_twice_verify_s(tmp_path: Path, server: NatsServer) -> None:
    def is_terminal(subject: str, data: bytes) -> bool:
        return subject.startswith("sidecast.v1.live.") and b"TASK_STATE_COMPLETED" in data

    await create_stream(server.url)
    # Long beside what a busy machine adds.
    verify_s = 3 * VERIFY_S
    settings = SETTINGS | {"nats.verify_s": verify_s}
    async with Proxy(server.url, is_terminal) as proxy:
        with await asyncio.to_thread(Broker(tmp_path, [proxy.url], settings).start) as broker:
            opened = asyncio.Event()
            watching = asyncio.create_task(watched(broker, "one", opened))
            await opened.wait()
            async with Publisher(server.url, agent=AGENT) as publisher, publisher.task("one") as task:
                await task.status("working", label("one", 1))
                await task.status("completed", label("one", 2))
                assert await publisher.flush(5)
                stored_s = time.monotonic()
            record = await watching
            took_s = time.monotonic() - stored_s
            metrics: dict[str, Any] = await asyncio.to_thread(broker.metrics)
            await asyncio.to_thread(broker.stop)
    assert proxy.lost == 1
    assert check({"one": 2}, [record]) == []
    assert took_s < 2 * verify_s
    assert metrics["sidecast_tail_repairs_total{positioning}"] == 1
