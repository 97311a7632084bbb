from __future__ import annotations

import pytest

from sidecast_broker.core.strict_json import read_strictly


def test_what_everybody_reads_alike() -> None:
    assert read_strictly(b' {"a": [1, {"b": null}], "c": 1.5e3} ') == {"a": [1, {"b": None}], "c": 1500.0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff", "codec can't decode"),
        (b'{"a":1,"a":2}', "a member stands twice"),
        (b'[{"x":{"a":1,"\\u0061":1}}]', "a member stands twice"),
        (b"NaN", "NaN is no JSON"),
        (b'{"a":-Infinity}', "-Infinity is no JSON"),
    ],
)
def test_what_two_might_read_differently_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_strictly(text)


def test_a_nest_too_deep_is_refused() -> None:
    with pytest.raises(RecursionError):
        read_strictly(b"[" * 100_000)
