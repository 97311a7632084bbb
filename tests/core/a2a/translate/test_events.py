from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from a2a_documents import Current, Former, encoded, exactly, spelled, spoiled, values
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecast_broker.core.a2a import translate
from sidecast_broker.core.a2a.translate import (
    HELD,
    Untranslatable,
    response_from_v03,
    response_to_v03,
)
from sidecast_schemas.codec import InvalidEvent, decode_event

response_to_rpc = partial(response_to_v03, rest=False)
response_to_rest = partial(response_to_v03, rest=True)
response_from_rpc = partial(response_from_v03, rest=False)
response_from_rest = partial(response_from_v03, rest=True)

RPC = Former(rest=False)
REST = Former(rest=True)
NAMES = ("task", "message")


def status_update(state: str = "TASK_STATE_WORKING", **fields: Any) -> dict[str, Any]:
    return {"statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": state}, **fields}}


def both(document: Any) -> tuple[Any, Any]:
    payload = encoded(document)
    return json.loads(response_to_rpc(payload)), json.loads(response_to_rest(payload))


PAIRS = [
    (
        {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_SUBMITTED"}}},
        {"kind": "task", "id": "t", "contextId": "c", "status": {"state": "submitted"}},
        {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_SUBMITTED"}}},
    ),
    (
        {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "hi"}]}},
        {"kind": "message", "messageId": "m", "role": "agent", "parts": [{"kind": "text", "text": "hi"}]},
        {"message": {"messageId": "m", "role": "ROLE_AGENT", "content": [{"text": "hi"}]}},
    ),
    (
        status_update("TASK_STATE_INPUT_REQUIRED"),
        {
            "kind": "status-update",
            "taskId": "t",
            "contextId": "c",
            "status": {"state": "input-required"},
            "final": False,
        },
        {
            "statusUpdate": {
                "taskId": "t",
                "contextId": "c",
                "status": {"state": "TASK_STATE_INPUT_REQUIRED"},
                "final": False,
            }
        },
    ),
    (
        status_update("TASK_STATE_CANCELED"),
        {
            "kind": "status-update",
            "taskId": "t",
            "contextId": "c",
            "status": {"state": "canceled"},
            "final": True,
        },
        {
            "statusUpdate": {
                "taskId": "t",
                "contextId": "c",
                "status": {"state": "TASK_STATE_CANCELLED"},
                "final": True,
            }
        },
    ),
    (
        {
            "artifactUpdate": {
                "taskId": "t",
                "contextId": "c",
                "artifact": {"artifactId": "a", "name": "n", "parts": [{"url": "u", "mediaType": "m"}]},
                "append": True,
            }
        },
        {
            "kind": "artifact-update",
            "taskId": "t",
            "contextId": "c",
            "artifact": {
                "artifactId": "a",
                "name": "n",
                "parts": [{"kind": "file", "file": {"uri": "u", "mimeType": "m"}}],
            },
            "append": True,
        },
        {
            "artifactUpdate": {
                "taskId": "t",
                "contextId": "c",
                "artifact": {
                    "artifactId": "a",
                    "name": "n",
                    "parts": [{"file": {"fileWithUri": "u", "mimeType": "m"}}],
                },
                "append": True,
            }
        },
    ),
]


@pytest.mark.parametrize(("current", "rpc", "rest"), PAIRS)
def test_each_kind_of_event_has_its_form_on_each_wire(current: Any, rpc: Any, rest: Any) -> None:
    assert both(current) == (rpc, rest)
    assert json.loads(response_from_rpc(encoded(rpc))) == current
    assert json.loads(response_from_rest(encoded(rest))) == current


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("state", ["TASK_STATE_COMPLETED", "TASK_STATE_INPUT_REQUIRED"])
def test_the_stream_says_what_is_final(state: str, final: bool) -> None:
    payload = encoded(status_update(state))
    assert json.loads(response_to_rpc(payload, final=final))["final"] is final
    assert json.loads(response_to_rest(payload, final=final))["statusUpdate"]["final"] is final


@pytest.mark.row("C38")
@given(Current.responses)
def test_a_response_comes_back_from_json_rpc_as_it_was(document: Any) -> None:
    assert spelled(response_from_rpc(response_to_rpc(encoded(document)))) == exactly(document)


