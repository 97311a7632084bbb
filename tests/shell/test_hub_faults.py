"""The hub and the hubs under everything that goes on at once; Stream's part is played by `Reader`."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import pytest
from brokers import FakeBackend, artifact, done, settings_of, status, subject_of, task_record, until
from fake_jetstream import FakeJetStream
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sse import unchunk

from sidecast_broker import fanout
from sidecast_broker.answers import Away
from sidecast_broker.core.log import Record, Stored
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.metrics import Metrics
from sidecast_broker.opening import open_hub
from sidecast_broker.positioner import Positioner
from sidecast_broker.refused import Refused
from sidecast_broker.subscriber import Subscriber, Wake
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey

KEY = TaskKey("", "agent", "task-1")
END = b"end;"


class Sink:
    """A transport that takes everything at once, or buffers it while it is stalled."""

    def __init__(self) -> None:
        self.data = b""
        self.stalled = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self.data += data
        if self.stalled:
            self.unsent += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return False

    def flow(self) -> None:
        self.stalled = False
        self.unsent = 0


@dataclass(frozen=True)
class Numbers:
    """A view that writes sequences, perhaps only the even ones."""

    even: bool = False
    format = "numbers"

    @property
    def key(self) -> Hashable:
        return self.even

    def record(self, _hub: Hub, record: Record) -> bytes:
        return b"" if self.even and record.sequence % 2 else b"%d;" % record.sequence

    def pieces(self, _hub: Hub, _records: list[Record]) -> None:
        return None

    def joined(self, _hub: Hub, pieces: list[tuple[int, bytes]]) -> bytes:
        return b"".join(data for _sequence, data in pieces)

    def ended(self, hub: Hub, cursor: int) -> bool:
        return hub.ends_at(cursor)

    def end(self, _hub: Hub) -> bytes:
        return END


class Turns:
    """An event loop turned by hand: runs what was to run soon, one call at a time."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()

    def soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> bool:
        if not self.calls:
            return False
        self.calls.popleft()()
        return True

    def run(self) -> int:
        count = 0
        while self.turn():
            count += 1
        return count


def new_hub(turns: Turns, **changes: Any) -> Hub:
    return Hub(KEY, "epoch1", metrics=Metrics(), soon=turns.soon, **{"log_bytes_max": 1 << 20, **changes})


class Reader:
    """What a stream does for its client: joins once it has caught up, and catches up when it is woken."""

    def __init__(self, hub: Hub, view: Numbers, *, chunked: bool = False) -> None:
        self.hub = hub
        self.sink = Sink()
        self.woken: deque[Wake] = deque()
        self.ended = False
        self.subscriber = Subscriber(
            view, self.sink, chunked=chunked, buffer_bytes_max=64, wake=self.woken.append
        )
        self.start = self.subscriber.cursor = hub.end
        self.catch_up(1 << 30)

    def catch_up(self, count_max: int) -> None:
        """Send the next few records from memory, and join when there are none left."""
        hub, subscriber = self.hub, self.subscriber
        if subscriber.joined or self.ended:
            return
        if "ended" in self.woken:
            self.ended = True
            return
        if hub.ends_at(subscriber.cursor):
            self.sink.write(END)
            self.ended = True
            return
        records = hub.log.after(subscriber.cursor, count_max)
        data, _count = hub.frames(subscriber.view, records)
        self.sink.write(data)
        if records:
            subscriber.cursor = records[-1].sequence
        if not hub.log.after(subscriber.cursor) and not hub.ends_at(subscriber.cursor):
            self.woken.clear()
            subscriber.cursor = max(subscriber.cursor, hub.end)
            hub.join(subscriber)

    def leave(self) -> None:
        self.hub.leave(self.subscriber)

    @property
    def got(self) -> list[str]:
        data = self.sink.data
        return data.decode().split(";")[:-1]


def stored(sequence: int, payload: bytes = b"") -> Stored:
    return Stored(sequence, sequence - 1, "2026-01-01T00:00:00.123456789Z", {}, payload or status())


operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 6)),
        st.tuples(st.just("turn"), st.integers(1, 4)),
        st.tuples(st.just("join"), st.sampled_from([1, 1, 1, 70])),
        st.tuples(st.just("leave"), st.integers(0, 500)),
        st.tuples(st.just("stall"), st.integers(0, 500)),
        st.tuples(st.just("flow"), st.integers(0, 500)),
        st.tuples(st.just("catch up"), st.integers(0, 500)),
        st.tuples(st.just("rejoin"), st.integers(0, 500)),
    ),
    max_size=60,
)


