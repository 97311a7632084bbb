from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from brokers import OTHER, TASK, FakeBackend, numbered, settings_of, status, subject_of, task_record, until
from fake_jetstream import FakeJetStream

from sidecast_broker import positioner
from sidecast_broker import tail as tail_module
from sidecast_broker.answers import Away, StreamInfo
from sidecast_broker.core.log import Stored
from sidecast_broker.jetstream import JetStream
from sidecast_broker.positioner import Positioner
from sidecast_broker.tail import Cause, Tail
from sidecast_schemas.subjects import TaskKey

KEY = TaskKey("", "agent", TASK)


class Taken:
    """A sink that keeps all it was told."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.records: dict[int, Stored] = {}
        self.losses = 0
        self.resets: list[str] = []
        self.retained: list[int | None] = []
        self.loads = 0
        self.complete = False

    @property
    def end(self) -> int:
        return self.sequences[-1] if self.sequences else 0

    @property
    def first(self) -> int | None:
        return self.sequences[0] if self.sequences else None

    def append(self, stored: Stored) -> None:
        assert stored.sequence > self.end
        self.sequences.append(stored.sequence)
        self.records[stored.sequence] = stored

    def lose(self) -> None:
        self.losses += 1

    def retain(self, first: int | None) -> None:
        self.retained.append(first)

    def reset(self, epoch: str) -> None:
        self.resets.append(epoch)
        self.sequences.clear()
        self.records.clear()
        self.complete = False

    def loaded(self) -> None:
        self.loads += 1

    def is_known(self, stored: Stored) -> bool | None:
        record = self.records.get(stored.sequence)
        return None if record is None else record.at == stored.at

    def assume_whole_stream(self) -> None:
        self.complete = True


class Counting(FakeJetStream):
    """The double, that counts what is asked of the leader and of replicas."""

    asked: list[str]

    async def info(self) -> StreamInfo:
        self.asked.append("info")
        return await super().info()

    async def newest(self, *arguments: object) -> dict[str, int]:
        self.asked.append("newest")
        return await super().newest(*arguments)  # type: ignore[arg-type]

    async def next(self, subject: str, sequence: int) -> Stored | None:
        self.asked.append("next")
        return await super().next(subject, sequence)

    async def last(self, subject: str) -> Stored | None:
        self.asked.append("last")
        return await super().last(subject)


class Followed:
    """A tail on the double, with a positioner that looks when it is told to."""

    def __init__(self, backend: FakeBackend, **changes: object) -> None:
        nats = settings_of(backend, **changes).nats
        self.doubts: list[str] = []
        self.repairs: list[Cause] = []
        self.sink = Taken()
        self.stream = Counting(backend.server, nats, self.doubts.append, backend.faults)
        self.stream.asked = []
        self.stream.start()
        self.positioner = Positioner(self.stream, nats.verify_s)  # type: ignore[arg-type]
        self.tail = Tail(
            self.stream,  # type: ignore[arg-type]
            KEY,
            self.sink,
            on_doubt=self.doubts.append,
            on_repair=self.repairs.append,
        )

    async def open(self) -> None:
        await self.positioner.verify()
        self.positioner.add(self.tail)
        assert self.positioner.info is not None
        await self.tail.open(self.positioner.info.last)

    async def close(self) -> None:
        await self.tail.close()
        await self.positioner.close()
        await self.stream.close()


@asynccontextmanager
async def followed(backend: FakeBackend, **changes: object) -> AsyncIterator[Followed]:
    both = Followed(backend, **changes)
    await both.open()
    try:
        yield both
    finally:
        await both.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for what may still be on its way."""
    monkeypatch.setattr(positioner, "SUSPECT_S", 0.01)


def test_the_double_can_be_asked_all_that_the_real_one_can() -> None:
    for name, member in inspect.getmembers(JetStream):
        if not name.startswith("_"):
            double = vars(FakeJetStream)[name]
            if callable(member):
                wanted, given = (list(inspect.signature(each).parameters) for each in (member, double))
                assert given == wanted, name


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
async def test_history_is_read_page_by_page_to_the_leaders_end(fake: FakeBackend, page: int) -> None:
    await fake.publish(task_record(), *numbered(6))
    async with followed(fake, nats__page_events=page) as both:
        assert both.sink.sequences == list(range(1, 8))
        assert (both.sink.loads, both.sink.complete, both.repairs) == (1, True, [])


async def test_what_comes_while_history_is_read_is_not_lost(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(3))
    both = Followed(fake)
    fake.faults.stall()
    opening = asyncio.ensure_future(both.open())
    await until(lambda: fake.faults.reads)
    await fake.publish(*numbered(3))
    fake.faults.flow()
    await opening
    assert both.sink.sequences == list(range(1, 8))
    await both.close()


