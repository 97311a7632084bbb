from __future__ import annotations

from typing import Any

import msgspec
import pytest
from a2a_documents import encoded, exactly, metadata, objects, spelled
from hypothesis import given
from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import (
    HELD,
    NULL,
    Untranslatable,
    decode_line,
    decode_list_line,
    drop_unset,
    hold,
    is_set,
    list_of,
    object_of,
    objects_of,
    pop_named,
    pop_other,
    release,
    restore,
    text_of,
)


def fields(document: Any) -> dict[str, Any]:
    return msgspec.json.decode(encoded(document), type=dict[str, Raw])


def again(tree: Any) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(tree), type=dict[str, Raw])


@given(metadata(reserved=True), objects)
def test_what_is_held_comes_back_and_metadata_is_as_it_was(before: Any, lost: Any) -> None:
    tree = fields({"metadata": before, "x": 1})
    hold(tree, {"fields": fields(lost)} if lost else {})
    back = again(tree)
    held, flagged = release(back)
    assert not flagged
    restore(back, held, frozenset({"x", "metadata"}))
    expected = {"metadata": before, "x": 1}
    for key, value in lost.items():
        expected.setdefault(key, value)
    assert spelled(msgspec.json.encode(back)) == exactly(expected)


@given(objects)
def test_without_metadata_there_is_none_again(lost: Any) -> None:
    tree: dict[str, Any] = {}
    hold(tree, {"fields": fields(lost)})
    assert tree.keys() == {"metadata"}
    back = again(tree)
    release(back)
    assert back == {}


def test_nothing_to_hold_changes_nothing() -> None:
    tree = fields({"metadata": {"a": 1}})
    before = tree["metadata"]
    hold(tree, {})
    assert tree["metadata"] is before
    assert release(tree) == ({}, False)
    assert tree["metadata"] is before


def test_an_escaped_key_is_the_same_key() -> None:
    tree = {"metadata": Raw(b'{"urn:sidecast:v\\u0031":{"fields":{"a":1}}}')}
    held, _ = release(tree)
    assert held.keys() == {"fields"}
    tree = {"metadata": Raw(b'{"urn:sidecast:v\\u0031":5}')}
    hold(tree, {})
    assert spelled(msgspec.json.encode(tree)) == exactly({"metadata": {HELD: {"metadata": {HELD: 5}}}})


def test_flags_are_told_and_taken_out() -> None:
    tree = fields({"metadata": {"a": 1}})
    hold(tree, {}, {"flag": True}, frozenset({HELD, "flag"}))
    back = again(tree)
    assert release(back, "flag") == ({}, True)
    assert spelled(msgspec.json.encode(back)) == exactly({"metadata": {"a": 1}})
    for unset in (False, None):
        assert release(fields({"metadata": {"flag": unset}}), "flag") == ({}, False)


def test_metadata_added_on_the_way_stays() -> None:
    tree = fields({"metadata": {}})
    hold(tree, {"part": True})
    document = spelled(msgspec.json.encode(tree))
    document["metadata"]["added"] = "x"
    back = fields(document)
    release(back)
    assert spelled(msgspec.json.encode(back)) == {"metadata": {"added": "x"}}


def test_metadata_that_is_no_object_is_refused_only_where_it_matters() -> None:
    tree = fields({"metadata": 5})
    hold(tree, {})
    assert release(tree) == ({}, False)
    with pytest.raises(Untranslatable, match="metadata"):
        hold(tree, {"part": True})
    with pytest.raises(Untranslatable, match="metadata"):
        release(fields({"metadata": [HELD]}))


def test_restoring_takes_neither_blocked_fields_nor_those_that_are_there() -> None:
    tree = fields({"a": 1})
    restore(tree, fields({"fields": {"a": 2, "b": 3, "c": 4}}), frozenset({"c"}))
    assert spelled(msgspec.json.encode(tree)) == exactly({"a": 1, "b": 3})
    restore(tree, fields({"fields": 5}), frozenset())
    restore(tree, {}, frozenset())
    assert tree.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"", "truncated"),
        (b"5", "Expected"),
        (b"{} {}", "trailing"),
        (b"\xc3", "UTF-8"),
        (b'{"a\n":1}', "inv"),
    ],
)
def test_a_line_is_one_object(payload: bytes, detail: str) -> None:
    with pytest.raises(Untranslatable, match=f"what: .*{detail}"):
        decode_line(payload, "what")


def test_a_line_end_in_a_string_is_an_error_and_elsewhere_goes() -> None:
    with pytest.raises(Untranslatable):
        decode_line(b'{\n"a":"x\ny"}', "what")
    assert decode_line(b'{"a":\r\n[\n1]}', "what") == {"a": Raw(b"[1]")}
    assert decode_list_line(b'[{"a":\n1}]', "what") == [{"a": Raw(b"1")}]


def test_lone_surrogates_are_replaced_in_names_and_values() -> None:
    assert decode_line(b'{"\\ud800":"\\udc00"}', "what") == {"\ufffd": Raw(b'"\\ufffd"')}
    assert decode_line(b'{"a":"\\ud83d\\ude00"}', "what") == {"a": Raw(b'"\\ud83d\\ude00"')}


@pytest.mark.parametrize("take", [object_of, objects_of, list_of, text_of])
def test_each_taker_refuses_another_type_by_name(take: Any) -> None:
    for value in (b"5", b"null", b"true"):
        with pytest.raises(Untranslatable, match="what: Expected"):
            take(Raw(value), "what")
    with pytest.raises(Untranslatable, match="what: Expected"):
        objects_of(Raw(b"[1]"), "what")


def test_set_and_unset() -> None:
    document = fields({"null": None, "empty": "", "no": False, "zero": 0, "object": {}})
    assert [name for name in document if is_set(document, name)] == ["empty", "no", "zero", "object"]
    for name in [*document, "missing"]:
        drop_unset(document, name)
    assert list(document) == ["no", "zero", "object"]


def test_popping() -> None:
    document = fields({"a": 1, "b": 2, "c": None})
    assert pop_other(document, frozenset("abc")) == {}
    assert pop_other(document, frozenset("a")) == {"b": Raw(b"2"), "c": NULL}
    assert pop_named(document, ("a", "z")) == {"a": Raw(b"1")}
    assert document == {}
