from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from sidecast_broker.core.a2a.artifacts import artifact_update, artifact_update_before
from sidecast_broker.core.a2a.content import fields_of
from sidecast_broker.core.a2a.heard import Heard
from sidecast_broker.core.fold import Fold
from sidecast_broker.core.kept_artifact import FoldedArtifact
from sidecast_schemas.codec import Event, RawObject, decode_event


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def parts(text: str) -> list[dict[str, str]]:
    return [{"text": word} for word in text.split()]


def said(text: str, *, append: bool = True, artifact_id: str = "a", **fields: Any) -> Event:
    artifact = {"artifactId": artifact_id, "parts": parts(text), **fields}
    return decode_event(encode({"artifactUpdate": {"taskId": "t", "artifact": artifact, "append": append}}))


def known(text: str, **fields: Any) -> FoldedArtifact:
    fold = Fold("t")
    fold.apply(said(text, append=False, **fields), 1)
    found = fold.artifact("a")
    assert found is not None
    return found


def artifact(text: str, **fields: Any) -> RawObject:
    return fields_of(Raw(encode({"artifactId": "a", "parts": parts(text), **fields})))


def told(update: dict[str, Any] | None) -> Any:
    return None if update is None else json.loads(msgspec.json.encode(update))


def piece(text: str, **fields: Any) -> dict[str, Any]:
    return {"artifact": {"artifactId": "a", "parts": parts(text), **fields}, "append": True}


def whole(text: str, **fields: Any) -> dict[str, Any]:
    return {"artifact": {"artifactId": "a", "parts": parts(text), **fields}}


@pytest.mark.parametrize(
    ("old", "new", "doubling", "exact"),
    [
        ("1 2 3 4", "1 2 3 4", None, None),
        ("1 2 3 4", "1 2 3 3 4 4", None, whole("1 2 3 3 4 4")),
        ("1 2 3 4", "1 2 3 3 4 4 5", piece("5"), whole("1 2 3 3 4 4 5")),
        ("1 2", "1 2 3", piece("3"), piece("3")),
        ("x", "x x", None, piece("x")),
        ("1 2", "3", whole("3"), whole("3")),
        ("1 2", "1", whole("1"), whole("1")),
    ],
)
def test_what_an_agent_s_task_repeats_is_new_unless_it_is_known_to_double(old, new, doubling, exact):
    assert told(artifact_update(known(old), artifact(new), doubles=True)) == doubling
    assert told(artifact_update(known(old), artifact(new))) == exact


def test_metadata_that_changes_does_not_double_what_is_known():
    old = known("1 2", metadata={"k": 1})
    new = artifact("1 2 2", metadata={"k": 2})
    assert told(artifact_update(old, new, doubles=True)) == whole("1 2", metadata={"k": 2})
    new = artifact("1 1 2 2 3", metadata={"k": 2})
    assert told(artifact_update(old, new, doubles=True)) == piece("3", metadata={"k": 2})


def test_text_that_an_agent_joins_is_known_to_one_that_doubles_too():
    new = fields_of(Raw(encode({"artifactId": "a", "parts": [{"text": "123"}]})))
    assert told(artifact_update(known("1 2"), new, doubles=True)) == piece("3")


@pytest.mark.parametrize(
    ("old", "heard", "new", "wanted"),
    [
        ("1 2", [said("3")], "1 2 3", None),
        ("1 2", [said("3"), said("4 5")], "1 2 3 3 4 5 4 5", None),
        ("1 2", [said("4")], "1 2 3 4 4", piece("3")),
        ("1 2", [], "1 2 3", piece("3")),
        ("1 2", [said("x", artifact_id="b")], "1 2 3", piece("3")),
        (None, [said("4")], "2 4 4", whole("2")),
        (None, [said("4")], "4 4", None),
        # What was heard makes it anew: then nothing before matters.
        ("1 2", [said("8 9", append=False)], "8 9", None),
        (None, [said("8", append=False), said("9")], "8 9", None),
        # It was made anew before, and nobody has heard that.
        ("1 2", [said("9")], "8 9 9", whole("8")),
        # What it says has nothing to do with what was heard.
        ("1 2", [said("9")], "7 8", whole("7 8")),
    ],
)
def test_what_an_artifact_was_before_something_was_heard(old, heard, new, wanted):
    held = known(old) if old is not None else None
    assert told(artifact_update_before(held, artifact(new), "a", Heard(heard))) == wanted


def test_another_name_makes_it_anew():
    update = artifact_update_before(
        known("1", name="old"), artifact("1 2 3", name="new"), "a", Heard([said("3")])
    )
    assert told(update) == whole("1 2", name="new")


@pytest.mark.parametrize(
    ("old", "heard", "text", "wanted"),
    [
        ("1 2", ["3"], "123", None),
        ("1 2", ["3"], "1234", None),
        ("1 2", ["4"], "1234", piece("3")),
        ("1 2", ["4", "5"], "12345", piece("3")),
        (None, ["2"], "12", whole("1")),
    ],
)
def test_text_that_an_agent_joins(old, heard, text, wanted):
    new = fields_of(Raw(encode({"artifactId": "a", "parts": [{"text": text}]})))
    held = known(old) if old is not None else None
    update = artifact_update_before(held, new, "a", Heard([said(each) for each in heard]))
    assert told(update) == wanted
