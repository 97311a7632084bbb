from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.capture import (
    admit,
    bare_task,
    contains,
    difference,
    turn_begin,
    turn_end,
)
from sidecast_broker.core.a2a.heard import Reading
from sidecast_broker.core.fold import Fold
from sidecast_schemas.codec import Event, InvalidEvent, decode_event
from sidecast_schemas.events import CAPTURE

SUBMITTED, WORKING, COMPLETED = "TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"
INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def event(kind: str, **fields: Any) -> Event:
    return decode_event(encode({kind: fields}))


def status(state: str = WORKING, message: dict[str, Any] | None = None, **fields: Any) -> Event:
    body = {"state": state} | ({"message": message} if message else {})
    return event("statusUpdate", taskId="t", contextId="c", status=body, **fields)


def chunk(artifact_id: str, *texts: str, append: bool = True, **fields: Any) -> Event:
    artifact = {"artifactId": artifact_id, "parts": [{"text": text} for text in texts], **fields}
    return event("artifactUpdate", taskId="t", contextId="c", artifact=artifact, append=append)


def task(state: str = SUBMITTED, **fields: Any) -> Event:
    return event("task", id="t", contextId="c", status={"state": state}, **fields)


def said(message_id: str, role: str = "ROLE_AGENT", text: str = "hi") -> dict[str, Any]:
    return {"messageId": message_id, "role": role, "parts": [{"text": text}]}


def turn(turn_id: str, phase: str = "begin", **fields: Any) -> Event:
    return event("turn", id=turn_id, phase=phase, **fields)


def fold_of(*events: Event) -> Fold:
    fold = Fold("t")
    return apply(fold, *(each.payload for each in events))


def apply(fold: Fold, *payloads: bytes) -> Fold:
    for payload in payloads:
        fold.apply(decode_event(payload), fold.sequence + 1)
    return fold


def snapshot(state: str = WORKING, message: dict[str, Any] | None = None, **fields: Any) -> bytes:
    body = {"state": state} | ({"message": message} if message else {})
    return encode({"id": "t", "contextId": "c", "status": body, **fields})


def told(payloads: list[bytes]) -> list[Any]:
    return [json.loads(payload) for payload in payloads]


def named(**fields: Any) -> dict[str, Any]:
    return {"taskId": "t", "contextId": "c", **fields}


# --- one event of a stream


def test_the_first_task_is_the_log_s_first_record_as_it_is():
    first = task(history=[said("m", "ROLE_USER")], unknown=12345678901234567890)
    assert admit(Fold("t"), first).payloads == [first.payload]


@pytest.mark.parametrize("first", [status(), chunk("a", "x"), chunk("a", "x", append=False)])
def test_before_a_first_event_that_is_no_task_stands_one(first):
    leading, itself = admit(Fold("t"), first).payloads
    assert json.loads(leading) == {"task": {"id": "t", "contextId": "c", "status": {"state": SUBMITTED}}}
    assert itself == first.payload


def test_a_leading_task_has_no_context_where_the_event_has_none():
    first = event("statusUpdate", taskId="t", status={"state": WORKING})
    assert json.loads(admit(Fold("t"), first).payloads[0])["task"].keys() == {"id", "status"}


def test_events_pass_unchanged():
    fold = fold_of(task())
    update = decode_event(
        b'{"statusUpdate":{"status":{"state":"TASK_STATE_WORKING"},"taskId":"t","generation":3,"n":1e400}}'
    )
    assert admit(fold, update).payloads == [update.payload]


def test_a_second_task_becomes_updates():
    fold = fold_of(task(), chunk("a", "x"))
    second = task(WORKING, artifacts=[{"artifactId": "a", "parts": [{"text": "x"}, {"text": "y"}]}])
    admitted = admit(fold, second)
    assert told(admitted.payloads) == [
        {"artifactUpdate": named(artifact={"artifactId": "a", "parts": [{"text": "y"}]}, append=True)},
        {"statusUpdate": named(status={"state": WORKING})},
    ]
    apply(fold, *admitted.payloads)
    assert admit(fold, second) == ([], "contained")


