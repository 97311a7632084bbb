from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Coroutine
from typing import Any

import pytest
from a2a.server.context import ServerCallContext
from a2a.server.tasks.task_manager import TaskManager
from a2a.types import a2a_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecast_broker.core.activity import read_activity
from sidecast_broker.core.fold import STEPS_MAX, WAITING_BYTES_MAX, WAITING_MAX, Fold
from sidecast_schemas.codec import Event, StatusBody, TaskBody, decode_event
from sidecast_schemas.events import ACTIVITY

WORKING = "TASK_STATE_WORKING"
COMPLETED = "TASK_STATE_COMPLETED"


def event(kind: str, **fields: Any) -> Event:
    return decode_event(json.dumps({kind: fields}).encode())


def status(state: str = WORKING, message: dict | None = None, **fields: Any) -> Event:
    body = {"state": state} | ({"message": message} if message else {})
    return event("statusUpdate", taskId="t", status=body, **fields)


def activity(content: Any, state: str = WORKING) -> Event:
    return status(state, metadata={ACTIVITY: content})


def artifact(artifact_id: str, *parts: dict, append: bool = False, **fields: Any) -> Event:
    body = {"artifactId": artifact_id, "parts": list(parts), **fields}
    return event("artifactUpdate", taskId="t", artifact=body, append=append)


def task(state: str = "TASK_STATE_SUBMITTED", **fields: Any) -> Event:
    return event("task", id="t", status={"state": state}, **fields)


def turn(turn_id: str, phase: str = "begin", message: dict | None = None) -> Event:
    return event("turn", id=turn_id, phase=phase, **({"message": message} if message else {}))


def said(message_id: str, text: str = "hi", role: str = "ROLE_AGENT") -> dict:
    return {"messageId": message_id, "role": role, "parts": [{"text": text}]}


def fold_of(*events: Event) -> Fold:
    fold = Fold("t")
    for sequence, each in enumerate(events, 1):
        fold.apply(each, sequence)
    return fold


def task_of(*events: Event) -> dict:
    return json.loads(fold_of(*events).task())


# --- as the a2a-sdk ---


class ForgetfulStore:
    """A task store that never has the task: the manager folds in its own memory."""

    async def save(self, task: a2a_pb2.Task, context: ServerCallContext) -> None:
        return None

    async def get(self, task_id: str, context: ServerCallContext) -> None:
        return None


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def fold_by_sdk(events: list[dict]) -> a2a_pb2.Task:
    first = events[0].get("turn")
    initial = ParseDict(first["message"], a2a_pb2.Message()) if first else None
    manager = TaskManager(ForgetfulStore(), ServerCallContext(), "t", None, initial)  # type: ignore[arg-type]
    for each in events[1:] if first else events:
        current = finish(manager.get_task())
        if "turn" in each:
            message = ParseDict(each["turn"]["message"], a2a_pb2.Message())
            # As active_task.py of the SDK does before the first event of a turn.
            if all(known.message_id != message.message_id for known in current.history):
                manager.update_with_message(message, current)
            continue
        response = ParseDict(each, a2a_pb2.StreamResponse())
        finish(manager.process(getattr(response, response.WhichOneof("payload"))))
    return finish(manager.get_task())


def as_dict(message: a2a_pb2.Task) -> Any:
    def prune(value: Any) -> Any:
        # An empty metadata object and none at all are the same to ProtoJSON readers.
        if isinstance(value, dict):
            return {key: prune(inner) for key, inner in value.items() if (key, inner) != ("metadata", {})}
        return [prune(inner) for inner in value] if isinstance(value, list) else value

    return prune(MessageToDict(message))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
IDS = st.sampled_from(["a", "b", "c"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-10, 10) | TEXT
METADATA = st.dictionaries(
    st.sampled_from(["k", "l", "é", ACTIVITY]),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=2,
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"text": TEXT}, optional={"mediaType": TEXT, "filename": TEXT, "metadata": METADATA}
    )
    | st.fixed_dictionaries({"data": st.dictionaries(st.sampled_from("xy"), SCALARS, max_size=2)})
    | st.sampled_from([{"raw": "AAEC"}, {"url": "https://example.org/a"}]),
    max_size=3,
)