@pytest.mark.row("C38")
@given(Current.responses)
def test_a_response_comes_back_from_rest_as_it_was(document: Any) -> None:
    assert spelled(response_from_rest(response_to_rest(encoded(document)))) == exactly(document)


@pytest.mark.row("C38")
@given(RPC.responses)
def test_a_v03_result_comes_back_as_it_was(document: Any) -> None:
    assert spelled(response_to_rpc(response_from_rpc(encoded(document)))) == exactly(document)


@pytest.mark.row("C38")
@given(REST.responses)
def test_a_v03_rest_response_comes_back_as_it_was(document: Any) -> None:
    assert spelled(response_to_rest(response_from_rest(encoded(document)))) == exactly(document)


@pytest.mark.row("C39")
def test_unknown_fields_stay_in_their_place_on_json_rpc() -> None:
    document = status_update(generation=12345678901234567)
    document["statusUpdate"]["status"]["later"] = {"a": [1]}
    rpc = json.loads(response_to_rpc(encoded(document)))
    assert rpc["generation"] == 12345678901234567
    assert rpc["status"]["later"] == {"a": [1]}


@pytest.mark.row("C39")
def test_unknown_fields_go_into_metadata_on_rest() -> None:
    document = status_update(generation=7)
    document["statusUpdate"]["status"]["later"] = 1
    document["beside"] = 2
    rest = json.loads(response_to_rest(encoded(document)))
    assert rest["statusUpdate"]["metadata"] == {
        HELD: {"response": {"beside": 2}, "status": {"later": 1}, "fields": {"generation": 7}}
    }


@pytest.mark.row("C39")
@pytest.mark.parametrize(
    "number", [b"1", b"1.0", b"-0", b"1e2", b"12345678901234567890123", b"1.10", b"1E400"]
)
def test_numbers_keep_their_spelling(number: bytes) -> None:
    payload = (
        b'{"statusUpdate":{"taskId":"t","status":{"state":"TASK_STATE_WORKING"},"metadata":{"n":%b}}}'
        % number
    )
    for to, back in ((response_to_rpc, response_from_rpc), (response_to_rest, response_from_rest)):
        assert b'"n":%b}' % number in to(payload)
        assert b'"n":%b}' % number in back(to(payload))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_pretty_json_becomes_one_line(end: str) -> None:
    for document, translation in (
        (PAIRS[4][0], response_to_rpc),
        (PAIRS[4][0], response_to_rest),
        (PAIRS[4][1], response_from_rpc),
        (PAIRS[4][2], response_from_rest),
    ):
        extended = json.loads(json.dumps(document))
        extended["x"] = {"deep": [{"er": "a\nb"}]}
        line = translation(json.dumps(extended, indent=1).replace("\n", end).encode())
        assert b"\n" not in line
        assert b"\r" not in line
        assert json.loads(line) == json.loads(translation(encoded(extended)))


def test_lone_surrogates_are_replaced_as_in_every_stored_payload() -> None:
    payload = b'{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"a\\ud800"}]}}'
    assert json.loads(response_to_rpc(payload))["parts"][0]["text"] == "a\ufffd"


NOT_CURRENT: list[tuple[bytes, str]] = [
    (b"", "truncated"),
    (b"null", "Expected `object`"),
    (b"[]", "Expected `object`"),
    (b'{"statusUpdate":', "truncated"),
    (b"\xff", "UTF-8"),
    (b'{"x":"\xff"}', "UTF-8"),
    (b"{}", "not 0"),
    (b'{"turn":{"id":"1","phase":"begin"}}', "not 0"),
    (b'{"task":null}', "not 0"),
    (b'{"task":{},"message":{}}', "not 2"),
    (b'{"task":5}', "task: Expected `object`"),
    (b'{"task":{"id":"t"}}', "status"),
    (b'{"task":{"id":"t","status":null}}', "status"),
    (b'{"task":{"id":"t","status":{}}}', "state is missing"),
    (b'{"task":{"id":"t","status":{"state":null}}}', "state"),
    (b'{"task":{"id":"t","status":{"state":2}}}', "state"),
    (b'{"task":{"id":"t","status":{"state":"working"}}}', "no task state"),
    (b'{"task":{"id":"t","status":{"state":"TASK_STATE_WORKING"},"artifacts":{}}}', "artifacts"),
    (b'{"task":{"id":"t","status":{"state":"TASK_STATE_WORKING"},"history":[1]}}', "history"),
    (b'{"statusUpdate":{"status":{"state":"TASK_STATE_WORKING","message":"hi"}}}', "message"),
    (b'{"statusUpdate":{"status":{"state":"TASK_STATE_WORKING"},"metadata":"urn:sidecast:v1"}}', "metadata"),
    (b'{"artifactUpdate":{"taskId":"t"}}', "artifact"),
    (b'{"artifactUpdate":{"artifact":{"parts":[{"text":"a","url":"b"}]}}}', "part: has text and url"),
    (b'{"message":{"role":5,"parts":[]}}', "role"),
    (b'{"message":{"role":"ROLE_USER","parts":"hi"}}', "parts"),
    (b'{"message":{"role":"ROLE_USER","parts":["hi"]}}', "parts"),
]


