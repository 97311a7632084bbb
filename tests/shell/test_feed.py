"""The order in which one agent's records are handed on, whatever is lost, late or somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
from brokers import FakeBackend, status, subject_of, until
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecast_broker.answers import Away
from sidecast_broker.core.log import Stored
from sidecast_broker.feed import Arrival, Feed, Follower
from sidecast_broker.settings import Nats

NEIGHBOUR = "sidecast.v1.events._.neighbour.t"
FORGED = {
    "Nats-Stream": "SIDECAST",
    "Nats-Subject": subject_of("a"),
    "Nats-Sequence": "5000",
    "Nats-Time-Stamp": "2026-01-01T00:00:00.000000000Z",
    "Nats-Last-Sequence": "0",
}


class Everything:
    """Follows all of an agent, and writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.arrived: list[Arrival] = []
        self.position = 0
        self.losses = 0
        self.epochs: list[str] = []
        self.failed = False
        self.fault: Exception | None = None

    @property
    def sequences(self) -> list[int]:
        return [arrival.sequence for arrival in self.arrived]

    def hear(self, task: str, stored: Stored) -> None:
        self.heard.append(stored.sequence)

    def arrive(self, arrival: Arrival) -> None:
        if self.fault is not None:
            raise self.fault
        assert arrival.sequence > self.position
        self.arrived.append(arrival)
        self.position = arrival.sequence

    def advance(self, position: int) -> None:
        assert position >= self.position
        self.position = position

    def lose(self) -> None:
        self.losses += 1

    def renew(self, epoch: str) -> None:
        self.epochs.append(epoch)
        self.arrived.clear()
        self.position = 0

    def fail(self) -> None:
        self.failed = True


class Followed:
    """A feed with a follower, and what it reads from."""

    def __init__(self, backend: FakeBackend, page_events: int) -> None:
        self.all = Everything()
        self.repairs: list[str] = []
        self.stream = backend.connect(Nats(page_events=page_events), lambda _reason: None)
        followers: list[Follower] = [self.all]
        self.feed = Feed(
            self.stream,
            "",
            "agent",
            route=lambda _arrival: followers,
            followers=lambda: followers,
            on_repair=self.repairs.append,
        )

    async def confirm(self) -> None:
        """Say how far the stream is, as the positioner does."""
        self.feed.confirm(await self.stream.info())


@asynccontextmanager
async def following(backend: FakeBackend, page_events: int = 100) -> AsyncIterator[Followed]:
    followed = Followed(backend, page_events)
    followed.stream.start()
    await followed.feed.open()
    try:
        yield followed
    finally:
        await followed.feed.close()
        await followed.stream.close()


async def put(backend: FakeBackend, *tasks: str) -> list[int]:
    """Store a record of each of these tasks; the empty one stands for another agent's."""
    return [
        await backend.publish_on(subject_of(task) if task else NEIGHBOUR, status("x", task or "t"))
        for task in tasks
    ]


async def test_what_follows_directly_is_handed_on_without_reading(fake: FakeBackend) -> None:
    await put(fake, "before")
    async with following(fake) as followed:
        await put(fake, "a", "b", "a")
        await until(lambda: len(followed.all.arrived) == 3)
        assert [(each.sequence, each.task, each.is_first) for each in followed.all.arrived] == [
            (2, "a", True),
            (3, "b", True),
            (4, "a", False),
        ]
        assert fake.faults.reads == 0
        assert followed.repairs == []