@pytest.mark.parametrize(
    ("events", "late", "reason"),
    [
        ([], event("message", messageId="m", role="ROLE_AGENT", parts=[]), "message"),
        ([task()], event("message", messageId="m", taskId="t", role="ROLE_AGENT", parts=[]), "message"),
        ([task()], turn("m"), "message"),
        ([task()], event("statusUpdate", taskId="u", status={"state": WORKING}), "other-task"),
        ([], event("task", id="u", status={"state": WORKING}), "other-task"),
        ([task(COMPLETED)], status(), "after-terminal"),
        ([task(), status(COMPLETED)], chunk("a", "x"), "after-terminal"),
        ([task(), status(COMPLETED)], task(WORKING), "after-terminal"),
    ],
)
def test_left_out(events, late, reason):
    assert admit(fold_of(*events), late) == ([], reason)


# --- what a subscription repeats behind its leading Task

AS_TOLD = fold_of(
    task(),
    status(message=said("m1"), metadata={"k": 1}),
    chunk("a", "x", "y"),
    status(message=said("m2")),
    chunk("b", "whole", append=False, name="B"),
)


@pytest.mark.parametrize(
    ("repeated", "contained"),
    [
        (status(message=said("m2")), True),
        (status(message=said("m1")), True),
        (status(message=said("m1"), metadata={"k": 1}), True),
        (status(message=said("m1"), metadata={"k": 2}), False),
        (status(message=said("m3")), False),
        (status(), False),
        (chunk("a", "y"), True),
        (chunk("a", "x", "y"), True),
        (chunk("a", "x"), False),
        (chunk("a", "y", metadata={"k": 1}), False),
        (chunk("c", "y"), False),
        (chunk("b", "whole", append=False, name="B"), True),
        (chunk("b", "other", append=False, name="B"), False),
        (chunk("b", "whole", append=False), False),
    ],
)
def test_what_the_leading_task_contained_is_left_out_just_behind_it(repeated, contained):
    expected = ([], "contained") if contained else ([repeated.payload], None)
    assert admit(AS_TOLD, repeated, fresh=True) == expected
    assert admit(AS_TOLD, repeated) == ([repeated.payload], None)


def test_a_status_without_a_message_is_contained_where_it_says_the_same():
    fold = fold_of(task(WORKING))
    assert admit(fold, status(WORKING), fresh=True).left_out == "contained"
    assert admit(fold, status(INPUT_REQUIRED), fresh=True).left_out is None


# --- a Task against the log


def test_a_task_is_the_first_record_of_an_empty_log():
    fold = apply(Fold("t"), turn("m").payload)
    assert told(difference(fold, snapshot(), resynchronised=True)) == [{"task": json.loads(snapshot())}]


def test_nothing_follows_the_end():
    assert difference(fold_of(task(COMPLETED)), snapshot(WORKING)) == []


def test_another_task_makes_no_difference():
    assert difference(Fold("u"), snapshot()) == []


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"id":"t"}',
        b'{"id":"t","status":{"state":"working"}}',
        b'{"id":"t","status":{"state":"TASK_STATE_WORKING"}},"message":{}',
        b'{"id":"t","status":{"state":"TASK_STATE_WORKING"},"metadata":' + b"[" * 300 + b"]" * 300 + b"}",
        b'\xff{"id":"t","status":{"state":"TASK_STATE_WORKING"}}',
    ],
)
def test_what_is_no_task_is_refused(hostile):
    with pytest.raises(InvalidEvent):
        difference(Fold("t"), hostile)


