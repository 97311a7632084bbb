"""Tails and the positioner where a live message, a look of the positioner or a whole stream comes amiss."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import pytest
from brokers import (
    AS_JSON,
    TASK,
    FakeBackend,
    RealBackend,
    broker,
    done,
    numbered,
    settings_of,
    status,
    subject_of,
    task_record,
    texts,
    until,
)
from fake_jetstream import FakeJetStream
from sse import data_frames, kinds

from sidecast_broker import positioner
from sidecast_broker.answers import Away, StreamInfo
from sidecast_broker.core.cursor import is_epoch
from sidecast_broker.core.log import Stored
from sidecast_broker.core.wheel import SLICE_MIN
from sidecast_broker.hub import Hub
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.positioner import Positioner
from sidecast_broker.settings import Nats
from sidecast_broker.tail import Cause, Tail
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey, live_subject

KEY = TaskKey("", "agent", TASK)


class GatedJetStream(FakeJetStream):
    """The double, whose next answer of the stream's state can be kept waiting."""

    asked: asyncio.Event | None = None
    gate: asyncio.Event | None = None
    groups: list[int]

    def hold_info(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Keep the next question for the state waiting; give what tells that it is asked, and the gate."""
        self.asked, self.gate = asyncio.Event(), asyncio.Event()
        return self.asked, self.gate

    async def newest(self, subjects: Iterable[str], above: int, last: int) -> dict[str, int]:
        wanted = list(subjects)
        self.groups.append(len(wanted))
        return await super().newest(wanted, above, last)

    async def info(self) -> StreamInfo:
        asked, gate, self.asked, self.gate = self.asked, self.gate, None, None
        if asked is not None and gate is not None:
            asked.set()
            await gate.wait()
        return await super().info()


class Followed:
    """A task's hub and tail on the double, with a positioner that looks when it is told to."""

    def __init__(self, fake: FakeBackend, **changes: object) -> None:
        nats = settings_of(fake, **changes).nats
        self.doubts: list[str] = []
        self.repairs: list[Cause] = []
        soon = asyncio.get_running_loop().call_soon
        self.metrics = Metrics()
        self.hub = Hub(KEY, "epoch1", log_bytes_max=1 << 20, metrics=self.metrics, soon=soon)
        self.stream = GatedJetStream(fake.server, nats, self.doubts.append, fake.faults)
        self.stream.groups = []
        self.positioner = Positioner(self.stream, nats.verify_s)  # type: ignore[arg-type]
        self.tail = self._tail(KEY, self.hub)
        self.others: list[Tail] = []

    def _tail(self, key: TaskKey, hub: Hub) -> Tail:
        return Tail(
            self.stream,  # type: ignore[arg-type]
            key,
            hub,
            on_doubt=self.doubts.append,
            on_repair=self.repairs.append,
        )

    async def open(self) -> None:
        self.positioner.add(self.tail)
        await self.tail.open((await self.stream.info()).last)

    async def open_others(self, count: int) -> None:
        """Follow as many more tasks."""
        soon = asyncio.get_running_loop().call_soon
        for number in range(count):
            key = TaskKey("", "agent", f"other-{number}")
            hub = Hub(key, "epoch1", log_bytes_max=1 << 20, metrics=self.metrics, soon=soon)
            tail = self._tail(key, hub)
            self.positioner.add(tail)
            await tail.open((await self.stream.info()).last)
            self.others.append(tail)

    async def settled(self) -> None:
        async with asyncio.timeout(5):
            await self.tail.settled()


@asynccontextmanager
async def followed(fake: FakeBackend, **changes: object) -> AsyncIterator[Followed]:
    both = Followed(fake, **changes)
    both.stream.start()
    await both.positioner.verify()
    try:
        yield both
    finally:
        await both.positioner.close()
        for tail in (both.tail, *both.others):
            await tail.close()
        await both.stream.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for what may still be on its way."""
    monkeypatch.setattr(positioner, "SUSPECT_S", 0.01)


def deliver_unstored(fake: FakeBackend, text: str) -> None:
    """Send a live message that no stream holds: forged, or the last of one that was deleted."""
    headers = {names.SEQUENCE: "5000", names.LAST_SEQUENCE: "4999", names.TIME_STAMP: "2026-01-01T00:00:00Z"}
    fake.server.deliver(live_subject(KEY), status(text), headers)


# --- many tails


async def test_of_many_tails_few_are_looked_at_in_one_go_and_each_within_a_period(fake: FakeBackend) -> None:
    count, verify_s = 200, 1.0
    async with followed(fake, nats__verify_s=verify_s) as both:
        await both.open_others(count)
        both.positioner.start()
        both.positioner.doubt("connected")
        await until(lambda: not both.positioner._doubt.is_set())
        both.stream.groups.clear()
        fake.faults.lose(count)
        began_s = time.monotonic()
        for number in range(count):
            await fake.publish(task_record(f"other-{number}"), task=f"other-{number}")
        published_s = time.monotonic() - began_s
        await until(lambda: all(tail.end for tail in both.others))
        assert time.monotonic() - began_s < published_s + 2 * verify_s
        assert set(both.repairs) == {"positioning"}
        # Who is late looks at what came due meanwhile in one go.
        assert median(both.stream.groups) <= SLICE_MIN
        assert max(both.stream.groups) < count / 2


async def test_what_may_be_on_its_way_to_some_does_not_hold_up_the_others(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positioner, "SUSPECT_S", 60)
    async with followed(fake, nats__verify_s=0.2) as both:
        await both.open_others(5 * SLICE_MIN)
        both.positioner.start()
        await until(lambda: both.positioner.known.is_set())
        fake.faults.lose(1)
        await fake.publish(task_record("other-0"), task="other-0")
        last = await fake.publish(task_record("another"), task="another")
        await until(lambda: all(tail.position == last for tail in both.others[1:]))
        assert (both.others[0].end, both.repairs) == (0, [])


async def test_a_repair_that_was_meant_for_a_stream_that_is_gone_is_left_out(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        await both.open()
        fake.faults.lose(1)
        await fake.publish(status("lost"))
        suspects = await both.positioner._look([both.tail])
        assert suspects is not None
        await fake.create("epoch2")
        end = await fake.publish(task_record())
        await both.positioner.verify()
        await both.settled()
        both.repairs.clear()
        both.positioner._repair(suspects)
        assert (both.repairs, both.hub.end, both.hub.gap_below) == ([], end, 0)


async def test_a_tail_that_was_closed_meanwhile_is_not_repaired(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        await both.open()
        fake.faults.lose(1)
        await fake.publish(status("lost"))
        suspects = await both.positioner._look([both.tail])
        assert suspects is not None
        both.positioner.remove(both.tail)
        await both.tail.close()
        both.positioner._repair(suspects)
        assert both.repairs == []


async def test_a_purge_is_found_by_each_tail_when_its_turn_comes(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    await fake.publish(task_record("other-0"), task="other-0")
    await fake.publish(task_record("other-1"), task="other-1")
    async with followed(fake) as both:
        await both.open()
        await both.open_others(2)
        await both.positioner.verify()
        await fake.purge(subject_of(TASK))
        await both.positioner._look([both.others[0]])
        await both.positioner._look([both.others[1]])
        assert both.hub.first == 1
        await both.positioner._look([both.tail])
        assert both.hub.first is None


# --- a tail that is being opened


async def test_a_tail_opened_during_a_look_is_not_taken_for_looked_at(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("one"))
    async with followed(fake) as both:
        asked, gate = both.stream.hold_info()
        look = asyncio.create_task(both.positioner.verify())
        await asked.wait()
        await both.open()
        fake.faults.lose(1)
        end = await fake.publish(done())
        gate.set()
        await look
        await both.positioner.verify()
        await both.settled()
        assert both.hub.end == end
        assert both.repairs == ["positioning"]


async def test_an_event_that_comes_while_the_beginning_is_judged_is_delivered_at_once(
    fake: FakeBackend,
) -> None:
    await fake.publish(status("cut off"))  # no record that begins a task: whether it is whole must be asked
    async with followed(fake) as both:
        fake.faults.hold()
        asked, gate = both.stream.hold_info()
        opening = asyncio.create_task(both.tail.open(0))
        await asked.wait()
        end = await fake.publish(status("meanwhile"))
        await until(lambda: fake.faults.held)
        await fake.faults.release(0)
        gate.set()
        await opening
        assert both.hub.end == end
        assert both.repairs == []


# --- live messages no stream holds


async def test_a_live_message_no_stream_holds_is_dropped(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with followed(fake) as both:
        await both.open()
        deliver_unstored(fake, "forged")
        await until(lambda: both.repairs)
        await both.settled()
        assert both.doubts[-1] == "live-and-not-stored"
        reads = fake.faults.reads
        end = await fake.publish(status("true"))
        await until(lambda: both.hub.end == end)
        assert (fake.faults.reads, both.repairs) == (reads, ["hole"])
        assert both.hub.gap_below == 0


async def test_the_last_message_of_the_old_stream_does_not_keep_a_task_loading(fake: FakeBackend) -> None:
    await fake.publish(task_record(), status("old"))
    async with followed(fake) as both:
        await both.open()
        await fake.create("epoch2")
        end = await fake.publish(task_record(), status("new"))
        fake.faults.hold()
        fake.faults.stall()
        await both.positioner.verify()
        deliver_unstored(fake, "old")
        await until(lambda: fake.faults.held)
        await fake.faults.release(0)
        fake.faults.flow()
        await both.settled()
        assert not both.hub.reloading
        assert (both.hub.epoch, both.hub.end, both.hub.gap_below) == ("epoch2", end, 0)


# --- streams and tasks that begin anew


async def test_a_cursor_of_a_stream_that_is_gone_gets_nothing_of_the_new_one_without_a_gap(
    fake: FakeBackend,
) -> None:
    await fake.publish(task_record(), *numbered(4))
    async with broker(fake, nats__verify_s=5, log__idle_s=0.05) as running:
        stream = await running.watch()
        await stream.take(2)
        await stream.close()
        async with asyncio.timeout(5):
            while await running.metric("sidecast_tasks"):
                pass
        await fake.create("epoch2")
        await fake.publish(task_record(), *numbered(6), done())
        frames = await (await running.watch(cursor=stream.last_id)).rest()
        assert data_frames(frames) == []  # sent away for a moment
        async with asyncio.timeout(5):
            while "stream.busy" in kinds(frames):
                frames = await (await running.watch(cursor=stream.last_id)).rest()
        assert kinds(frames)[:3] == ["stream.open", "stream.gap", "task.snapshot"]
        assert frames[1]["reason"] == "epoch"


async def test_a_task_purged_and_begun_anew_between_two_looks_is_shown_anew(fake: FakeBackend) -> None:
    await fake.publish(task_record("another"), task="another")
    await fake.publish(task_record(), status("old"), done(state="FAILED"))
    async with broker(fake, nats__verify_s=5) as warm, broker(fake, nats__verify_s=5) as cold:
        assert (await warm.get(f"/tasks/{TASK}/events", AS_JSON))[1]["task"]["status"]
        await fake.purge(subject_of(TASK))
        await fake.publish(task_record(), status("new"))
        _status, wanted = await cold.get(f"/tasks/{TASK}/events", AS_JSON)
        assert "FAILED" not in str(wanted)
        await warm.until_answer(TASK, lambda answer: answer == wanted)
        stream = await warm.watch()
        await stream.take(2)
        await fake.publish(status("on"), done())
        frames = await stream.rest()
        assert texts(frames) == ["on"]
        assert frames[-1]["state"] == "completed"


# --- what replicas and the stream's metadata say


class UnknowingReplica(JetStream):
    """A connection whose replicas have nothing of the tasks asked for, and whose leader has one."""

    leader_away = False

    async def _direct(self, request: dict[str, Any]) -> tuple[list[Stored], dict[str, str]]:
        return [], {names.STATUS: "404", "Description": "No Results"}

    async def last(self, subject: str) -> Stored | None:
        if self.leader_away:
            raise Away("no leader")
        return Stored(7, 0, "", {names.SUBJECT: subject}, b"") if subject == "stored" else None


async def test_of_what_a_replica_knows_nothing_the_leader_is_asked() -> None:
    stream = UnknowingReplica(Nats(), lambda _reason: None)
    assert await stream.newest(["stored", "nowhere"], 0, 7) == {"stored": 7}
    stream.leader_away = True
    with pytest.raises(Away):
        await stream.newest(["stored", "nowhere"], 0, 7)


@pytest.mark.parametrize("written", ["two words", "x" * 65, "", "caf\u00e9"])
async def test_an_epoch_that_can_be_none_is_that_of_the_creation(real: RealBackend, written: str) -> None:
    await real.create(written)
    connected = JetStream(settings_of(real).nats, lambda _reason: None)
    connected.start()
    await until(lambda: connected.connected)
    info = await connected.info()
    assert is_epoch(info.epoch)
    assert info.epoch != written
    await connected.renew_epoch(info.epoch)
    renewed = (await connected.info()).epoch
    assert is_epoch(renewed)
    assert renewed != info.epoch
    await connected.close()
