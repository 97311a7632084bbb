"""Tasks taken with all that is stored of them at that moment, and let go where one of them can't be had."""

from __future__ import annotations

import asyncio

import pytest
from board_rig import key_of, rig
from brokers import FakeBackend, status, subject_of, task_record, until

from sidecast_broker import current
from sidecast_broker.answers import Away

TASKS = ("a", "b", "c", "d")


async def stock(backend: FakeBackend) -> None:
    for task in TASKS:
        await backend.publish(task_record(task), status("one", task), task=task)


async def test_those_that_hold_a_record_have_begun(fake: FakeBackend) -> None:
    await stock(fake)
    await fake.purge(subject_of("b"))
    async with rig(fake) as there:
        wanted = [key_of(task) for task in ("a", "b", "never")]
        assert await there.current.begun(wanted) == {key_of("a")}
        assert await there.current.begun([]) == frozenset()


async def test_they_come_with_all_their_records_and_in_the_order_asked_for(fake: FakeBackend) -> None:
    await stock(fake)
    async with rig(fake) as there:
        members = await there.current.take([key_of(task) for task in ("c", "a", "d")])
        assert [(member.hub.key.task, member.hub.end) for member in members] == [
            ("c", 6),
            ("a", 2),
            ("d", 8),
        ]
        assert there.users(*TASKS) == [1, 0, 1, 1]


async def test_those_that_have_not_begun_are_left_out_where_asked_for(fake: FakeBackend) -> None:
    await stock(fake)
    async with rig(fake) as there:
        wanted = [key_of("a"), key_of("never")]
        assert [each.hub.key.task for each in await there.current.take(wanted, begun=True)] == ["a"]
        assert [each.hub.first for each in await there.current.take(wanted)] == [1, None]
        assert await there.current.take([]) == []


async def test_what_a_hub_in_memory_lacks_is_read_first(fake: FakeBackend) -> None:
    await stock(fake)
    async with rig(fake, nats__verify_s=60) as there:
        await there.current.take([key_of("a")])
        fake.faults.lose(1)
        sequence = await fake.publish(status("lost", "a"), task="a")
        [member] = await there.current.take([key_of("a")])
        assert member.hub.end == sequence


@pytest.mark.parametrize("at_once", [1, 3, 32])
async def test_where_one_can_t_be_had_none_is_kept(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(current, "AT_ONCE", at_once)
    await stock(fake)
    async with rig(fake) as there:
        fake.faults.stall(subject_of("c"))
        taking = asyncio.create_task(there.current.take([key_of(task) for task in TASKS]))
        await until(lambda: there.users(*TASKS)[2])
        await fake.go_away()
        fake.faults.flow()
        with pytest.raises(Away):
            await taking
        await until(lambda: not any(there.users(*TASKS)))


@pytest.mark.parametrize("at_once", [1, 3, 32])
async def test_who_leaves_in_the_middle_keeps_none(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(current, "AT_ONCE", at_once)
    await stock(fake)
    async with rig(fake) as there:
        fake.faults.stall(subject_of("c"))
        taking = asyncio.create_task(there.current.take([key_of(task) for task in TASKS]))
        await until(lambda: there.hubs.peek(key_of("a")) and there.users("c") == [1])
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert not any(there.users(*TASKS))
        fake.faults.flow()
