"""The W3C trace context of the code that publishes.

Must not pull OpenTelemetry in: where the agent doesn't use it, there is no trace.
"""

from __future__ import annotations

import re
import sys

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


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
    if "opentelemetry.trace" not in sys.modules:
        return ""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