def messages(role: str) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {"messageId": st.sampled_from([f"m{n}" for n in range(6)]), "role": st.just(role), "parts": PARTS},
        optional={"metadata": METADATA, "contextId": TEXT, "extensions": st.lists(TEXT, max_size=2)},
    )


STATUSES = st.fixed_dictionaries(
    {"state": st.sampled_from([WORKING, "TASK_STATE_SUBMITTED", "TASK_STATE_INPUT_REQUIRED"])},
    optional={"message": messages("ROLE_AGENT"), "timestamp": st.just("2026-01-02T03:04:05.678Z")},
)
ARTIFACTS = st.fixed_dictionaries(
    {"artifactId": IDS, "parts": PARTS},
    optional={
        "name": TEXT,
        "description": TEXT,
        "metadata": METADATA,
        "extensions": st.lists(TEXT, max_size=2),
    },
)


@st.composite
def logs(draw: st.DrawFn) -> list[dict]:
    """A log that the SDK takes: appends only to artifacts that exist, one context, nothing after the end."""
    known: set[str] = set()
    events: list[dict] = []
    if draw(st.booleans()):
        body = draw(
            st.fixed_dictionaries(
                {"id": st.just("t"), "contextId": st.just("ctx"), "status": STATUSES},
                optional={
                    "artifacts": st.lists(ARTIFACTS, max_size=3),
                    "history": st.lists(messages("ROLE_USER"), max_size=3),
                    "metadata": METADATA,
                },
            )
        )
        known.update(artifact["artifactId"] for artifact in body.get("artifacts", []))
        events.append({"task": body})
    for kind in draw(st.lists(st.sampled_from(["status", "artifact", "artifact", "turn"]), max_size=12)):
        if kind == "turn":
            message = draw(messages("ROLE_USER"))
            if events and "turn" in events[-1]:
                continue
            events.append({"turn": {"id": message["messageId"], "phase": "begin", "message": message}})
            continue
        common = {"taskId": "t", "contextId": "ctx"}
        if kind == "status":
            common |= draw(st.fixed_dictionaries({"status": STATUSES}, optional={"metadata": METADATA}))
            events.append({"statusUpdate": common})
        else:
            body = draw(ARTIFACTS)
            append = body["artifactId"] in known and draw(st.booleans())
            known.add(body["artifactId"])
            events.append({"artifactUpdate": common | {"artifact": body, "append": append}})
    if len(events) < 2 or draw(st.booleans()):
        end = {"taskId": "t", "contextId": "ctx", "status": draw(STATUSES) | {"state": COMPLETED}}
        events.append({"statusUpdate": end})
    return events


@settings(max_examples=120, deadline=None)
@given(logs())
def test_equals_the_sdk(events):
    fold = fold_of(*(decode_event(json.dumps(each).encode()) for each in events))
    ours = ParseDict(json.loads(fold.task()), a2a_pb2.Task())
    assert as_dict(ours) == as_dict(fold_by_sdk(events))
    assert b"\n" not in fold.task()


# --- status and history ---


def test_the_message_of_a_status_moves_into_the_history_at_the_next():
    assert task_of(status(message=said("m1")), status(message=said("m2")), status()) == {
        "id": "t",
        "status": {"state": WORKING},
        "history": [said("m1"), said("m2")],
    }
    assert task_of(status(message=said("m1")))["status"] == {"state": WORKING, "message": said("m1")}
    assert "history" not in task_of(status(message=said("m1")), artifact("a", {"text": "x"}))


