from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from a2a_documents import Current, encoded, exactly, spelled
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from sidecast_broker.core.a2a.translate.parts import part_from_v03, part_to_v03, parts_to_v03
from sidecast_broker.core.a2a.translate.raw import HELD, Untranslatable

COMPAT = {"data_part_compat": True}


def fields(document: Any) -> dict[str, Raw]:
    return msgspec.json.decode(encoded(document), type=dict[str, Raw])


def to(document: Any, *, rest: bool = False) -> Any:
    return json.loads(msgspec.json.encode(part_to_v03(fields(document), rest=rest)))


def back(document: Any, *, rest: bool = False) -> Any:
    return json.loads(msgspec.json.encode(part_from_v03(fields(document), rest=rest)))


def twice(text: str) -> str:
    return b64encode(text.encode()).decode()


PAIRS: list[tuple[Any, Any, Any]] = [
    ({"text": "a"}, {"kind": "text", "text": "a"}, {"text": "a"}),
    ({"text": ""}, {"kind": "text", "text": ""}, {"text": ""}),
    (
        {"text": "a", "metadata": {"b": 1}},
        {"kind": "text", "text": "a", "metadata": {"b": 1}},
        {"text": "a", "metadata": {"b": 1}},
    ),
    (
        {"text": "a", "mediaType": "text/markdown"},
        {"kind": "text", "text": "a", "metadata": {HELD: {"fields": {"mediaType": "text/markdown"}}}},
        {"text": "a", "metadata": {HELD: {"fields": {"mediaType": "text/markdown"}}}},
    ),
    (
        {"url": "u", "mediaType": "m", "filename": "f"},
        {"kind": "file", "file": {"uri": "u", "mimeType": "m", "name": "f"}},
        {"file": {"fileWithUri": "u", "mimeType": "m", "name": "f"}},
    ),
    (
        {"raw": "aGk="},
        {"kind": "file", "file": {"bytes": "aGk="}},
        {"file": {"fileWithBytes": twice("aGk=")}},
    ),
    ({"data": {"a": 1}}, {"kind": "data", "data": {"a": 1}}, {"data": {"data": {"a": 1}}}),
    (
        {"data": [1]},
        {"kind": "data", "data": {"value": [1]}, "metadata": COMPAT},
        {"data": {"data": {"value": [1]}}, "metadata": COMPAT},
    ),
    (
        {"data": None, "metadata": {"a": 1}},
        {"kind": "data", "data": {"value": None}, "metadata": {"a": 1, **COMPAT}},
        {"data": {"data": {"value": None}}, "metadata": {"a": 1, **COMPAT}},
    ),
    (
        {"data": {"a": 1}, "mediaType": "application/json"},
        {
            "kind": "data",
            "data": {"a": 1},
            "metadata": {HELD: {"fields": {"mediaType": "application/json"}}},
        },
        {"data": {"data": {"a": 1}}, "metadata": {HELD: {"fields": {"mediaType": "application/json"}}}},
    ),
    (
        {"video": {"codec": "x"}},
        {"kind": "data", "data": {"video": {"codec": "x"}}, "metadata": {HELD: {"part": True}}},
        {"data": {"data": {"video": {"codec": "x"}}}, "metadata": {HELD: {"part": True}}},
    ),
    (
        {"data": 5, "metadata": {"data_part_compat": False, "a": 1}},
        {
            "kind": "data",
            "data": {"value": 5},
            "metadata": {"a": 1, **COMPAT, HELD: {"metadata": {"data_part_compat": False, "a": 1}}},
        },
        {
            "data": {"data": {"value": 5}},
            "metadata": {"a": 1, **COMPAT, HELD: {"metadata": {"data_part_compat": False, "a": 1}}},
        },
    ),
]


@pytest.mark.parametrize(("current", "rpc", "rest"), PAIRS)
def test_parts_both_ways(current: Any, rpc: Any, rest: Any) -> None:
    assert to(current) == rpc
    assert back(rpc) == current
    assert to(current, rest=True) == rest
    assert back(rest, rest=True) == current


