from __future__ import annotations

import json
from typing import Any, NamedTuple, get_args

import msgspec
import pytest
from core.test_frame import EventStream, Message, read_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sidecast_broker.core.fold import Fold
from sidecast_broker.core.views import events
from sidecast_broker.core.views.events import (
    EncodedFrame,
    Filter,
    FrameKind,
    FrameShape,
    RecordShape,
    UnknownType,
    encode,
    parse_filter,
)
from sidecast_schemas.codec import Event, decode_event
from sidecast_schemas.events import ACTIVITY, LOSS, TASK_STATES, kebab_state

WORKING = "TASK_STATE_WORKING"
AT = "2026-01-02T03:04:05.678Z"
EPOCH = "mf3k2q1z"
HEAD = {"taskId": "t", "contextId": "c", "seq": 7, "at": AT}
VALIDATE = Draft202012Validator(msgspec.json.schema(FrameShape)).validate


class Stored(NamedTuple):
    sequence: int
    at: str
    event: Event


def record(payload: Any, sequence: int = 7) -> Stored:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Stored(sequence, AT, decode_event(raw))


def status(state: str = WORKING, message: Any = None, **fields: Any) -> dict:
    body = {"state": state} | ({} if message is None else {"message": message})
    return {"statusUpdate": {"taskId": "t", "contextId": "c", "status": body} | fields}


def said(*parts: Any, **fields: Any) -> dict:
    return {"messageId": "m", "role": "ROLE_AGENT", "parts": list(parts)} | fields


def artifact(*parts: Any, event_fields: Any = (), **fields: Any) -> dict:
    body = {"artifactId": "a", "parts": list(parts)} | fields
    return {"artifactUpdate": {"taskId": "t", "contextId": "c", "artifact": body} | dict(event_fields)}


def activity(content: Any, state: str = WORKING, message: Any = None, **metadata: Any) -> dict:
    return status(state, message, metadata={ACTIVITY: content} | metadata)


def read_frame(encoded: EncodedFrame | None) -> tuple[Message, dict]:
    """Read the one frame as a client does; check what is true of every frame."""
    assert encoded is not None
    assert len(encoded) == len(encoded.data)
    (message,) = read_stream(encoded.data)
    assert encoded.json.decode() == message.data
    shown = json.loads(message.data)
    VALIDATE(shown)
    assert shown["type"] == encoded.kind.type
    assert message.data.startswith('{"type":')
    return message, shown


def show(payload: Any, fold: Fold | None = None) -> dict:
    """Give a record's frame without what every one has."""
    one = record(payload)
    encoded = encode(one, fold or Fold("t"), EPOCH)
    message, shown = read_frame(encoded)
    assert encoded is not None
    assert message.event == shown["type"]
    assert message.last_event_id == "mf3k2q1z-7"
    assert list(shown)[:5] == ["type", *HEAD]
    for key, value in HEAD.items():
        assert shown.pop(key) == value
    return shown


# --- statuses ---


PLAIN = {"type": "task.status", "state": "working", "text": "hi", "final": False}
KEPT = {"type": "task.status", "state": "working", "final": False}


