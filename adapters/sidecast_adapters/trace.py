"""The trace of the code that publishes: its W3C context, and the spans of publishing.

Must not pull OpenTelemetry in: where the agent doesn't use it, there is no trace.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import structs

from sidecast_adapters.record import Record
from sidecast_schemas.trace import parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SCOPE = "sidecast_adapters"


def checked_traceparent(value: str) -> str:
    """Give a `traceparent` back where it is one (W3C Trace Context, section 3.2).

    Raises:
        ValueError: it is not.
    """
    if not _TRACEPARENT.fullmatch(value):
        raise ValueError(f"not a W3C traceparent: {value[:80]!r}")
    return value


def current_traceparent() -> str:
    """Give the `traceparent` of the current OpenTelemetry span, or an empty string."""
    if not _in_use():
        return ""
    from opentelemetry import trace

    return _traceparent(trace.get_current_span())


def _in_use() -> bool:
    return "opentelemetry.trace" in sys.modules


def _traceparent(span: Span) -> str:
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def queued(record: Record) -> Record:
    """Give a record with the time from which on it waits, where its publishing may be traced."""
    if not record.traceparent or not _in_use():
        return record
    return structs.replace(record, queued_ns=time.time_ns())


class Publishing:
    """The spans of what is on its way for one task: one for the records of a batch that have the same parent.

    A span is begun when its records were queued, and ends when all of them are stored or given up; however
    often they have to be sent, they carry the context of that one.

    Args:
        task_id: the task.
    """

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._spans: dict[str, Span] = {}

    def begin(self, records: list[Record]) -> list[Record]:
        """Give the records with the context of their span in place of its parent's."""
        parents = Counter(record.traceparent for record in records if record.queued_ns)
        if not parents:
            return records
        begun: dict[str, str] = {}
        for parent, count in parents.items():
            if parent not in self._spans:
                since_ns = min(record.queued_ns for record in records if record.traceparent == parent)
                begun[parent] = self._begin(parent, since_ns, count)
        return [
            structs.replace(record, traceparent=own)
            if record.queued_ns and (own := begun.get(record.traceparent))
            else record
            for record in records
        ]

    def _begin(self, parent: str, since_ns: int, count: int) -> str:
        """Begin a span; give its `traceparent`, or an empty text where nobody records it."""
        context = parse_traceparent(parent)
        if context is None or not context.sampled:
            return ""
        from opentelemetry import trace
        from opentelemetry.context import Context

        above = trace.SpanContext(
            int(context.trace_id, 16),
            int(context.span_id, 16),
            is_remote=False,
            trace_flags=trace.TraceFlags(1),
        )
        span = trace.get_tracer(_SCOPE).start_span(
            "sidecast publish",
            trace.set_span_in_context(trace.NonRecordingSpan(above), Context()),
            trace.SpanKind.PRODUCER,
            {
                "messaging.system": "nats",
                "messaging.batch.message_count": count,
                "sidecast.task": self._task_id,
            },
            start_time=since_ns,
        )
        if not span.is_recording():
            return ""
        own = _traceparent(span)
        self._spans[own] = span
        return own

    def settle(self, left: Iterable[Record], failed: str = "") -> None:
        """End the spans of which no record is left on its way.

        Args:
            left: what is.
            failed: why the others went no further; empty: they are stored.
        """
        if not self._spans:
            return
        still = {record.traceparent for record in left}
        for own in [own for own in self._spans if own not in still]:
            span = self._spans.pop(own)
            if failed:
                from opentelemetry.trace import Status, StatusCode

                span.set_status(Status(StatusCode.ERROR, failed))
            span.end()
