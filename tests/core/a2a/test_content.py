from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from sidecast_broker.core.a2a.content import (
    canonical,
    elements_of,
    ends_with,
    parts_after,
    parts_before,
    says,
    values,
)


def raws(*parts: Any) -> list[Raw]:
    return [Raw(json.dumps(part).encode()) for part in parts]


def text(value: str, **fields: Any) -> dict[str, Any]:
    return {"text": value, **fields}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"a":1,"b":[ ]}', b'{ "b": [], "a" : 1 }', True),
        (b'"\\u00e9"', '"é"'.encode(), True),
        (b"1", b"1.0", False),
        (b"true", b"1", False),
        (b"12345678901234567890123", b"12345678901234567890124", False),
        (b"1e400", b"1e400", True),
        (b"1e400", b"2e400", False),
    ],
)
def test_canonical(one, other, same):
    assert (canonical(one) == canonical(other)) is same


def test_empty_fields_say_nothing_but_an_empty_value_of_metadata_does():
    fields = {"a": Raw(b"null"), "b": Raw(b'""'), "c": Raw(b"[]"), "d": Raw(b"{}"), "e": Raw(b"false")}
    assert says(fields) == {}
    assert len(values(fields)) == 5
    assert says({"a": Raw(b"1"), "b": Raw(b"2")}, ("b",)) == {"a": b"1"}


@pytest.mark.parametrize(
    ("known", "parts", "more"),
    [
        ([], [text("a")], [text("a")]),
        ([text("a")], [text("a"), text("b")], [text("b")]),
        ([text("a"), text("b")], [text("a"), text("b")], []),
        ([text("a"), text("b")], [text("ab")], []),
        ([text("a"), text("b")], [text("abc", filename="")], None),
        ([text("a"), text("b")], [text("abc")], [text("c")]),
        ([text("ab")], [text("a"), text("bc"), {"url": "u"}], [text("c"), {"url": "u"}]),
        (
            [text("a", mediaType="m")],
            [text("a", mediaType="m"), text("a", mediaType="n")],
            [text("a", mediaType="n")],
        ),
        ([text("a", mediaType="m")], [text("ab", mediaType="n")], None),
        ([text("a")], [text("b")], None),
        ([text("a"), text("b")], [text("a")], None),
        ([text("a")], [], None),
        ([{"data": 1}], [{"data": 1}, {"data": 2}], [{"data": 2}]),
        ([{"data": 1}], [{"data": 2}], None),
        ([{"data": 1}, text("a")], [{"data": 1}, text("ab")], [text("b")]),
        ([{"data": 1}, text("a")], [{"data": 2}, text("ab")], None),
        ([text("a"), {"data": 1}, {"data": 2}], [text("a")], None),
        ([text("a")], [{"data": 1}], None),
        ([{"text": 1}], [{"text": 1}, "no part"], ["no part"]),
    ],
)
def test_parts_after(known, parts, more):
    found = parts_after(raws(*known), raws(*parts))
    assert (found if found is None else [json.loads(bytes(raw)) for raw in found]) == more


@pytest.mark.parametrize(
    ("parts", "piece", "ends"),
    [
        ([text("a"), text("b")], [text("b")], True),
        ([text("a"), text("b")], [text("a")], False),
        ([text("ab")], [text("b")], True),
        ([text("ab")], [text("a")], False),
        ([text("ab"), {"data": 1}], [text("b"), {"data": 1}], True),
        ([text("ab"), {"data": 1}], [text("b"), {"data": 2}], False),
        ([{"data": 1}], [text("b"), {"data": 1}], False),
        ([{"data": 1}], [{"data": 2}], False),
        ([text("a")], [], False),
        ([], [text("a")], False),
    ],
)
def test_ends_with(parts, piece, ends):
    assert ends_with(raws(*parts), raws(*piece)) is ends


@pytest.mark.parametrize(
    ("parts", "piece", "before"),
    [
        ([text("abc")], [text("b"), text("c")], [text("a")]),
        ([text("ab"), text("c")], [text("bc")], [text("a")]),
        ([text("a"), {"url": "u"}, text("bc")], [text("c")], [text("a"), {"url": "u"}, text("b")]),
        ([{"url": "u"}, text("bc")], [text("bc")], [{"url": "u"}]),
        ([text("abc", mediaType="t")], [text("c", mediaType="t")], [text("ab", mediaType="t")]),
        ([text("abc")], [text("c", mediaType="t")], None),
        ([text("abc")], [text("b")], None),
        ([text("abc")], [{"url": "u"}], None),
        ([{"url": "u"}], [text("c")], None),
        ([text("abc")], [], None),
        ([], [text("c")], None),
    ],
)
def test_parts_before(parts, piece, before):
    found = parts_before(raws(*parts), raws(*piece))
    assert (None if found is None else [json.loads(bytes(each)) for each in found]) == before


def test_what_is_no_array_has_no_elements():
    assert elements_of(None) == elements_of(Raw(b"null")) == elements_of(Raw(b'"x"')) == []


PARTS = st.lists(
    st.builds(text, st.text("ab", max_size=3))
    | st.builds(text, st.text("ab", max_size=3), mediaType=st.sampled_from(["m", "n"]))
    | st.builds(lambda data: {"data": data}, st.integers(0, 2)),
    max_size=5,
)


def joined(parts: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    said: list[tuple[Any, ...]] = []
    for part in parts:
        if "text" not in part:
            said.append((part["data"],))
        elif said and len(said[-1]) == 2 and said[-1][0] == part.get("mediaType"):
            said[-1] = (said[-1][0], said[-1][1] + part["text"])
        else:
            said.append((part.get("mediaType"), part["text"]))
    return said


@given(PARTS, PARTS)
def test_what_comes_after_completes_what_is_known(known, parts):
    more = parts_after(raws(*known), raws(*parts))
    if more is not None:
        assert joined(known + [json.loads(bytes(raw)) for raw in more]) == joined(parts)


@given(PARTS, PARTS)
def test_pieces_appended_are_recognised(known, more):
    whole = raws(*known, *more)
    assert parts_after(raws(*known), whole) == whole[len(known) :]
    assert ends_with(whole, whole[len(known) :]) is bool(more)
