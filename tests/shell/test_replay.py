"""What a client is sent of older records, portion by portion, from a hub and a tail that are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from brokers import status, task_record
from hypothesis import given
from hypothesis import strategies as st
from shell.test_hub_faults import KEY, Numbers, Sink, Turns, stored
from shell.test_timers import Clock

from sidecast_broker.answers import Away, Page
from sidecast_broker.core.log import Stored
from sidecast_broker.core.pace import Pace
from sidecast_broker.hub import WRITE_BYTES_MAX, Hub
from sidecast_broker.metrics import Metrics
from sidecast_broker.replay import PAGE_RECORDS_MIN, Replay
from sidecast_broker.stream_view import StreamView
from sidecast_broker.subscriber import Subscriber
from sidecast_broker.tail import Tail


class Whole(Numbers):
    """A view that shows every record."""

    thins = False


class Stream:
    """A tail of what the stream holds of a task.

    Attributes:
        records: what is stored.
        asked: each page asked for, as its first sequence and how many.
        page_max: most records of one page.
        away: whether no page can be read.
        meanwhile: called while a page is under way.
    """

    def __init__(self, records: list[Stored]) -> None:
        self.records = records
        self.asked: list[tuple[int, int | None]] = []
        self.page_max = 1000
        self.away = False
        self.meanwhile: Callable[[], None] = lambda: None

    async def read(self, start: int, count_max: int | None = None) -> Page:
        self.asked.append((start, count_max))
        self.meanwhile()
        if self.away:
            raise Away("gone")
        found = [each for each in self.records if each.sequence >= start]
        page = found[: min(count_max or self.page_max, self.page_max)]
        return Page(page, len(found) - len(page))

    async def check_retained(self) -> None:
        self.meanwhile()


class There:
    """One client of a task that its hub holds little of, at its first record."""

    def __init__(
        self, count: int = 50, *, size: int = 10, pace: Pace | None = None, kept: int = 2000
    ) -> None:
        payloads = [task_record(), *(status("x" * size) for _ in range(count - 1))]
        records = [stored(number, payload) for number, payload in enumerate(payloads, 1)]
        turns, clock = Turns(), Clock()
        self.clock = clock
        self.hub = Hub(KEY, "epoch1", metrics=Metrics(), soon=turns.soon, clock=clock, log_bytes_max=kept)
        for record in records:
            self.hub.append(record)
        turns.run()
        self.stream = Stream(records)
        view = cast(StreamView, Whole())
        sink: Any = Sink()
        self.subscriber = Subscriber(
            view, sink, chunked=False, buffer_bytes_max=1 << 16, wake=lambda _why: None, pace=pace
        )
        self.subscriber.cursor = 1
        self.over = False
        self.replay = Replay(self.subscriber, view, Metrics(), clock)

    async def read(self) -> list[int]:
        tail = cast(Tail, self.stream)
        return numbers(await self.replay.read(self.hub, tail, lambda: self.over))

    def rest(self) -> list[int]:
        return numbers(self.replay.take_rest(self.hub))


def numbers(data: bytes) -> list[int]:
    return [int(each) for each in data.decode().split(";")[:-1]]


async def test_a_page_begins_with_the_record_the_client_has_and_leaves_it_out() -> None:
    there = There()
    there.subscriber.cursor = 7
    assert await there.read() == list(range(8, 51))
    assert there.stream.asked == [(7, None)]
    assert (there.subscriber.cursor, there.subscriber.events) == (50, 43)


async def test_nothing_beyond_what_the_hub_has_folded_is_sent() -> None:
    there = There()
    there.stream.records = [*there.stream.records, stored(51)]
    assert (await there.read())[-1] == 50


async def test_large_records_are_read_as_many_as_make_one_write() -> None:
    there = There(60, size=WRITE_BYTES_MAX // 10)
    first = await there.read()
    assert first == list(range(2, 2 + len(first)))
    assert 2 <= len(first) <= 10
    await there.read()
    start, count_max = there.stream.asked[-1]
    assert start == first[-1]
    assert count_max is not None
    assert PAGE_RECORDS_MIN <= count_max <= 11


async def test_a_record_that_is_larger_than_a_write_is_sent_all_the_same() -> None:
    there = There(4, size=WRITE_BYTES_MAX * 2)
    assert [await there.read() for _page in range(3)] == [[2], [3], [4]]


async def test_small_ones_are_read_by_the_page_again() -> None:
    there = There()
    there.replay._page_records = 5
    assert await there.read() == [2, 3, 4, 5]
    await there.read()
    assert there.stream.asked == [(1, 5), (5, None)]


async def test_a_rate_gives_the_first_of_a_page_and_the_rest_when_its_time_comes() -> None:
    there = There(pace=Pace(rate=10, burst=4))
    assert there.replay.due_s() <= there.clock.now_s
    first = await there.read()
    assert first[0] == 2
    assert len(first) <= 4
    assert there.replay.due_s() > there.clock.now_s
    there.clock.now_s += 10
    more = there.rest() or await there.read()
    assert more[0] == first[-1] + 1


async def test_what_a_pace_leaves_is_sent_before_more_is_read() -> None:
    there = There(pace=Pace(batch_s=1.0, batch_max=20))
    assert await there.read() == list(range(2, 22))
    assert there.rest() == list(range(22, 42))
    assert there.rest() == list(range(42, 51))
    assert there.rest() == []
    assert len(there.stream.asked) == 1


@pytest.mark.parametrize("how", ["forgotten", "moved"])
async def test_the_rest_of_a_page_is_nobodys_once_the_client_is_sent_something_else(how: str) -> None:
    there = There(pace=Pace(batch_s=1.0, batch_max=20))
    await there.read()
    if how == "moved":
        there.subscriber.cursor = 30
    else:
        there.replay.forget_rest()
    assert there.rest() == []


@pytest.mark.parametrize("anchored", [True, False])
async def test_where_the_clients_own_record_is_gone_others_may_be_too(anchored: bool) -> None:
    there = There()
    there.replay.anchored = anchored
    there.stream.records = there.stream.records[30:]
    there.hub.retain(31)
    assert await there.read() == []
    assert there.subscriber.gap == "expired"
    assert there.subscriber.cursor == 1


async def test_a_position_between_records_is_as_good_where_the_client_named_it() -> None:
    there = There()
    del there.stream.records[9]  # the sequence is another task's
    there.subscriber.cursor = 10
    assert (await there.read())[0] == 11
    assert there.subscriber.gap is None


async def test_what_has_changed_while_it_was_read_is_not_sent() -> None:
    for change in ("over", "failed", "epoch", "gap"):
        there = There()

        def happen(there: There = there, change: str = change) -> None:
            if change == "over":
                there.over = True
            elif change == "failed":
                there.hub.fail()
            elif change == "epoch":
                there.hub.reset("epoch2")
            else:
                there.hub.gap_below = 20

        there.stream.meanwhile = happen
        assert await there.read() == []
        assert (there.subscriber.cursor, there.subscriber.gap) == (1, None)
        assert len(there.stream.asked) == 1


async def test_what_can_not_be_read_is_asked_for_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    there = There()
    there.stream.away = True
    with pytest.raises(Away):
        await there.read()
    assert pauses == sorted(pauses)
    assert len(pauses) == len(there.stream.asked) == 5
    there.stream.away = False
    assert (await there.read())[0] == 2


async def test_a_short_page_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    there = There()

    async def sleep(_pause_s: float) -> None:
        there.stream.page_max = 1000

    monkeypatch.setattr(asyncio, "sleep", sleep)
    there.stream.page_max = 1  # a replica that has nothing yet of what follows
    assert await there.read() == list(range(2, 51))


@given(
    st.lists(st.integers(1, WRITE_BYTES_MAX // 2), min_size=1, max_size=12),
    st.sampled_from(
        [None, Pace(batch_s=1.0, batch_max=3), Pace(rate=5, burst=2), Pace(rate=1000, burst=1000)]
    ),
)
def test_all_of_it_comes_once_and_in_order(sizes: list[int], pace: Pace | None) -> None:
    there = There(1, pace=pace, kept=1 << 30)
    for size in sizes:
        record = stored(there.hub.end + 1, status("x" * size))
        there.hub.append(record)
        there.stream.records.append(record)
    got: list[int] = []

    async def read_all() -> None:
        while there.subscriber.cursor < there.hub.end:
            if there.replay.due_s() > there.clock.now_s:
                there.clock.now_s = there.replay.due_s()
            portion = there.rest() or await there.read()
            assert portion
            got.extend(portion)

    asyncio.run(read_all())
    assert got == list(range(2, 2 + len(sizes)))