@pytest.mark.parametrize(
    ("message", "text", "kept"),
    [
        (None, None, False),
        # the text says it all
        (said({"text": "hi"}), "hi", False),
        (said({"text": ""}), "", False),
        (said({"text": "a\nb\r\0\u2028é"}), "a\nb\r\0\u2028é", False),
        (said({"text": "hi"}, taskId="t", contextId="c"), "hi", False),
        (said({"text": "hi"}, metadata={}, extensions=[], referenceTaskIds=None), "hi", False),
        (said({"text": "hi", "metadata": {}, "filename": "", "mediaType": None}), "hi", False),
        ({"parts": [{"text": "hi"}]}, "hi", False),
        # it does not
        (said({"text": "a"}, {"text": "b"}), "a\nb", True),
        (said({"text": "a"}, {"data": {"x": 1}}), "a", True),
        (said({"data": {"x": 1}}), None, True),
        (said({"url": "https://example.org"}), None, True),
        (said({"text": "hi", "mediaType": "text/markdown"}), "hi", True),
        (said({"text": "hi", "metadata": {"x": 1}}), "hi", True),
        (said({"text": "hi"}, metadata={"x": 1}), "hi", True),
        (said({"text": "hi"}, extensions=["urn:x"]), "hi", True),
        (said({"text": "hi"}, generation=0), "hi", True),
        (said({"text": "hi"}, role="ROLE_USER"), "hi", True),
        # it is malformed, and passes as it is
        (said(), None, True),
        ({"messageId": "m"}, None, True),
        ({}, None, True),
        (said({"text": 5}), None, True),
        (said({"text": None}), None, True),
        (said({}), None, True),
        ({"parts": "hi"}, None, True),
        ({"parts": [5]}, None, True),
        ({"parts": None}, None, True),
    ],
)
def test_the_message_is_left_out_when_text_says_it_all(message, text, kept):
    expected = KEPT | ({} if text is None else {"text": text}) | ({"message": message} if kept else {})
    assert show(status(message=message)) == expected


@pytest.mark.parametrize("state", [*sorted(TASK_STATES), "TASK_STATE_PAUSED"])
def test_states(state):
    one = record(status(state))
    shown = show(status(state))
    assert shown["state"] == kebab_state(state)
    final = shown["state"] in ("completed", "failed", "canceled", "rejected")
    assert shown["final"] is final
    encoded = encode(one, Fold("t"), EPOCH)
    assert encoded is not None
    assert encoded.kind.unfilterable is (final or shown["state"] in ("input-required", "auth-required"))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"x": 1}, {"metadata": {"x": 1}}),
        ({LOSS: {"dropped_events": 3}}, {"metadata": {LOSS: {"dropped_events": 3}}}),
        ({}, {}),
        (None, {}),
    ],
)
def test_metadata(metadata, expected):
    assert show(status(metadata=metadata)) == KEPT | expected


def test_raw_json_is_untouched():
    payload = (
        b'{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING","message":'
        b'{"parts":[{"text":"\\u00e9\\ud83d\\ude00"},{"data":1.10}],"generation":12345678901234567890}},'
        b'"metadata":{"n":1E400,"m":-0}}}'
    )
    encoded = encode(record(payload), Fold("t"), EPOCH)
    assert encoded is not None
    assert encoded.json == (
        b'{"type":"task.status","taskId":"t","contextId":"c","seq":7,"at":"2026-01-02T03:04:05.678Z",'
        b'"state":"working","text":"\\u00e9\\ud83d\\ude00","message":{"parts":[{"text":"\\u00e9\\ud83d\\ude00"'
        b'},{"data":1.10}],"generation":12345678901234567890},"final":false,"metadata":{"n":1E400,"m":-0}}'
    )


def test_line_ends_between_tokens_do_not_break_the_frame():
    pretty = json.dumps(status(message=said({"data": [1]}), metadata={"x": [1, {}]}), indent=1)
    for payload in (pretty.encode(), pretty.replace("\n", "\r\n").encode()):
        assert show(payload) == KEPT | {"message": said({"data": [1]}), "metadata": {"x": [1, {}]}}


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_data_is_compact_however_it_was_published(indent: int | None):
    text = 'three: "four" , five'
    payloads = [
        {"task": {"id": "t", "status": {"state": WORKING}, "metadata": {"x": [{"y": text}]}}},
        status(message=said({"text": text}, {"data": {"n": 1}}), metadata={"x": {"y": text}}),
        artifact({"text": text}, {"data": {"n": 1}}),
        {"message": said({"text": text}, taskId="t")},
        activity({"kind": "step", "step": {"id": "s", "title": text}}),
    ]
    fold = Fold("t")
    for sequence, payload in enumerate(payloads, 2):
        one = record(json.dumps(payload, indent=indent).encode(), sequence)
        fold.apply(one.event, sequence)
        encoded = encode(one, fold, EPOCH)
        assert encoded is not None
        for each in (encoded, events.snapshot(fold, sequence, AT, EPOCH, partial=False)):
            assert each.json.decode() == json.dumps(json.loads(each.json), separators=(",", ":"))