@pytest.mark.parametrize(
    ("events", "state", "terminal", "interrupted"),
    [
        ([], None, None, False),
        ([event("message", messageId="m", parts=[])], None, None, False),
        ([turn("m1", message=said("m1"))], None, None, False),
        ([task()], "TASK_STATE_SUBMITTED", None, False),
        ([artifact("a", {"text": "x"})], "TASK_STATE_SUBMITTED", None, False),
        ([task(), status()], WORKING, None, False),
        ([status(), status("TASK_STATE_INPUT_REQUIRED")], "TASK_STATE_INPUT_REQUIRED", None, True),
        ([status("TASK_STATE_AUTH_REQUIRED")], "TASK_STATE_AUTH_REQUIRED", None, True),
        ([status("TASK_STATE_INPUT_REQUIRED"), status()], WORKING, None, False),
        ([status("TASK_STATE_PAUSED")], "TASK_STATE_PAUSED", None, False),
        ([task(COMPLETED)], COMPLETED, 1, False),
        ([task(), status("TASK_STATE_FAILED"), status()], "TASK_STATE_FAILED", 2, False),
        ([status("TASK_STATE_CANCELED")], "TASK_STATE_CANCELED", 1, False),
        ([status("TASK_STATE_REJECTED")], "TASK_STATE_REJECTED", 1, False),
    ],
)
def test_state(events, state, terminal, interrupted):
    fold = fold_of(*events)
    assert (fold.state, fold.terminal_sequence, fold.interrupted) == (state, terminal, interrupted)
    assert fold.terminal is (terminal is not None)
    assert json.loads(fold.task())["status"]["state"] == (state or "TASK_STATE_SUBMITTED")


def test_an_empty_fold_is_a_task_all_the_same():
    assert Fold("t\n").task() == b'{"id":"t\\n","status":{"state":"TASK_STATE_SUBMITTED"}}'


def test_a_null_message_is_none():
    fold = Fold("t")
    for sequence in (1, 2):
        payload = b'{"statusUpdate":{"taskId":"t","status":{"state":"TASK_STATE_WORKING","message":null}}}'
        fold.apply(decode_event(payload), sequence)
    assert fold.task() == b'{"id":"t","status":{"state":"TASK_STATE_WORKING"}}'


@pytest.mark.parametrize(
    ("events", "context_id"),
    [
        ([task(), status()], ""),
        ([task(contextId="c")], "c"),
        ([status(), status(contextId="c"), status(contextId="d")], "c"),
        ([status(contextId=""), artifact("a")], ""),
        ([event("message", messageId="m", contextId="c", parts=[])], "c"),
    ],
)
def test_the_first_context_named_stays(events, context_id):
    fold = fold_of(*events)
    assert fold.context_id == context_id
    assert json.loads(fold.task()).get("contextId", "") == context_id


# --- what is deliverable ---


def test_after_the_end_nothing_is_delivered_or_changed():
    fold = fold_of(status(), status(COMPLETED))
    before = fold.task()
    late = [status(), artifact("a", {"text": "x"}), task(), event("message", messageId="m", parts=[])]
    assert [fold.apply(each, 10 + n) for n, each in enumerate(late)] == [False] * 4
    assert fold.after_terminal == 4
    assert fold.surplus_tasks == 0
    assert (fold.task(), fold.terminal_sequence, fold.sequence) == (before, 2, 13)


def test_the_end_of_the_turn_after_the_end_of_the_task_is_no_surplus():
    fold = fold_of(turn("m1"), status(COMPLETED))
    assert fold.open_turn == "m1"
    assert fold.apply(turn("m1", "end"), 3) is False
    assert (fold.after_terminal, fold.open_turn) == (0, None)


@pytest.mark.parametrize(
    ("before", "deliverable"),
    [
        ([], True),
        ([turn("m1", message=said("m1"))], True),
        ([task()], False),
        ([status()], False),
        ([artifact("a", {"text": "x"})], False),
        ([event("message", messageId="m", parts=[])], False),
    ],
)
def test_only_the_first_record_can_be_the_task(before, deliverable):
    fold = fold_of(*before)
    assert fold.apply(task(COMPLETED, metadata={"x": 1}), 9) is deliverable
    assert fold.surplus_tasks == (not deliverable)
    assert fold.terminal is deliverable
    assert ("metadata" in json.loads(fold.task())) is deliverable
    if deliverable:
        assert fold.opening == fold.task()


