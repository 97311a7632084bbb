"""What a board sends for: one errand per task, told when it is back, and asked for until somebody can say."""

from __future__ import annotations

import asyncio

import pytest
from board_rig import key_of, rig
from brokers import FakeBackend, status, subject_of, task_record, until

from sidecast_broker.answers import Away
from sidecast_broker.core.log import Stored
from sidecast_broker.entry import Member
from sidecast_broker.errands import Errands, fetch, patiently
from sidecast_broker.feed import Arrival

ARRIVAL = Arrival(1, "a", Stored(1, 0, "2026-01-01T00:00:00Z", {}, b"{}"), None)


class Told:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.done = self.failed = 0

    def errands(self) -> Errands:
        return Errands(self._done, self._fail)

    def _done(self) -> None:
        self.done += 1

    def _fail(self) -> None:
        self.failed += 1


async def test_one_is_under_way_until_it_is_back() -> None:
    told, gate = Told(), asyncio.Event()
    errands = told.errands()
    errands.begin("a", _wait(gate))
    assert ("a" in errands, "b" in errands) == (True, False)
    gate.set()
    await until(lambda: told.done)
    assert "a" not in errands
    assert told.failed == 0


async def _wait(gate: asyncio.Event) -> None:
    await gate.wait()


async def test_a_fault_of_ours_is_reported_once_and_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def stumble() -> None:
        raise ValueError("a fault")

    told = Told()
    errands = told.errands()
    errands.begin("a", stumble())
    await until(lambda: told.failed)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert (told.done, "a" in errands) == (0, False)


async def test_those_called_back_tell_nothing() -> None:
    told, gate = Told(), asyncio.Event()
    errands = told.errands()
    errands.begin("a", _wait(gate))
    await asyncio.sleep(0)
    errands.close()
    await until(lambda: "a" not in errands)
    assert (told.done, told.failed) == (0, 0)


async def test_who_can_t_say_is_asked_again() -> None:
    answers: list[Member | Exception | None] = [Away("no"), Away("not yet"), None]
    asked: list[Arrival] = []

    async def decide(arrival: Arrival) -> Member | None:
        asked.append(arrival)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await patiently(decide, ARRIVAL) is None
    assert asked == [ARRIVAL] * 3


async def test_other_errors_are_not_asked_about_again() -> None:
    async def decide(arrival: Arrival) -> Member | None:
        raise ValueError(arrival.task)

    with pytest.raises(ValueError, match="a"):
        await patiently(decide, ARRIVAL)


async def test_a_record_that_did_not_reach_its_hub_is_fetched(fake: FakeBackend) -> None:
    await fake.publish(task_record("a"), task="a")
    async with rig(fake, nats__verify_s=60) as there:
        member = await there.current.member(key_of("a"), 1)
        fake.faults.lose(1)
        sequence = await fake.publish(status("x", "a"), task="a")
        assert await fetch(member, sequence)
        assert member.hub.end == sequence
        there.hubs.release(member.hub)


async def test_one_that_was_purged_meanwhile_is_not(fake: FakeBackend) -> None:
    await fake.publish(task_record("a"), task="a")
    async with rig(fake, nats__verify_s=60) as there:
        member = await there.current.member(key_of("a"), 1)
        fake.faults.lose(1)
        sequence = await fake.publish(status("x", "a"), task="a")
        await fake.purge(subject_of("a"), sequence + 1)
        assert not await fetch(member, sequence)
        there.hubs.release(member.hub)