@pytest.mark.parametrize(
    "fields",
    [
        {"artifacts": None, "history": None, "metadata": None},
        {"artifacts": {}, "history": "x", "metadata": []},
        {"artifacts": [None, 1, {}, {"artifactId": 1}, []], "history": [None, {}, {"messageId": 3}]},
    ],
)
def test_malformed_fields_of_a_task_say_nothing(fields):
    assert difference(fold_of(task(WORKING)), snapshot(WORKING, **fields)) == []


def test_the_order_is_messages_artifacts_status():
    fold = fold_of(task(history=[said("u1", "ROLE_USER")]), status(message=said("m1")))
    later = snapshot(
        COMPLETED,
        said("m4"),
        history=[said("u1", "ROLE_USER"), said("m1"), said("m2"), said("u2", "ROLE_USER"), said("m3")],
        artifacts=[{"artifactId": "a", "parts": [{"text": "x"}]}],
        metadata={"k": 1},
    )
    payloads = difference(fold, later, resynchronised=True)
    mark = {CAPTURE: {"resynchronised": True}}
    assert told(payloads) == [
        {"statusUpdate": named(status={"state": WORKING, "message": said("m2")}, metadata=mark)},
        {"turn": {"id": "u2", "phase": "begin", "message": said("u2", "ROLE_USER")}},
        {"turn": {"id": "u2", "phase": "end", "reason": "resynchronised"}},
        {"statusUpdate": named(status={"state": WORKING, "message": said("m3")}, metadata=mark)},
        {
            "artifactUpdate": named(
                artifact={"artifactId": "a", "parts": [{"text": "x"}]}, lastChunk=True, metadata=mark
            )
        },
        {
            "statusUpdate": named(
                status={"state": COMPLETED, "message": said("m4")}, metadata={"k": 1, **mark}
            )
        },
    ]
    folded = json.loads(apply(fold, *payloads).task())
    assert folded["history"] == json.loads(later)["history"]


def test_messages_of_a_log_whose_beginning_is_gone_are_not_said_again():
    fold = fold_of(status(message=said("m9")))
    old = snapshot(COMPLETED, history=[said("m1"), said("m2"), said("m9")])
    assert told(difference(fold, old)) == [{"statusUpdate": named(status={"state": COMPLETED})}]
    cut = snapshot(COMPLETED, history=[said("m1"), said("m2")])
    assert len(difference(fold, cut)) == 1


def test_the_user_s_messages_wait_while_a_turn_is_open():
    fold = fold_of(task(history=[said("m1")]), turn("u1"))
    later = snapshot(WORKING, history=[said("m1"), said("u2", "ROLE_USER")])
    assert told(difference(fold, later)) == [{"statusUpdate": named(status={"state": WORKING})}]


def test_a_timestamp_alone_is_no_difference():
    fold = fold_of(event("task", id="t", status={"state": WORKING, "timestamp": "2026-01-01T00:00:00Z"}))
    later = {"id": "t", "status": {"state": WORKING, "timestamp": "2026-01-02T00:00:00Z"}}
    assert difference(fold, encode(later)) == []


def test_a_status_whose_message_a_turn_has_moved_on_is_not_said_again():
    fold = fold_of(task(), status(message=said("m")), turn("u", message=said("u", "ROLE_USER")))
    assert difference(fold, snapshot(WORKING, said("m"))) == []
    assert len(difference(fold, snapshot(INPUT_REQUIRED, said("m")))) == 1
    assert len(difference(fold, snapshot(WORKING, said("n")))) == 1


def test_changed_metadata_alone_is_said_with_the_status():
    fold = fold_of(task(WORKING, metadata={"k": 1, "l": True}))
    assert told(difference(fold, snapshot(metadata={"k": 1, "l": False}))) == [
        {"statusUpdate": named(status={"state": WORKING}, metadata={"l": False})}
    ]


