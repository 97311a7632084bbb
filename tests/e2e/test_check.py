"""The judge of the fault runs fails whatever is not whole: withheld, doubled, swapped, foreign, bridged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from e2e.check import Item, Start, Watched, check, label, labels_in
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

N = 8
PUBLISHED = {"one": N, "two": N}


def event(number: int, task: str = "one", *, sequence: int = 0, connection: int = 1) -> Item:
    return Item("event", f"e-{sequence or 10 * number}", ((task, number),), connection)


def snapshot(newest: int) -> Item:
    return Item("snapshot", f"e-{10 * newest + 1}", tuple(("one", number) for number in range(1, newest + 1)))


END = Item("end", detail="task-ended")
GAP = Item("gap", detail="expired")
WHOLE = [event(number) for number in range(1, N + 1)]


def watched(items: list[Item], start: Start = "start") -> Watched:
    return Watched("w", "one", start, items, ended_at=1.0)


def problems(items: list[Item], start: Start = "start", *, gaps_allowed: bool = False) -> list[str]:
    return check(PUBLISHED, [watched(items, start)], gaps_allowed=gaps_allowed)


class TestWhole:
    def test_all_events_from_the_start(self) -> None:
        assert problems([*WHOLE, END]) == []

    def test_the_opening_task_record(self) -> None:
        assert problems([snapshot(0), *WHOLE, END]) == []

    @pytest.mark.parametrize("newest", range(N + 1))
    def test_a_snapshot_and_what_follows(self, newest: int) -> None:
        assert problems([snapshot(newest), *WHOLE[newest:], END], "snapshot") == []

    @pytest.mark.parametrize("first", range(1, N + 1))
    def test_only_new_events(self, first: int) -> None:
        assert problems([*WHOLE[first - 1 :], END], "now") == []

    def test_many_connections(self) -> None:
        items = [replace(item, connection=item.labels[0][1]) for item in WHOLE]
        assert problems([*items, END]) == []

    def test_an_allowed_gap_with_a_snapshot(self) -> None:
        assert problems([*WHOLE[:2], GAP, snapshot(5), *WHOLE[5:], END], gaps_allowed=True) == []


@given(start=st.sampled_from(["start", "snapshot"]), index=st.integers(0, N - 1))
def test_a_withheld_event_fails(start: Start, index: int) -> None:
    events = WHOLE[:index] + WHOLE[index + 1 :]
    head = [snapshot(0)] if start == "snapshot" else []
    assert problems([*head, *events, END], start)


@given(index=st.integers(0, N - 1), place=st.integers(0, N))
def test_a_doubled_event_fails(index: int, place: int) -> None:
    assert problems([*WHOLE[:place], WHOLE[index], *WHOLE[place:], END])
    # Stored twice, it has a second id.
    second = replace(WHOLE[index], id=f"e-{10 * place + 5}")
    assert problems([*WHOLE[:place], second, *WHOLE[place:], END])


@given(pair=st.lists(st.integers(0, N - 1), min_size=2, max_size=2, unique=True), ids=st.booleans())
def test_swapped_events_fail(pair: list[int], ids: bool) -> None:
    events, (left, right) = list(WHOLE), pair
    events[left], events[right] = events[right], events[left]
    if ids:  # swapped when they were stored: their ids rise all the same
        events = [replace(item, id=f"e-{10 * place}") for place, item in enumerate(events, 1)]
    assert problems([*events, END])


@given(order=st.permutations(WHOLE))
def test_only_one_order_passes(order: list[Item]) -> None:
    assert bool(problems([*order, END])) == (order != WHOLE)


BROKEN: dict[str, Callable[[], list[str]]] = {
    "the event of another task": lambda: problems([*WHOLE[:3], event(4, "two"), *WHOLE[4:], END]),
    "an event more, of another task": lambda: problems(
        [*WHOLE[:3], event(1, "two", sequence=35), *WHOLE[3:], END]
    ),
    "a snapshot that covers a hole": lambda: problems([*WHOLE[:2], snapshot(5), *WHOLE[5:], END]),
    "a snapshot nobody asked for": lambda: problems([*WHOLE[:5], snapshot(5), *WHOLE[5:], END]),
    "a first snapshot nobody asked for": lambda: problems([snapshot(2), *WHOLE[2:], END]),
    "a first snapshot instead of new events": lambda: problems([snapshot(2), *WHOLE[2:], END], "now"),
    "a snapshot with a hole": lambda: problems(
        [replace(snapshot(5), labels=(*snapshot(3).labels, ("one", 5))), *WHOLE[5:], END], "snapshot"
    ),
    "a snapshot that holds an event twice": lambda: problems(
        [replace(snapshot(5), labels=(*snapshot(5).labels, ("one", 2))), *WHOLE[5:], END], "snapshot"
    ),
    "a snapshot without the newest": lambda: problems(
        [replace(snapshot(5), labels=snapshot(4).labels), *WHOLE[5:], END], "snapshot"
    ),
    "an event before the snapshot": lambda: problems([*WHOLE[:3], snapshot(3), *WHOLE[3:], END], "snapshot"),
    "a gap": lambda: problems([*WHOLE[:2], GAP, snapshot(5), *WHOLE[5:], END]),
    "a gap without a snapshot": lambda: problems([*WHOLE[:2], GAP, *WHOLE[4:], END], gaps_allowed=True),
    "a gap and an old snapshot": lambda: problems(
        [*WHOLE[:4], GAP, snapshot(2), *WHOLE[4:], END], gaps_allowed=True
    ),
    "no id": lambda: problems([*WHOLE[:3], replace(WHOLE[3], id=""), *WHOLE[4:], END]),
    "no label": lambda: problems([*WHOLE[:3], replace(WHOLE[3], labels=()), *WHOLE[4:], END]),
    "an id that falls": lambda: problems([*WHOLE[:3], replace(WHOLE[3], id="e-29"), *WHOLE[4:], END]),
    "another epoch": lambda: problems([*WHOLE[:3], replace(WHOLE[3], id="f-40"), *WHOLE[4:], END]),
    "no end": lambda: problems(WHOLE),
    "an end too early": lambda: problems([*WHOLE[:-1], END]),
    "an event after the end": lambda: problems([*WHOLE[:-1], END, WHOLE[-1]]),
    "two ends": lambda: problems([*WHOLE, END, END]),
    "a refusal": lambda: problems([*WHOLE[:-1], Item("refused", detail="503")]),
    "nothing": lambda: problems([]),
    "nothing but an end": lambda: problems([END], "now"),
    "one id for two events": lambda: check(
        {"one": N},
        [
            watched([*WHOLE, END]),
            watched(
                [replace(item, id=f"e-{place * 10 + 10}") for place, item in enumerate(WHOLE, 1)] + [END]
            ),
        ],
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_fails(what: str) -> None:
    assert BROKEN[what]()


def test_one_bad_watcher_among_good_ones() -> None:
    good, bad = watched([*WHOLE, END]), watched([*WHOLE[1:], END])
    assert len(check(PUBLISHED, [good, bad, good])) == 1


def test_labels_are_found_in_any_text() -> None:
    text = f'{{"text":"{label("one", 1)} abc"}},{{"text":"{label("t-2", 23)}"}}, no#label, one#x;'
    assert labels_in(text) == (("one", 1), ("t-2", 23))