@pytest.mark.parametrize("rest", [False, True])
@given(Current.parts)
def test_a_part_comes_back_as_it_was(rest: bool, document: Any) -> None:
    former = msgspec.json.encode(part_to_v03(fields(document), rest=rest))
    current = part_from_v03(msgspec.json.decode(former, type=dict[str, Raw]), rest=rest)
    assert spelled(msgspec.json.encode(current)) == exactly(document)


def test_null_says_that_a_field_is_not_there() -> None:
    assert to({"text": "a", "raw": None, "url": None, "data": None}) == {"kind": "text", "text": "a"}
    assert back({"kind": "text", "text": "a", "file": None, "data": None}) == {"text": "a"}
    assert back({"kind": "file", "file": {"bytes": None, "uri": "u"}}) == {"url": "u"}
    assert parts_to_v03(Raw(b"null"), rest=False) == []


def test_the_names_some_documents_use_for_files_are_read() -> None:
    assert back({"kind": "file", "file": {"fileWithUri": "u"}}) == {"url": "u"}
    assert back({"kind": "file", "file": {"fileWithBytes": "aGk="}}) == {"raw": "aGk="}


def test_unknown_fields_of_a_file_stand_beside_it_and_go_back_into_it() -> None:
    former = {"kind": "file", "file": {"uri": "u", "size": 5}, "x": 1}
    assert back(former) == {"url": "u", "file": {"size": 5}, "x": 1}
    assert to(back(former)) == former


@pytest.mark.parametrize("file", [{}, 5, {"uri": "other"}, {"name": "other"}])
def test_what_stands_beside_a_file_cannot_change_it(file: Any) -> None:
    current = {"url": "u", "file": file}
    former = to(current)
    assert former["file"] == {"uri": "u"}
    assert back(former) == current


def test_metadata_cannot_set_what_v03_says_in_its_own_place() -> None:
    forged = {"fields": {"text": "forged", "url": "forged", "metadata": {"forged": 1}, "mediaType": "m"}}
    former = {"kind": "text", "text": "said", "metadata": {HELD: forged}}
    assert back(former) == {"text": "said", "mediaType": "m"}
    forged_part = {"part": True, "fields": {}}
    former = {"kind": "data", "data": {"text": "forged"}, "metadata": {HELD: forged_part}}
    assert back(former) == {"data": {"text": "forged"}}


@pytest.mark.parametrize("held", [None, 5, "x", [], {"fields": 5}, {"part": 5}, {"other": 1}])
def test_metadata_under_our_key_that_is_not_ours_breaks_nothing(held: Any) -> None:
    former = {"kind": "text", "text": "a", "metadata": {HELD: held, "b": 1}}
    assert back(former)["text"] == "a"
    assert back(former)["metadata"]["b"] == 1


def test_a_flag_without_its_value_is_refused() -> None:
    with pytest.raises(Untranslatable, match="data_part_compat"):
        back({"kind": "data", "data": {"a": 1}, "metadata": COMPAT})


@pytest.mark.parametrize(
    "written",
    [twice("aGk="), "aGk=", "aGk"],
    ids=["encoded twice, as a2a-sdk does", "encoded once, as @a2a-js/sdk does", "unpadded"],
)
def test_bytes_of_rest_are_read_as_both_sdks_write_them(written: str) -> None:
    assert back({"file": {"fileWithBytes": written}}, rest=True) == {"raw": "aGk="}


@given(st.binary(max_size=40))
def test_bytes_survive_rest(content: bytes) -> None:
    current = {"raw": b64encode(content).decode()}
    assert back(to(current, rest=True), rest=True) == current


def test_either_alphabet_of_base64_becomes_the_standard_one_on_rest() -> None:
    assert back(to({"raw": "-_8"}, rest=True), rest=True) == {"raw": "+/8="}


@pytest.mark.parametrize("text", ["a", "ä", "a b c", "=", "a=b=", "-_+/", "\u0000"])
def test_what_is_not_base64_is_refused_or_decoded_but_never_breaks(text: str) -> None:
    try:
        former = to({"raw": text}, rest=True)
    except Untranslatable as error:
        assert "base64" in str(error)  # noqa: PT017 - some of them decode
        return
    assert back(former, rest=True).keys() == {"raw"}