@pytest.mark.parametrize(
    ("known", "artifact", "update"),
    [
        ({"parts": [{"text": "a"}]}, {"parts": [{"text": "a"}]}, None),
        ({"parts": [{"text": "a"}]}, {"parts": [{"text": "a"}], "name": "", "extensions": []}, None),
        ({"parts": [{"text": "a"}]}, {"parts": [{"text": "ab"}]}, {"parts": [{"text": "b"}]}),
        (
            {"parts": [{"text": "a"}], "metadata": {"k": 1}},
            {"parts": [{"text": "a"}, {"url": "u"}], "metadata": {"k": 1, "l": 2}},
            {"parts": [{"url": "u"}], "metadata": {"l": 2}},
        ),
        ({"parts": [{"text": "a"}]}, {"parts": [{"text": "b"}]}, "anew"),
        ({"parts": [{"text": "a"}]}, {"parts": [{"text": "ab"}], "name": "n"}, "anew"),
        ({"parts": [{"text": "a"}]}, {"parts": [{"text": "a"}], "metadata": {"k": 1}}, "anew"),
        ({"parts": [{"text": "a"}], "metadata": {"k": 1}}, {"parts": [{"text": "ab"}]}, "anew"),
    ],
)
def test_an_artifact_is_extended_or_made_anew(known, artifact, update):
    fold = fold_of(task(WORKING, artifacts=[{"artifactId": "a", **known}]))
    whole = {"artifactId": "a", **artifact}
    found = told(difference(fold, snapshot(artifacts=[whole])))
    if update is None:
        assert found == []
    elif update == "anew":
        assert found == [{"artifactUpdate": named(artifact=whole)}]
    else:
        assert found == [{"artifactUpdate": named(artifact={"artifactId": "a", **update}, append=True)}]


def test_of_two_artifacts_with_one_id_the_first_counts():
    two = [{"artifactId": "a", "parts": [{"text": text}]} for text in ("x", "y")]
    assert len(difference(fold_of(task(WORKING)), snapshot(artifacts=two))) == 1
    assert difference(fold_of(task(WORKING, artifacts=two)), snapshot(artifacts=two)) == []


@pytest.mark.row("C74")
def test_a_count_of_mutations_goes_to_the_last_event():
    fold = fold_of(task(WORKING))
    artifacts = [{"artifactId": "a", "parts": [{"text": "x"}]}]
    payloads = told(difference(fold, snapshot(COMPLETED, artifacts=artifacts, generation=7)))
    assert "generation" not in payloads[0]["artifactUpdate"]
    assert payloads[1]["statusUpdate"]["generation"] == 7


def test_raw_values_survive():
    fold = fold_of(task(WORKING))
    later = b'{"id":"t","status":{"state":"TASK_STATE_WORKING"},"metadata":{"n":12345678901234567890.0}}'
    (payload,) = difference(fold, later)
    assert b'"n":12345678901234567890.0' in payload


# --- properties

TEXTS = st.text("ab", min_size=1, max_size=2)
MESSAGE_IDS = st.sampled_from([f"m{number}" for number in range(8)])
MESSAGES = st.builds(said, MESSAGE_IDS, st.sampled_from(["ROLE_AGENT", "ROLE_USER"]))
METADATA = st.dictionaries(
    st.sampled_from("kl"), st.none() | st.booleans() | st.integers(0, 2) | st.just({}), max_size=2
)
PARTS = st.lists(st.builds(lambda text: {"text": text}, TEXTS) | st.just({"data": 1}), min_size=1, max_size=4)
ARTIFACT_FIELDS = st.fixed_dictionaries({}, optional={"name": st.just("n"), "metadata": METADATA})
STATES = st.sampled_from([SUBMITTED, WORKING, INPUT_REQUIRED, COMPLETED])
OPEN_STATES = st.sampled_from([SUBMITTED, WORKING, INPUT_REQUIRED])
ARTIFACTS = st.lists(
    st.builds(
        lambda artifact_id, parts, fields: {"artifactId": artifact_id, "parts": parts, **fields},
        st.sampled_from("abc"),
        PARTS,
        ARTIFACT_FIELDS,
    ),
    max_size=3,
    unique_by=lambda artifact: artifact["artifactId"],
)
TASKS = st.builds(
    snapshot,
    STATES,
    st.none() | st.builds(said, MESSAGE_IDS),
    artifacts=ARTIFACTS,
    history=st.lists(MESSAGES, max_size=6, unique_by=lambda message: message["messageId"]),
    metadata=METADATA,
)
UPDATES = st.lists(
    st.builds(status, OPEN_STATES, st.none() | st.builds(said, MESSAGE_IDS), metadata=METADATA)
    | st.builds(
        lambda artifact_id, texts, append, fields: chunk(artifact_id, *texts, append=append, **fields),
        st.sampled_from("abc"),
        st.lists(TEXTS, min_size=1, max_size=3),
        st.booleans(),
        ARTIFACT_FIELDS,
    )
    | st.builds(lambda message_id: turn(message_id, message=said(message_id, "ROLE_USER")), MESSAGE_IDS),
    max_size=6,
)
FIRST = st.builds(
    lambda state, artifacts, history: task(state, artifacts=artifacts, history=history),
    OPEN_STATES,
    ARTIFACTS,
    st.lists(MESSAGES, max_size=3),
)


