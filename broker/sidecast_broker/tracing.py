"""Traces: the spans of records delivered and of streams opened, where they are switched on.

Must not know how records are delivered. OpenTelemetry is imported by `open_tracing` only, and by that only
where traces are switched on; trace ids stand in log lines without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sidecast_broker.core.log import Record, Stored
from sidecast_broker.settings import Server
from sidecast_schemas import headers as names
from sidecast_schemas.trace import TraceContext, parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

NOTED_MAX = 8192
"""Traced records remembered until they are delivered, some 4 MB: those of a burst, and those that wait for
their place on a stream of several tasks. Of more the oldest get no span."""
CLOSE_S = 2.0
"""How long the end of the broker waits for a collector to take the last spans."""


class TracesUnavailable(RuntimeError):  # noqa: N818 - named as the message reads
    """Traces are switched on and can't be made."""


class Asked(NamedTuple):
    """The trace that a request is part of.

    Attributes:
        context: of who asks.
        arrived_ns: when the request had come, in ns since 1970.
    """

    context: TraceContext
    arrived_ns: int


class Opening(Protocol):
    """A span that is under way."""

    def end(self) -> None:
        """Know that what it is of is done."""


class _Noted(NamedTuple):
    task: str
    at: str
    context: TraceContext


def in_log(context: TraceContext | None) -> dict[str, str]:
    """Give the fields of a log line about something that is part of a trace, or of none."""
    return {} if context is None else {"trace_id": context.trace_id}


def trace_of(stored: Stored) -> TraceContext | None:
    """Give the trace that a record is part of; None: it is part of none, or its header says nothing."""
    value = stored.headers.get(names.TRACEPARENT)
    return None if value is None else parse_traceparent(value)


class Tracing:
    """Makes spans, of what is part of a trace that is recorded; a thread of the SDK's exports them.

    Args:
        provider: the SDK's.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import context, trace

        self._api = trace
        self._nothing = context.Context()
        self._provider = provider
        self._tracer = provider.get_tracer("sidecast_broker", version("sidecast"))
        self._noted: OrderedDict[int, _Noted] = OrderedDict()

    async def close(self) -> None:
        """Export what is left, as far as a collector takes it soon."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(closed.set)

        # Not a thread of the loop's executor: the process would wait for it while the collector is away.
        threading.Thread(target=shut_down, name="traces-close", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await closed.wait()

    # ------------------------------------------------------------------ deliveries

    def note(self, task: str, stored: Stored) -> None:
        """Remember of a record about to be delivered that it is part of a trace, where that is recorded."""
        context = trace_of(stored)
        if context is None or not context.sampled:
            return
        self._noted[stored.sequence] = _Noted(task, stored.at, context)
        self._noted.move_to_end(stored.sequence)
        if len(self._noted) > NOTED_MAX:
            self._noted.popitem(last=False)

    def forget(self) -> None:
        """Forget all records: sequences begin anew."""
        self._noted.clear()

    def written(self, records: Sequence[Record], reached: int) -> None:
        """Make the spans of records that have been written to so many subscribers."""
        if not self._noted or not reached:
            return
        now_ns = time.time_ns()
        for record in records:
            noted = self._noted.get(record.sequence)
            if noted is None or not record.deliverable:
                continue
            stored_ns = _nanoseconds(noted.at)
            span = self._tracer.start_span(
                "sidecast deliver",
                self._below(noted.context),
                self._api.SpanKind.CONSUMER,
                {
                    "messaging.system": "nats",
                    "sidecast.task": noted.task,
                    "sidecast.sequence": record.sequence,
                    "sidecast.subscribers": reached,
                },
                start_time=stored_ns,
            )
            # NATS has a clock of its own.
            span.end(max(now_ns, stored_ns))

    # ------------------------------------------------------------------ streams

    def open(self, asked: Asked, attributes: Mapping[str, str | int]) -> Opening | None:
        """Begin the span of opening a stream; None: nobody records the trace it is part of."""
        if not asked.context.sampled:
            return None
        return self._tracer.start_span(
            "sidecast open",
            self._below(asked.context),
            self._api.SpanKind.SERVER,
            attributes,
            start_time=asked.arrived_ns,
        )

    def _below(self, context: TraceContext) -> Context:
        above = self._api.SpanContext(
            int(context.trace_id, 16),
            int(context.span_id, 16),
            is_remote=True,
            trace_flags=self._api.TraceFlags(self._api.TraceFlags.SAMPLED),
        )
        return self._api.set_span_in_context(self._api.NonRecordingSpan(above), self._nothing)


def _nanoseconds(at: str) -> int:
    """Give an RFC 3339 time in `Z` as ns since 1970; what is no time is now."""
    seconds, _dot, fraction = at.removesuffix("Z").partition(".")
    try:
        whole = int(datetime.fromisoformat(seconds).replace(tzinfo=UTC).timestamp())
        return whole * 10**9 + int(f"{fraction[:9]:0<9}")
    except (ValueError, OverflowError):
        return time.time_ns()


def open_tracing(settings: Server) -> Tracing | None:
    """Begin to make traces; None: none are wanted. All but that is set by OpenTelemetry's own variables.

    Raises:
        TracesUnavailable: the SDK isn't installed, or one of its variables makes no sense.
    """
    if settings.traces == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracesUnavailable(
            f"server.traces = {settings.traces} needs OpenTelemetry: pip install 'sidecast[broker,otel]'"
        ) from error
    try:
        given = Resource.create()
        resource = Resource({"service.version": version("sidecast")}).merge(given)
        if str(given.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "sidecast"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except (ValueError, OSError) as error:
        raise TracesUnavailable(f"server.traces = {settings.traces}: OpenTelemetry says: {error}") from error
    return Tracing(provider)
