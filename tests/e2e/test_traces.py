"""One trace from the agent's code to the client's screen, as a collector sees it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from e2e.broker import Broker
from e2e.collector import Collector, Span
from nats_server import NatsServer, create_stream
from sse import Watch

from sidecast_adapters import Publisher

AGENT = "planner"
PROGRAM = Path(__file__).with_name("traced_agent.py")
SETTINGS = {"agent.name": AGENT, "server.traces": "otlp", "nats.verify_s": 1}
SERVER, PRODUCER, CONSUMER = 2, 4, 5
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    async with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield running


@pytest.fixture
async def broker(tmp_path: Path, server: NatsServer, collector: Collector) -> AsyncIterator[Broker]:
    del collector  # it is there before who exports to it
    await create_stream(server.url)
    running = Broker(tmp_path, [server.url], SETTINGS)
    await asyncio.to_thread(running.start)
    yield running
    await asyncio.to_thread(running.stop)


async def run_agent(server: NatsServer, broker: Broker, task: str) -> None:
    """Run the agent; it goes on from the task's begin when the stream is served as records come."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), server.url, AGENT, task),
        env={**os.environ, "OTEL_SERVICE_NAME": "agent"},
        stdin=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        while [each["served"] for each in await asyncio.to_thread(broker.streams)] != ["live"]:
            await asyncio.sleep(0.01)
        await process.communicate(b"\n")
    assert process.returncode == 0


def check_inside(span: Span, outer: Span) -> None:
    assert span.trace_id == outer.trace_id
    assert span.parent_id == outer.span_id
    assert outer.start_ns <= span.start_ns <= span.end_ns


async def test_one_trace_leads_from_the_agent_to_the_client(
    server: NatsServer, broker: Broker, collector: Collector
) -> None:
    request = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    async with Watch(f"{broker.url}/tasks/one/events?from=start&wait_s=20", request) as watch:
        await run_agent(server, broker, "one")
        frames = await watch.rest()
    sequences = [frame["seq"] for frame in frames if frame.kind.startswith("task.")]
    (work,) = await collector.until("work")
    # What there was of the task when its stream began came in a snapshot.
    delivers = await collector.until("sidecast deliver", len(sequences) - 1)
    publishes = collector.named("sidecast publish")
    assert len(publishes) >= 3
    assert sum(int(each.attributes["messaging.batch.message_count"]) for each in publishes) == 8
    by_id = {each.span_id: each for each in publishes}
    for publish in publishes:
        check_inside(publish, work)
        assert (publish.service, publish.kind) == ("agent", PRODUCER)
        assert publish.attributes["sidecast.task"] == "one"
    for deliver in delivers:
        check_inside(deliver, by_id[deliver.parent_id])
        assert (deliver.service, deliver.kind) == ("sidecast", CONSUMER)
        # NATS stored it after it was queued, and before its publisher knew.
        assert deliver.start_ns <= by_id[deliver.parent_id].end_ns
        assert deliver.attributes["messaging.system"] == "nats"
        assert (deliver.attributes["sidecast.task"], deliver.attributes["sidecast.subscribers"]) == ("one", 1)
    assert [deliver.attributes["sidecast.sequence"] for deliver in delivers] == sequences[1:]
    (opened,) = await collector.until("sidecast open")
    assert (opened.trace_id, opened.parent_id, opened.kind) == (TRACE, SPAN, SERVER)
    assert opened.attributes["sidecast.task"] == "one"
    assert {span.trace_id for span in collector.spans} == {work.trace_id, TRACE}
    (closed,) = [line for line in broker.log_lines() if line["event"] == "stream_closed"]
    assert closed["trace_id"] == TRACE


async def test_an_agent_without_opentelemetry_makes_no_spans(
    server: NatsServer, broker: Broker, collector: Collector
) -> None:
    async with Watch(f"{broker.url}/tasks/two/events?wait_s=20") as watch:
        async with Publisher(server.url, agent=AGENT) as publisher, publisher.task("two") as task:
            await task.status("working", "Reading the trades")
        await watch.rest()
    await asyncio.to_thread(broker.stop)
    assert collector.spans == []


async def test_what_is_left_is_exported_at_the_end(
    server: NatsServer, broker: Broker, collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    slow = Broker(tmp_path, [server.url], SETTINGS)
    await asyncio.to_thread(slow.start)
    async with aiohttp.ClientSession() as session:
        url = f"{slow.url}/tasks/three/events?wait_s=0.2"
        async with session.get(url, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"}) as answer:
            await answer.read()
    assert collector.spans == []
    await asyncio.to_thread(slow.stop)
    (opened,) = await collector.until("sidecast open")
    assert opened.attributes["sidecast.mode"] == "wait"


async def test_a_collector_that_is_away_disturbs_nobody(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        await create_stream(server.url)
        running = Broker(tmp_path, [server.url], SETTINGS)
        await asyncio.to_thread(running.start)
        traceparent = f"00-{TRACE}-{SPAN}-01"
        async with Watch(f"{running.url}/tasks/four/events?wait_s=20") as watch:
            async with (
                Publisher(server.url, agent=AGENT) as publisher,
                publisher.task("four", traceparent=traceparent) as task,
            ):
                await task.status("working", "Reading the trades")
            await watch.rest()
        process = running.process
        assert process is not None
        since_s = time.monotonic()
        await asyncio.to_thread(running.stop)
        assert process.returncode == 0
        assert time.monotonic() - since_s < 9
        assert all(isinstance(line, dict) for line in running.log_lines())
