"""The pacer under a clock turned by hand, and paced clients of a running broker."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections import deque
from typing import Any

import pytest
from askers import EVERYTHING, Askers, bearer
from brokers import (
    TASK,
    FakeBackend,
    artifact,
    broker,
    done,
    numbered,
    numbers,
    status,
    task_record,
    texts,
    until,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from shell.test_hub_faults import KEY, Numbers, Sink, Turns, stored
from shell.test_timers import Clock
from sse import kinds

from sidecast_broker.batches import MADE_BYTES_MAX
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.log import Record
from sidecast_broker.core.pace import Pace
from sidecast_broker.hub import WRITE_BYTES_MAX, Hub
from sidecast_broker.metrics import Metrics
from sidecast_broker.subscriber import Subscriber, Wake
from sidecast_broker.timers import Timers

PATH = f"/tasks/{TASK}/events"
BATCHED = Pace(batch_s=0.125, batch_max=50)
THROTTLED = Pace(rate=10, burst=2)
BOTH = Pace(batch_s=1.0, batch_max=50, rate=10, burst=5)


class Client:
    """A paced subscriber, and when it was written what."""

    def __init__(self, there: There, pace: Pace | None, view: Numbers) -> None:
        self.sink = Sink()
        self.woken: deque[Wake] = deque()
        self.writes: list[tuple[float, list[int]]] = []
        self.subscriber = Subscriber(
            view, self.sink, chunked=False, buffer_bytes_max=1 << 16, wake=self.woken.append, pace=pace
        )
        self.subscriber.cursor = there.hub.end
        self._there = there
        self._seen = 0
        self._write = self.sink.write
        self.sink.write = self._note  # type: ignore[method-assign]

    def _note(self, data: bytes) -> None:
        self._write(data)
        got = [int(each) for each in data.decode().split(";")[:-1]]
        self.writes.append((round(self._there.clock.now_s - 100, 6), got))

    @property
    def got(self) -> list[int]:
        return [each for _at, numbers in self.writes for each in numbers]


class There:
    """A hub whose clock, timers and loop are turned by hand."""

    def __init__(self, **changes: Any) -> None:
        self.clock = Clock()
        self.turns = Turns()
        self.timers = Timers(self.clock)
        self.hub = Hub(
            KEY,
            "epoch1",
            metrics=Metrics(),
            soon=self.turns.soon,
            timers=self.timers,
            clock=self.clock,
            **{"log_bytes_max": 1 << 20, **changes},
        )
        self.hub.append(stored(1, task_record()))
        self.turns.run()

    def join(self, pace: Pace | None, view: Numbers | None = None) -> Client:
        client = Client(self, pace, view or Numbers())
        self.hub.join(client.subscriber)
        return client

    def append(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.hub.append(stored(self.hub.end + 1, payload))
        self.turns.run()

    def go(self, seconds: float, step_s: float = 1 / 64) -> None:
        """Let time pass."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s - 1e-9:
            self.clock.now_s = min(self.clock.now_s + step_s, end_s)
            self.timers.run_due()
            self.turns.run()


