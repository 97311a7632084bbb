"""The spans of publishing: one for what a batch has of one parent, from queueing to acknowledgement."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sidecast_adapters.buffer import NOTHING, Taken
from sidecast_adapters.flight import Flight
from sidecast_adapters.payload import encode
from sidecast_adapters.record import Rank, Record
from sidecast_adapters.trace import checked_traceparent, current_traceparent, queued
from sidecast_schemas import headers
from sidecast_schemas.trace import parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ONE, OTHER = f"00-{TRACE}-00f067aa0ba902b7-01", f"00-{TRACE}-00f067aa0ba902b8-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"
LIMIT = 1000


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the agent's own SDK would export."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def chunk(traceparent: str = ONE, text: str = "text") -> Record:
    update = {"artifact": {"artifactId": "a", "parts": [{"text": text}]}, "append": True}
    payload = encode({"artifactUpdate": update})
    return queued(
        Record("artifactUpdate", payload, Rank.LOOSE, "", "a", append=True, traceparent=traceparent)
    )


def message(traceparent: str = ONE, text: str = "text") -> Record:
    payload = encode({"message": {"parts": [{"text": text}]}})
    return queued(Record("message", payload, Rank.FIRM, traceparent=traceparent))


def loaded(*records: Record, limit: int = LIMIT) -> Flight:
    flight = Flight("task-1", "context-1", "producer", iter(range(1, 1000)).__next__, {})
    flight.load([Taken(record) for record in records], NOTHING, has_task=True, limit=limit)
    return flight


def sent(flight: Flight) -> list[str]:
    """Give the header of each message that would be sent at this moment."""
    outgoing = flight.messages(len(flight.records), 0)
    return [message.headers.get(headers.TRACEPARENT, "") for message in outgoing]


def parent_of(span: ReadableSpan) -> str:
    assert span.parent is not None
    return f"{span.parent.span_id:016x}"


def own(span: ReadableSpan) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def test_a_batch_has_a_span_for_each_parent(spans: InMemorySpanExporter) -> None:
    before_ns = time.time_ns()
    records = [chunk(ONE), chunk(OTHER), chunk(ONE), chunk("")]
    loading_ns = time.time_ns()
    flight = loaded(*records)
    carried = sent(flight)
    assert spans.get_finished_spans() == ()
    flight.landed(4)
    first, second = sorted(spans.get_finished_spans(), key=parent_of)
    assert carried == [own(first), own(second), own(first), ""]
    assert [parent_of(first), parent_of(second)] == [ONE[36:52], OTHER[36:52]]
    for span, count in ((first, 2), (second, 1)):
        assert (span.name, span.kind) == ("sidecast publish", trace.SpanKind.PRODUCER)
        assert f"{span.context.trace_id:032x}" == TRACE
        assert span.attributes == {
            "messaging.system": "nats",
            "messaging.batch.message_count": count,
            "sidecast.task": "task-1",
        }
        assert span.start_time is not None
        assert span.end_time is not None
        assert before_ns <= span.start_time <= loading_ns <= span.end_time
        assert span.status.is_unset


def test_however_often_it_is_sent_it_is_one_span(spans: InMemorySpanExporter) -> None:
    flight = loaded(chunk(), chunk(), chunk())
    carried = sent(flight)
    assert sent(flight) == carried
    flight.rename()
    assert sent(flight) == carried
    flight.landed(1)
    assert spans.get_finished_spans() == ()
    assert sent(flight) == carried[1:]
    flight.landed(2)
    (span,) = spans.get_finished_spans()
    assert set(carried) == {own(span)}


def test_what_is_cut_later_stays_in_its_span(spans: InMemorySpanExporter) -> None:
    flight = loaded(chunk(text="x" * 600))
    carried = sent(flight)
    assert flight.refit(400) == []
    assert len(flight.records) > 1
    assert set(sent(flight)) == set(carried)
    flight.landed(len(flight.records))
    (span,) = spans.get_finished_spans()
    assert {own(span)} == set(carried)


def test_what_fits_no_more_ends_as_failed(spans: InMemorySpanExporter) -> None:
    flight = loaded(message(text="x" * 600))
    assert len(flight.refit(100)) == 1
    (span,) = spans.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "refused")


def test_what_is_refused_or_given_up_ends_as_failed(spans: InMemorySpanExporter) -> None:
    flight = loaded(message(ONE), message(OTHER))
    flight.skip()
    flight.give_up("fenced")
    said = [(parent_of(span), span.status.description) for span in spans.get_finished_spans()]
    assert said == [(ONE[36:52], "refused"), (OTHER[36:52], "fenced")]


def test_marks_of_what_was_lost_have_no_trace(spans: InMemorySpanExporter) -> None:
    flight = loaded(chunk())
    flight.begin_again(reset=True)
    mark, task, record = sorted(sent(flight))
    assert (mark, task) == ("", "")
    flight.landed(3)
    (span,) = spans.get_finished_spans()
    assert record == own(span)


@pytest.mark.parametrize("value", [UNSAMPLED, f"00-{'0' * 32}-{'0' * 16}-01"])
def test_who_records_no_trace_gets_no_span_and_the_same_header(
    spans: InMemorySpanExporter, value: str
) -> None:
    flight = loaded(chunk(value))
    assert sent(flight) == [value]
    flight.landed(1)
    assert spans.get_finished_spans() == ()


def test_without_an_sdk_the_header_is_the_callers() -> None:
    flight = loaded(chunk())  # the API alone makes spans that nobody records
    assert sent(flight) == [ONE]
    flight.landed(1)


def test_the_current_span_is_the_parent(spans: InMemorySpanExporter) -> None:
    assert current_traceparent() == ""
    with trace.get_tracer("agent").start_as_current_span("work") as work:
        flight = loaded(chunk(current_traceparent()))
    flight.landed(1)
    (published,) = [span for span in spans.get_finished_spans() if span.name == "sidecast publish"]
    assert parent_of(published) == f"{work.get_span_context().span_id:016x}"
    assert parse_traceparent(sent(loaded(chunk()))[0]) is not None


def test_a_traceparent_that_is_none_is_the_callers_mistake() -> None:
    assert checked_traceparent(ONE) == ONE
    with pytest.raises(ValueError, match="not a W3C traceparent"):
        checked_traceparent(ONE.upper())


def test_an_agent_without_opentelemetry_gets_none() -> None:
    code = f"""
import sys
from sidecast_adapters.buffer import NOTHING, Taken
from sidecast_adapters.flight import Flight
from sidecast_adapters.record import Rank, Record
from sidecast_adapters.trace import current_traceparent, queued
record = Record("message", b'{{"message":{{}}}}', Rank.FIRM, traceparent={ONE!r})
assert queued(record) is record
assert current_traceparent() == ""
flight = Flight("t", "c", "p", iter(range(9)).__next__, {{}})
flight.load([Taken(record)], NOTHING, has_task=True, limit=1000)
(message,) = flight.messages(1, 0)
assert message.headers["traceparent"] == {ONE!r}
flight.landed(1)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
