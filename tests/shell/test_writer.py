"""One record at a time behind the last one read: the same for the double and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from brokers import Backend, FakeBackend, status, subject_of, task_record, turn, until
from capturing import Capturing, FakeAgent, outline

from sidecast_broker.answers import Away, PublishConflict, PublishRefused
from sidecast_broker.writer import Writer
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import InvalidId, TaskKey, captor_subject

KEY = TaskKey("", "agent", "task-1")


@asynccontextmanager
async def writing(backend: Backend, producer: str = "p") -> AsyncIterator[tuple[Writer, Capturing]]:
    broker = await Capturing(backend, FakeAgent()).start()
    await broker.capture._watch.close()  # nobody else captures
    numbers = count(1)
    writer = Writer(KEY, broker.stream, broker.hubs, producer, lambda: next(numbers))
    await writer.open()
    try:
        yield writer, broker
    finally:
        writer.close()
        await broker._leave()


async def test_a_record_is_read_when_it_is_written(backend: Backend) -> None:
    async with writing(backend) as (writer, _broker):
        assert await writer.put(task_record())
        assert writer.hub.fold.started
        assert writer.watchers == 0
        assert await writer.put(status("a"))
        assert writer.others() == []
        assert await outline(backend) == ["task submitted", "working m-a"]


async def test_another_s_record_in_between_is_told_and_read(backend: Backend) -> None:
    async with writing(backend) as (writer, broker):
        assert await writer.put(task_record())
        backend.faults.lose(1)
        await backend.publish(turn("u", "begin"))
        assert not await writer.put(status("a"))
        assert [record.event.kind for record in writer.others()] == ["turn"]
        assert writer.others() == []
        assert await writer.put(status("a"))
        assert await outline(backend) == ["task submitted", "begin u", "working m-a"]
        assert broker.hubs.watchers(KEY) == 1


async def test_two_writers_at_once_keep_one_order(backend: Backend) -> None:
    async with writing(backend, "p") as (one, _), writing(backend, "q") as (other, _):
        assert await one.put(task_record())
        for number in range(10):
            writer = one if number % 2 else other
            while not await writer.put(status(str(number))):
                pass
        stored = await outline(backend)
        assert [word for word in stored if word.startswith("working")] == [
            f"working m-{n}" for n in range(10)
        ]


async def test_a_purged_log_is_written_on(backend: Backend) -> None:
    async with writing(backend) as (writer, _broker):
        assert await writer.put(task_record())
        await backend.purge(subject_of("task-1"))
        while not await writer.put(status("a")):
            pass
        assert await outline(backend) == ["working m-a"]


async def test_a_record_behind_a_lost_live_message_is_read(backend: Backend) -> None:
    async with writing(backend) as (writer, _broker):
        backend.faults.lose(1)
        assert await writer.put(task_record())
        assert writer.hub.fold.started


async def test_a_record_too_large_is_refused(backend: Backend) -> None:
    async with writing(backend) as (writer, _broker):
        with pytest.raises(PublishRefused, match="at most"):
            await writer.put(status("x" * 1_100_000))
        assert await writer.put(task_record())


async def test_what_is_wrong_with_the_last_sequence_is_told_apart(backend: Backend) -> None:
    async with writing(backend) as (_writer, broker):
        headers = {names.EXPECTED_LAST_SUBJECT_SEQUENCE: "7"}
        with pytest.raises(PublishConflict):
            await broker.stream.publish(subject_of("task-1"), status("a"), headers)


@pytest.mark.parametrize("key", [TaskKey("", "agent", ""), TaskKey("\ud800", "agent", "t")])
def test_an_id_no_subject_can_hold_is_refused(key: TaskKey) -> None:
    nothing: Any = None
    with pytest.raises(InvalidId):
        Writer(key, nothing, nothing, "p", lambda: 1)


# --- who attends a subject


async def test_who_attends_is_found_until_it_stops(backend: Backend) -> None:
    subject = captor_subject(KEY)
    async with writing(backend) as (_, one), writing(backend) as (_, other):
        assert not await other.stream.attended(subject)
        await one.stream.attend("token", subject)
        assert await other.stream.attended(subject)
        assert not await other.stream.attended(captor_subject(KEY._replace(task="task-2")))
        await one.stream.unsubscribe("token")
        assert not await other.stream.attended(subject)
        await one.stream.attend("token", subject)
        await one.stream.close()
        assert not await other.stream.attended(subject)


async def test_who_attends_is_found_again_after_a_break(backend: Backend) -> None:
    subject = captor_subject(KEY)
    async with writing(backend) as (_, one), writing(backend) as (_, other):
        await one.stream.attend("token", subject)
        await backend.go_away()
        await until(lambda: not other.stream.connected)
        with pytest.raises(Away):
            await other.stream.attended(subject)
        with pytest.raises(Away):
            await other.stream.attend("token", subject)
        await backend.come_back()
        await until(lambda: one.stream.connected and other.stream.connected)
        await until_attended(other, subject)
        await one.stream.reconnect("a test")
        await until(lambda: one.stream.connected)
        await until_attended(other, subject)


async def until_attended(broker: Capturing, subject: str) -> None:
    """Wait: a connection counts as back before the server has read what was subscribed to by it."""
    async with asyncio.timeout(5):
        while not await broker.stream.attended(subject):
            await asyncio.sleep(0.01)


async def test_nothing_is_known_without_a_connection(fake: FakeBackend) -> None:
    async with writing(fake) as (writer, _broker):
        await fake.go_away()
        with pytest.raises(Away):
            await writer.open()
        await fake.come_back()