def error() -> bytes:
    metadata = {"urn:sidecast:activity:v1": {"kind": "error", "code": "E1"}}
    body = {"taskId": TASK, "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}, "metadata": metadata}
    return json.dumps({"statusUpdate": body}).encode()


# --- windows


async def test_the_first_after_silence_goes_at_once_then_one_batch_a_window() -> None:
    there = There()
    client = there.join(BATCHED)
    for _ in range(10):
        there.append(status())
        there.go(1 / 32)
    there.go(1)
    there.append(status())
    assert client.writes == [
        (0, [2]),
        (0.125, [3, 4, 5]),
        (0.25, [6, 7, 8, 9]),
        (0.375, [10, 11]),
        (1.3125, [12]),
    ]
    assert len(there.timers) == 0


@pytest.mark.parametrize(
    "payload", [error(), done(), status(state="INPUT_REQUIRED")], ids=["error", "end", "interrupted"]
)
async def test_what_is_urgent_goes_at_once_with_all_that_has_gathered(payload: bytes) -> None:
    there = There()
    client = there.join(Pace(batch_s=5, batch_max=50))
    there.append(status())
    there.go(0.1)
    there.append(status())
    there.append(payload)
    assert client.writes == [(0, [2]), (0.1, [3, 4])]


async def test_the_end_of_a_task_is_left_to_the_stream() -> None:
    there = There()
    client = there.join(BATCHED)
    there.append(done())
    assert (list(client.woken), client.subscriber.joined, client.got) == (["behind"], False, [2])


async def test_a_full_batch_goes_early_and_no_write_holds_more() -> None:
    there = There()
    client = there.join(Pace(batch_s=5, batch_max=3))
    there.append(status())
    there.append(status(), status())
    assert len(client.writes) == 1
    there.append(*[status()] * 5)
    assert [len(got) for _at, got in client.writes] == [1, 3, 3, 1]
    assert client.got == list(range(2, 10))


async def test_clients_of_one_pace_share_a_window_and_one_timer() -> None:
    there = There()
    clients = [there.join(BATCHED) for _ in range(200)]
    there.append(status())
    there.append(status(), status())
    assert len(there.timers) == 1
    there.go(0.2)
    assert all(client.got == [2, 3, 4] for client in clients)


async def test_a_filter_that_leaves_all_out_moves_the_cursor_without_a_write() -> None:
    there = There()
    client = there.join(BATCHED, Numbers(even=True))
    there.append(status())
    there.append(status())
    there.go(0.2)
    assert (client.got, client.subscriber.cursor) == ([2], 3)


async def test_what_a_filter_leaves_out_fills_no_batch() -> None:
    there = There()
    client = there.join(Pace(batch_s=0.5, batch_max=3), Numbers(even=True))
    for _ in range(8):
        there.append(status())
        there.go(0.0625)
    there.go(0.5)
    assert client.writes == [(0, [2]), (0.375, [4, 6, 8])]


# --- rates


async def test_a_rate_is_kept_after_the_burst_and_nothing_is_left_out() -> None:
    there = There()
    client = there.join(THROTTLED)
    for _ in range(100):
        there.append(status(), status())
        there.go(0.01)
    there.go(30)
    assert client.got == list(range(2, 202))
    times = [at for at, got in client.writes for _each in got]
    for first in range(len(times)):
        within = sum(times[first] <= at <= times[first] + 1 for at in times)
        assert within <= 12


async def test_an_urgent_event_does_not_wait_for_a_time_that_a_client_has_of_its_own() -> None:
    """With a window and a rate, what the rate has held back gathers; what is urgent ends that."""
    there = There()
    client = there.join(BOTH)
    there.append(*[status()] * 6)  # the burst, and one that is held back
    assert client.got == [2, 3, 4, 5, 6]
    there.go(0.35)
    there.append(error())
    assert client.writes[1:] == [(0.35, [7, 8])]


async def test_an_urgent_event_overtakes_nothing_and_keeps_the_rate() -> None:
    there = There()
    client = there.join(BOTH)
    there.append(*[status()] * 10)
    there.go(0.05)
    there.append(error())
    there.go(1)
    assert client.got == list(range(2, 13))
    at_error = next(at for at, got in client.writes if 12 in got)
    assert 0.6 <= at_error < 0.65  # six tokens after the burst


async def test_a_client_that_leaves_and_joins_again_is_written_to_once() -> None:
    there = There()
    client = there.join(THROTTLED)
    there.append(*[status()] * 4)
    there.hub.leave(client.subscriber)
    there.hub.join(client.subscriber)
    there.go(2)
    assert client.got == [2, 3, 4, 5]


async def test_a_slow_rate_gets_to_see_more_than_one_page_at_once() -> None:
    """What a thinned format makes of many records is one frame, however many they are."""

    class Thinned(Numbers):
        def pieces(self, _hub: Hub, records: list[Any]) -> Any:
            return [(records[-1].sequence, b"%d;" % records[-1].sequence)] if records else []

    class Woven(Numbers):
        """Two frames of however many records, of which the first is no place to go on from."""

        @property
        def key(self) -> str:
            return "woven"

        def pieces(self, _hub: Hub, records: list[Any]) -> Any:
            last = records[-1].sequence
            return [(0, b"0;"), (last, b"%d;" % last)] if records else []

    there = There()
    woven = there.join(Pace(rate=0.5, burst=2), Woven())
    client = there.join(Pace(rate=0.5, burst=1), Thinned())
    there.append(status())
    there.append(*[status()] * 1500)
    there.go(2.1)
    assert client.got == [2, 1502]
    there.go(2.1)
    assert woven.got == [0, 2, 0, 1502]


# --- faults and bounds


async def test_a_client_that_takes_nothing_is_handed_back() -> None:
    there = There()
    client = there.join(BATCHED)
    client.sink.stalled = True
    client.sink.unsent = 1 << 17
    there.append(status())
    assert (list(client.woken), client.subscriber.joined) == (["behind"], False)


@pytest.mark.parametrize("pace", [BATCHED, THROTTLED, BOTH])
async def test_a_stream_that_begins_anew_gives_nobody_bytes_of_the_old_one(pace: Pace) -> None:
    there = There()
    client = there.join(pace)
    there.append(*[status()] * 3)
    there.append(status())
    there.hub.reset("epoch2")
    assert (client.subscriber.gap, list(client.woken)) == ("epoch", ["gap"])
    sent = len(client.writes)
    there.hub.append(stored(1, task_record()))
    there.go(5)
    assert len(client.writes) == sent
    client.subscriber.gap = None
    client.subscriber.cursor = 1
    there.hub.join(client.subscriber)
    there.append(status())
    there.go(5)
    assert client.got[-1] == 2


async def test_what_falls_out_of_memory_is_handed_back() -> None:
    there = There(log_bytes_max=4000)
    client = there.join(THROTTLED)
    for _ in range(60):
        there.append(status("x" * 200))
    there.go(1)
    assert (list(client.woken), client.got) == (["behind"], [2, 3])


async def test_what_is_made_for_a_run_is_gone_after_it_and_bounded_in_it() -> None:
    there = There(log_bytes_max=64 << 20)
    pacer = there.hub.pacer
    held = []

    class Large(Numbers):
        def record(self, _hub: Hub, record: Any) -> bytes:
            return b"%d;" % record.sequence + b"x" * 20_000

        def end(self, hub: Hub) -> bytes:
            raise AssertionError("it goes on")

        def ended(self, hub: Hub, cursor: int) -> bool:
            held.append(pacer._batches.size_bytes)
            return super().ended(hub, cursor)

    clients = []
    for number in range(20):  # each at a place of its own
        there.hub.append(stored(there.hub.end + 1, status(str(number))))
        there.turns.run()
        client = Client(there, Pace(rate=1, burst=20), Large())
        client._note = lambda _data: None  # type: ignore[method-assign]
        client.sink.write = lambda _data: None  # type: ignore[method-assign]
        client.subscriber.cursor = there.hub.end - 1
        clients.append(client)
    for client in clients:
        there.hub.join(client.subscriber)
    there.turns.run()
    assert 0 < max(held) <= MADE_BYTES_MAX + 2 * 20 * 20_010
    assert (len(pacer._batches), pacer._batches.size_bytes) == (0, 0)


async def test_a_window_of_large_events_is_no_larger_in_the_buffer_of_a_client_that_takes_nothing() -> None:
    there = There(log_bytes_max=64 << 20)

    class Large(Numbers):
        def record(self, _hub: Hub, record: Any) -> bytes:
            return b"%d;" % record.sequence + b"x" * 20_000

    client = Client(there, BATCHED, Large())
    client.sink.write = client._write  # type: ignore[method-assign]
    client.sink.stalled = True
    there.hub.join(client.subscriber)
    there.append(*[status()] * 40)
    there.go(0.2)
    assert list(client.woken) == ["behind"]
    assert client.sink.unsent <= client.subscriber.buffer_bytes_max + WRITE_BYTES_MAX


async def test_who_has_left_is_held_by_no_timer() -> None:
    there = There()

    class Wakes:
        def __call__(self, _reason: Wake) -> None:
            pass

    client = there.join(Pace(rate=0.1, burst=1))
    client.subscriber.wake = Wakes()
    gone = weakref.ref(client.subscriber.wake)
    there.append(status(), status())
    assert (client.got, len(there.timers)) == ([2], 1)
    there.hub.leave(client.subscriber)
    del client
    gc.collect()
    assert gone() is None
    there.go(11)
    assert len(there.timers) == 0


async def test_a_view_that_fails_stops_neither_the_others_nor_the_next_event() -> None:
    there = There()

    class Failing(Numbers):
        fails = True

        def record(self, hub: Hub, record: Any) -> bytes:
            if Failing.fails:
                raise RuntimeError("mine")
            return super().record(hub, record)

        @property
        def key(self) -> str:
            return "failing"

    failing, healthy = there.join(THROTTLED, Failing()), there.join(THROTTLED)
    there.hub.append(stored(2, status()))
    with pytest.raises(RuntimeError, match="mine"):
        there.turns.run()
    there.turns.run()
    assert healthy.got == [2]
    Failing.fails = False
    there.append(status())
    there.go(1)
    assert (failing.got, healthy.got) == ([2, 3], [2, 3])


class FailingAtTwo(Numbers):
    """A view that fails at the second record, as if what it holds were not what the view expects."""

    @property
    def key(self) -> str:
        return "failing"

    def record(self, hub: Hub, record: Record) -> bytes:
        if record.sequence == 2:
            raise RuntimeError("mine")
        return super().record(hub, record)


@pytest.mark.parametrize("pace", [BATCHED, BOTH, None], ids=["batched", "throttled-too", "unpaced"])
async def test_a_view_that_fails_is_left_to_its_own_streams(pace: Pace | None) -> None:
    there = There()
    before = there.join(None), there.join(BATCHED)
    failing = there.join(pace, FailingAtTwo())
    after = there.join(None), there.join(BATCHED)
    there.append(status(), status())
    there.go(1)
    assert [each.got for each in (*before, *after)] == [[2, 3]] * 4
    assert not any(each.woken for each in (*before, *after))
    assert (failing.got, list(failing.woken)) == ([], ["behind"])
    assert failing.subscriber.cursor == 1
    assert not failing.subscriber.joined


moves = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 8)),
        st.tuples(st.just("urgent"), st.just(1)),
        st.tuples(st.just("go"), st.integers(1, 40)),
        st.tuples(st.just("join"), st.integers(0, 3)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
    ),
    max_size=40,
)