def test_the_opening_stays_as_it_was():
    fold = fold_of(turn("m1", message=said("m1")), task(contextId="c"))
    opening = fold.opening
    fold.apply(status(COMPLETED), 3)
    assert fold.opening == opening
    assert opening != fold.task()
    assert json.loads(opening or b"") == {
        "id": "t",
        "contextId": "c",
        "status": {"state": "TASK_STATE_SUBMITTED"},
        "history": [said("m1")],
    }
    assert fold_of(status()).opening is None


# --- turns ---


def test_a_turn_brings_the_question_after_the_answer_it_got():
    asked, answered = said("m2", "Which file?"), said("m3", "All", "ROLE_USER")
    fold = fold_of(
        task(history=[said("m1", role="ROLE_USER")]),
        status("TASK_STATE_INPUT_REQUIRED", asked),
        turn("m3", message=answered),
    )
    assert json.loads(fold.task()) == {
        "id": "t",
        "status": {"state": "TASK_STATE_INPUT_REQUIRED"},
        "history": [said("m1", role="ROLE_USER"), asked, answered],
    }


@pytest.mark.parametrize(
    "events",
    [
        [task(history=[said("m1")]), turn("m1", message=said("m1"))],
        [turn("m1", message=said("m1")), turn("m1", message=said("m1"))],
        [turn("m1", message={"parts": []}), turn("m1", message={"parts": []})],
        [turn("m1", message=said("m1")), task(history=[said("m1")])],
        [turn("m1", message={"parts": []}), turn("m1", message=said("m1")), task(history=[said("m2")])],
    ],
)
def test_a_message_is_in_the_history_once(events):
    history = task_of(*events)["history"]
    assert len({message.get("messageId") for message in history}) == len(history)


def test_messages_of_earlier_turns_stand_before_the_history_of_the_task_record():
    events = [turn("m1", message=said("m1")), task(history=[said("m0")]), turn("m2", message=said("m2"))]
    assert [message["messageId"] for message in task_of(*events)["history"]] == ["m1", "m0", "m2"]


def test_messages_without_an_id_are_all_kept():
    nameless = {"role": "ROLE_USER", "parts": [{"text": "hi"}]}
    assert task_of(turn("m1", message=nameless), task(history=[nameless]))["history"] == [nameless, nameless]


def test_a_turn_after_the_end_does_not_change_the_task():
    fold = fold_of(task(COMPLETED))
    before = fold.task()
    fold.apply(turn("m1", message=said("m1")), 2)
    assert (fold.task(), fold.open_turn) == (before, "m1")


def test_turns_open_and_end_and_are_never_delivered():
    fold = Fold("t")
    assert not any(fold.apply(turn("m1", phase), n) for n, phase in enumerate(["begin", "end", "begin"], 1))
    assert fold.turn_phase("m1") == "begin"
    fold = fold_of(turn("m1"), turn("m1", "end"), turn("m2"), turn("m1", "end"))
    assert fold.open_turn == "m2"
    assert [fold.turn_phase(each) for each in ("m1", "m2", "m3")] == ["end", "begin", None]
    assert "history" not in json.loads(fold.task())


# --- artifacts ---