def content(artifact: dict[str, Any]) -> dict[str, Any]:
    """An artifact with its runs of text joined."""
    parts: list[dict[str, Any]] = []
    for part in artifact["parts"]:
        if parts and "text" in part and "text" in parts[-1]:
            parts[-1] = {"text": parts[-1]["text"] + part["text"]}
        else:
            parts.append(part)
    metadata = artifact.get("metadata") or {}
    return {**artifact, "parts": parts, "metadata": metadata}


@given(FIRST | st.none(), UPDATES, TASKS, st.booleans())
def test_the_difference_leads_to_the_task(first, updates, later, resynchronised):
    fold = fold_of(*([first] if first else []), *updates)
    payloads = difference(fold, later, resynchronised=resynchronised)
    assert all(b"\n" not in payload for payload in payloads)
    for payload in payloads[:-1]:
        apply(fold, payload)
        assert not fold.terminal
        assert fold.surplus_tasks == 0
    if payloads:
        apply(fold, payloads[-1])
    assert fold.after_terminal == 0
    wanted, folded = json.loads(later), json.loads(fold.task())
    if folded["status"] != wanted["status"]:
        moved_on = wanted["status"].pop("message")
        assert folded["status"] == wanted["status"]
        assert fold.knows_message(moved_on["messageId"])
    assert (folded.get("metadata") or {}).items() >= wanted["metadata"].items()
    have = {artifact["artifactId"]: content(artifact) for artifact in folded.get("artifacts", [])}
    for artifact in wanted["artifacts"]:
        assert have[artifact["artifactId"]] == content(artifact)
    assert difference(fold, later) == []


@given(FIRST, UPDATES, TASKS)
def test_a_difference_cut_short_goes_on_where_it_was_cut(first, updates, later):
    """Another broker, or a kill, may come between two of its events."""
    fold = fold_of(first, *updates)
    payloads = difference(fold, later)
    for index, payload in enumerate(payloads):
        apply(fold, payload)
        left = difference(fold, later)
        if b'{"turn"' not in b"".join(payloads):
            assert left == payloads[index + 1 :]
    assert difference(fold, later) == []


@given(FIRST, UPDATES)
def test_a_log_s_own_task_makes_no_difference(first, updates):
    fold = fold_of(first, *updates)
    assert difference(fold, fold.task()) == []


@given(
    st.none() | FIRST, UPDATES, st.lists(FIRST | st.sampled_from([status(COMPLETED), status()]), max_size=4)
)
def test_what_is_admitted_never_breaks_a_rule_of_the_log(first, updates, more):
    fold = Fold("t")
    for each in [*([first] if first else []), *updates, *more]:
        for payload in admit(fold, each).payloads:
            assert fold.started or payload.startswith(b'{"task"')
            delivered = fold.apply(decode_event(payload), fold.sequence + 1)
            assert delivered or payload.startswith(b'{"turn"')
    assert fold.surplus_tasks == fold.after_terminal == 0