@given(operations, st.booleans())
@hypothesis_settings(max_examples=150, deadline=None)
def test_each_record_once_and_in_order_whatever_goes_on(moves: list[tuple[str, int]], ends: bool) -> None:
    clock = itertools.count(step=fanout.SLICE_S)  # every look at the clock ends a slice
    turns = Turns()
    hub = new_hub(turns, clock=lambda: float(next(clock)))
    sequence = 0
    readers: list[Reader] = []
    left: list[tuple[Reader, int]] = []
    for move, value in moves:
        if move == "append":
            for _ in range(value):
                sequence += 1
                hub.append(stored(sequence))
        elif move == "turn":
            for _ in range(value):
                turns.turn()
        elif move == "join":
            readers += [Reader(hub, Numbers(even=index % 3 == 2)) for index in range(value)]
        elif readers:
            reader = readers[value % len(readers)]
            if move == "leave":
                readers.remove(reader)
                reader.leave()
                left.append((reader, sequence))
            elif move == "stall":
                reader.sink.stalled = True
            elif move == "flow":
                reader.sink.flow()
            elif move == "catch up":
                reader.catch_up(1 + value % 3)
            elif move == "rejoin":
                reader.leave()  # as a stream does that is told to close and doesn't
                reader.catch_up(1 << 30)
    if ends:
        sequence += 1
        hub.append(stored(sequence, done()))
    for reader in readers:
        reader.sink.flow()
    while turns.run() or any(not (r.subscriber.joined or r.ended) for r in readers):
        for reader in readers:
            reader.catch_up(2)
    for reader in readers:
        wanted = range(reader.start + 1, sequence + 1)
        even = reader.subscriber.view == Numbers(even=True)
        numbers = [str(n) for n in wanted if not even or n % 2 == 0]
        assert reader.got == ([*numbers, "end"] if ends else numbers)
    for reader, at in left:
        got = [int(number) for number in reader.got]
        even = reader.subscriber.view == Numbers(even=True)
        assert got == [n for n in range(reader.start + 1, (got or [0])[-1] + 1) if not even or n % 2 == 0]
        assert not got or got[-1] <= at


@pytest.mark.parametrize("count", [199, 200, 201, 10_000])
def test_no_turn_of_the_loop_writes_to_more_than_a_slice(count: int) -> None:
    turns = Turns()
    hub = new_hub(turns, clock=lambda: 0.0)
    hub.append(stored(1))
    turns.run()
    readers = [Reader(hub, Numbers()) for _ in range(count)]
    hub.append(stored(2))
    before = 0
    slices = []
    while turns.turn():
        written = sum(1 for reader in readers if reader.sink.data)
        slices.append(written - before)
        before = written
    assert sum(slices) == count
    assert max(slices) <= fanout.SLICE_SUBSCRIBERS
    assert all(reader.got == ["2"] for reader in readers)


def test_a_slow_turn_ends_a_slice_early() -> None:
    now = itertools.count(step=fanout.SLICE_S)
    turns = Turns()
    hub = new_hub(turns, clock=lambda: float(next(now)))
    hub.append(stored(1))
    turns.run()
    readers = [Reader(hub, Numbers()) for _ in range(300)]
    hub.append(stored(2))
    turns.turn()
    assert sum(1 for reader in readers if reader.sink.data) == 50


def test_who_joins_during_a_pass_misses_nothing_and_gets_nothing_twice() -> None:
    turns = Turns()
    hub = new_hub(turns, clock=lambda: 0.0)
    hub.append(stored(1))
    turns.run()
    readers = [Reader(hub, Numbers()) for _ in range(450)]
    hub.append(stored(2))
    turns.turn()
    late = Reader(hub, Numbers())
    hub.append(stored(3))
    later = Reader(hub, Numbers())
    turns.run()
    for reader in (*readers, late, later):
        while not reader.subscriber.joined:
            reader.catch_up(1)
    assert {tuple(reader.got) for reader in readers} == {("2", "3")}
    assert (late.got, later.got) == (["3"], [])


def test_chunks_and_plain_bytes_carry_the_same() -> None:
    turns = Turns()
    hub = new_hub(turns)
    plain, chunked = (Reader(hub, Numbers(), chunked=chunked) for chunked in (False, True))
    for sequence in range(1, 5):
        hub.append(stored(sequence))
        turns.run()
    assert b"".join(unchunk(chunked.sink.data)) == plain.sink.data == b"1;2;3;4;"