@given(moves)
@settings(max_examples=150, deadline=None)
def test_each_record_once_in_order_and_in_time_whatever_goes_on(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        there = There()
        paces = [BATCHED, THROTTLED, BOTH, Pace(batch_s=0.05, batch_max=2)]
        clients: list[tuple[int, Client]] = []
        for move, value in steps:
            match move:
                case "append":
                    there.append(*[status()] * value)
                case "urgent":
                    there.append(error())
                case "go":
                    there.go(value / 100)
                case "join":
                    clients.append((there.hub.end, there.join(paces[value])))
                case "leave" if clients:
                    there.hub.leave(clients[value % len(clients)][1].subscriber)
        there.go(60, 0.5)
        for start, client in clients:
            assert client.got == list(range(start + 1, start + 1 + len(client.got)))
            if client.subscriber.joined:
                assert client.subscriber.cursor == there.hub.end
                assert len(client.got) == there.hub.end - start
        assert len(there.timers) == 0

    asyncio.run(run())


# --- a running broker


@pytest.mark.parametrize("query", [{"batch_ms": 50}, {"max_rate": 200}, {"batch_ms": 20, "max_rate": 300}])
async def test_a_paced_client_gets_every_event_in_order(fake: FakeBackend, query: dict[str, int]) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        stream = await running.watch(cursor="epoch1-1", **query)
        await stream.next()
        for first in range(0, 60, 20):
            await fake.publish(*numbered(20, first))
        await fake.publish(done())
        frames = await stream.rest()
        assert texts(frames) == numbers(60)
        assert kinds(frames)[-2:] == ["task.status", "stream.end"]


async def test_chunks_are_joined_where_that_is_asked_for(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *(artifact(str(n), append=n > 0) for n in range(10)), done())
    async with broker(fake) as running:
        frames = await (await running.watch(cursor="epoch1-1", coalesce=1)).rest()
        assert kinds(frames) == ["stream.open", "task.artifact", "task.status", "stream.end"]
        assert (frames[1]["text"], frames[1].id) == ("0123456789", "epoch1-11")


async def test_a_batch_is_one_frame_where_that_is_asked_for(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(5), done())
    async with broker(fake) as running:
        frames = await (await running.watch(cursor="epoch1-1", batch="array")).rest()
        assert kinds(frames) == ["stream.open", "task.batch", "stream.end"]
        assert frames[1].id == "epoch1-7"
        assert [each.get("text") for each in frames[1]["events"]] == [*numbers(5), None]


async def test_no_batch_holds_more_than_was_asked_for_not_even_of_a_replay(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(20))
    async with broker(fake) as running:
        stream = await running.watch(cursor="epoch1-1", batch="array", batch_ms=50, batch_max=8)
        await fake.publish(*numbered(20, 20), done())
        batches = [frame["events"] for frame in await stream.rest() if frame.kind == "task.batch"]
        assert [each["text"] for batch in batches for each in batch if "text" in each] == numbers(40)
        assert max(map(len, batches)) <= 8


async def test_older_events_are_read_as_the_rate_allows(fake: FakeBackend) -> None:
    """Beyond memory: no page is read for a client to wait for its time, and all of it comes."""
    await fake.publish(task_record(), *numbered(200))
    async with broker(fake, log__task_bytes_max=4096, pace__burst=10) as running:
        began_s = time.monotonic()
        stream = await running.watch(cursor="epoch1-1", max_rate=100)
        await fake.publish(done())
        frames = await stream.rest()
        assert texts(frames) == numbers(200)
        assert time.monotonic() - began_s > 1.8
        assert await running.metric("sidecast_replayed_events_total", source="stream") > 150


async def test_a_client_whose_rate_is_low_is_told_of_a_gap_and_ends_at_once(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(100))
    async with broker(fake, log__task_bytes_max=4096, pace__burst=1) as running:
        stream = await running.watch(cursor="epoch1-1", max_rate=20)
        await stream.take(3)
        await fake.create("epoch2")
        await fake.publish(task_record(), status("anew"), done())
        frames = await stream.rest()
        gap = kinds(frames).index("stream.gap")
        assert frames[gap]["reason"] == "epoch"
        assert kinds(frames)[gap + 1] == "task.snapshot"
        assert all(kind == "task.status" for kind in kinds(frames)[:gap])
        assert gap < 60


async def test_a_hole_is_told_to_a_client_that_reads_older_events_at_its_rate(fake: FakeBackend) -> None:
    """It has not come to the hole yet: what lies between it and there is left out too, and that is told."""
    await fake.publish(task_record(), *numbered(100))
    async with broker(fake, log__task_bytes_max=4096, pace__burst=1) as running:
        stream = await running.watch(cursor="epoch1-1", max_rate=20)
        await stream.take(3)
        fake.faults.lose(2)
        await fake.publish(status("lost"), status("lost"))
        await until(lambda: fake.faults.lost == 2)
        fake.faults.hold()
        await fake.publish(status("after"))
        await until(lambda: fake.faults.held)
        await fake.delete(102)
        await fake.delete(103)
        await fake.faults.release(0)
        await fake.publish(done())
        frames = await stream.rest()
        gap = kinds(frames).index("stream.gap")
        assert (frames[gap]["reason"], frames[gap]["oldest"]) == ("expired", "epoch1-103")
        before = texts(frames[:gap])
        assert before == [str(number) for number in range(2, 2 + len(before))]
        assert len(before) < 60
        snapshot = frames[gap + 1]
        assert (snapshot.kind, snapshot["partial"]) == ("task.snapshot", True)
        assert all("lost" not in frame.data for frame in frames)
        assert kinds(frames)[-1] == "stream.end"


async def test_tasks_share_the_timers_of_their_paced_clients(fake: FakeBackend) -> None:
    names = [f"t-{number}" for number in range(20)]
    for name in names:
        await fake.publish(task_record(name), task=name)
    async with broker(fake) as running:
        streams = [await running.watch(name, batch_ms=1000) for name in names]
        [shared] = {stream.hub.pacer._timers for stream in running.listening.streams._share_of}
        for name in names:
            await fake.publish(status("at once", name), task=name)
        for stream in streams:
            await stream.until("task.status")
        for name in names:
            await fake.publish(status("waits", name), task=name)
        await until(lambda: len(shared) == len(names))
        for stream in streams:
            assert (await stream.until("task.status"))[-1]["text"] == "waits"
        assert len(shared) == 0


async def test_a_throttled_client_that_reads_older_events_leaves_at_once(fake: FakeBackend) -> None:
    await fake.publish(task_record(), *numbered(100))
    async with broker(fake, log__task_bytes_max=4096, pace__burst=1) as running:
        stream = await running.watch(cursor="epoch1-1", max_rate="0.1")
        await stream.take(2)
        left_s = time.monotonic()
        await stream.close()
        await until(lambda: not len(running.listening.streams))
        assert time.monotonic() - left_s < 3


async def test_one_principal_has_another_rate_than_the_others(fake: FakeBackend) -> None:
    principals = [Principal(name, "jwt", grants=(EVERYTHING,)) for name in ("alice", "bob", "carol")]
    await fake.publish(task_record(), *numbered(2))
    rates = {"pace__rates": "alice=3,bob=0", "pace__rate": 7}
    async with broker(fake, authenticator=Askers(*principals), auth__required="true", **rates) as running:
        for who, rate in (("alice", 3.0), ("bob", None), ("carol", 7.0)):
            await running.watch(headers=bearer(who))
            shown = running.listening.streams.describe()[-1]["pace"]
            assert (shown and shown["max_rate"]) == rate


@pytest.mark.parametrize(
    "query",
    ["batch_ms=x", "batch_ms=5001", "batch_max=0", "max_rate=0", "max_rate=nan", "batch=one", "slow=no"],
)
async def test_a_bad_value_names_the_parameter(fake: FakeBackend, query: str) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running:
        status, answer = await running.get(f"{PATH}?{query}")
        assert status == 400
        assert query.partition("=")[0] in answer["error"]["message"]