# --- activities ---


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "progress", "progress": 0.35},
        {"kind": "progress", "progress": 1},
        {"kind": "step", "step": {"id": "s", "title": "Read", "state": "done", "index": 0, "new": 1}},
        {"kind": "step", "step": {"id": "s"}, "progress": 0.5},
        {"kind": "thought"},
        {"kind": "debug", "component": "planner"},
        {"kind": "error", "code": "E1", "recoverable": True, "component": "reader"},
        {"kind": "thought", "new": [1, {"x": None}], "newer": 1.5},
    ],
)
def test_activities_of_a_working_task(content):
    kind = content["kind"]
    assert show(activity(content)) == {"type": f"task.{kind}"} | content
    shown = show(activity(content, message=said({"text": "hi"})))
    assert shown == {"type": f"task.{kind}", "text": "hi"} | content


def test_an_activity_cannot_replace_what_every_frame_has():
    forged = {
        "type": "stream.end",
        "taskId": "u",
        "seq": 9,
        "at": "",
        "text": "x",
        "message": 1,
        "metadata": 2,
    }
    assert show(activity({"kind": "thought"} | forged)) == {"type": "task.thought", "kind": "thought"}


def test_an_activity_keeps_other_metadata_and_messages_that_say_more():
    message = said({"text": "hi"}, {"data": {"x": 1}})
    shown = show(activity({"kind": "thought"}, message=message, x=1))
    assert shown == {
        "type": "task.thought",
        "kind": "thought",
        "text": "hi",
        "message": message,
        "metadata": {"x": 1},
    }


def test_the_numbers_of_an_activity_are_untouched():
    payload = json.dumps(activity({"kind": "progress", "progress": 0.25})).replace("0.25", "0.250")
    encoded = encode(record(payload.encode()), Fold("t"), EPOCH)
    assert encoded is not None
    assert b'"progress":0.250' in encoded.json


@pytest.mark.parametrize("state", sorted(TASK_STATES - {WORKING}))
def test_an_activity_in_another_state_is_a_status(state):
    content = {"kind": "error", "code": "E1"}
    shown = show(activity(content, state))
    assert (shown["type"], shown["metadata"]) == ("task.status", {ACTIVITY: content})


@pytest.mark.parametrize(
    "content",
    [
        None,
        5,
        "progress",
        [],
        {},
        {"kind": "dance"},
        {"kind": None},
        {"kind": ["progress"]},
        {"kind": "progress"},
        {"kind": "progress", "progress": -0.1},
        {"kind": "progress", "progress": 1.1},
        {"kind": "progress", "progress": 10**400},
        {"kind": "progress", "progress": "0.5"},
        {"kind": "progress", "progress": None},
        {"kind": "step"},
        {"kind": "step", "step": {}},
        {"kind": "step", "step": "s"},
        {"kind": "step", "step": {"id": "s", "state": "lost"}},
        {"kind": "error", "recoverable": "yes"},
        {"kind": "error", "code": 5},
    ],
)
def test_a_malformed_activity_is_a_status(content):
    assert show(activity(content)) == KEPT | {"metadata": {ACTIVITY: content}}


# --- artifacts, messages, tasks, turns ---

