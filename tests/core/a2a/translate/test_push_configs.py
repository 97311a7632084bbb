from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from a2a_documents import encoded, exactly, ids, merged, spelled, texts, unknown
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from sidecast_broker.core.a2a.translate.push_configs import (
    config_from_v03,
    config_to_v03,
    create_request_from_v03_rest,
    create_request_to_v03_rest,
)
from sidecast_broker.core.a2a.translate.raw import Untranslatable

authentications = merged(unknown, st.fixed_dictionaries({"scheme": texts.filter(bool)}))
current = merged(
    unknown.map(
        lambda extra: {k: v for k, v in extra.items() if k not in ("url", "token", "authentication")}
    ),
    st.fixed_dictionaries(
        {"taskId": ids, "url": texts},
        optional={"id": ids, "token": texts, "tenant": ids, "authentication": authentications | st.none()},
    ),
)
former_authentications = merged(
    unknown,
    st.fixed_dictionaries(
        {"schemes": st.lists(texts.filter(bool), max_size=3)}, optional={"credentials": texts}
    ),
)
former = merged(
    unknown,
    st.fixed_dictionaries(
        {
            "taskId": ids,
            "pushNotificationConfig": merged(
                unknown,
                st.fixed_dictionaries(
                    {"url": texts}, optional={"id": ids, "authentication": former_authentications}
                ),
            ),
        }
    ),
)


def fields(document: Any) -> dict[str, Raw]:
    return msgspec.json.decode(encoded(document), type=dict[str, Raw])


def again(tree: Any) -> dict[str, Raw]:
    return msgspec.json.decode(msgspec.json.encode(tree), type=dict[str, Raw])


def plain(tree: Any) -> Any:
    return json.loads(msgspec.json.encode(tree))


FLAT = {"taskId": "t", "id": "c", "url": "u", "token": "k"}
SECURE = {**FLAT, "authentication": {"scheme": "Bearer", "credentials": "x"}}
INNER = {
    "id": "c",
    "url": "u",
    "token": "k",
    "authentication": {"schemes": ["Bearer"], "credentials": "x"},
}


def test_both_forms_both_ways() -> None:
    rpc = {"taskId": "t", "pushNotificationConfig": INNER}
    rest = {"name": "tasks/t/pushNotificationConfigs/c", "pushNotificationConfig": INNER}
    assert plain(config_to_v03(fields(SECURE), rest=False)) == rpc
    assert plain(config_from_v03(fields(rpc), rest=False)) == SECURE
    assert plain(config_to_v03(fields(SECURE), rest=True)) == rest
    assert plain(config_from_v03(fields(rest), rest=True)) == SECURE


@given(current)
def test_a_config_comes_back_from_json_rpc_as_it_was(document: Any) -> None:
    back = config_from_v03(again(config_to_v03(fields(document), rest=False)), rest=False)
    assert spelled(msgspec.json.encode(back)) == exactly(document)


@given(former)
def test_a_v03_config_comes_back_as_it_was(document: Any) -> None:
    back = config_to_v03(again(config_from_v03(fields(document), rest=False)), rest=False)
    assert spelled(msgspec.json.encode(back)) == exactly(document)


def test_schemes_beyond_the_first_stand_beside_it() -> None:
    document = {
        "taskId": "t",
        "pushNotificationConfig": {"url": "u", "authentication": {"schemes": ["Basic", "Bearer"]}},
    }
    flat = plain(config_from_v03(fields(document), rest=False))
    assert flat["authentication"] == {"scheme": "Basic", "schemes": ["Basic", "Bearer"]}
    changed = {**flat, "authentication": {"scheme": "Digest", "schemes": ["Basic", "Bearer"]}}
    inner = plain(config_to_v03(fields(changed), rest=False))["pushNotificationConfig"]
    assert inner["authentication"] == {"schemes": ["Digest"]}


def test_no_field_of_the_inner_object_names_the_task() -> None:
    document = {"taskId": "mine", "pushNotificationConfig": {"url": "u", "taskId": "other"}}
    flat = plain(config_from_v03(fields(document), rest=False))
    assert flat == {"taskId": "mine", "url": "u", "pushNotificationConfig": {"taskId": "other"}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tasks/t/pushNotificationConfigs/c", {"taskId": "t", "id": "c"}),
        ("tasks/a/b/pushNotificationConfigs/c d", {"taskId": "a/b", "id": "c d"}),
        ("tasks/t/pushNotificationConfigs/", {"taskId": "t"}),
        ("tasks/\n/pushNotificationConfigs/c", {"taskId": "\n", "id": "c"}),
        ("t", {}),
        ("", {}),
    ],
)
def test_the_name_of_rest_tells_both_ids(name: str, expected: Any) -> None:
    document = {"name": name, "pushNotificationConfig": {"url": "u", "id": ""}}
    assert plain(config_from_v03(fields(document), rest=True)) == {"url": "u", **expected}


@given(ids, ids)
def test_any_ids_survive_the_name(task: str, config: str) -> None:
    document = {"taskId": task, "id": config, "url": "u"}
    back = config_from_v03(again(config_to_v03(fields(document), rest=True)), rest=True)
    assert plain(back) == document


@pytest.mark.parametrize(
    "body",
    [
        {
            "parent": "tasks/t",
            "configId": "c",
            "config": {"pushNotificationConfig": {"url": "u", "token": "k"}},
        },
        {
            "parent": "tasks/t/pushNotificationConfigs",
            "config_id": "c",
            "config": {"push_notification_config": {"url": "u", "token": "k"}},
        },
        {
            "name": "tasks/t/pushNotificationConfigs/c",
            "pushNotificationConfig": {"url": "u", "token": "k"},
        },
    ],
)
def test_the_request_of_rest_is_read_in_each_form_it_is_sent_in(body: Any) -> None:
    assert plain(create_request_from_v03_rest(fields(body))) == FLAT


def test_the_request_of_rest() -> None:
    assert plain(create_request_to_v03_rest(fields(FLAT))) == {
        "parent": "tasks/t",
        "configId": "c",
        "config": {
            "name": "tasks/t/pushNotificationConfigs/c",
            "pushNotificationConfig": {"id": "c", "url": "u", "token": "k"},
        },
    }


def test_python_refuses_unknown_fields_on_rest_so_there_are_none() -> None:
    document = {**SECURE, "tenant": "x", "later": 1}
    document["authentication"] = {"scheme": "Bearer", "later": 1}
    rest = plain(config_to_v03(fields(document), rest=True))
    assert rest.keys() == {"name", "pushNotificationConfig"}
    assert rest["pushNotificationConfig"]["authentication"] == {"schemes": ["Bearer"]}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"pushNotificationConfig": None},
        {"pushNotificationConfig": []},
        {"pushNotificationConfig": {"authentication": 5}},
        {"pushNotificationConfig": {"authentication": {"schemes": "Bearer"}}},
        {"pushNotificationConfig": {"authentication": {"schemes": [5]}}},
    ],
)
def test_what_is_none_is_refused(document: Any) -> None:
    for rest in (False, True):
        with pytest.raises(Untranslatable, match=r"Config|authentication|scheme"):
            config_from_v03(fields(document), rest=rest)
