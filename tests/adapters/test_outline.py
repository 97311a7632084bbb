"""What a whole Task object adds to a log."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecast_adapters.outline import Outline

NAMES = {"taskId": "t", "contextId": "c"}
STATES = st.sampled_from(["TASK_STATE_WORKING", "TASK_STATE_INPUT_REQUIRED"])
PARTS = st.lists(
    st.fixed_dictionaries({"text": st.text(max_size=3)}) | st.just({"data": {"n": 1}}), min_size=1
)
ARTIFACTS = st.lists(
    st.fixed_dictionaries({"artifactId": st.sampled_from("ab"), "parts": PARTS}),
    max_size=2,
    unique_by=lambda artifact: artifact["artifactId"],
)
TASKS = st.fixed_dictionaries({"status": st.fixed_dictionaries({"state": STATES}), "artifacts": ARTIFACTS})


def observed(*events: dict[str, Any]) -> Outline:
    outline = Outline("t", "c")
    for event in events:
        outline.observe(event)
    return outline


@given(TASKS, TASKS)
def test_a_task_adds_nothing_once_its_updates_are_said(first: dict[str, Any], later: dict[str, Any]) -> None:
    outline = observed({"task": first})
    for event in outline.updates(later):
        outline.observe(event)
    assert outline.updates(later) == []


def test_artifacts_come_before_a_status_that_may_end_the_task() -> None:
    artifact = {"artifactId": "a", "parts": [{"text": "x"}]}
    status = {"state": "TASK_STATE_COMPLETED"}
    assert observed().updates({"status": status, "artifacts": [artifact], "metadata": {"k": 1}}) == [
        {"artifactUpdate": {**NAMES, "artifact": artifact, "lastChunk": True}},
        {"statusUpdate": {**NAMES, "status": status, "metadata": {"k": 1}}},
    ]


def test_text_said_in_chunks_is_the_text_as_a_whole() -> None:
    def chunk(text: str, append: bool) -> dict[str, Any]:
        return {
            "artifactUpdate": {"append": append, "artifact": {"artifactId": "a", "parts": [{"text": text}]}}
        }

    outline = observed({"statusUpdate": {"status": {"state": "S"}}}, chunk("one ", False), chunk("two", True))

    def task(*texts: str) -> dict[str, Any]:
        return {
            "status": {"state": "S", "timestamp": "2026-01-01T00:00:00Z"},
            "artifacts": [{"artifactId": "a", "parts": [{"text": text} for text in texts]}],
        }

    assert outline.updates(task("one two")) == []
    assert outline.updates(task("one ", "two")) == []
    assert len(outline.updates(task("one", "too"))) == 1
    assert outline.knows("a")
    assert not outline.knows("b")


def test_another_name_or_kind_of_part_is_another_artifact() -> None:
    said = {"artifactId": "a", "name": "n", "parts": [{"text": "1"}]}
    outline = observed({"artifactUpdate": {"artifact": said}}, {"statusUpdate": {"status": {"state": "S"}}})
    others = [
        said | {"name": "m"},
        said | {"parts": [{"data": 1}]},
        said | {"parts": [{"text": "1", "mediaType": "text/html"}]},
    ]
    assert outline.updates({"status": {"state": "S"}, "artifacts": [said]}) == []
    assert all(outline.updates({"status": {"state": "S"}, "artifacts": [other]}) for other in others)


def test_only_metadata_that_is_new_is_said() -> None:
    outline = observed({"statusUpdate": {"status": {"state": "S"}, "metadata": {"a": 1, "b": 2}}})
    (update,) = outline.updates({"status": {"state": "S"}, "metadata": {"a": 1, "b": 3}})
    assert update["statusUpdate"]["metadata"] == {"b": 3}
