from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from brokers import status, task_record

from sidecast_broker.hearing import Hearing
from sidecast_broker.lead import Lead
from sidecast_broker.open_turns import OpenTurns
from sidecast_broker.voices import NoStream, Over, Room, Said, Subscription, Turn, Voice
from sidecast_schemas.codec import Event, decode_event

NOTHING: Any = None


class Rig:
    def __init__(self, room: int = 10_000) -> None:
        self.counts: Counter[str] = Counter()
        self.lead = Lead(NOTHING, "captors")
        self.room = Room(room)
        turns = OpenTurns(NOTHING, 1.0, lambda: 0.0)
        self.hearing = Hearing(self.lead, turns, self.room, self.count, lambda: 5.0)

    def count(self, outcome: str) -> None:
        self.counts[outcome] += 1

    @property
    def kept(self) -> list[bytes]:
        said = [each for each in self.hearing.queue if isinstance(each, Said)]
        return [each.event.payload for each in said if each.event is not None]


def event(text: str) -> Event:
    return decode_event(status(text))


def test_only_the_first_that_speaks_is_believed() -> None:
    rig, one, other = Rig(), Voice(), Voice()
    for voice in (one, other):
        rig.hearing.join(voice)
    for voice, text in ((one, "a"), (other, "a"), (one, "b")):
        rig.hearing.hear(voice, event(text))
    assert rig.hearing.source is one
    assert rig.kept == [status("a"), status("b")]
    assert rig.counts == {"followed": 1}
    assert rig.hearing.wake.is_set()


def test_nobody_is_believed_while_another_broker_captures() -> None:
    rig, early, late = Rig(), Voice(), Voice()
    rig.hearing.join(early)
    rig.lead.held = False
    rig.hearing.hear(early, event("a"))
    assert (rig.hearing.source, rig.kept) == (None, [])
    rig.hearing.join(late)
    assert rig.lead.held is False  # it is no news: an answer was listened to before
    rig.hearing.voices.clear()
    rig.hearing.join(late)
    assert rig.lead.held is None


def test_a_turn_that_begins_is_kept_though_another_says_it() -> None:
    rig, source, other = Rig(), Voice(), Voice(Turn("u1", b"{}"))
    rig.hearing.hear(source, event("a"))
    rig.hearing.join(other)
    rig.hearing.hear(other, event("b"))
    last = rig.hearing.queue[-1]
    assert isinstance(last, Said)
    assert (last.event, [turn.id for turn in last.turns]) == (None, ["u1"])


def test_what_does_not_fit_is_dropped_with_all_that_follows_until_the_source_is_another() -> None:
    size = len(status("a"))
    rig, voice = Rig(room=size), Voice()
    for text in ("a", "b"):
        rig.hearing.hear(voice, event(text))
    rig.room.give(size)
    rig.hearing.hear(voice, event("c"))
    assert rig.kept == [status("a")]
    assert rig.counts == {"dropped": 2}
    rig.hearing.drop_source()
    rig.hearing.hear(Voice(), event("d"))
    assert rig.kept == [status("a"), status("d")]


def test_what_waits_can_be_given_up_with_its_room() -> None:
    rig, voice = Rig(), Voice()
    before = rig.room.left
    for text in ("a", "b"):
        rig.hearing.hear(voice, event(text))
    rig.hearing.over(voice, "ended")
    assert rig.hearing.drain() == 2
    assert rig.room.left == before
    assert not rig.hearing.queue


def test_nothing_is_taken_in_once_it_is_closed() -> None:
    rig, voice = Rig(), Voice()
    rig.hearing.closed = True
    rig.hearing.hear(voice, event("a"))
    rig.hearing.over(voice, "ended")
    assert not rig.hearing.queue
    assert rig.counts == {"dropped": 1}


async def test_a_subscription_that_begins_with_the_task_is_led_by_it_and_another_is_looked_after() -> None:
    class Silent:
        async def subscribe(self, _task_id: str) -> Any:
            raise NoStream
            yield b""

    agent: Any = Silent()
    rig = Rig()
    for first, kinds in ((task_record(), ["Said"]), (status("a"), ["Look", "Said"])):
        voice = Subscription("task-1", agent, rig.hearing.hear, rig.hearing.over, lambda _error: None)
        rig.hearing.missed = True
        rig.hearing.source = voice
        rig.hearing.hear(voice, decode_event(first))
        assert [type(each).__name__ for each in rig.hearing.queue] == kinds
        said = rig.hearing.queue[-1]
        assert isinstance(said, Said)
        assert said.resynchronised is (kinds == ["Said"])
        assert voice.led_at_s == (5.0 if kinds == ["Said"] else 0.0)
        assert not rig.hearing.missed
        assert rig.hearing.waiting(voice) == [decode_event(first)]
        await voice.task
        assert rig.hearing.queue.pop() == Over(voice, "refused")
        rig.hearing.drain()


async def test_what_was_heard_so_far_can_be_waited_for() -> None:
    rig = Rig()
    waiting = asyncio.ensure_future(rig.hearing.written())
    await asyncio.sleep(0)
    done = rig.hearing.queue.popleft()
    assert isinstance(done, asyncio.Future)
    assert not waiting.done()
    done.set_result(None)
    await waiting