@pytest.mark.parametrize(
    ("events", "artifacts"),
    [
        ([artifact("a", {"text": "1"})], {"a": "1"}),
        ([artifact("a", {"text": "1"}), artifact("a", {"text": "2"})], {"a": "2"}),
        ([artifact("a", {"text": "1"}), artifact("a", {"text": "2"}, append=True)], {"a": "12"}),
        ([artifact("a", {"text": "1"}), artifact("a", append=True)], {"a": "1"}),
        ([artifact("a"), artifact("a", {"text": "1"}, append=True)], {"a": "1"}),
        ([artifact("a", {"text": "1"}, {"text": "2"}, append=True)], {"a": "12"}),
        (
            [artifact("a", {"text": "1"}), artifact("b", {"text": "2"}), artifact("a", {"text": "3"})],
            {"a": "3", "b": "2"},
        ),
        ([task(artifacts=[{"artifactId": "a", "parts": [{"text": "1"}]}]), artifact("a")], {"a": ""}),
    ],
)
def test_artifacts_replace_and_append(events, artifacts):
    folded = task_of(*events)["artifacts"]
    assert [each["artifactId"] for each in folded] == list(artifacts)
    texts = {each["artifactId"]: "".join(part["text"] for part in each["parts"]) for each in folded}
    assert texts == artifacts


def test_an_appended_piece_adds_parts_and_metadata_only():
    fold = fold_of(
        artifact("a", {"text": "1"}, name="first", metadata={"x": {"y": 1}, "z": 1}),
        artifact("a", {"text": "2"}, append=True, name="second", metadata={"x": {"w": 2}}),
    )
    assert json.loads(fold.task())["artifacts"] == [
        {
            "artifactId": "a",
            "name": "first",
            "parts": [{"text": "1"}, {"text": "2"}],
            "metadata": {"x": {"w": 2}, "z": 1},
        }
    ]


def test_of_two_artifacts_with_one_id_the_first_is_updated():
    twice = [{"artifactId": "a", "parts": [{"text": text}]} for text in "12"]
    folded = task_of(task(artifacts=twice), artifact("a", {"text": "3"}))["artifacts"]
    assert [each["parts"][0]["text"] for each in folded] == ["3", "2"]


# --- raw JSON ---


def test_only_the_first_update_of_an_artifact_begins_it():
    chunk = artifact("a", {"text": "x"}, append=True)
    opened = task(artifacts=[{"artifactId": "b", "parts": []}])
    fold = fold_of(opened, chunk, artifact("a", {"text": "y"}), artifact("b", {"text": "z"}), chunk)
    began = [(name, at) for name in "ab" for at in range(2, 6) if fold.begins_artifact(name, at)]
    assert began == [("a", 2)]


def test_what_was_not_taken_in_after_the_end_begins_nothing_that_was():
    fold = fold_of(artifact("a", {"text": "x"}), status(COMPLETED), artifact("a", {"text": "y"}))
    assert fold.begins_artifact("a", 1)
    assert not fold.begins_artifact("a", 3)


def test_unknown_fields_and_numbers_survive():
    fold = Fold("t")
    fold.apply(
        decode_event(
            b'{"task":{"id":"t","status":{"state":"TASK_STATE_WORKING","weight":1.10},"generation":'
            b'12345678901234567890,"metadata":{"n":1.10,"e":1E2},"artifacts":[{"artifactId":"a","new":0.10,'
            b'"parts":[{"text":"\\u00e9","x":-0}]}],"history":[{"messageId":"m","new":1e400}]}}'
        ),
        1,
    )
    fold.apply(
        decode_event(
            b'{"artifactUpdate":{"taskId":"t","append":true,"artifact":{"artifactId":"a","parts":'
            b'[ {"data":12345678901234567890} ],"metadata":{"n":10000000000000000000000}}}}'
        ),
        2,
    )
    assert fold.task() == (
        b'{"id":"t","status":{"state":"TASK_STATE_WORKING","weight":1.10},"artifacts":[{"artifactId":"a",'
        b'"new":0.10,"parts":[{"text":"\\u00e9","x":-0},{"data":12345678901234567890}],"metadata":'
        b'{"n":10000000000000000000000}}],"history":[{"messageId":"m","new":1e400}],"metadata":{"n":1.10,'
        b'"e":1E2},"generation":12345678901234567890}'
    )