PIECE = {"type": "task.artifact", "artifactId": "a", "append": False, "lastChunk": False}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (artifact({"text": "hi"}), {"text": "hi"}),
        (artifact({"text": ""}), {"text": ""}),
        (
            artifact({"text": "# Hi", "mediaType": "text/markdown"}),
            {"text": "# Hi", "mediaType": "text/markdown"},
        ),
        (artifact({"text": "hi", "metadata": {}, "filename": ""}), {"text": "hi"}),
        (artifact({"text": "hi"}, name="report.md"), {"text": "hi", "name": "report.md"}),
        (artifact({"text": "hi"}, name="", metadata={}), {"text": "hi"}),
        (artifact({"text": "hi"}, metadata={"x": 1}), {"text": "hi", "metadata": {"x": 1}}),
        (
            artifact({"text": "hi"}, event_fields={"metadata": {"x": 1}, "append": True, "lastChunk": True}),
            {"text": "hi", "eventMetadata": {"x": 1}, "append": True, "lastChunk": True},
        ),
        (artifact({"text": "hi"}, event_fields={"append": None, "lastChunk": None}), {"text": "hi"}),
        # the text does not say it all
        (
            artifact({"text": "a"}, {"text": "b"}),
            {"text": "ab", "parts": [{"text": "a"}, {"text": "b"}]},
        ),
        (
            artifact({"text": "hi", "filename": "a.txt"}),
            {"text": "hi", "parts": [{"text": "hi", "filename": "a.txt"}]},
        ),
        (
            artifact({"text": "hi", "mediaType": 5}),
            {"text": "hi", "parts": [{"text": "hi", "mediaType": 5}]},
        ),
        (artifact({"raw": "AAEC"}), {"parts": [{"raw": "AAEC"}]}),
        (artifact({"data": None}), {"parts": [{"data": None}]}),
        (artifact(), {"parts": []}),
        (artifact(parts=None), {"parts": []}),
    ],
)
def test_artifacts(payload, expected):
    assert show(payload) == PIECE | expected


def test_a_message():
    message = said({"text": "hi"}, contextId="c", generation=1)
    assert show({"message": message}) == {"type": "task.message", "message": message}


def test_a_task_record_is_a_snapshot_of_its_position_at_any_time():
    first = {"id": "t", "contextId": "c", "status": {"state": WORKING}, "generation": 3}
    asked = said({"text": "do"}, role="ROLE_USER")
    fold = Fold("t")
    fold.apply(record({"turn": {"id": "m", "phase": "begin", "message": asked}}).event, 6)
    fold.apply(record({"task": first}).event, 7)
    expected = {
        "type": "task.snapshot",
        "task": {
            "id": "t",
            "contextId": "c",
            "status": {"state": WORKING},
            "history": [asked],
            "generation": 3,
        },
        "state": "working",
        "progress": None,
        "steps": [],
        "partial": False,
    }
    assert show({"task": first}, fold) == expected
    fold.apply(record(activity({"kind": "progress", "progress": 0.5})).event, 8)
    fold.apply(record(status("TASK_STATE_COMPLETED")).event, 9)
    assert show({"task": first}, fold) == expected


def test_a_task_record_without_its_fold():
    first = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}
    shown = show({"task": first})
    assert (shown["task"], shown["state"]) == (first, "completed")


def test_a_control_record_is_no_frame():
    turn = record({"turn": {"id": "m", "phase": "end"}})
    assert encode(turn, Fold("t"), EPOCH) is None


@pytest.mark.parametrize("payload", [status(), artifact({"text": "hi"}), {"message": said({"text": "hi"})}])
def test_the_context_of_the_fold_stands_in(payload):
    fold = Fold("t")
    payload = json.loads(json.dumps(payload).replace('"contextId": "c", ', ""))
    _, shown = read_frame(encode(record(payload), fold, EPOCH))
    assert shown["contextId"] == ""
    fold.context_id = "d"
    _, shown = read_frame(encode(record(payload), fold, EPOCH))
    assert (shown["taskId"], shown["contextId"]) == ("t", "d")


def test_without_a_name_every_frame_is_a_message():
    encoded = encode(record(status()), Fold("t"), EPOCH, named=False)
    message, shown = read_frame(encoded)
    assert (message.event, shown["type"]) == ("message", "task.status")
    named = encode(record(status()), Fold("t"), EPOCH)
    assert named is not None
    assert encoded is not None
    assert named.data == b"event: task.status\n" + encoded.data


# --- snapshots and answers ---


def folded() -> Fold:
    fold = Fold("t")
    for sequence, payload in enumerate(
        [
            activity({"kind": "progress", "progress": 0.5}),
            activity({"kind": "step", "step": {"id": "s", "state": "running"}}),
            status("TASK_STATE_INPUT_REQUIRED", said({"text": "Which?"})),
        ],
        5,
    ):
        assert fold.apply(record(payload).event, sequence)
    return fold