@pytest.mark.parametrize(("payload", "detail"), NOT_CURRENT)
def test_what_is_not_v10_is_refused_by_name(payload: bytes, detail: str) -> None:
    for translation in (response_to_rpc, response_to_rest):
        with pytest.raises(Untranslatable, match=detail):
            translation(payload)


NOT_FORMER: list[tuple[bytes, str]] = [
    (b"5", "Expected `object`"),
    (b"{}", "kind"),
    (b'{"kind":null}', "kind"),
    (b'{"kind":["task"]}', "kind"),
    (b'{"kind":"Task"}', "none of v0.3"),
    (b'{"kind":"task"}', "status"),
    (b'{"kind":"task","status":{}}', "state"),
    (b'{"kind":"task","status":{"state":"paused"}}', "no task state of v0.3"),
    (b'{"kind":"task","status":{"state":"TASK_STATE_WORKING"}}', "no task state of v0.3"),
    (b'{"kind":"task","status":{"state":"working","timestamp":5}}', "timestamp"),
    (b'{"kind":"task","status":{"state":"working","timestamp":"today"}}', "timestamp"),
    (b'{"kind":"task","status":{"state":"working","message":{"kind":"task"}}}', "kind"),
    (b'{"kind":"message","parts":[]}', "role"),
    (b'{"kind":"message","role":"system","parts":[]}', "role"),
    (b'{"kind":"message","role":"user"}', "parts"),
    (b'{"kind":"message","role":"user","parts":null}', "parts"),
    (b'{"kind":"message","role":"user","parts":[{"text":"a"}]}', "kind"),
    (b'{"kind":"message","role":"user","parts":[{"kind":"text"}]}', "no content"),
    (b'{"kind":"message","role":"user","parts":[{"kind":"file","text":"a"}]}', "kind is"),
    (b'{"kind":"message","role":"user","parts":[{"kind":"text","text":"a","file":{}}]}', "text and file"),
    (b'{"kind":"message","role":"user","parts":[{"kind":"text","text":"a","url":"b"}]}', "text and url"),
    (b'{"kind":"message","role":"user","parts":[{"kind":"file","file":{}}]}', "no content"),
    (b'{"kind":"message","role":"user","parts":[{"kind":"data","data":5}]}', "data"),
    (b'{"kind":"artifact-update","artifact":{"artifactId":"a"}}', "parts"),
    (b'{"kind":"artifact-update"}', "artifact"),
]


@pytest.mark.parametrize(("result", "detail"), NOT_FORMER)
def test_what_is_not_v03_is_refused_by_name(result: bytes, detail: str) -> None:
    with pytest.raises(Untranslatable, match=detail):
        response_from_rpc(result)


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        (b"{}", "not 0"),
        (b'{"task":{},"msg":{}}', "not 2"),
        (b'{"kind":"task","status":{}}', "not 0"),
        (b'{"task":{"status":{"state":"working"}}}', "no task state of v0.3"),
        (b'{"task":{"status":{"state":99}}}', "state"),
        (b'{"message":{"role":"user"}}', "no role of v0.3"),
        (b'{"message":{"content":[{}]}}', "no content"),
        (b'{"message":{"content":[{"file":{"fileWithBytes":"?"}}]}}', "base64"),
        (b'{"message":{"content":[{"text":"a","data":{}}]}}', "text and data"),
    ],
)
def test_what_is_not_v03_rest_is_refused_by_name(response: bytes, detail: str) -> None:
    with pytest.raises(Untranslatable, match=detail):
        response_from_rest(response)


def test_an_error_quotes_no_more_than_fits_a_log_line() -> None:
    with pytest.raises(Untranslatable) as caught:
        response_from_rpc(encoded({"kind": "x" * 10_000}))
    assert len(str(caught.value)) <= 200


