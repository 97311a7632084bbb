from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.task_lists import (
    UnreadableList,
    exchange_in_body,
    exchange_in_query,
    ids_of,
    only,
)
from sidecast_broker.core.a2a.translate.raw import Untranslatable


def upper(token: str) -> str:
    return token.upper()


def listed(*tasks: str, **fields: Any) -> bytes:
    return json.dumps({"tasks": [{"id": task, "n": 1.50} for task in tasks], **fields}).encode()


def test_a_list_keeps_its_order_and_what_it_does_not_know() -> None:
    a, c = b'{"id":"a","big":12345678901234567890.10}', b'{"id":"c","x":[ 1]}'
    result = b'{"tasks":[%b,{"id":"b"},%b],"more":{"y":1e2}}' % (a, c)
    assert ids_of(result) == ["a", "b", "c"]
    assert only(result, {"a", "c"}, upper) == b'{"tasks":[%b,%b],"more":{"y":1e2}}' % (a, c)


@pytest.mark.parametrize("name", ["totalSize", "total_size"])
def test_the_total_says_nothing_of_other_tasks(name: str) -> None:
    result = only(listed("a", "b", **{name: 900}), {"b"}, upper)
    assert json.loads(result)[name] == 1


@pytest.mark.parametrize("name", ["nextPageToken", "next_page_token"])
def test_the_next_page_has_another_token(name: str) -> None:
    assert json.loads(only(listed("a", **{name: "secret"}), {"a"}, upper))[name] == "SECRET"
    assert json.loads(only(listed("a", **{name: None}), {"a"}, upper))[name] is None


@pytest.mark.parametrize("result", [b"{}", b'{"tasks":[]}', b'{"tasks":null}'])
def test_an_empty_list_has_no_tasks(result: bytes) -> None:
    assert ids_of(result) == []
    assert json.loads(only(result, {"a"}, upper)).get("tasks") == []


@pytest.mark.parametrize("task", [{}, {"id": None}])
def test_a_task_without_an_id_is_nobodys(task: dict[str, Any]) -> None:
    result = json.dumps({"tasks": [task, {"id": "a"}]}).encode()
    assert ids_of(result) == ["a"]
    assert json.loads(only(result, {"a", "", None}, upper))["tasks"] == [{"id": "a"}]


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"[]",
        b"null",
        b'"tasks"',
        b'{"tasks":{"id":"a"}}',
        b'{"tasks":[1]}',
        b'{"tasks":[{"id":1}]}',
        b'{"tasks":[{"id":["a"]}]}',
        b'{"tasks":"a"}',
        b'{"tasks":[],"nextPageToken":1}',
        b'{"tasks":' + b"[" * 100_000,
        b'{"tasks":[{"id":"\xff"}]}',
    ],
)
def test_what_is_no_list_is_not_passed_on(result: bytes) -> None:
    with pytest.raises(UnreadableList):
        only(result, {"a"}, upper)


@given(st.lists(st.text(max_size=5), max_size=8), st.sets(st.text(max_size=5), max_size=8))
def test_exactly_what_may_be_seen_is_left(tasks: list[str], kept: set[str]) -> None:
    result = only(listed(*tasks), kept, upper)
    assert [task["id"] for task in json.loads(result)["tasks"]] == [task for task in tasks if task in kept]


def rpc(params: str) -> bytes:
    return f'{{"jsonrpc":"2.0","id":12.0,"method":"ListTasks","params":{params}}}'.encode()


@pytest.mark.parametrize("name", ["pageToken", "page_token", "PAGETOKEN", "Page_Token"])
def test_the_token_of_a_request_is_exchanged(name: str) -> None:
    body = exchange_in_body(rpc(f'{{"pageSize":1.0,"{name}":"abc"}}'), upper)
    assert body == rpc(f'{{"pageSize":1.0,"{name}":"ABC"}}')


@pytest.mark.parametrize("params", ["{}", "null", '{ "pageSize": 5 }', '{"pageToken":null}'])
def test_a_request_without_a_token_stays_as_it_is(params: str) -> None:
    assert exchange_in_body(rpc(params), upper) == rpc(params)


def test_a_token_that_is_no_text_is_refused() -> None:
    with pytest.raises(Untranslatable):
        exchange_in_body(rpc('{"pageToken":["a"]}'), upper)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/tasks", "/tasks"),
        ("/tasks?", "/tasks?"),
        ("/tasks?pageSize=5&status=x%2By", "/tasks?pageSize=5&status=x%2By"),
        ("/tasks?pageToken=ab", "/tasks?pageToken=AB"),
        ("/tasks?a=%41&page_token=a%2Bb&b", "/tasks?a=%41&page_token=A%2BB&b"),
        ("/tasks?PageToken=ab", "/tasks?PageToken=AB"),
        ("/tasks?page%54oken=ab", "/tasks?page%54oken=AB"),
        ("/tasks?pageToken=a&pageToken=b", "/tasks?pageToken=A&pageToken=B"),
        ("/tasks?pageToken=a+b", "/tasks?pageToken=A%20B"),
    ],
)
def test_the_token_of_a_query_is_exchanged(target: str, wanted: str) -> None:
    assert exchange_in_query(target, upper) == wanted