# --- a Task that contains what was heard, or contains it twice


def heard_of(*events: Event) -> Reading:
    return Reading(heard=events)


def test_only_what_came_before_what_was_heard_is_said_of_a_task():
    fold = fold_of(task(WORKING), status(message=said("m1")), chunk("a", "1"))
    heard = [chunk("a", "3"), status(INPUT_REQUIRED, said("m3"))]
    later = snapshot(
        INPUT_REQUIRED,
        said("m3"),
        history=[said("m1"), said("m2"), said("m3")],
        artifacts=[
            {"artifactId": "a", "parts": [{"text": text} for text in "1233"]},
            {"artifactId": "b", "parts": [{"text": "x"}]},
        ],
        metadata={"k": 1},
    )
    payloads = difference(fold, later, resynchronised=True, reading=heard_of(*heard))
    mark = {"metadata": {CAPTURE: {"resynchronised": True}}}
    assert told(payloads) == [
        {"statusUpdate": named(status={"state": WORKING, "message": said("m2")}, **mark)},
        {
            "artifactUpdate": named(
                artifact={"artifactId": "a", "parts": [{"text": "2"}]}, append=True, **mark
            )
        },
        {"artifactUpdate": named(artifact={"artifactId": "b", "parts": [{"text": "x"}]}, **mark)},
    ]
    apply(fold, *payloads, *(each.payload for each in heard))
    told_then, wanted = json.loads(fold.task()), json.loads(later)
    assert told_then["status"] == wanted["status"]
    assert told_then["history"] == [said("m1"), said("m2")]
    assert told_then["artifacts"][0]["parts"] == [{"text": text} for text in "123"]


def test_what_ends_a_task_is_left_to_who_was_heard():
    fold = fold_of(task(WORKING))
    assert difference(fold, snapshot(COMPLETED), reading=heard_of(chunk("a", "x"))) == []
    assert difference(fold, snapshot(COMPLETED), reading=heard_of(status(COMPLETED))) == []


def test_a_status_before_what_was_heard_is_said():
    payloads = difference(fold_of(task(WORKING)), snapshot(INPUT_REQUIRED), reading=heard_of(chunk("a", "x")))
    assert told(payloads) == [{"statusUpdate": named(status={"state": INPUT_REQUIRED})}]


@pytest.mark.parametrize("state", [WORKING, COMPLETED])
def test_a_log_begins_with_a_task_without_what_may_have_been_heard(state):
    heard = [chunk("a", "2"), status(state, said("m2"))]
    later = snapshot(
        state,
        said("m2"),
        history=[said("u", "ROLE_USER"), said("m1")],
        artifacts=[{"artifactId": "a", "name": "A", "parts": [{"text": text} for text in "122"]}],
        metadata={"k": 1},
    )
    fold = Fold("t")
    (opening,) = difference(fold, later, reading=heard_of(*heard))
    assert json.loads(opening)["task"] == {
        "id": "t",
        "contextId": "c",
        "status": {"state": WORKING},
        "metadata": {"k": 1},
        "history": [said("u", "ROLE_USER"), said("m1")],
    }
    apply(fold, opening)
    apply(fold, *difference(fold, later, reading=heard_of(*heard)), *(each.payload for each in heard))
    found = json.loads(fold.task())
    assert found["artifacts"] == [{"artifactId": "a", "name": "A", "parts": [{"text": "1"}, {"text": "2"}]}]
    assert found["history"] == [said("u", "ROLE_USER"), said("m1")]
    assert found["status"]["state"] == state


