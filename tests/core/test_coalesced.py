"""The fold of the thinned stream is that of the full one, at every resume point."""

from __future__ import annotations

import json
from typing import Any

import pytest
from core.test_events_view import activity, artifact, read_stream, record, said, status
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecast_broker.core.cursor import parse_cursor
from sidecast_broker.core.fold import Fold
from sidecast_broker.core.views.coalesced import WOVEN_MAX, Piece, coalesce
from sidecast_broker.core.views.events import encode

EPOCH = "e1"


def pieces_of(payloads: list[Any], first: int = 1, *, named: bool = True) -> list[Piece]:
    records = [record(payload, first + index) for index, payload in enumerate(payloads)]
    encoded = [(each.sequence, encode(each, Fold("t"), EPOCH, named=named)) for each in records]
    return [Piece(sequence, frame) for sequence, frame in encoded if frame is not None]


def folded(story: list[Any]) -> Fold:
    fold = Fold("t")
    for sequence, payload in enumerate(story, 1):
        fold.apply(record(payload, sequence).event, sequence)
    return fold


def thinned(story: list[Any], start: int = 0, end: int | None = None) -> list[Piece]:
    """Give a stretch of a story that the broker has all of."""
    return coalesce(pieces_of(story[start:end], start + 1), folded(story), EPOCH, named=True)


class Page:
    """What a client makes of the frames: the task as it shows it, whatever way it came."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.artifacts: dict[str, Any] = {}
        self.latest: dict[str, Any] = {}
        self.log: list[Any] = []

    def take(self, shown: dict[str, Any]) -> None:
        kind = shown["type"]
        if kind == "task.artifact":
            self._artifact(shown)
            return
        self.latest["contextId"] = shown["contextId"]
        self.latest.setdefault("metadata", {}).update(shown.get("metadata", {}))
        self.latest["state"] = shown.get("state", "working")
        if kind == "task.progress":
            self.latest["progress"] = shown["progress"]
            self.latest["text"] = shown.get("text")
            if "step" in shown or "message" in shown:
                self.log.append((shown.get("step"), shown.get("message")))
        else:
            self.latest["text"] = shown.get("text")
            self.log.append({key: value for key, value in shown.items() if key != "seq"})

    def _artifact(self, shown: dict[str, Any]) -> None:
        name = shown["artifactId"]
        held = self.artifacts.get(name)
        if held is None or not shown["append"]:
            held = self.artifacts[name] = {"name": shown.get("name"), "said": [], "metadata": {}}
            self.order += [name] if name not in self.order else []
        parts = shown.get("parts", [{"text": shown.get("text"), "mediaType": shown.get("mediaType")}])
        for part in parts:
            if held["said"] and set(part) <= {"text", "mediaType"} and "text" in held["said"][-1]:
                held["said"][-1]["text"] += part["text"]
            else:
                held["said"].append(dict(part))
        held["metadata"].update(shown.get("metadata", {}))
        held["done"] = shown["lastChunk"]
        if "eventMetadata" in shown:
            held.setdefault("events", []).append(shown["eventMetadata"])

    def state(self) -> str:
        return json.dumps([self.order, self.artifacts, self.latest, self.log], sort_keys=True)


def shown(piece: Piece) -> tuple[int, dict[str, Any]]:
    """Give the position a frame's id names, 0 where it has none, and what it says."""
    (message,) = read_stream(piece.frame.data)
    position = parse_cursor(message.last_event_id).sequence if message.last_event_id else 0
    assert position == piece.sequence
    frame = json.loads(message.data)
    assert message.event == frame["type"] == piece.frame.kind.type
    if position:
        assert frame["seq"] == position
    return position, frame


texts = st.text(max_size=4) | st.sampled_from(['"', "\\", "\n", "\u2028", "é", "😀"])
flags = st.fixed_dictionaries({"append": st.sampled_from([True, True, True, False])})
chunks = st.builds(
    lambda text, name, fields, last, extra: artifact(
        {"text": text} | extra.get("part", {}),
        artifactId=name,
        event_fields=fields | ({"lastChunk": True} if last else {}) | extra.get("event", {}),
        **extra.get("artifact", {}),
    ),
    texts,
    st.sampled_from(["a", "a", "a", "b", "c"]),
    flags,
    st.sampled_from([False] * 6 + [True]),
    st.sampled_from(
        [{}] * 8
        + [
            {"part": {"mediaType": "text/plain"}},
            {"part": {"filename": "x"}},
            {"artifact": {"name": "n"}},
            {"artifact": {"metadata": {"k": 1}}},
            {"event": {"metadata": {"k": 2}}},
        ]
    ),
)
progresses = st.builds(
    lambda value, message, more, metadata: activity(
        {"kind": "progress", "progress": value} | more, message=message, **metadata
    ),
    st.sampled_from([0, 0.25, 0.5, 1]),
    st.sampled_from([None, None, said({"text": "now"}), said({"text": "x"}, {"data": 1})]),
    st.sampled_from([{}, {}, {}, {"step": {"id": "s"}}, {"code": "c"}]),
    st.sampled_from([{}, {}, {"x": 1}, {"y": 2}]),
)
others = st.sampled_from(
    [
        status(message=said({"text": "reading"})),
        status("TASK_STATE_INPUT_REQUIRED"),
        activity({"kind": "step", "step": {"id": "s", "state": "done"}}),
        activity({"kind": "error", "code": "E1"}),
        activity({"kind": "thought"}, message=said({"text": "hm"})),
        {"message": said({"text": "hello"}, taskId="t", contextId="c")},
        {"turn": {"id": "m", "phase": "begin"}},
    ]
)
payloads = st.lists(st.one_of(chunks, chunks, progresses, others), max_size=40)


