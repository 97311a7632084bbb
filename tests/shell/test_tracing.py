"""Which spans a broker makes, and which log lines name a trace."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from brokers import TASK, FakeBackend, broker, done, status, task_record, until
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from sidecast_broker import app, tracing
from sidecast_broker.core.log import Record, Stored
from sidecast_broker.hub import Hub
from sidecast_broker.settings import Server
from sidecast_broker.tracing import TracesUnavailable, Tracing, open_tracing
from sidecast_schemas.codec import decode_event

TRACE, OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
SPAN = "00f067aa0ba902b7"
TRACED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
OTHER = {"traceparent": f"00-{OTHER_TRACE}-{SPAN}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
HOSTILE = [
    TRACED["traceparent"].upper(),
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01-more",
    f"00-{TRACE}-{SPAN}",
    "0" * 6000,
    "-",
    "é",
]


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    yield made
    made.shutdown()


@pytest.fixture
def spans(provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What every broker of the test would export."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(app, "open_tracing", lambda _settings: Tracing(provider))
    return exporter


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def delivered(spans: InMemorySpanExporter) -> list[tuple[int, int]]:
    """Give the sequence of each record delivered, and to how many."""
    found = [span.attributes or {} for span in named(spans, "sidecast deliver")]
    return [(each["sidecast.sequence"], each["sidecast.subscribers"]) for each in found]  # type: ignore[misc]


def is_below(span: ReadableSpan, trace_id: str = TRACE) -> bool:
    assert span.parent is not None
    assert span.context is not None
    assert span.context.trace_id == span.parent.trace_id == int(trace_id, 16)
    return span.parent.is_remote and span.parent.span_id == int(SPAN, 16)


async def test_a_record_is_delivered_once_for_all_its_subscribers(
    fake: FakeBackend, spans: InMemorySpanExporter
) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record())
        watches = [await running.watch() for _ in range(3)]
        a2a = await running.watch(path=f"/tasks/{TASK}/events", named="0")
        for watch in [*watches, a2a]:
            await watch.until("task.snapshot")
        sequence = await fake.publish(status("one"), headers=TRACED)
        await watches[0].until("task.status")
        await until(lambda: delivered(spans))
        assert delivered(spans) == [(sequence, 4)]
        (span,) = named(spans, "sidecast deliver")
        assert is_below(span)
        assert span.kind == SpanKind.CONSUMER
        assert span.attributes == {
            "messaging.system": "nats",
            "sidecast.task": TASK,
            "sidecast.sequence": sequence,
            "sidecast.subscribers": 4,
        }
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time < span.end_time <= time.time_ns()


async def test_each_traced_record_of_a_burst_has_its_own_span(
    fake: FakeBackend, spans: InMemorySpanExporter
) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record())
        watch = await running.watch()
        await watch.until("task.snapshot")
        first = await fake.publish(status("one"), headers=TRACED)
        await fake.publish(status("two"))
        await fake.publish(status("three"), headers=UNSAMPLED)
        last = await fake.publish(done(), headers=OTHER)
        await watch.rest()
        await until(lambda: len(delivered(spans)) == 2)
        assert delivered(spans) == [(first, 1), (last, 1)]
        assert is_below(named(spans, "sidecast deliver")[1], OTHER_TRACE)


async def test_what_nobody_was_sent_as_it_came_has_no_span(
    fake: FakeBackend, spans: InMemorySpanExporter
) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record(), status("one"), headers=TRACED)
        watch = await running.watch()
        await watch.until("task.snapshot")
        filtered = await running.watch(types="artifact")
        await filtered.until("task.snapshot")
        await watch.close()
        await running.until_metric("sidecast_streams_closed_total")
        await fake.publish(status("two"), headers=TRACED)
        late = await running.watch(**{"from": "start"})
        await late.until("task.status")
        await fake.publish(done())
        await late.rest()
        assert delivered(spans) == []


async def test_a_stream_of_several_tasks_delivers_too(fake: FakeBackend, spans: InMemorySpanExporter) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record())
        watch = await running.watch(path=f"/events?task={TASK}")
        await watch.until("task.snapshot")
        sequence = await fake.publish(done(), headers=TRACED)
        await watch.rest()
        await until(lambda: delivered(spans))
        assert delivered(spans) == [(sequence, 1)]


async def test_a_stream_that_begins_anew_takes_nothing_for_traced(
    fake: FakeBackend, spans: InMemorySpanExporter
) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record())
        watch = await running.watch()
        await watch.until("task.snapshot")
        await fake.publish(status("one"), headers=TRACED)
        await watch.until("task.status")
        await fake.create("epoch2")
        await fake.publish(task_record(), status("two"))
        await watch.until("stream.gap")
        await fake.publish(done())
        await watch.rest()
        assert len(delivered(spans)) == 1


async def test_opening_a_stream_is_a_span_of_who_asks(fake: FakeBackend, spans: InMemorySpanExporter) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record())
        before_ns = time.time_ns()
        watch = await running.watch(headers=TRACED)
        await watch.until("task.snapshot")
        await until(lambda: named(spans, "sidecast open"))
        (span,) = named(spans, "sidecast open")
        assert is_below(span)
        assert span.kind == SpanKind.SERVER
        assert span.attributes == {
            "sidecast.task": TASK,
            "sidecast.format": "events",
            "sidecast.mode": "snapshot",
        }
        assert span.start_time is not None
        assert span.end_time is not None
        assert before_ns <= span.start_time <= span.end_time <= time.time_ns()
        await watch.close()
        await running.until_metric("sidecast_streams_closed_total")
        assert len(named(spans, "sidecast open")) == 1


async def test_a_stream_that_waits_opens_when_its_task_begins(
    fake: FakeBackend, spans: InMemorySpanExporter
) -> None:
    async with broker(fake) as running:
        watch = await running.watch(headers=TRACED, wait_s=5)
        assert named(spans, "sidecast open") == []
        await fake.publish(task_record())
        await watch.until("task.snapshot")
        await until(lambda: named(spans, "sidecast open"))
        gone = await running.watch("never", headers=TRACED, wait_s=5)
        await gone.close()
        await until(lambda: len(named(spans, "sidecast open")) == 2)
        modes = [(span.attributes or {})["sidecast.mode"] for span in named(spans, "sidecast open")]
        assert modes == ["wait", "wait"]


@pytest.mark.parametrize("value", [*HOSTILE, UNSAMPLED["traceparent"]], ids=lambda value: value[:20])
@pytest.mark.usefixtures("unharmed")
async def test_what_is_no_recorded_trace_makes_no_span(
    fake: FakeBackend, spans: InMemorySpanExporter, value: str
) -> None:
    headers = {"traceparent": value}
    async with broker(fake) as running:
        await fake.publish(task_record())
        watch = await running.watch(headers=headers)
        await watch.until("task.snapshot")
        await fake.publish(status("one"), done(), headers=headers)
        await watch.rest()
        assert watch.status == 200
    assert spans.get_finished_spans() == ()


# --- log lines


async def test_the_line_of_a_stream_names_the_trace_of_its_request(fake: FakeBackend) -> None:
    with structlog.testing.capture_logs() as lines:
        async with broker(fake) as running:
            await fake.publish(task_record())
            for headers in (TRACED, UNSAMPLED, {}, {"traceparent": HOSTILE[0]}):
                watch = await running.watch(headers=headers)
                await watch.until("task.snapshot")
            shown = [each.get("trace_id") for each in running.listening.streams.describe()]
    closed = [line.get("trace_id") for line in lines if line["event"] == "stream_closed"]
    assert (
        sorted(map(str, shown))
        == sorted(map(str, closed))
        == ["4bf92f3577b34da6a3ce929d0e0e4736"] * 2 + ["None"] * 2
    )


@pytest.mark.parametrize(("headers", "trace"), [(TRACED, TRACE), ({}, None), ({"traceparent": "x"}, None)])
async def test_the_line_of_a_record_names_its_trace(
    fake: FakeBackend, headers: dict[str, str], trace: str | None
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with broker(fake) as running:
            await fake.publish(task_record())
            await fake.publish(b"no JSON", headers=headers)
            await fake.publish(done())
            await (await running.watch()).rest()
    (line,) = [line for line in lines if line["event"] == "event_skipped"]
    assert line.get("trace_id") == trace


# --- the spans themselves


def stored(sequence: int, at: str = "2026-01-01T00:00:00.123456789Z", **headers: str) -> Stored:
    return Stored(sequence, 0, at, headers or TRACED, status())


def record(sequence: int, payload: bytes | None = None) -> Record:
    return Record(sequence, "", decode_event(payload or status()))


@pytest.mark.parametrize(
    ("at", "fraction"),
    [
        ("2026-01-01T00:00:00.123456789Z", 123_456_789),
        ("2026-01-01T00:00:00.1Z", 100_000_000),
        ("2026-01-01T00:00:00Z", 0),
    ],
)
def test_a_span_begins_when_its_record_was_stored(
    provider: TracerProvider, spans: InMemorySpanExporter, at: str, fraction: int
) -> None:
    made = Tracing(provider)
    made.note(TASK, stored(1, at))
    made.written([record(1)], 1)
    (span,) = spans.get_finished_spans()
    assert span.start_time == int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 10**9 + fraction


@pytest.mark.parametrize("at", ["", "Z", "never", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00.xZ"])
def test_a_time_that_is_none_is_now(provider: TracerProvider, spans: InMemorySpanExporter, at: str) -> None:
    before_ns = time.time_ns()
    made = Tracing(provider)
    made.note(TASK, stored(1, at))
    made.written([record(1)], 1)
    (span,) = spans.get_finished_spans()
    assert span.start_time is not None
    assert before_ns <= span.start_time <= time.time_ns()


def test_a_server_whose_clock_is_ahead_makes_no_span_that_ends_before_it_begins(
    provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    made = Tracing(provider)
    made.note(TASK, stored(1, "2126-01-01T00:00:00Z"))
    made.written([record(1)], 1)
    (span,) = spans.get_finished_spans()
    assert span.start_time == span.end_time


def test_only_so_many_records_are_remembered(
    provider: TracerProvider, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "NOTED_MAX", 3)
    made = Tracing(provider)
    for sequence in (1, 2, 3, 4, 2, 5):
        made.note(TASK, stored(sequence))
    made.written([record(sequence) for sequence in range(1, 6)], 1)
    assert delivered(spans) == [(2, 1), (4, 1), (5, 1)]


def test_what_clients_never_get_has_no_span(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    made = Tracing(provider)
    made.note(TASK, stored(1))
    hidden = record(1)
    hidden.deliverable = False
    made.written([hidden], 1)
    assert spans.get_finished_spans() == ()


# --- on and off


async def test_a_collector_that_is_away_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "CLOSE_S", 0.05)
    back = threading.Event()
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(provider, "shutdown", back.wait)
    async with asyncio.timeout(5):
        await Tracing(provider).close()
    back.set()


async def test_the_end_waits_for_the_last_spans(
    provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    made = Tracing(provider)
    made.note(TASK, stored(1))
    made.written([record(1)], 1)
    await made.close()
    assert len(spans.get_finished_spans()) == 1


def test_none_is_nothing() -> None:
    assert open_tracing(Server()) is None


async def test_the_hub_of_a_broker_without_traces_is_a_plain_one(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record())
        await (await running.watch()).until("task.snapshot")
        streams = running.listening.streams
        assert {type(stream.hub) for stream in streams._share_of} == {Hub}


def test_opentelemetry_is_imported_only_where_it_is_on() -> None:
    code = (
        "import sys, sidecast_broker.app, sidecast_broker.commands.serve as s\n"
        "from sidecast_broker.settings import Server\n"
        "from sidecast_broker.tracing import open_tracing\n"
        "open_tracing(Server())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def resource_of(made: Tracing | None) -> dict[str, Any]:
    assert made is not None
    return dict(made._provider.resource.attributes)


async def test_the_service_is_named_by_opentelemetrys_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_tracing(Server(traces="otlp"))
    assert resource_of(made)["service.name"] == "sidecast"
    assert "service.version" in resource_of(made)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=7,deployment.environment.name=prod")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "planner-broker")
    other = open_tracing(Server(traces="otlp"))
    given = resource_of(other)
    assert (given["service.name"], given["service.version"]) == ("planner-broker", "7")
    assert given["deployment.environment.name"] == "prod"
    for each in (made, other):
        assert each is not None
        await each.close()


def test_a_variable_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(TracesUnavailable, match="max_queue_size"):
        open_tracing(Server(traces="otlp"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, workers: str) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError('there is none')\n")
    settings = {
        "SIDECAST_SERVER_TRACES": "otlp",
        "SIDECAST_SERVER_PORT": "0",
        "SIDECAST_SERVER_INTERNAL_PORT": "0",
        "SIDECAST_SERVER_WORKERS": workers,
    }
    run = subprocess.run(
        [sys.executable, "-m", "sidecast_broker", "serve"],
        env={**os.environ, **settings, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert "server.traces = otlp needs OpenTelemetry: pip install 'sidecast[broker,otel]'" in run.stderr
    assert "Traceback" not in run.stderr
