"""Which headers are a trace context, and which are nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_schemas.trace import TraceContext, only_traceparent, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"

HOSTILE = [
    "",
    " ",
    "00",
    SAMPLED.upper(),
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{SPAN}-01",
    f"{SAMPLED}-",
    f"{SAMPLED}-more",
    f" {SAMPLED}",
    f"{SAMPLED}\n",
    f"{SAMPLED}\r\nX: y",
    f"{SAMPLED},{SAMPLED}",
    f"00-{TRACE[:-1]}-{SPAN}-01",
    f"00-{TRACE}0-{SPAN}-01",
    f"00-{TRACE}-{SPAN}",
    f"00-{TRACE}-{SPAN}-1",
    f"00-{TRACE}-{SPAN}-0g",
    f"0x-{TRACE}-{SPAN}-01",
    f"00-{TRACE[:-1]}\u0663-{SPAN}-01",
    f"cc-{TRACE}-{SPAN}-01-" + "a" * 100_000,
    "0" * 1_000_000,
    "\ud800",
    "\0",
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_none_is_nothing(value: str) -> None:
    assert parse_traceparent(value) is None


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (SAMPLED, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like.09", True),
    ],
)
def test_what_is_one_is_read(value: str, sampled: bool) -> None:
    assert parse_traceparent(value) == TraceContext(TRACE, SPAN, sampled)


@given(st.text())
def test_no_text_breaks_it(value: str) -> None:
    found = parse_traceparent(value)
    assert found is None or value[3:35] == found.trace_id


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_every_context_comes_back(trace: int, span: int, flags: int) -> None:
    value = f"00-{trace:032x}-{span:016x}-{flags:02x}"
    assert parse_traceparent(value) == TraceContext(f"{trace:032x}", f"{span:016x}", flags % 2 == 1)


@pytest.mark.parametrize(("values", "read"), [([], False), ([SAMPLED], True), ([SAMPLED, SAMPLED], False)])
def test_a_request_has_one_or_none(values: list[str], read: bool) -> None:
    assert (only_traceparent(values) is not None) == read