SNAPSHOT = {
    "task": {
        "id": "t",
        "contextId": "c",
        "status": {"state": "TASK_STATE_INPUT_REQUIRED", "message": said({"text": "Which?"})},
        "metadata": {ACTIVITY: {"kind": "step", "step": {"id": "s", "state": "running"}}},
    },
    "state": "input-required",
    "progress": 0.5,
    "steps": [{"id": "s", "state": "running"}],
}


@pytest.mark.parametrize("partial", [False, True])
def test_a_snapshot(partial):
    encoded = events.snapshot(folded(), 7, AT, EPOCH, partial=partial)
    message, shown = read_frame(encoded)
    assert (message.event, message.last_event_id) == ("task.snapshot", "mf3k2q1z-7")
    assert shown == {"type": "task.snapshot", **HEAD, **SNAPSHOT, "partial": partial}
    assert list(shown)[:5] == ["type", *HEAD]
    assert encoded.kind.unfilterable


def test_a_snapshot_of_nothing():
    _, shown = read_frame(events.snapshot(Fold("t"), 0, AT, EPOCH, partial=False, named=False))
    assert (shown["state"], shown["progress"], shown["steps"]) == (None, None, [])


def test_the_json_answer():
    assert json.loads(events.answer(folded(), 7, EPOCH, partial=False)) == SNAPSHOT | {"cursor": "mf3k2q1z-7"}
    partial = json.loads(events.answer(folded(), 7, EPOCH, partial=True))
    assert partial == SNAPSHOT | {"cursor": "mf3k2q1z-7", "partial": True}


# --- control frames ---


@pytest.mark.parametrize(
    ("encoded", "expected", "retry_ms"),
    [
        (
            events.open_frame("snapshot", "e-7", 15, 3000, task_id="t"),
            {
                "type": "stream.open",
                "taskId": "t",
                "mode": "snapshot",
                "cursor": "e-7",
                "heartbeat_s": 15,
                "retry_ms": 3000,
            },
            3000,
        ),
        (
            events.open_frame("replay", None, 2.5, 3000),
            {"type": "stream.open", "mode": "replay", "cursor": None, "heartbeat_s": 2.5, "retry_ms": 3000},
            3000,
        ),
        (
            events.gap_frame("expired", None, "e-3"),
            {"type": "stream.gap", "reason": "expired", "requested": None, "oldest": "e-3"},
            None,
        ),
        (
            events.lag_frame(120, "snapshot"),
            {"type": "stream.lag", "behind_events": 120, "policy": "snapshot"},
            None,
        ),
        (events.expiring_frame(30), {"type": "stream.expiring", "expires_in_s": 30}, None),
        (events.drain_frame(1500), {"type": "stream.drain", "reconnect_in_ms": 1500}, 1500),
        (
            events.busy_frame("limit", 1500),
            {"type": "stream.busy", "reason": "limit", "reconnect_in_ms": 1500},
            1500,
        ),
        (
            events.end_frame("TASK_STATE_INPUT_REQUIRED", "drain"),
            {"type": "stream.end", "state": "input-required", "reason": "drain"},
            None,
        ),
        (
            events.end_frame(None, "not-found", task_id="t"),
            {"type": "stream.end", "taskId": "t", "state": None, "reason": "not-found"},
            None,
        ),
        (events.heartbeat_frame(), {"type": "stream.heartbeat"}, None),
    ],
)
def test_control_frames(encoded, expected, retry_ms):
    message, shown = read_frame(encoded)
    assert shown == expected
    assert message.event == expected["type"]
    assert message.last_event_id == ""
    assert encoded.kind == FrameKind(expected["type"], True)
    reader = EventStream()
    reader.read(encoded.data)
    assert reader.retry_ms == retry_ms


def test_open_is_a_resume_point_in_mode_live_only():
    message, shown = read_frame(events.open_frame("live", "e-7", 15, 3000))
    assert (message.last_event_id, shown["cursor"]) == ("e-7", "e-7")
    message, _ = read_frame(events.open_frame("live", None, 15, 3000))
    assert message.last_event_id == ""


