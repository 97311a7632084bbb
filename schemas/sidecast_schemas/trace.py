"""The W3C trace context of a publish or a request, as its `traceparent` header has it.

Must not know spans, nor who makes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]{0,200})?")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16
_SAMPLED = 1


class TraceContext(NamedTuple):
    """Which span something belongs to.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits: of the span that is the parent of what follows.
        sampled: whether who began the trace records it.
    """

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(value: str) -> TraceContext | None:
    """Read a `traceparent`; None: it is none (W3C Trace Context, sections 3.2 and 4.3).

    A later version is read as far as this one goes; `ff` is no version, and ids of zeros are no ids.
    """
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def only_traceparent(values: Sequence[str]) -> TraceContext | None:
    """Read the one `traceparent` of a request; None: there is none, or there are several (section 3.2)."""
    return parse_traceparent(values[0]) if len(values) == 1 else None
