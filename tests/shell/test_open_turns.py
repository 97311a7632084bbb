from __future__ import annotations

from typing import Any

import pytest
from brokers import status, task_record
from capturing import FakeAgent

from sidecast_broker.core.fold import Fold
from sidecast_broker.open_turns import OpenTurns
from sidecast_broker.voices import How, Said, Turn, Voice
from sidecast_schemas.codec import decode_event

SETTLE_S = 2.0


class Written:
    """A scribe that notes what it was given."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[tuple[str, str]] = []

    async def write(self, said: Said) -> None:
        self.begun += [turn.id for turn in said.turns]

    async def end_turn(self, turn: Turn, reason: str) -> None:
        self.ended.append((turn.id, reason))


class Rig:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.written: Any = Written()
        self.turns = OpenTurns(self.written, SETTLE_S, lambda: self.now_s)
        self.fold = Fold("task-1")

    def log(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.fold.apply(decode_event(payload), self.fold.sequence + 1)

    async def due(self, settled: bool = False) -> bool:
        return await self.turns.end_due(self.fold, FakeAgent(), settled)


def answer(name: str = "m", said: bytes | None = None) -> Voice:
    voice = Voice(Turn(name, b"{}"))
    voice.last = None if said is None else decode_event(said)
    return voice


def turn_of(voice: Voice) -> Turn:
    assert voice.turn is not None
    return voice.turn


def test_turns_that_could_not_be_written_begin_before_later_ones() -> None:
    turns = Rig().turns
    first, second = (turn_of(answer(name)) for name in ("1", "2"))
    turns.begin(first)
    taken = turns.take()
    turns.begin(second)
    turns.give_back(taken)
    assert turns.take() == [first, second]
    assert turns.take() == []


async def test_a_turn_ends_when_the_log_holds_what_its_answer_said_last() -> None:
    rig, voice = Rig(), answer(said=status("last"))
    rig.log(task_record())
    rig.turns.settle(voice)
    await rig.turns.answer_is_over(voice, "ended")
    assert rig.turns.ends_s == (rig.now_s + SETTLE_S,)
    assert not await rig.due()
    rig.log(status("last"))
    assert await rig.due()
    assert rig.written.ended == [("m", "returned")]
    assert rig.turns.ends_s == ()
    assert not await rig.due()


async def test_a_turn_ends_at_the_latest_when_what_was_said_could_have_come() -> None:
    rig, voice = Rig(), answer(said=status("never logged"))
    rig.log(task_record())
    rig.turns.settle(voice)
    rig.now_s += SETTLE_S
    assert await rig.due()
    assert rig.written.ended == [("m", "returned")]


@pytest.mark.parametrize("settled", [False, True])
async def test_a_turn_whose_answer_broke_off_ends_by_the_agents_word_only(settled: bool) -> None:
    rig, voice = Rig(), answer(said=status("a"))
    rig.log(task_record())
    rig.turns.settle(voice)
    await rig.turns.answer_is_over(voice, "broke")
    assert rig.turns.owed
    assert rig.turns.ends_s == ()
    rig.now_s += 10 * SETTLE_S
    assert not await rig.due(settled)
    rig.log(status("?", state="INPUT_REQUIRED"))
    assert await rig.due(settled) is settled
    assert rig.turns.owed is not settled


@pytest.mark.parametrize("how", ["ended", "broke"])
async def test_a_turn_behind_whose_begin_nothing_was_said_begins_all_the_same(how: How) -> None:
    rig, voice = Rig(), answer(said=status("before"))
    rig.turns.begin(turn_of(voice))
    await rig.turns.answer_is_over(voice, how)
    assert rig.written.begun == ["m"]
    assert rig.turns.take() == []


async def test_an_answer_without_a_word_begins_no_turn() -> None:
    rig, voice = Rig(), answer()
    rig.turns.begin(turn_of(voice))
    await rig.turns.answer_is_over(voice, "ended")
    assert rig.written.begun == []
    assert rig.turns.take() == []