@pytest.mark.parametrize(
    ("requested", "shown_as"),
    [
        ("e-1\nid: f-2\r\0", "e-1\nid: f-2\r\0"),
        ("\udcff-1", "?-1"),
        ("x" * 5000, "x" * 128),
        ("", ""),
    ],
)
def test_a_gap_repeats_what_was_asked_for(requested, shown_as):
    _, shown = read_frame(events.gap_frame("malformed", requested, None))
    assert shown["requested"] == shown_as


@pytest.mark.parametrize(
    "frame",
    [
        events.open_frame("live", "e-7", 15, 3000, named=False),
        events.gap_frame("slow", None, None, named=False),
        events.lag_frame(1, "x", named=False),
        events.expiring_frame(1, named=False),
        events.drain_frame(1, named=False),
        events.busy_frame("x", 1, named=False),
        events.end_frame(None, "x", named=False),
        events.heartbeat_frame(named=False),
    ],
)
def test_control_frames_without_a_name(frame):
    message, _ = read_frame(frame)
    assert message.event == "message"


# --- filters ---


@pytest.mark.parametrize(
    ("types", "debug", "expected"),
    [
        (None, None, Filter()),
        ("", None, Filter()),
        (" , ", "0", Filter()),
        ("status", None, Filter(frozenset({"task.status"}))),
        ("status\n", None, Filter(frozenset({"task.status"}))),
        ("task.status, artifact,status", "", Filter(frozenset({"task.status", "task.artifact"}))),
        ("debug", "1", Filter(frozenset({"task.debug"}), True)),
        (None, "true", Filter(None, True)),
        ("batch,stream.end", None, Filter(frozenset({"task.batch", "stream.end"}))),
    ],
)
def test_parse_filter(types, debug, expected):
    assert parse_filter(types, debug) == expected
    assert hash(parse_filter(types, debug)) == hash(expected)