def test_the_task_is_one_line_whatever_the_payload_was():
    fold = Fold("t")
    fold.apply(
        decode_event(b'{"task":\r\n{"id":"t","status":{"state":\n"TASK_STATE_WORKING"},"x":[1,\n2]}}'), 1
    )
    fold.apply(
        decode_event(
            b'{"artifactUpdate":{"taskId":"t","artifact":{"artifactId":"a","parts":\n[\n{"text":"x"}\n]}}}'
        ),
        2,
    )
    assert b"\n" not in fold.task()
    assert json.loads(fold.task())["artifacts"][0]["parts"] == [{"text": "x"}]


@pytest.mark.parametrize(
    ("field", "value", "left"),
    [
        ("artifacts", 5, None),
        ("artifacts", [5, {"artifactId": "a", "parts": []}], [{"artifactId": "a", "parts": []}]),
        ("artifacts", [{"artifactId": 5}], None),
        ("artifacts", {}, None),
        ("history", "x", None),
        ("history", [said("m"), None], [said("m")]),
        ("metadata", [1], None),
    ],
)
def test_what_is_malformed_in_a_task_is_left_out_and_counted(field, value, left):
    fold = Fold("t")
    payload = json.dumps({"task": {"id": "t", "status": {"state": WORKING}, field: value}}).encode()
    # Made by hand: the codec may refuse it, and the fold must not rely on that.
    assert fold.apply(Event("task", payload, TaskBody("t", StatusBody(WORKING))), 1)
    assert fold.malformed == 1
    assert json.loads(fold.task()).get(field) == left


@pytest.mark.parametrize("field", ["artifacts", "history", "metadata", "contextId"])
def test_null_is_absent(field):
    fold = fold_of(task(**{field: None}))
    assert fold.malformed == 0
    assert field not in json.loads(fold.task())


# --- activities ---


@pytest.mark.parametrize(
    ("content", "progress"),
    [
        ({"kind": "progress", "progress": 0}, 0.0),
        ({"kind": "progress", "progress": 1}, 1.0),
        ({"kind": "thought", "progress": 0.25}, 0.25),
        ({"kind": "step", "progress": 0.5, "step": {"id": "s"}}, 0.5),
        ({"kind": "progress", "progress": 0.5, "new": {}}, 0.5),
        ({"kind": "progress"}, None),
        ({"kind": "progress", "progress": 1.01}, None),
        ({"kind": "progress", "progress": -0.01}, None),
        ({"kind": "progress", "progress": "0.5"}, None),
        ({"kind": "progress", "progress": None}, None),
        ({"kind": "progress", "progress": True}, None),
        ({"kind": "step", "progress": 0.5}, None),
        ({"kind": "step", "progress": 0.5, "step": {"id": 5}}, None),
        ({"kind": "step", "progress": 0.5, "step": {"id": "s", "state": "lost"}}, None),
        ({"kind": "dance", "progress": 0.5}, None),
        ({"progress": 0.5}, None),
        ({}, None),
        ([], None),
        (None, None),
        ("progress", None),
    ],
)
def test_activity(content, progress):
    each = activity(content)
    read = read_activity(each)
    assert fold_of(each).progress == progress
    assert (read is None) is (progress is None)
    if read is not None:
        assert {key: json.loads(bytes(raw)) for key, raw in read.fields.items()} == content


def test_only_a_status_update_reports_an_activity():
    assert read_activity(status()) is None
    assert read_activity(task(metadata={ACTIVITY: {"kind": "progress", "progress": 0.5}})) is None


def test_progress_is_that_of_the_last_activity_that_has_one():
    fold = fold_of(
        activity({"kind": "progress", "progress": 0.1}),
        activity({"kind": "progress", "progress": 0.9}, COMPLETED),
    )
    assert fold.progress == 0.9
    fold = fold_of(activity({"kind": "progress", "progress": 0.1}), activity({"kind": "thought"}), status())
    assert fold.progress == 0.1


def step(step_id: str, **fields: Any) -> Event:
    return activity({"kind": "step", "step": {"id": step_id, **fields}})


