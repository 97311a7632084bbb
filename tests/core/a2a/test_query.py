from __future__ import annotations

import json
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.operations import (
    CANCEL_TASK,
    GET_TASK,
    LIST_PUSH_CONFIGS,
    LIST_TASKS,
)
from sidecast_broker.core.a2a.query import read_query, write_query


def values(fields: dict[str, object]) -> dict[str, object]:
    return {name: json.loads(bytes(raw)) for name, raw in fields.items()}  # type: ignore[call-overload]


def test_each_parameter_has_its_type() -> None:
    query = "contextId=a%20b&status=TASK_STATE_WORKING&pageSize=5&includeArtifacts=true&x=1&historyLength=0"
    assert values(read_query(LIST_TASKS, query)) == {
        "contextId": "a b",
        "status": "TASK_STATE_WORKING",
        "pageSize": 5,
        "includeArtifacts": True,
        "historyLength": 0,
    }
    assert values(read_query(GET_TASK, "historyLength=3&id=t")) == {"historyLength": 3}
    assert read_query(CANCEL_TASK, "historyLength=3") == {}


@pytest.mark.parametrize(
    "query",
    [
        "historyLength=",
        "historyLength=x",
        "historyLength=1.5",
        "historyLength=1&historyLength=1",
        "historyLength=%C3",
        "historyLength=[]",
        "includeArtifacts=1",
        "contextId=%FF",
        "pageToken=a&pageToken=b",
    ],
)
def test_what_is_not_of_its_type(query: str) -> None:
    with pytest.raises(A2AError) as raised:
        read_query(LIST_TASKS, query)
    assert raised.value.kind is ErrorKind.INVALID_PARAMS


@given(st.text(max_size=60))
def test_any_query_is_read_or_refused(query: str) -> None:
    try:
        assert all(json.loads(bytes(raw)) is not None for raw in read_query(LIST_TASKS, query).values())
    except A2AError:
        pass  # of one kind: see above


def test_what_is_written() -> None:
    params = {"id": "t", "historyLength": 2, "metadata": {"a": 1}}
    assert write_query(GET_TASK, json.dumps(params).encode()) == "?historyLength=2"
    params = {"pageToken": "a&b=c", "includeArtifacts": False, "contextId": None, "status": "é"}
    written = write_query(LIST_TASKS, json.dumps(params).encode())
    assert parse_qs(written[1:]) == {"pageToken": ["a&b=c"], "includeArtifacts": ["false"], "status": ["é"]}
    assert write_query(CANCEL_TASK, b"null") == ""
    assert write_query(GET_TASK, b"{}") == ""


@pytest.mark.parametrize(
    ("name", "value"), [("pageSize", "5"), ("pageToken", 5), ("pageSize", {}), ("pageSize", 1.5)]
)
def test_parameters_of_another_type_are_not_written(name: str, value: object) -> None:
    with pytest.raises(A2AError) as raised:
        write_query(LIST_PUSH_CONFIGS, json.dumps({name: value}).encode())
    assert raised.value.kind is ErrorKind.INVALID_PARAMS


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "contextId": st.text(st.characters(codec="utf-8")),
            "pageToken": st.text(st.characters(codec="utf-8")),
            "pageSize": st.integers(-(2**40), 2**40),
            "includeArtifacts": st.booleans(),
        },
    )
)
def test_what_is_written_is_read_again(params: dict[str, object]) -> None:
    query = write_query(LIST_TASKS, json.dumps(params).encode())
    assert values(read_query(LIST_TASKS, query[1:])) == params