Translation = Callable[[bytes], bytes]
HOSTILE: dict[str, tuple[Translation, st.SearchStrategy[Any]]] = {
    "to": (response_to_rpc, spoiled(Current.responses)),
    "to rest": (response_to_rest, spoiled(Current.responses)),
    "from": (response_from_rpc, spoiled(RPC.responses)),
    "from rest": (response_from_rest, spoiled(REST.responses)),
}


@pytest.mark.parametrize("name", HOSTILE)
@given(st.data())
@settings(max_examples=100)
def test_spoiled_documents_give_one_line_or_one_kind_of_error(name: str, data: st.DataObject) -> None:
    translation, documents = HOSTILE[name]
    try:
        line = translation(encoded(data.draw(documents)))
    except Untranslatable:
        return
    assert b"\n" not in line
    json.loads(line)


@pytest.mark.parametrize(
    "name", [name for name in translate.__all__ if name.startswith(("task_", "message_"))]
)
@pytest.mark.parametrize("rest", [False, True])
@given(values)
@settings(max_examples=30)
def test_any_json_gives_one_line_or_one_kind_of_error(name: str, rest: bool, document: Any) -> None:
    translation: Translation = partial(getattr(translate, name), rest=rest)
    try:
        line = translation(encoded(document))
    except Untranslatable:
        return
    json.loads(line)


def fault(translation: Translation, payload: bytes) -> str:
    try:
        translation(payload)
    except Untranslatable as error:
        return str(error)
    return ""


@given(spoiled(Current.responses))
def test_of_what_the_log_takes_only_contents_can_be_untranslatable(document: Any) -> None:
    payload = encoded(document)
    try:
        decode_event(payload)
    except InvalidEvent:
        return
    detail = fault(response_to_rpc, payload)
    assert not detail or detail.startswith(("part", "message", "history", "artifact", "role", "metadata"))


def test_what_nests_too_deeply_is_refused_at_any_level() -> None:
    outcomes = set()
    for depth in [*range(500, 1000, 5), 200_000]:
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        outcomes.add(
            fault(
                response_from_rpc,
                b'{"kind":"artifact-update","artifact":{"parts":[{"kind":"data","data":%b}]}}' % deep,
            )
        )
    assert len(outcomes) > 1
    assert all(not detail or "recursion" in detail for detail in outcomes)


@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("kind", NAMES)
def test_a_bare_task_or_message_is_what_the_event_holds(kind: str, rest: bool) -> None:
    current, on_rpc, on_rest = PAIRS[NAMES.index(kind)]
    former = on_rest[kind] if rest else on_rpc
    to = getattr(translate, f"{kind}_to_v03")
    back = getattr(translate, f"{kind}_from_v03")
    assert json.loads(to(encoded(current[kind]), rest=rest)) == former
    assert json.loads(back(encoded(former), rest=rest)) == current[kind]


@pytest.mark.parametrize("kind", NAMES)
def test_a_bare_task_or_message_of_another_kind_is_refused(kind: str) -> None:
    with pytest.raises(Untranslatable, match="kind"):
        getattr(translate, f"{kind}_from_v03")(encoded({**PAIRS[0][1], "kind": "status-update"}), rest=False)
    with pytest.raises(Untranslatable, match="kind"):
        getattr(translate, f"{kind}_from_v03")(b"{}", rest=False)


def test_rest_is_also_read_as_the_proto_spells_it() -> None:
    response = {
        "msg": {
            "message_id": "m",
            "context_id": "c",
            "role": 2,
            "content": [{"file": {"file_with_uri": "u", "mime_type": "t"}}],
        }
    }
    assert json.loads(response_from_rest(encoded(response))) == {
        "message": {
            "messageId": "m",
            "contextId": "c",
            "role": "ROLE_AGENT",
            "parts": [{"url": "u", "mediaType": "t"}],
        }
    }
    response = {"status_update": {"task_id": "t", "status": {"state": 5, "update": {"message_id": "m"}}}}
    assert json.loads(response_from_rest(encoded(response))) == {
        "statusUpdate": {
            "taskId": "t",
            "status": {
                "state": "TASK_STATE_CANCELED",
                "message": {"messageId": "m", "role": "ROLE_UNSPECIFIED", "parts": []},
            },
        }
    }