async def test_more_than_is_held_back_comes_from_the_stream(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        fake.faults.stall()
        fake.faults.lose(1)
        count = tail_module.HELD_MAX * 2 + 5
        await fake.publish(*numbered(count))
        await until(lambda: fake.faults.reads > 1)
        fake.faults.flow()
        await until(lambda: both.sink.end == count + 1)
        assert both.sink.sequences == list(range(1, count + 2))
        assert (both.sink.losses, both.repairs) == (0, ["hole"])


async def test_nats_away_when_opened_leaves_nothing_open(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    both = Followed(fake)
    await both.positioner.verify()
    fake.faults.stall()
    opening = asyncio.ensure_future(both.tail.open(1))
    await until(lambda: fake.faults.reads)
    await fake.go_away()
    fake.faults.flow()
    with pytest.raises(Away):
        await opening
    await fake.come_back()
    await fake.publish(status("new"))
    assert both.sink.loads == 0
    await both.close()


async def test_a_repair_waits_until_nats_is_back(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        fake.faults.stall()
        fake.faults.lose(1)
        await fake.publish(*numbered(2))
        await until(lambda: fake.faults.reads > 1)
        await fake.go_away()
        fake.faults.flow()
        await fake.publish(*numbered(2, first=2))
        await fake.come_back()
        await until(lambda: both.sink.end >= 3)
        await both.positioner.verify()
        await until(lambda: both.sink.end == 5)
        assert (both.sink.sequences, both.sink.losses) == ([1, 2, 3, 4, 5], 0)


# --- the positioner


async def test_a_stream_that_rests_costs_one_question(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        await both.positioner.verify()
        both.stream.asked.clear()
        for _ in range(5):
            await both.positioner.verify()
        assert both.stream.asked == ["info"] * 5


async def test_events_that_all_arrived_cost_no_repair(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        await fake.publish(*numbered(5))
        await until(lambda: both.sink.end == 6)
        both.stream.asked.clear()
        await both.positioner.verify()
        assert (both.stream.asked, both.repairs) == (["info", "newest"], [])
        assert both.tail.position == 6


async def test_a_message_that_is_only_late_is_no_loss(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        fake.faults.hold()
        await fake.publish(status("late"))
        await until(lambda: fake.faults.held)
        looking = asyncio.ensure_future(both.positioner.verify())
        await asyncio.sleep(0)
        await fake.faults.release(0)
        await looking
        assert (both.sink.sequences, both.repairs) == ([1, 2], [])


@pytest.mark.parametrize("stale", [1, 4])
async def test_a_replica_behind_the_leader_is_asked_again(fake: FakeBackend, stale: int) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        fake.faults.lose(1)
        fake.faults.answer_stale(0, 0, newest=stale)
        await fake.publish(status("lost"))
        await both.positioner.verify()
        await until(lambda: both.sink.end == 2)


async def test_when_all_replicas_are_behind_nothing_counts_as_verified(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        fake.faults.lose(1)
        fake.faults.answer_stale(0, 0, newest=5)
        await fake.publish(status("lost"))
        with pytest.raises(Away):
            await both.positioner.verify()
        assert both.tail.position == 1
        await both.positioner.verify()
        await until(lambda: both.sink.end == 2)


async def test_a_doubt_makes_it_look_at_once(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake, nats__verify_s=300) as both:
        both.positioner.start()
        await until(lambda: both.positioner.known.is_set())
        fake.faults.lose(1)
        await fake.publish(status("lost"))
        await until(lambda: fake.faults.lost)
        both.positioner.doubt("reconnected")
        await until(lambda: both.sink.end == 2)
        assert both.repairs == ["positioning"]


async def test_a_leader_that_can_not_be_seen_is_looked_for_elsewhere(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake, nats__verify_s=0.1) as both:
        both.positioner.start()
        fake.server.leaderless = True
        await until(lambda: both.stream.reconnects)
        fake.server.leaderless = False
        fake.faults.lose(1)
        await fake.publish(status("lost"))
        await until(lambda: both.sink.end == 2)


async def test_an_old_state_told_once_is_no_new_stream(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fake.publish(task_record(), *numbered(3))
    async with followed(fake) as both:
        told = both.stream.info
        answers = iter([StreamInfo("epoch1", fake.server.created, 1, 2, 0)])

        async def frozen() -> StreamInfo:
            return next(answers, None) or await told()

        monkeypatch.setattr(both.stream, "info", frozen)
        await both.positioner.verify()
        assert (both.sink.resets, fake.server.epoch) == ([], "epoch1")
        assert both.positioner.info is not None


async def test_brokers_agree_on_a_new_epoch(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(3))
    async with followed(fake) as one, followed(fake) as other:
        fake.server.go_backwards(2)
        await asyncio.gather(one.positioner.verify(), other.positioner.verify())
        assert one.sink.resets == other.sink.resets == [fake.server.epoch]
        assert fake.server.epoch != "epoch1"
        await until(lambda: one.sink.sequences == other.sink.sequences == [1, 2])


async def test_a_reset_during_a_reset_ends_in_the_newest_stream(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(3))
    async with followed(fake) as both:
        fake.faults.stall()
        for epoch, count in (("epoch2", 5), ("epoch3", 2)):
            fake.server.create(epoch)
            await fake.publish(*numbered(count))
            await both.positioner.verify()
        assert both.sink.resets == ["epoch2", "epoch3"]
        fake.faults.flow()
        await until(lambda: both.sink.sequences == [1, 2])
        assert both.sink.loads >= 2
        await both.tail.settled()
        await fake.publish(status("live"))
        await until(lambda: both.sink.sequences == [1, 2, 3])


# --- what is gone


async def test_what_was_missed_and_purged_is_a_loss(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("seen"))
    async with followed(fake) as both:
        fake.faults.lose(3)
        await fake.publish(*numbered(3))
        fake.server.purge(subject_of(TASK), keep_from=5)
        await both.positioner.verify()
        await until(lambda: both.sink.end == 5)
        assert (both.sink.sequences, both.sink.losses) == ([1, 2, 5], 1)
        assert "end-is-gone" in both.doubts


async def test_what_was_missed_and_purged_to_the_last_is_no_endless_repair(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("seen"))
    async with followed(fake) as both:
        fake.faults.lose(2)
        await fake.publish(*numbered(2))
        newest = both.stream.newest

        async def purged_meanwhile(*arguments: object) -> dict[str, int]:
            found = await newest(*arguments)
            fake.server.purge(subject_of(TASK))
            return found

        both.stream.newest = purged_meanwhile  # type: ignore[method-assign]
        await both.positioner.verify()
        await asyncio.wait_for(both.tail.settled(), 5)
        assert both.sink.sequences == [1, 2]
        await both.positioner.verify()
        assert both.sink.retained[-1] is None
        await fake.publish(status("new"))
        await until(lambda: both.sink.end == 5)
        assert both.sink.losses == 1


@pytest.mark.parametrize(("kept", "retained"), [(None, [None]), (1, [])])
async def test_only_what_begins_above_the_end_begins_anew(
    fake: FakeBackend, kept: int | None, retained: list[None]
) -> None:
    """Said by the leader alone: no replica has heard of it yet."""
    await fake.publish(task_record(), status("seen"))
    async with followed(fake) as both:
        if kept is None:
            fake.server.purge(subject_of(TASK))
        else:
            fake.server.delete(2)
        fake.faults.answer_stale(3, 0)
        await fake.publish(status("new"))
        await until(lambda: both.sink.end == 3)
        assert both.sink.retained == retained


async def test_the_expiry_of_what_was_seen_is_no_loss(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("seen"))
    await fake.publish(task_record(OTHER), task=OTHER)
    async with followed(fake) as both:
        await fake.expire(2)
        await both.positioner.verify()
        assert both.sink.retained == [None]
        await fake.publish(status("new"))
        await until(lambda: both.sink.end == 4)
        assert (both.sink.sequences, both.sink.losses) == ([1, 2, 4], 0)


async def test_a_record_that_comes_while_the_leader_says_none_is_kept(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        fake.server.purge()
        asked = both.stream.next

        async def meanwhile(subject: str, sequence: int) -> Stored | None:
            answer = await asked(subject, sequence)
            if answer is None:
                await fake.publish(status("new"))
                await until(lambda: both.sink.end == 2)
            return answer

        monkeypatch.setattr(both.stream, "next", meanwhile)
        await both.tail.check_retained()
        assert both.sink.retained[-1] == 2


async def test_pages_asked_for_at_once_are_read_once(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(5))
    async with followed(fake) as both:
        before = fake.faults.reads
        pages = await asyncio.gather(*(both.tail.read(2) for _ in range(50)), both.tail.read(4))
        assert fake.faults.reads - before == 2
        assert all([stored.sequence for stored in page.records] == [2, 3, 4, 5, 6] for page in pages[:-1])


async def test_one_who_gives_up_a_shared_page_takes_it_from_nobody(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(5))
    async with followed(fake) as both:
        before = fake.faults.reads
        fake.faults.stall()
        readers = [asyncio.ensure_future(both.tail.read(2)) for _ in range(3)]
        await until(lambda: fake.faults.reads > before)
        readers[0].cancel()
        fake.faults.flow()
        pages = await asyncio.gather(*readers[1:])
        assert all(len(page.records) == 5 for page in pages)