def test_a_task_that_doubles_says_nothing_new():
    fold = fold_of(task(WORKING), chunk("a", "1"), chunk("a", "2"), status(message=said("m1")))
    doubled = [{"artifactId": "a", "parts": [{"text": text} for text in "1122"]}]
    later = snapshot(WORKING, said("m1"), history=[said("m1")], artifacts=doubled)
    reading = Reading(doubles=True)
    assert difference(fold, later, reading=reading) == []
    assert contains(fold, decode_event(b'{"task":%b}' % later), reading)
    assert not contains(fold, decode_event(b'{"task":%b}' % later))
    ended = snapshot(COMPLETED, history=[said("m1"), said("m1")], artifacts=doubled)
    assert told(difference(fold, ended, reading=reading)) == [
        {"statusUpdate": named(status={"state": COMPLETED})}
    ]


@given(FIRST, UPDATES, UPDATES, UPDATES)
def test_what_was_before_and_what_was_heard_make_the_task(first, known, missed, heard):
    heard = [each for each in heard if each.kind != "task"]
    assume(not any(each.terminal for each in [first, *known, *missed]))
    fold = fold_of(first, *known)
    whole = fold_of(first, *known, *missed, *heard)
    apply(fold, *difference(fold, whole.task(), reading=heard_of(*heard)))
    assert not fold.terminal
    apply(fold, *(each.payload for each in heard))
    assert fold.state == whole.state
    assert fold.surplus_tasks == 0


# --- turns and large Tasks


def test_a_turn_is_begun_and_ended_once():
    fold = fold_of(task())
    message = encode(said("u", "ROLE_USER"))
    begin = turn_begin(fold, "u", message)
    assert begin is not None
    assert json.loads(begin) == {"turn": {"id": "u", "phase": "begin", "message": json.loads(message)}}
    assert turn_end(fold, "u", "returned") is None
    apply(fold, begin)
    assert turn_begin(fold, "u", message) is None
    end = turn_end(fold, "u", "returned")
    assert end is not None
    assert json.loads(end) == {"turn": {"id": "u", "phase": "end", "reason": "returned"}}
    apply(fold, end)
    assert turn_end(fold, "u", "returned") is None
    assert turn_begin(fold, "u", message) is None


def test_a_turn_s_message_does_not_take_the_place_of_the_answer():
    message = encode(said("u", "ROLE_USER"))
    answered = event("task", id="t", status={"state": INPUT_REQUIRED, "message": said("m")})
    fold = fold_of(answered)
    begin = turn_begin(fold, "u", message)
    assert begin is not None
    assert "message" not in json.loads(begin)["turn"]
    apply(fold, begin)
    assert json.loads(fold.task())["status"]["message"]["messageId"] == "m"
    known = event(
        "task",
        id="t",
        status={"state": INPUT_REQUIRED, "message": said("m")},
        history=[said("u", "ROLE_USER")],
    )
    fold = fold_of(known)
    begin = turn_begin(fold, "u", message)
    assert begin is not None
    assert "message" in json.loads(begin)["turn"]
    assert json.loads(apply(fold, begin).task())["status"]["message"]["messageId"] == "m"


def test_an_answer_moves_into_the_history_before_the_next_message_of_the_user():
    fold = fold_of(task(), status(INPUT_REQUIRED, said("m")))
    begin = turn_begin(fold, "u", encode(said("u", "ROLE_USER")))
    assert begin is not None
    history = json.loads(apply(fold, begin).task())["history"]
    assert [message["messageId"] for message in history] == ["m", "u"]


@pytest.mark.parametrize("state", [WORKING, COMPLETED])
def test_a_task_too_large_for_one_record_comes_in_pieces(state):
    whole = event(
        "task",
        id="t",
        contextId="c",
        status={"state": state, "message": said("m")},
        artifacts=[{"artifactId": "a", "parts": [{"text": "x"}]}],
        metadata={"k": 1},
    )
    fold = apply(Fold("t"), bare_task(whole))
    assert not fold.terminal
    apply(fold, *difference(fold, encode(json.loads(whole.payload)["task"])))
    assert json.loads(fold.task()) == json.loads(whole.payload)["task"]