async def test_another_agents_records_are_looked_at_once_and_are_no_repair(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        await put(fake, "a", "", "", "b")
        await until(lambda: followed.all.sequences == [1, 4])
        assert fake.faults.reads == 1
        assert followed.repairs == []
        assert [each.is_first for each in followed.all.arrived] == [True, True]


async def test_a_lost_live_message_comes_in_its_place(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        fake.faults.lose(1)
        await put(fake, "a", "b")
        await until(lambda: followed.all.sequences == [1, 2])
        assert followed.all.heard == [2]
        assert followed.all.arrived[0].is_first is None


async def test_the_last_message_is_missed_when_the_leader_says_how_far_the_stream_is(
    fake: FakeBackend,
) -> None:
    async with following(fake) as followed:
        fake.faults.lose(1)
        await put(fake, "a")
        await followed.confirm()
        await until(lambda: followed.all.sequences == [1])
        assert followed.repairs == ["positioning"]


async def test_where_only_others_write_the_position_moves(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        await put(fake, "", "", "")
        await followed.confirm()
        await until(lambda: followed.all.position == 3)
        assert (followed.all.arrived, followed.feed.position) == ([], 3)


async def test_a_message_that_was_never_stored_moves_nothing(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        await fake.send_core("sidecast.v1.live._.agent.a", status("x", "a"), FORGED)
        await until(lambda: fake.faults.reads)
        await put(fake, "b")
        await until(lambda: followed.all.sequences == [1])
        assert followed.feed.position == 1


async def test_a_replica_that_is_behind_hides_nothing(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        fake.faults.lose(3)
        await put(fake, "a", "b", "c")
        fake.faults.answer_stale(2, 1)
        await put(fake, "d")
        await until(lambda: followed.all.sequences == [1, 2, 3, 4])


async def test_what_expired_unread_is_told(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        await put(fake, "a")
        await until(lambda: followed.all.sequences == [1])
        fake.faults.lose(2)
        await put(fake, "a", "b")
        await fake.expire(2)
        await followed.confirm()
        await until(lambda: followed.all.sequences == [1, 3])
        assert followed.all.losses == 1


async def test_a_stream_begun_anew_is_handed_on_from_its_beginning(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        await put(fake, "a", "b", "c")
        await until(lambda: len(followed.all.arrived) == 3)
        await fake.create("epoch2")
        fake.faults.lose(1)
        await put(fake, "d")
        followed.feed.reset(await followed.stream.info())
        await until(lambda: followed.all.sequences == [1])
        assert (followed.all.epochs, followed.feed.epoch) == (["epoch2"], "epoch2")


async def test_an_answer_about_the_stream_there_was_is_thrown_away(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        fake.faults.lose(2)
        fake.faults.stall()
        await put(fake, "a", "b")
        await followed.confirm()
        await until(lambda: fake.faults.reads)
        await fake.create("epoch2")
        followed.feed.reset(await followed.stream.info())
        fake.faults.flow()
        await put(fake, "c")
        await until(lambda: followed.all.sequences)
        assert [(each.sequence, each.task) for each in followed.all.arrived] == [(1, "c")]


async def test_it_goes_on_where_nats_was_away(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        fake.faults.lose(1)
        await put(fake, "a")
        info = await followed.stream.info()
        await fake.go_away()
        with structlog.testing.capture_logs() as logs:
            followed.feed.confirm(info)
            await until(lambda: logs)
        assert logs[0]["event"] == "feed_waits"
        await fake.come_back()
        await until(lambda: followed.all.sequences == [1])


async def test_one_that_can_t_be_opened_leaves_nothing_open(fake: FakeBackend) -> None:
    followed = Followed(fake, 100)
    followed.stream.start()
    fake.server.leaderless = True
    with pytest.raises(Away):
        await followed.feed.open()
    assert not fake.connections[0]._subscriptions
    await followed.stream.close()


async def test_a_fault_of_ours_is_told_to_all_who_follow(fake: FakeBackend) -> None:
    async with following(fake) as followed:
        followed.all.fault = ValueError("a fault")
        with structlog.testing.capture_logs() as logs:
            await put(fake, "", "a")
            await until(lambda: followed.all.failed)
        assert [entry["event"] for entry in logs] == ["feed_failed"]
        assert followed.feed.failed


# --- anything at all

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["a", "b", "c", ""])),
        st.tuples(st.just("lose"), st.integers(1, 4)),
        st.tuples(st.just("turns"), st.integers(1, 15)),
        st.tuples(st.just("stale"), st.integers(0, 10)),
        st.tuples(st.just("confirm"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(steps=STEPS, page_events=st.sampled_from([1, 3, 100]))
def test_all_records_of_the_agent_are_handed_on_once_and_in_order(
    steps: list[tuple[str, object]], page_events: int
) -> None:
    asyncio.run(run(steps, page_events))


async def run(steps: list[tuple[str, object]], page_events: int) -> None:
    backend = FakeBackend()
    wanted: list[int] = []
    async with following(backend, page_events) as followed:
        for step, what in steps:
            if step == "put":
                [sequence] = await put(backend, str(what))
                wanted += [sequence] if what else []
            elif step == "lose":
                backend.faults.lose(int(str(what)))
            elif step == "stale":
                backend.faults.answer_stale(1, int(str(what)))
            elif step == "confirm":
                await followed.confirm()
            else:
                for _ in range(int(str(what))):
                    await asyncio.sleep(0)
        await followed.confirm()
        await until(lambda: followed.feed.position == backend.server.last)
        assert followed.all.sequences == wanted