@pytest.mark.parametrize(
    ("types", "name"),
    [
        ("statuses", "statuses"),
        ("status,Artifact", "Artifact"),
        ("open", "open"),
        ("stream.nothing", "stream.nothing"),
        ("task.", "task."),
        ("st\0atus", "st\0atus"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_an_unknown_type_is_named(types, name):
    with pytest.raises(UnknownType) as caught:
        parse_filter(types)
    assert caught.value.name == name
    assert repr(name[:80]) in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "task.status" in str(caught.value)


ALL_KINDS = [
    status(),
    status("TASK_STATE_AUTH_REQUIRED"),
    status("TASK_STATE_FAILED"),
    *(activity({"kind": kind}) for kind in ("thought", "debug", "error")),
    activity({"kind": "progress", "progress": 0}),
    activity({"kind": "step", "step": {"id": "s"}}),
    artifact({"text": "hi"}),
    {"message": said({"text": "hi"})},
    {"task": {"id": "t", "status": {"state": WORKING}}},
]


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [
        (
            Filter(),
            "status auth-required failed thought error progress step artifact message snapshot",
        ),
        (
            Filter(debug=True),
            "status auth-required failed thought debug error progress step artifact message snapshot",
        ),
        (parse_filter("artifact"), "auth-required failed artifact snapshot"),
        (parse_filter("status"), "status auth-required failed snapshot"),
        (parse_filter("debug"), "auth-required failed snapshot"),
        (parse_filter("debug", "1"), "auth-required failed debug snapshot"),
        (parse_filter("thought", "1"), "auth-required failed thought snapshot"),
    ],
)
def test_a_filter_admits(wanted, admitted):
    names = []
    for payload in ALL_KINDS:
        encoded = encode(record(payload), Fold("t"), EPOCH)
        assert encoded is not None
        if wanted.admits(encoded.kind):
            shown = json.loads(encoded.json)
            decisive = shown["type"] == "task.status" and encoded.kind.unfilterable
            names.append(shown["state"] if decisive else shown["type"].removeprefix("task."))
    assert names == admitted.split()


def test_a_filter_never_holds_back_a_control_frame():
    assert parse_filter("artifact").admits(events.end_frame(None, "x").kind)
    assert parse_filter("artifact").admits(events.heartbeat_frame().kind)


# --- the whole format ---


def test_every_record_shape_begins_alike_and_has_a_table_row():
    tags = {shape.__struct_config__.tag for shape in get_args(RecordShape)}
    rows = "snapshot status progress step thought debug error artifact message"
    assert tags == {f"task.{row}" for row in rows.split()}
    for shape in get_args(RecordShape):
        assert shape.__struct_fields__[:4] == tuple(HEAD)
        assert shape.__doc__


def test_the_schema_refuses_what_is_not_the_format():
    good = json.loads(events.heartbeat_frame().json)
    VALIDATE(good)
    validator = Draft202012Validator(msgspec.json.schema(FrameShape))
    assert not validator.is_valid({"type": "stream.nothing"})
    assert not validator.is_valid({"type": "task.status", "taskId": "t"})


HOSTILE = st.lists(
    st.sampled_from(
        ["\n", "\r", "\0", "\r\n", "\n\n", "data: {}", "id: f-1", "event: x", ":", "\u2028", "\x85", "é"]
    )
).map("".join) | st.text(st.characters(exclude_categories=["Cs"]))
NESTED = st.recursive(
    HOSTILE | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(HOSTILE, inner)
)


@settings(max_examples=60, deadline=None)
@given(
    task_id=HOSTILE.filter(bool),
    context_id=HOSTILE,
    text=HOSTILE,
    key=HOSTILE,
    value=NESTED,
    content=st.fixed_dictionaries(
        {"kind": st.sampled_from(["thought", "error", "debug"]) | HOSTILE},
        optional={"code": HOSTILE, "component": HOSTILE, "new": NESTED},
    ),
    indent=st.none() | st.integers(0, 2),
)
def test_text_cannot_forge_a_field(task_id, context_id, text, key, value, content, indent):
    message = {"messageId": text, "parts": [{"text": text}, {"data": value}], "metadata": {key: value}}
    common = {"taskId": task_id, "contextId": context_id, "metadata": {key: value, ACTIVITY: content}}
    payloads = [
        {"task": {"id": task_id, "contextId": context_id, "status": {"state": WORKING}, key or "x": value}},
        {"statusUpdate": common | {"status": {"state": WORKING, "message": message}}},
        {
            "statusUpdate": common
            | {"status": {"state": "TASK_STATE_FAILED", "message": {"parts": [{"text": text}]}}}
        },
        {
            "artifactUpdate": common
            | {"artifact": {"artifactId": text, "name": text, "parts": [{"text": text}]}}
        },
        {"message": message | {"taskId": task_id, "contextId": context_id}},
    ]
    fold = Fold(task_id)
    frames = [
        events.open_frame("live", "e-1", 15, 3000, task_id=task_id),
        events.gap_frame("malformed", text, None),
    ]
    for sequence, payload in enumerate(payloads, 2):
        try:
            one = record(json.dumps(payload, indent=indent).encode(), sequence)
        except ValueError:
            continue  # an unlucky key makes the payload something else, which the codec refuses
        fold.apply(one.event, sequence)
        encoded = encode(one, fold, "e")
        assert encoded is not None
        frames += [encoded, events.snapshot(fold, sequence, AT, "e", partial=False)]
    frames += [events.end_frame(None, text, task_id=task_id), events.busy_frame(text, 1)]
    reader = EventStream()
    messages = reader.read(b"".join(frame.data for frame in frames))
    assert len(messages) == len(frames)
    for message, frame in zip(messages, frames, strict=True):
        shown = json.loads(message.data)
        assert message.event == shown["type"] == frame.kind.type
        if frame.kind.type.startswith("task."):
            assert message.last_event_id == f"e-{shown['seq']}"
        assert shown.get("taskId", task_id) == task_id
        assert shown.get("contextId", context_id) in (context_id, "")
    assert reader.comments == 0