@given(payloads)
@settings(max_examples=400, deadline=None)
def test_the_fold_is_the_same_at_every_resume_point(story: list[Any]) -> None:
    full = [shown(piece) for piece in pieces_of(story)]
    states = {0: Page().state()}
    page = Page()
    for position, frame in full:
        page.take(frame)
        states[position] = page.state()
    page, seen, last = Page(), 0, 0
    kept = thinned(story)
    assert len(kept) <= len(full)
    for piece in kept:
        position, frame = shown(piece)
        page.take(frame)
        assert frame["seq"] > last
        last = frame["seq"]
        if position:
            assert page.state() == states[position]
            seen = position
    assert seen == (full[-1][0] if full else 0)


@given(payloads, st.data())
@settings(max_examples=200, deadline=None)
def test_who_resumes_anywhere_comes_to_the_same(story: list[Any], data: st.DataObject) -> None:
    """Cut after any resume point, thinned anew from there in stretches of any length."""
    page, full = Page(), Page()
    for piece in pieces_of(story):
        full.take(shown(piece)[1])
    start = 0
    while start < len(story):
        length = data.draw(st.integers(1, len(story)))
        kept = thinned(story, start, start + length)
        points = [index for index, piece in enumerate(kept) if piece.sequence]
        if not points:
            start += length  # control records alone
            continue
        last = data.draw(st.sampled_from(points))
        for piece in kept[: last + 1]:
            page.take(shown(piece)[1])
        start = kept[last].sequence
        if last == points[-1] and not any("turn" not in each for each in story[start:]):
            break
    assert page.state() == full.state()


def test_what_takes_turns_becomes_one_frame_each_and_the_last_has_the_id() -> None:
    story = [artifact({"text": "0"}, event_fields={"append": False})]
    for number in range(1, 50):
        story.append(activity({"kind": "progress", "progress": number / 100}))
        story.append(artifact({"text": str(number)}, event_fields={"append": True}))
    progress, chunk = map(shown, thinned(story))
    assert (progress[0], progress[1]["type"], progress[1]["progress"]) == (0, "task.progress", 0.49)
    assert (chunk[0], chunk[1]["text"]) == (99, "".join(map(str, range(50))))


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (status(message=said({"text": "reading"})), "task.status"),
        (activity({"kind": "step", "step": {"id": "s"}}), "task.step"),
        (activity({"kind": "error", "code": "E"}), "task.error"),
        ({"message": said({"text": "hi"}, taskId="t")}, "task.message"),
    ],
)
def test_everything_else_stays_in_order(payload: Any, kind: str) -> None:
    progress = activity({"kind": "progress", "progress": 0.5})
    kept = [shown(piece) for piece in thinned([progress, payload, payload, progress, progress])]
    assert [(at, frame["type"]) for at, frame in kept] == [
        (1, "task.progress"),
        (2, kind),
        (3, kind),
        (5, "task.progress"),
    ]


@pytest.mark.parametrize("append", [True, False])
def test_an_artifact_that_is_new_comes_before_what_is_newer(append: bool) -> None:
    """However it begins: chunks that take turns don't change which of them was first."""
    a, b = ({"artifactId": name, "event_fields": {"append": True}} for name in "ab")
    begun = a | {"event_fields": {"append": append}}
    story = [artifact({"text": str(number)}, **(b if number % 2 else a)) for number in range(1, 9)]
    story = [artifact({"text": "0"}, **begun), *story]
    kept = [(at, frame["artifactId"], frame["text"]) for at, frame in map(shown, thinned(story))]
    assert kept == [(1, "a", "0"), (0, "b", "1357"), (9, "a", "2468")]
    # Whoever knows both is sent one frame of each.
    assert [frame["artifactId"] for _at, frame in map(shown, thinned(story, 2))] == ["b", "a"]


def test_an_artifact_that_is_replaced_over_and_over_is_its_newest() -> None:
    story = [artifact({"text": str(number)}, event_fields={"append": False}) for number in range(30)]
    [(at, frame)] = [shown(piece) for piece in thinned(story)]
    assert (at, frame["text"], frame["append"]) == (30, "29", False)


def test_a_stretch_weaves_no_more_than_so_many() -> None:
    round_ = [
        artifact({"text": "x"}, artifactId=str(number), event_fields={"append": True}) for number in range(30)
    ]
    kept = thinned(round_ * 2, 30)
    assert len(kept) == 30
    gaps = [index for index, piece in enumerate(kept) if piece.sequence]
    assert max(later - earlier for earlier, later in zip([-1, *gaps], gaps, strict=False)) <= WOVEN_MAX


def test_a_single_frame_keeps_its_shared_bytes() -> None:
    pieces = pieces_of([artifact({"text": "x"}), status()])
    kept = coalesce(pieces, Fold("t"), EPOCH, named=True)
    assert [piece.frame for piece in kept] == [piece.frame for piece in pieces]
    assert kept[0].frame is pieces[0].frame
