"""The broker's own fold of what a thinned stream says is that of all records, at every resume point."""

from __future__ import annotations

import json
from typing import Any

from core.test_coalesced import payloads, pieces_of, shown, thinned
from core.test_events_view import record
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecast_broker.core.fold import Fold
from sidecast_schemas.events import ACTIVITY, TASK_STATES, kebab_state

ACTIVITY_FIELDS = ("kind", "progress", "step", "code", "recoverable", "component")
PASSING = [{"text": "now"}]
"""The text of a progress: what is thinned keeps the newest of them, so a history may lack the others."""
STATE_OF = {kebab_state(state): state for state in TASK_STATES}


def event_of(frame: dict[str, Any]) -> dict[str, Any] | None:
    """Give the event that a frame tells of; None: no fold is changed by it."""
    said = {"message": frame["message"]} if "message" in frame else {}
    if "text" in frame and not said:
        said = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": frame["text"]}]}}
    ids = {"taskId": "t", "contextId": frame["contextId"]}
    match frame["type"]:
        case "task.message":
            return None
        case "task.artifact":
            part = {key: frame[key] for key in ("text", "mediaType") if key in frame}
            body = {"artifactId": frame["artifactId"], "parts": frame.get("parts", [part])}
            body |= {key: frame[key] for key in ("name", "metadata") if key in frame}
            return {"artifactUpdate": ids | {"artifact": body, "append": frame["append"]}}
        case "task.status":
            state, metadata = STATE_OF[frame["state"]], frame.get("metadata", {})
        case _:
            known = {key: frame[key] for key in ACTIVITY_FIELDS if key in frame}
            state, metadata = "TASK_STATE_WORKING", {ACTIVITY: known} | frame.get("metadata", {})
    return {"statusUpdate": ids | {"status": {"state": state} | said, "metadata": metadata}}


def joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give parts with each text that only goes on joined to the one before it."""
    found: list[dict[str, Any]] = []
    for part in parts:
        last = found[-1] if found else {}
        plain = all("text" in each and set(each) <= {"text", "mediaType"} for each in (part, last))
        if plain and part.get("mediaType", last.get("mediaType")) == last.get("mediaType"):
            last["text"] += part["text"]
        else:
            found.append(dict(part))
    return found


def told(fold: Fold) -> dict[str, Any]:
    """Give what a fold says, as far as it is what lasts."""
    task = json.loads(fold.task())
    for artifact in task.get("artifacts", []):
        artifact["parts"] = joined(artifact["parts"])
    task["history"] = [each["parts"] for each in task.get("history", []) if each["parts"] != PASSING]
    task["status"]["message"] = task["status"].get("message", {}).get("parts")
    return task | {"steps": [json.loads(bytes(step)) for step in fold.steps], "progress": fold.progress}


def apply(fold: Fold, payload: dict[str, Any], sequence: int) -> None:
    fold.apply(record(payload, sequence).event, sequence)


@given(payloads, st.data())
@settings(max_examples=300, deadline=None)
def test_the_fold_of_what_is_sent_is_that_of_all_records(story: list[Any], data: st.DataObject) -> None:
    full, states = Fold("t"), {}
    for sequence, payload in enumerate(story, 1):
        if "message" not in payload:
            apply(full, payload, sequence)
        states[sequence] = told(full)
    sent, start, points = Fold("t"), 0, 0
    while start < len(story):
        length = data.draw(st.integers(1, len(story)))
        for piece in thinned(story, start, start + length):
            position, frame = shown(piece)
            if (payload := event_of(frame)) is not None:
                apply(sent, payload, frame["seq"])
            if position:
                assert told(sent) == states[position]
                points += 1
        start += length
    assert points or not pieces_of(story)