def test_a_loss_takes_every_joined_subscriber_out_even_during_a_pass() -> None:
    turns = Turns()
    hub = new_hub(turns, clock=lambda: 0.0)
    hub.append(stored(1))
    turns.run()
    readers = [Reader(hub, Numbers()) for _ in range(450)]
    hub.append(stored(2))
    turns.turn()
    hub.lose()
    hub.append(stored(9))
    turns.run()
    assert all(reader.subscriber.gap == "expired" for reader in readers)
    assert all(reader.woken[-1] == "gap" and not reader.subscriber.joined for reader in readers)
    assert {tuple(reader.got) for reader in readers} == {("2",), ()}
    assert (hub.oldest_cursor, hub.complete) == (8, False)


def test_a_reset_during_a_pass_writes_nothing_more_of_the_old_stream() -> None:
    turns = Turns()
    hub = new_hub(turns, clock=lambda: 0.0)
    readers = [Reader(hub, Numbers()) for _ in range(450)]
    hub.append(stored(7))
    turns.turn()
    hub.reset("epoch2")
    hub.append(stored(1))
    turns.run()
    assert {tuple(reader.got) for reader in readers} == {("7",), ()}
    assert all(reader.subscriber.gap == "epoch" for reader in readers)
    newcomer = Reader(hub, Numbers())
    hub.append(stored(2))
    turns.run()
    assert newcomer.got == ["2"]


def test_one_who_had_the_end_from_elsewhere_is_woken() -> None:
    turns = Turns()
    hub = new_hub(turns)
    hub.append(stored(1))
    turns.run()
    reader = Reader(hub, Numbers())
    hub.leave(reader.subscriber)
    reader.subscriber.cursor = 2
    hub.join(reader.subscriber)
    hub.append(stored(2, done()))
    turns.run()
    assert list(reader.woken) == ["behind"]


# --- all hubs together


class Tasks:
    """Hubs on the double."""

    def __init__(self, backend: FakeBackend, **changes: object) -> None:
        settings = settings_of(backend, **changes)
        self.metrics = Metrics()
        self.stream = FakeJetStream(backend.server, settings.nats, self._doubt, backend.faults)
        self.positioner = Positioner(self.stream, settings.nats.verify_s)  # type: ignore[arg-type]
        self.hubs = Hubs(self.stream, self.positioner, settings.log, self.metrics)  # type: ignore[arg-type]

    def _doubt(self, reason: str) -> None:
        self.positioner.doubt(reason)

    async def __aenter__(self) -> Hubs:
        self.stream.start()
        self.positioner.start()
        self.hubs.start()
        await asyncio.wait_for(self.positioner.known.wait(), 5)
        return self.hubs

    async def __aexit__(self, *_: object) -> None:
        await self.hubs.close()
        await self.positioner.close()
        await self.stream.close()


def key_of(index: int) -> TaskKey:
    return TaskKey("", "agent", f"t-{index}")