def test_steps_are_kept_newest_state_first_place():
    fold = fold_of(step("a"), step("b", title="B"), step("a", state="done", new=1))
    assert [json.loads(bytes(raw)) for raw in fold.steps] == [
        {"id": "a", "state": "done", "new": 1},
        {"id": "b", "title": "B"},
    ]


def test_steps_are_bounded():
    fold = fold_of(*(step(str(n)) for n in range(STEPS_MAX + 50)))
    assert [json.loads(bytes(raw))["id"] for raw in fold.steps] == [str(n) for n in range(50, STEPS_MAX + 50)]


# --- what others may look at ---


def test_what_the_fold_says_can_be_looked_at():
    fold = fold_of()
    assert (fold.started, dict(fold.status), dict(fold.metadata), fold.artifact("a")) == (False, {}, {}, None)
    fold.apply(turn("u1"), 1)
    assert not fold.started
    fold.apply(task(metadata={"k": 1}, history=[said("m1")]), 2)
    fold.apply(artifact("a", {"text": "x"}, name="n", metadata={"l": 2}), 3)
    fold.apply(artifact("a", {"text": "y"}, append=True), 4)
    fold.apply(status(message=said("m2")), 5)
    found = fold.artifact("a")
    assert fold.started
    assert bytes(fold.status["state"]) == b'"TASK_STATE_WORKING"'
    assert bytes(fold.metadata["k"]) == b"1"
    assert found is not None
    assert found.fields.keys() == {"artifactId", "name"}
    assert bytes(found.metadata["l"]) == b"2"
    assert json.loads(bytes(found.parts)) == [{"text": "x"}, {"text": "y"}]
    assert [fold.knows_message(each) for each in ("u1", "m1", "m2", "m3", "")] == [True] * 3 + [False] * 2


