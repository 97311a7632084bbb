"""The generated schemas: current, the same everywhere, and as strict as they are meant to be."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec import Raw

from sidecast_schemas.codec import decode_event
from sidecast_schemas.events import Message, Part, Task, TaskStatus, Turn, TurnRecord
from sidecast_schemas.examples import RESPONSES, TURNS
from sidecast_schemas.generate import DIALECT, documents, main, render, stale_files

GENERATED = Path(__file__).parents[2] / "schemas" / "json"
SCHEMAS = ["activity.json", "event.json", "loss.json", "stream-response.json", "turn.json"]
VALIDATORS = {
    name: Draft202012Validator(json.loads((GENERATED / name).read_text("utf-8"))) for name in SCHEMAS
}

WORKING: dict[str, Any] = {"state": "TASK_STATE_WORKING"}
TEXT: dict[str, Any] = {"text": "x"}
STATUS: dict[str, Any] = {"taskId": "t", "status": WORKING}
ARTIFACT: dict[str, Any] = {"artifactId": "a", "parts": [TEXT]}
MESSAGE: dict[str, Any] = {"messageId": "m", "role": "ROLE_AGENT", "parts": [TEXT]}


def with_activity(activity: Any) -> dict[str, Any]:
    return {"statusUpdate": STATUS | {"metadata": {"urn:sidecast:activity:v1": activity}}}


def with_part(part: Any) -> dict[str, Any]:
    return {"message": MESSAGE | {"parts": [part]}}


VALID: dict[str, tuple[str, Any]] = {
    "task": ("stream-response.json", {"task": {"id": "t", "status": WORKING}}),
    "status": ("stream-response.json", {"statusUpdate": STATUS}),
    "artifact": ("stream-response.json", {"artifactUpdate": {"taskId": "t", "artifact": ARTIFACT}}),
    "message": ("stream-response.json", {"message": MESSAGE}),
    "unknown fields": (
        "stream-response.json",
        {"statusUpdate": STATUS | {"later": 1, "status": WORKING | {"mood": []}}, "extra": {}},
    ),
    "state of a later version": (
        "stream-response.json",
        {"task": {"id": "t", "status": {"state": "TASK_STATE_NEW"}}},
    ),
    "raw part": ("stream-response.json", with_part({"raw": "AAEC"})),
    "url part": ("stream-response.json", with_part({"url": "https://example.org"})),
    "null as data": ("stream-response.json", with_part({"data": None})),
    "unknown field of a part": ("stream-response.json", with_part({"text": "", "video": 1})),
    "activity": ("stream-response.json", with_activity({"kind": "progress", "progress": 1, "eta": 3})),
    "other metadata": ("stream-response.json", {"statusUpdate": STATUS | {"metadata": {"k": [None]}}}),
    "event": ("event.json", {"statusUpdate": STATUS}),
    "turn as an event": ("event.json", {"turn": {"id": "m", "phase": "end"}}),
    "turn": ("turn.json", {"turn": {"id": "m", "phase": "begin", "message": MESSAGE, "later": 1}}),
    "step through a protobuf Struct": ("activity.json", {"kind": "step", "step": {"id": "s", "index": 1.0}}),
    "bare activity": ("activity.json", {"kind": "error", "code": "E1", "recoverable": False}),
    "empty loss": ("loss.json", {}),
    "loss": ("loss.json", {"dropped_events": 1, "reason": "stream-reset"}),
    **{f"example {name}": ("event.json", msgspec.to_builtins(value)) for name, value in RESPONSES.items()},
    **{f"example turn {name}": ("event.json", msgspec.to_builtins(value)) for name, value in TURNS.items()},
}

HOSTILE: dict[str, tuple[str, Any]] = {
    "nothing": ("stream-response.json", {}),
    "null": ("stream-response.json", None),
    "array": ("stream-response.json", [{"statusUpdate": STATUS}]),
    "string": ("stream-response.json", "statusUpdate"),
    "two members": ("stream-response.json", {"statusUpdate": STATUS, "message": MESSAGE}),
    "a second member of null": ("stream-response.json", {"statusUpdate": STATUS, "message": None}),
    "only unknown members": ("stream-response.json", {"status_update": STATUS}),
    "a turn": ("stream-response.json", {"turn": {"id": "m", "phase": "end"}}),
    "task without id": ("stream-response.json", {"task": {"status": WORKING}}),
    "task without status": ("stream-response.json", {"task": {"id": "t"}}),
    "id as a number": ("stream-response.json", {"task": {"id": 7, "status": WORKING}}),
    "state of v0.3": ("stream-response.json", {"task": {"id": "t", "status": {"state": "working"}}}),
    "state as a number": ("stream-response.json", {"task": {"id": "t", "status": {"state": 2}}}),
    "status message as a string": (
        "stream-response.json",
        {"statusUpdate": STATUS | {"status": WORKING | {"message": "hi"}}},
    ),
    "status message without parts": (
        "stream-response.json",
        {
            "statusUpdate": STATUS
            | {"status": WORKING | {"message": {"messageId": "m", "role": "ROLE_AGENT"}}}
        },
    ),
    "history of strings": (
        "stream-response.json",
        {"task": {"id": "t", "status": WORKING, "history": ["hi"]}},
    ),
    "unknown role": ("stream-response.json", {"message": MESSAGE | {"role": "agent"}}),
    "no parts": ("stream-response.json", {"message": MESSAGE | {"parts": []}}),
    "part without content": ("stream-response.json", with_part({"mediaType": "text/plain"})),
    "part with two contents": ("stream-response.json", with_part({"text": "x", "data": None})),
    "part of v0.3": ("stream-response.json", with_part({"kind": "file", "file": {"uri": "x"}})),
    "text as a number": ("stream-response.json", with_part({"text": 1})),
    "part as a string": ("stream-response.json", with_part("x")),
    "append as a string": (
        "stream-response.json",
        {"artifactUpdate": {"taskId": "t", "artifact": ARTIFACT, "append": "true"}},
    ),
    "metadata as an array": ("stream-response.json", {"statusUpdate": STATUS | {"metadata": []}}),
    "progress over 1": ("stream-response.json", with_activity({"kind": "progress", "progress": 35})),
    "unknown activity": ("stream-response.json", with_activity({"kind": "dance"})),
    "half a step": ("activity.json", {"kind": "step", "step": {"id": "s", "index": 0.5}}),
    "step without id": ("stream-response.json", with_activity({"kind": "step", "step": {"title": "x"}})),
    "event and turn": ("event.json", {"statusUpdate": STATUS, "turn": {"id": "m", "phase": "end"}}),
    "event and a broken turn": ("event.json", {"statusUpdate": STATUS, "turn": 5}),
    "no event": ("event.json", {"later": {}}),
    "turn of unknown phase": ("turn.json", {"turn": {"id": "m", "phase": "middle"}}),
    "turn without id": ("turn.json", {"turn": {"phase": "end"}}),
    "no turn": ("turn.json", {"statusUpdate": STATUS}),
    "negative loss": ("loss.json", {"dropped_events": -1}),
    "loss for another reason": ("loss.json", {"reason": "bad luck"}),
}


@pytest.mark.parametrize("name", VALID)
def test_valid_payload_passes_schema(name: str) -> None:
    schema, payload = VALID[name]
    VALIDATORS[schema].validate(payload)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_payload_fails_schema(name: str) -> None:
    schema, payload = HOSTILE[name]
    assert not VALIDATORS[schema].is_valid(payload)


def test_a_raw_message_passes_for_what_it_holds() -> None:
    message = Message("m", "ROLE_USER", [Part(text="x")])
    raw = Raw(msgspec.json.encode(message))
    task = Task("t", TaskStatus("TASK_STATE_WORKING", raw), history=[raw, message])
    VALIDATORS["event.json"].validate({"task": json.loads(msgspec.json.encode(task))})
    VALIDATORS["turn.json"].validate(
        json.loads(msgspec.json.encode(TurnRecord(Turn("m", "begin", message=raw))))
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_one_and_its_references_resolve(name: str) -> None:
    schema = json.loads((GENERATED / name).read_text("utf-8"))
    assert schema["$schema"] == DIALECT
    Draft202012Validator.check_schema(schema)
    referred = {reference.removeprefix("#/$defs/") for reference in references(schema)}
    assert referred == schema["$defs"].keys()
    assert "additionalProperties" not in json.dumps(schema)


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [reference for item in node for reference in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [reference for item in node.values() for reference in references(item)]


JUNK = st.sampled_from(
    [None, True, 0, 1.5, "", "t", "TASK_STATE_WORKING", "working", [], {}, [TEXT], MESSAGE]
)
MEMBERS = ["task", "message", "statusUpdate", "artifactUpdate", "turn", "extra"]
PATHS = st.lists(st.integers(0, 10), max_size=5)
DOCUMENTS = [
    payload for schema, payload in VALID.values() if schema in ("event.json", "stream-response.json")
]


def with_change(document: Any, path: list[int], value: Any, key: str | None) -> Any:
    """Give the document with the value the path leads to replaced, or with a key more in the object there."""
    document = copy.deepcopy(document)
    node: Any = document
    parent: Any = None
    slot: Any = None
    for step in path:
        if not isinstance(node, dict | list) or not node:
            break
        parent, slot = node, (sorted(node)[step % len(node)] if isinstance(node, dict) else step % len(node))
        node = parent[slot]
    if key is not None and isinstance(node, dict):
        node[key] = value
    elif parent is not None:
        parent[slot] = value
    return document


@given(st.sampled_from(DOCUMENTS), PATHS, JUNK, st.none() | st.sampled_from(MEMBERS))
def test_what_the_schema_allows_the_codec_takes(
    document: Any, path: list[int], value: Any, key: str | None
) -> None:
    changed = with_change(document, path, value, key)
    if VALIDATORS["event.json"].is_valid(changed):
        event = decode_event(json.dumps(changed).encode())
        assert VALIDATORS["stream-response.json"].is_valid(changed) == (event.kind != "turn")


def test_checked_in_files_are_current() -> None:
    assert stale_files(GENERATED) == []
    assert sorted(path.name for path in GENERATED.iterdir()) == sorted(documents())


@pytest.mark.parametrize("seed", ["0", "1"])
def test_output_does_not_depend_on_the_process(seed: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sidecast_schemas.generate", str(tmp_path / "out")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed}, cwd=tmp_path)
    assert contents(tmp_path / "out") == contents(GENERATED)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_check_passes_only_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "json"
    assert main([str(out), "--check"]) == 1
    assert not out.exists()
    assert main([str(out)]) == 0
    assert main([str(out), "--check"]) == 0
    capsys.readouterr()
    (out / "turn.json").write_text(render(documents()["turn.json"]).replace("begin", "start"), "utf-8")
    (out / "loss.json").unlink()
    (out / "old.json").write_text("{}", "utf-8")
    before = contents(out)
    assert main([str(out), "--check"]) == 1
    assert capsys.readouterr().err.endswith(": loss.json, old.json, turn.json\n")
    assert contents(out) == before


def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main([])
    assert exited.value.code == 2
    assert "directory" in capsys.readouterr().err