async def fill(backend: FakeBackend, tasks: int, bytes_each: int) -> None:
    for index in range(tasks):
        task = f"t-{index}"
        pieces = [artifact("x" * 500, task) for _ in range(bytes_each // 500)]
        await backend.publish(task_record(task), *pieces, task=task)


async def test_memory_of_all_tasks_is_bounded(fake: FakeBackend) -> None:
    await fill(fake, 30, 10_000)
    limits = {"log__bytes_max": 100_000, "log__task_bytes_max": 50_000}
    async with Tasks(fake, **limits) as hubs:
        for index in range(30):
            hub = await hubs.acquire(key_of(index))
            assert hub.end > 0
            hubs.release(hub)
        assert hubs.size_bytes <= 100_000
        assert 1 <= len(hubs) < 30


async def test_watched_tasks_that_fill_memory_are_trimmed_and_go_on(fake: FakeBackend) -> None:
    await fill(fake, 500, 1_000)
    limits = {"log__bytes_max": 2_100_000, "log__task_bytes_max": 20_000, "nats__verify_s": 60}
    async with Tasks(fake, **limits) as hubs:
        watched = [await hubs.acquire(key_of(index)) for index in range(500)]
        assert {len(hub.log) for hub in watched} == {3}
        # What a task adds up to can't be let go; this one alone takes nearly all there is.
        await fake.publish(artifact("y" * 1_040_000, "t-7"), task="t-7")
        await fake.publish(status("on", "t-7"), task="t-7")
        end = fake.server.last
        await until(lambda: watched[7].end == end)
        await until(lambda: {len(hub.log) for hub in watched} <= {1, 2})
        assert hubs.size_bytes == sum(hub.size_bytes for hub in watched)
        await fake.publish(status("and on", "t-9"), task="t-9")
        await until(lambda: watched[9].end == end + 1)


async def fill_folds(backend: FakeBackend, tasks: int, bytes_each: int) -> None:
    for index in range(tasks):
        task = f"t-{index}"
        await backend.publish(task_record(task), artifact("x" * bytes_each, task), task=task)


async def test_where_folds_fill_memory_not_every_event_looks_for_room(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = 400
    await fill_folds(fake, tasks, 2_000)
    looks = 0
    make_room = Hubs._make_room

    def counted(hubs: Hubs) -> None:
        nonlocal looks
        looks += 1
        make_room(hubs)

    monkeypatch.setattr(Hubs, "_make_room", counted)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    limits = {"log__bytes_max": 200_000, "log__task_bytes_max": 100_000, "nats__verify_s": 60}
    async with Tasks(fake, **limits) as hubs:
        watched = [await hubs.acquire(key_of(index)) for index in range(tasks)]
        assert sum(hub.fold.size_bytes for hub in watched) > 200_000
        looks = 0
        before = fake.server.last
        for index in range(tasks):
            await fake.publish(status("on", f"t-{index}"), task=f"t-{index}")
        await until(lambda: [hub.end - before for hub in watched] == list(range(1, tasks + 1)))
        await until(lambda: hubs.size_bytes == sum(hub.size_bytes for hub in watched))
        assert looks <= tasks // 4
    assert not faults


async def test_memory_is_bounded_again_once_the_folds_that_filled_it_are_gone(fake: FakeBackend) -> None:
    await fill(fake, 2, 100_000)
    for index in range(2, 22):
        await fake.publish(artifact("x" * 40_000, f"t-{index}"), task=f"t-{index}")
    limits = {"log__bytes_max": 200_000, "log__task_bytes_max": 200_000, "log__idle_s": 0.05}
    async with Tasks(fake, **limits, nats__verify_s=60) as hubs:
        full = [await hubs.acquire(key_of(index)) for index in range(2, 22)]
        assert hubs.size_bytes > 800_000
        for hub in full:
            hubs.release(hub)
        await until(lambda: not len(hubs))
        for index in range(2):
            await hubs.acquire(key_of(index))
        await until(lambda: hubs.size_bytes <= 200_000)


async def test_the_count_of_memory_does_not_drift(fake: FakeBackend) -> None:
    await fill(fake, 1, 5_000)
    async with Tasks(fake, log__idle_s=0.05) as hubs:
        for _round in range(3):
            hub = await hubs.acquire(key_of(0))
            hubs.release(hub)
            await until(lambda: not len(hubs))
            hub.append(stored(hub.end + 1, status("late", "t-0")))  # it was on its way already
            assert hubs.size_bytes == 0
        fake.faults.answer_short(1, 3)
        fake.faults.stall()
        opening = asyncio.ensure_future(hubs.acquire(key_of(0)))
        await until(lambda: fake.faults.reads)
        fake.faults.flow()
        for _turn in range(3):
            await asyncio.sleep(0)
        await fake.go_away()
        with pytest.raises(Away):
            await opening
        assert (len(hubs), hubs.size_bytes) == (0, 0)


async def test_those_who_failed_together_take_nothing_from_the_next(fake: FakeBackend) -> None:
    await fill(fake, 1, 500)
    async with Tasks(fake, log__idle_s=0.05) as hubs:
        fake.faults.stall()
        failing = [asyncio.ensure_future(hubs.acquire(key_of(0))) for _ in range(5)]
        await until(lambda: fake.faults.reads)
        await fake.go_away()
        next_one: list[asyncio.Task[Hub]] = []

        def come(_done: object) -> None:
            fake.server.away = False
            next_one.append(asyncio.ensure_future(hubs.acquire(key_of(0))))

        failing[0].add_done_callback(come)
        fake.faults.flow()
        results = await asyncio.gather(*failing, return_exceptions=True)
        assert all(isinstance(result, Away) for result in results)
        hub = await next_one[0]
        await asyncio.sleep(0.05)  # some sweeps: one who uses it keeps it in memory
        await fake.publish(status("seen", "t-0"), task="t-0")
        await until(lambda: hub.end == fake.server.last)
        assert len(hubs) == 1


async def test_closing_while_tasks_are_being_opened_leaves_nothing(fake: FakeBackend) -> None:
    await fill(fake, 3, 500)
    async with Tasks(fake) as hubs:
        fake.faults.stall()
        opening = [asyncio.ensure_future(hubs.acquire(key_of(index))) for index in range(3)]
        await until(lambda: fake.faults.reads == 3)
    results = await asyncio.gather(*opening, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert hubs.size_bytes == 0


async def test_a_task_that_is_loading_anew_is_waited_for(fake: FakeBackend) -> None:
    await fake.publish(task_record("t-0"), *[status(str(n), "t-0") for n in range(5)], task="t-0")
    async with Tasks(fake, nats__verify_s=0.2) as hubs:
        hub = await hubs.acquire(key_of(0))
        fake.faults.stall()
        fake.server.create("epoch2")
        await fake.publish(task_record("t-0"), done("t-0"), task="t-0")
        await until(lambda: hub.reloading)
        assert hubs.peek(key_of(0)) is None
        first = await hubs.first(key_of(0))
        assert first is not None
        again = asyncio.ensure_future(hubs.acquire(key_of(0), first.sequence))
        await asyncio.sleep(0)
        assert not again.done()
        fake.faults.flow()
        assert (await again) is hub
        assert (hub.epoch, hub.end, hub.ended) == ("epoch2", 2, True)
        assert subject_of("t-0")


def named(sequence: int, owner: str | None) -> Stored:
    headers = {} if owner is None else {names.OWNER: owner}
    return Stored(sequence, 0, "2026-01-01T00:00:00Z", headers, status())


@pytest.mark.parametrize("forget", [lambda hub: hub.retain(None), lambda hub: hub.reset("epoch2")])
@pytest.mark.parametrize(("before", "after"), [*itertools.product(("alice", "bob", None), repeat=2)])
def test_a_first_record_of_another_owner_ends_what_is_watched(
    forget: Callable[[Hub], None], before: str | None, after: str | None
) -> None:
    turns = Turns()
    hub = new_hub(turns)
    hub.append(named(1, before))
    reader = Reader(hub, Numbers())
    forget(hub)
    reader.catch_up(1 << 30)
    for sequence in (2, 3):
        hub.append(named(sequence, after))
    turns.run()
    changed = before != after
    assert (hub.failed, hub.first, hub.end) == (changed, None if changed else 2, 3)
    assert len(hub.log) == (0 if changed else 2)
    assert hub.fold.started is not changed


async def test_who_waits_for_a_task_that_is_read_is_told_to_come_again_when_its_owner_changes(
    fake: FakeBackend,
) -> None:
    """Purged and begun anew between two pages of its history."""
    await fake.publish(task_record(), *(status() for _ in range(3)), headers={names.OWNER: "alice"})
    async with Tasks(fake, nats__page_events=2) as hubs:
        fake.faults.stall()
        waiting = [asyncio.ensure_future(hubs.acquire(KEY)) for _ in range(2)]
        await until(lambda: fake.faults.reads)
        await fake.purge(subject_of("task-1"))
        await fake.publish(task_record(), headers={names.OWNER: "bob"})
        fake.faults.flow()
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, Away)
        hub = await hubs.acquire(KEY)
        assert (hub.owner, hub.failed, len(hubs)) == ("bob", False, 1)


async def test_a_hub_that_was_let_go_gives_nobody_the_records_of_the_next(fake: FakeBackend) -> None:
    await fake.publish(task_record(), headers={names.OWNER: "alice"})
    async with Tasks(fake) as hubs:
        hers = await hubs.acquire(KEY)
        await fake.purge(subject_of("task-1"))
        await fake.publish(task_record(), headers={names.OWNER: "bob"})
        await until(lambda: hers.failed and not len(hubs))
        his = await hubs.acquire(KEY)
        assert (hubs.tail(his).end, his.owner) == (2, "bob")
        with pytest.raises(Away):
            hubs.tail(hers)
        with pytest.raises(Refused):  # its owner was looked up before it was purged
            await open_hub(hubs, KEY, first=1)
        assert hubs.watchers(KEY) == 1
