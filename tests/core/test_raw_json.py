from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from sidecast_broker.core.raw_json import array_of, copied, elements_of, extend, merge, object_of, size_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


def raw(value: object) -> Raw:
    return Raw(json.dumps(value, ensure_ascii=False).encode())


def fields_of(value: dict[str, object]) -> dict[str, Raw]:
    return {key: raw(each) for key, each in value.items()}


@given(st.lists(OBJECTS, max_size=4))
def test_merging_sets_keys_and_gives_what_it_takes_more(values: list[dict[str, object]]) -> None:
    into: dict[str, Raw] = {}
    grown = sum(merge(into, fields_of(value)) for value in values)
    merged: dict[str, object] = {}
    for value in values:
        merged |= value
    assert {key: json.loads(bytes(each)) for key, each in into.items()} == merged
    assert grown == size_of(into)


@given(st.lists(st.lists(VALUES, max_size=3), max_size=4))
def test_arrays_extend_each_other(values: list[list[object]]) -> None:
    inside = bytearray()
    for value in values:
        extend(inside, elements_of(raw(value)))
    assert json.loads(bytes(array_of(inside))) == [each for value in values for each in value]


@pytest.mark.parametrize("other", [None, raw(None), raw("x"), raw(1), raw(True)])
def test_what_is_no_array_or_object_has_nothing_inside(other: Raw | None) -> None:
    assert elements_of(other) == b""
    assert object_of(other) == {}
    assert elements_of(raw({"a": 1})) == b""
    assert object_of(raw([1])) == {}


def test_a_copy_holds_no_payload_alive() -> None:
    payload = b'{"a": "' + b"x" * 1000 + b'"}'
    sliced = msgspec.json.decode(payload, type=dict[str, Raw])
    kept = copied(sliced)
    assert kept == sliced
    assert memoryview(kept["a"]).obj is not memoryview(sliced["a"]).obj
