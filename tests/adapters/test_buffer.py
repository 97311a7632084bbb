"""The buffer: its order, its bound, and what it drops."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecast_adapters.buffer import NOTHING, Buffer, Lost
from sidecast_adapters.record import Rank, Record

EVENTS_MAX = 6
BYTES_MAX = 60
KEYS = ("one", "two")


def record(rank: Rank = Rank.LOOSE, size: int = 1, **fields: Any) -> Record:
    return Record("statusUpdate", b"x" * size, rank, **fields)


class BufferModel(RuleBasedStateMachine):
    """The buffer against a list of (ordinal, key, record): what is in neither list any more was dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = Buffer(EVENTS_MAX, BYTES_MAX)
        self.waiting: list[tuple[int, str, Record]] = []
        self.taken: dict[str, list[Record]] = {key: [] for key in KEYS}
        self.owed: dict[str, list[tuple[int, int]]] = {key: [] for key in KEYS}
        self.ordinal = 0

    @rule(key=st.sampled_from(KEYS), rank=st.sampled_from(Rank), size=st.integers(1, 30))
    def append(self, key: str, rank: Rank, size: int) -> None:
        self.ordinal += 1
        new = record(rank, size)
        lost = self.buffer.append(key, new)
        self.waiting.append((self.ordinal, key, new))
        dropped: list[int] = []
        while self._over() and (victims := [each for each in self.waiting if each[2].rank != Rank.KEPT]):
            victim = min(victims, key=lambda each: (each[2].rank, each[0]))
            self.waiting.remove(victim)
            self.owed[victim[1]].append((victim[0], len(victim[2].payload)))
            dropped.append(len(victim[2].payload))
        assert lost == Lost(len(dropped), sum(dropped))

    def _over(self) -> bool:
        held = [each for _, _, each in self.waiting] + [each for key in KEYS for each in self.taken[key]]
        return len(held) > EVENTS_MAX or sum(len(each.payload) for each in held) > BYTES_MAX

    @rule(key=st.sampled_from(KEYS), events_max=st.integers(1, 4), bytes_max=st.integers(1, 60))
    def take(self, key: str, events_max: int, bytes_max: int) -> None:
        got = self.buffer.take(key, events_max, bytes_max)
        mine = [each for each in self.waiting if each[1] == key]
        assert [each.record for each in got] == [each[2] for each in mine[: len(got)]]
        assert len(got) <= events_max
        assert len(got) == 1 or sum(len(each.record.payload) for each in got) <= bytes_max
        if mine:
            assert got
        for each, taken in zip(mine, got, strict=False):
            self.waiting.remove(each)
            before = [lost for lost in self.owed[key] if lost[0] < each[0]]
            assert taken.lost == Lost(len(before), sum(size for _, size in before))
            self.owed[key] = [lost for lost in self.owed[key] if lost[0] > each[0]]
        self.taken[key] += [each.record for each in got]

    @rule(key=st.sampled_from(KEYS))
    def take_lost(self, key: str) -> None:
        lost = self.buffer.take_lost(key)
        if any(each[1] == key for each in self.waiting):
            assert lost == NOTHING
        else:
            assert lost == Lost(len(self.owed[key]), sum(size for _, size in self.owed[key]))
            self.owed[key].clear()

    @rule(key=st.sampled_from(KEYS))
    def release(self, key: str) -> None:
        self.buffer.release(key)
        self.taken[key].clear()

    @precondition(lambda self: self.ordinal % 5 == 0)
    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: str) -> None:
        mine = [each[2] for each in self.waiting if each[1] == key] + self.taken[key]
        assert self.buffer.forget(key) == Lost(len(mine), sum(len(each.payload) for each in mine))
        self.waiting = [each for each in self.waiting if each[1] != key]
        self.taken[key].clear()
        self.owed[key].clear()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        held = [each for _, _, each in self.waiting] + [each for key in KEYS for each in self.taken[key]]
        assert self.buffer.events == len(held)
        assert self.buffer.bytes == sum(len(each.payload) for each in held)
        for key in KEYS:
            mine = [each[0] for each in self.waiting if each[1] == key]
            assert self.buffer.waits(key) == bool(mine or self.owed[key])
            assert self.buffer.settled(key, self.ordinal) == (
                not mine and not self.taken[key] and not self.owed[key]
            )


TestBufferModel = BufferModel.TestCase
TestBufferModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_oldest_of_the_lowest_rank_goes_first() -> None:
    buffer = Buffer(4, 1000)
    for size, rank in ((1, Rank.KEPT), (2, Rank.REPEATED), (3, Rank.FIRM), (4, Rank.LOOSE)):
        buffer.append("one", record(rank, size))
    dropped = [buffer.append("two", record(Rank.KEPT, 9)).bytes for _ in range(4)]
    assert dropped == [4, 3, 2, 0]
    assert buffer.events == 5, "what is never dropped may exceed the bound"


def test_losses_at_the_end_of_a_queue_add_up() -> None:
    buffer = Buffer(10, 10)
    buffer.append("one", record(Rank.FIRM, 4))
    buffer.append("one", record(Rank.LOOSE, 3))
    buffer.append("two", record(Rank.KEPT, 9))
    assert buffer.take_lost("one") == Lost(2, 7)


def test_a_chunk_begins_the_artifact_whose_beginning_was_dropped() -> None:
    buffer = Buffer(1, 1000)
    buffer.append("one", record(Rank.FIRM, artifact_id="a"))
    buffer.append("one", record(Rank.FIRM, artifact_id="a", append=True))
    (taken,) = buffer.take("one", 10, 1000)
    assert taken.anew
    assert taken.lost == Lost(1, 1)
    buffer.release("one")
    buffer.append("one", record(Rank.FIRM, artifact_id="a", append=True))
    assert not buffer.take("one", 10, 1000)[0].anew


def test_what_is_taken_later_does_not_hold_up_who_waits_for_what_was_before() -> None:
    buffer = Buffer(10, 1000)
    buffer.append("one", record())
    asked = buffer.ordinal
    buffer.append("one", record())
    assert not buffer.settled("one", asked)
    buffer.take("one", 1, 1000)
    assert not buffer.settled("one", asked)
    buffer.release("one")
    buffer.take("one", 1, 1000)
    assert buffer.settled("one", asked)


@pytest.mark.parametrize("bound", [(0, 1), (1, 0)])
def test_a_buffer_without_room_is_refused(bound: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="room"):
        Buffer(*bound)
