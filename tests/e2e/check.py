"""Whether every watcher has every event of its task once and in order: the judge of the fault runs.

Must not know how events travel or were recorded. What it judges:

- The events of a task are numbered 1..N by who publishes them, in order; each carries its task's name and its
  number in its text, which no part between publisher and watcher looks at.
- A watcher that began with `?from=start` has 1..N, each once, in this order, over all its connections.
- One that began with the default has a snapshot that holds exactly 1..k, and then k+1..N.
- One that began with `?from=now` has some k..N.
- A snapshot at any other place, a gap that was not allowed, an event of another task, an event without an id,
  an id that does not rise, an id that names two events, anything after the end, or no end: each is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

Start = Literal["start", "snapshot", "now"]
Kind = Literal["event", "snapshot", "gap", "end", "refused"]

_LABEL = re.compile(r"(?<![A-Za-z0-9_-])([A-Za-z0-9_-]{1,64})#(\d+);")


class Item(Struct, array_like=True, frozen=True):
    """One thing a watcher was given.

    Attributes:
        kind: what it is; `refused` is an answer after which an EventSource never comes back.
        id: the event id of its frame, empty for none.
        labels: the numbered events it tells of, as (task, number), in the order of its text.
        connection: on which of the watcher's connections it came, from 1.
        detail: the reason of a gap, an end or a refusal.
    """

    kind: Kind
    id: str = ""
    labels: tuple[tuple[str, int], ...] = ()
    connection: int = 1
    detail: str = ""


class Watched(Struct, frozen=True):
    """All that one watcher was given, over all its connections.

    Attributes:
        name: of the watcher, for messages.
        task: the one it asked for.
        start: how it began.
        items: in the order they came.
        connections: how many it made.
        ended_at: when it was told that nothing follows (seconds since the epoch), 0 for never.
    """

    name: str
    task: str
    start: Start
    items: list[Item]
    connections: int = 1
    ended_at: float = 0.0


def label(task: str, number: int) -> str:
    """Write the label that an event carries in its text."""
    return f"{task}#{number};"


def labels_in(text: str) -> tuple[tuple[str, int], ...]:
    """Give the labels in a text, in its order."""
    return tuple((task, int(number)) for task, number in _LABEL.findall(text))


def check(
    published: Mapping[str, int], watched: Iterable[Watched], *, gaps_allowed: bool = False
) -> list[str]:
    """Give what is wrong with what the watchers were given; nothing is the only good answer.

    Args:
        published: how many numbered events each task has.
        watched: what each watcher was given.
        gaps_allowed: whether a `stream.gap` with a snapshot after it may bridge missing events.
    """
    named: dict[tuple[str, str], tuple[tuple[str, int], ...]] = {}
    problems = []
    for each in watched:
        judge = _Judge(each, published[each.task], gaps_allowed)
        problems += [f"{each.name} ({each.task}, from {each.start}): {found}" for found in judge.problems()]
        for item in each.items:
            if item.kind == "event" and named.setdefault((each.task, item.id), item.labels) != item.labels:
                problems.append(f"{each.name}: id {item.id} names two events, one of them {item.labels}")
    return problems


class _Judge:
    def __init__(self, watched: Watched, count: int, gaps_allowed: bool) -> None:
        self._watched = watched
        self._count = count
        self._gaps_allowed = gaps_allowed
        self._next: int | None = 1 if watched.start == "start" else None
        self._begun = False
        self._after_gap = False
        self._ended = False
        self._epoch = ""
        self._sequence = 0

    def problems(self) -> Iterator[str]:
        for item in self._watched.items:
            for problem in self._take(item):
                yield f"connection {item.connection}: {problem}"
        if not self._ended:
            yield "it never reached its end"
        if self._next is None:
            yield "it was given no event"
        elif self._next != self._count + 1:
            yield f"events {self._next}..{self._count} are missing at the end"

    def _take(self, item: Item) -> Iterator[str]:
        if self._ended:
            yield f"{item.kind} {item.labels[:3]} after the end"
        if item.kind in ("event", "snapshot"):
            yield from self._advance(item)
            foreign = [task for task, _number in item.labels if task != self._watched.task]
            if foreign:
                yield f"{item.kind} {item.id} tells of another task, {foreign[0]}"
        match item.kind:
            case "event":
                yield from self._event(item)
            case "snapshot":
                yield from self._snapshot(item)
            case "gap":
                self._after_gap = True
                if not self._gaps_allowed:
                    yield f"gap {item.detail}"
            case "end":
                self._ended = True
            case "refused":
                yield f"refused: {item.detail}"

    def _advance(self, item: Item) -> Iterator[str]:
        epoch, _dash, sequence = item.id.rpartition("-")
        if not sequence.isdecimal():
            yield f"{item.kind} {item.labels[:3]} has the id {item.id!r}"
            return
        if self._epoch not in ("", epoch):
            if not self._after_gap:
                yield f"the epoch {self._epoch} became {epoch} without a gap"
        elif int(sequence) <= self._sequence and not self._after_gap:
            yield f"id {item.id} follows {self._epoch}-{self._sequence}"
        self._epoch, self._sequence = epoch, int(sequence)

    def _event(self, item: Item) -> Iterator[str]:
        if len(item.labels) != 1:
            yield f"event {item.id} has {len(item.labels)} labels"
            return
        number = item.labels[0][1]
        if self._after_gap:
            yield f"event {number} follows a gap without a snapshot"
        if self._next is None:
            if self._watched.start == "snapshot":
                yield f"event {number} came before the snapshot"
        elif number < self._next:
            yield f"event {number} came again, or late, where {self._next} was due"
        elif number > self._next:
            yield f"events {self._next}..{number - 1} are missing before {number}"
        self._begun, self._after_gap = True, False
        self._next = max(self._next or 0, number + 1)

    def _snapshot(self, item: Item) -> Iterator[str]:
        numbers = sorted(number for _task, number in item.labels)
        newest = numbers[-1] if numbers else 0
        if numbers != list(range(1, newest + 1)):
            yield f"a snapshot up to {newest} holds {_brief(numbers)}"
        if self._after_gap:
            if self._next is not None and newest < self._next - 1:
                yield f"a snapshot up to {newest} came after event {self._next - 1}"
        elif self._begun:
            yield f"a snapshot up to {newest} came where event {self._next} was due, without a gap"
        elif self._watched.start != "snapshot" and newest:
            yield f"a snapshot up to {newest} came that was not asked for"
        self._begun, self._after_gap = True, False
        self._next = newest + 1


def _brief(numbers: Sequence[int]) -> str:
    missing = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))
    return f"{len(numbers)} events, {len(numbers) - len(set(numbers))} doubled, without {missing[:5]}"