LOOKS = {
    "task": lambda fold: fold.task(),
    "status": lambda fold: {key: bytes(raw) for key, raw in fold.status.items()},
    "metadata": lambda fold: {key: bytes(raw) for key, raw in fold.metadata.items()},
    "artifact": lambda fold: fold.artifact("a") and bytes(fold.artifact("a").parts),
    "knows_message": lambda fold: fold.knows_message("m3"),
    "steps": lambda fold: [bytes(raw) for raw in fold.steps],
    "progress": lambda fold: fold.progress,
    "size_bytes": lambda fold: fold.size_bytes,
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("count", [1, WAITING_MAX - 1, WAITING_MAX, WAITING_MAX + 1, 5 * WAITING_MAX])
def test_whoever_looks_sees_all_that_waits(look, count):
    makes = (
        lambda n: status(message=said(f"m{n}"), metadata={"k": n}),
        lambda n: artifact("a", {"text": f"{n}"}, append=n % 8 != 0),
        lambda n: step(f"s{n % 5}", progress=n % 100 / 100),
        lambda n: turn(f"u{n}", message=said(f"u{n}")),
    )
    events = [makes[n % len(makes)](n) for n in range(count)]
    often, once = Fold("t"), Fold("t")
    for sequence, each in enumerate(events, 1):
        often.apply(each, sequence)
        often.task()
        once.apply(each, sequence)
    seen = look(once)
    once.task()  # an encoded Task counts
    assert (look(often), often.task()) == (
        seen if look is not LOOKS["size_bytes"] else look(once),
        once.task(),
    )


# --- cost ---


@pytest.mark.parametrize("size", [10, 1000, 100_000])
def test_what_waits_is_bounded_and_counts(size):
    update = artifact("a", {"text": "x" * size})
    fold = fold_of(update)
    settled = fold.size_bytes
    held = []
    for sequence in range(2, 4 * WAITING_MAX):
        fold.apply(update, sequence)
        held.append(fold.held_bytes - settled)
    assert held[0] == (len(update.payload) if size <= 1000 else 0)
    assert 0 <= min(held) <= max(held) <= min(WAITING_MAX * len(update.payload), WAITING_BYTES_MAX)
    assert fold.size_bytes == settled


@pytest.mark.parametrize("look", [False, True])
def test_tasks_whose_events_come_in_turn_do_not_all_fold_at_once(look):
    update, folds = artifact("a", {"text": "x"}), [Fold(f"task-{number}") for number in range(400)]
    for fold in folds:
        fold.apply(update, 1)
        if look:
            assert fold.artifact("a")
    for sequence in range(2, 4 * WAITING_MAX):
        before = [fold.held_bytes for fold in folds]
        for fold in folds:
            fold.apply(update, sequence)
        settled = sum(fold.held_bytes < held for fold, held in zip(folds, before, strict=True))
        assert settled <= 3 * len(folds) / WAITING_MAX


def test_appending_is_constant_and_the_task_linear():
    pieces = [artifact("a", {"text": "x" * 100}, append=True) for _ in range(20_000)]
    fold = Fold("t")
    started = time.perf_counter()
    for sequence, piece in enumerate(pieces, 1):
        fold.apply(piece, sequence)
    encoded = fold.task()
    assert time.perf_counter() - started < 1
    assert len(json.loads(encoded)["artifacts"][0]["parts"]) == 20_000


def test_the_task_is_encoded_once_per_change():
    fold = fold_of(task())
    assert fold.task() is fold.task()
    before = fold.task()
    fold.apply(turn("m1"), 2)
    assert fold.task() is before
    fold.apply(status(), 3)
    assert fold.task() is not before


@pytest.mark.parametrize(
    "make",
    [
        lambda n: artifact("a", {"text": "x" * 100}, append=True, metadata={"n": n}),
        lambda n: artifact("a", {"text": "x" * n}),
        lambda n: artifact(f"a{n}", {"text": "x" * 100}),
        lambda n: status(message=said(f"m{n}", "x" * 100), metadata={f"k{n % 50}": n}),
        lambda n: step(f"s{n % 300}", title="x" * (n % 50)),
        lambda n: turn(f"m{n}", message=said(f"m{n}")),
    ],
    ids=["append", "replace", "artifacts", "statuses", "steps", "turns"],
)
def test_size_follows_the_memory_held(make):
    events = [make(n) for n in range(2000)]
    tracemalloc.start()
    try:
        fold = Fold("t")
        for sequence, each in enumerate(events, 1):
            fold.apply(each, sequence)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 * held < fold.size_bytes + 4000 < 2.5 * held + 20_000


def test_size_returns_to_what_it_was():
    fold = fold_of(task(), artifact("a", {"text": "x"}, metadata={"k": 1}), status(metadata={"k": 1}))
    before = fold.size_bytes
    for sequence in range(4, 100):
        fold.apply(artifact("a", {"text": "x" * sequence}, metadata={"k": "x" * sequence}), sequence)
        fold.apply(status(metadata={"k": "x" * sequence}), sequence)
    assert fold.size_bytes > before
    fold.apply(artifact("a", {"text": "x"}, metadata={"k": 1}), 100)
    fold.apply(status(metadata={"k": 1}), 101)
    assert fold.size_bytes == before


def test_nothing_kept_holds_a_payload_alive():
    """A slice of a payload would keep all of it: 1 MiB for a step's title."""
    fold = Fold("t")
    padding = "x" * 2**20
    tracemalloc.start()
    try:
        for sequence in range(1, 6):
            fold.apply(
                event(
                    "statusUpdate",
                    taskId="t",
                    status={"state": WORKING, "message": said(f"m{sequence}")},
                    metadata={ACTIVITY: {"kind": "step", "step": {"id": str(sequence)}}},
                    padding=padding,
                ),
                sequence,
            )
            fold.apply(
                event(
                    "artifactUpdate",
                    taskId="t",
                    artifact={"artifactId": str(sequence), "metadata": {"k": 1}, "parts": [{"text": "x"}]},
                    padding=padding,
                ),
                sequence,
            )
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2**19
