"""Several tasks on one stream where something is late, lost, cut or evicted: nothing is missing or twice."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

from brokers import (
    Backend,
    FakeBackend,
    OwnBroker,
    artifact,
    broker,
    done,
    status,
    subject_of,
    task_record,
    until,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sse import Frame, Watch, data_frames

A, B = "task-a", "task-b"
NEIGHBOUR = "sidecast.v1.events._.neighbour.t"


async def watch(running: OwnBroker, query: str, cursor: str | None = None) -> Watch:
    return await running.watch(path=f"/events?{query}", cursor=cursor)


def listing(count: int) -> str:
    return "&".join(f"task=t{number}" for number in range(count))


class Client:
    """What a page knows that keeps each task's text: a snapshot replaces it, a chunk is added."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.last_id: str | None = None

    def take(self, frames: list[Frame]) -> None:
        for frame in frames:
            self.last_id = frame.last_id or self.last_id
            if frame.kind == "task.snapshot":
                parts = [part for each in frame["task"].get("artifacts", ()) for part in each["parts"]]
                self.texts[frame["taskId"]] = "".join(part["text"] for part in parts)
            elif frame.kind == "task.artifact":
                self.texts[frame["taskId"]] = self.texts.get(frame["taskId"], "") + frame["text"]


async def chunk(backend: Backend, task: str, text: str) -> int:
    return await backend.publish(artifact(text, task, append=True), task=task)


async def test_a_snapshot_that_is_ahead_of_the_order_is_not_told_twice(fake: FakeBackend) -> None:
    for task in (A, B):
        await fake.publish(task_record(task), artifact("-", task), task=task)
    async with broker(fake, nats__verify_s=60) as running:
        first = await watch(running, f"task={A}&task={B}")
        await first.take(3)
        # What the neighbour wrote has to be looked at before anything goes on; the tasks' own hubs needn't.
        fake.faults.stall()
        await fake.publish_on(NEIGHBOUR, status("x", "t"))
        await chunk(fake, A, "1")
        await chunk(fake, B, "2")
        one = await running.watch(A)
        await until_text(running, A, "-1")
        late = await watch(running, f"task={A}&task={B}")
        opened, *snapshots = await late.take(3)
        assert opened["cursor"] == "epoch1-4"
        assert [frame.id for frame in snapshots] == [None, None]
        await chunk(fake, A, "3")
        fake.faults.flow()
        await chunk(fake, B, "4")
        for stream in (first, late):
            client = Client()
            client.take(stream.frames)
            client.take(await stream.until(lambda frame: frame.json.get("text") == "4"))
            assert client.texts == {A: "-13", B: "-24"}
            assert client.last_id == "epoch1-9"
        assert [frame["text"] for frame in data_frames(late.frames)[2:]] == ["3", "4"]
        await one.close()


async def until_text(running: OwnBroker, task: str, text: str) -> None:
    def whole(answer: Any) -> bool:
        parts = [part["text"] for each in answer["task"]["artifacts"] for part in each["parts"]]
        return "".join(parts) == text

    await running.until_answer(task, whole)


async def test_nothing_is_missing_where_one_tasks_history_is_held_back_and_the_stream_is_cut(
    backend: Backend,
) -> None:
    """A cursor that counted only what was sent would have passed the events of the task held back."""
    count = 100
    for number in range(count):
        await backend.publish(task_record(f"t{number}"), task=f"t{number}")
    backend.faults.stall(subject_of("late"))
    async with broker(backend) as running:
        stream = await watch(running, "context=context-1", f"epoch1-{count}")
        await stream.next()
        wanted = []
        for round_ in range(3):
            for number in range(count):
                wanted.append(await backend.publish(status(str(round_), f"t{number}"), task=f"t{number}"))
                if (round_, number) == (1, 40):
                    wanted.append(
                        await backend.publish(task_record("late"), status("x", "late"), task="late") - 1
                    )
                    wanted.append(wanted[-1] + 1)
        before = await stream.take(count + 41)
        await stream.close()
        again = await watch(running, "context=context-1", before[-1].id)
        assert (await again.next())["mode"] == "replay"
        backend.faults.flow()
        rest = await again.take(len(wanted) - len(before))
        assert [frame["seq"] for frame in [*before, *rest]] == wanted
        assert "late" in {frame["taskId"] for frame in rest}


async def test_a_list_of_a_hundred_with_one_history_held_back_begins_when_that_is_read(
    backend: Backend,
) -> None:
    count = 100
    for number in range(count):
        await backend.publish(task_record(f"t{number}"), status("x", f"t{number}"), task=f"t{number}")
    backend.faults.stall(subject_of("t50"))
    async with broker(backend) as running:
        opening = asyncio.create_task(watch(running, listing(count), "epoch1-0"))
        await until(lambda: backend.faults.reads >= 32)
        more = [await backend.publish(status("on", f"t{n}"), task=f"t{n}") for n in (3, 50, 7)]
        backend.faults.flow()
        frames = await (await opening).take(1 + 2 * count + 3)
        assert [frame["seq"] for frame in data_frames(frames)] == list(range(1, more[-1] + 1))


async def test_tasks_that_leave_memory_come_back_with_their_next_event(fake: FakeBackend) -> None:
    for number in range(6):
        await fake.publish(task_record(f"t{number}"), artifact("-", f"t{number}"), task=f"t{number}")
    async with broker(fake, stream__tasks_per_stream_max=2, log__idle_s=0.01) as running:
        stream = await watch(running, "agent=1")
        await stream.take(3)
        texts: dict[str, str] = defaultdict(str)
        for number in range(12):
            await chunk(fake, f"t{number % 6}", str(number))
            frame = await stream.next()
            texts[frame["taskId"]] += frame["text"]
        assert texts == {f"t{number}": f"{number}{number + 6}" for number in range(6)}
        async with asyncio.timeout(5):
            while await running.metric("sidecast_tasks") > 2:
                await asyncio.sleep(0.01)


async def test_a_burst_larger_than_memory_is_read_from_the_stream(fake: FakeBackend) -> None:
    for task in (A, B):
        await fake.publish(task_record(task), artifact("-", task), task=task)
    async with broker(fake, log__task_bytes_max=4096, nats__page_events=16) as running:
        streams = [await watch(running, f"task={A}&task={B}"), await watch(running, "agent=1")]
        for stream in streams:
            await stream.take(3)
        wanted = [await chunk(fake, (A, B)[number % 2], "x" * 200) for number in range(150)]
        for stream in streams:
            assert [frame["seq"] for frame in await stream.take(150)] == wanted


async def test_equal_streams_share_one_board_and_the_bytes_of_the_tasks_own_streams(
    fake: FakeBackend,
) -> None:
    await fake.publish(task_record(A), task=A)
    await fake.publish(task_record(B), task=B)
    async with broker(fake) as running:
        streams = [await watch(running, f"task={A}&task={B}", "epoch1-2") for _ in range(3)]
        own = await running.watch(A, "epoch1-2")
        for stream in (*streams, own):
            await stream.next()
        await fake.publish(status("x", A), done(A), task=A)
        await fake.publish(done(B), task=B)
        bodies = {bytes(stream.raw) for stream in streams if await stream.rest()}
        (body,) = bodies
        await own.rest()
        frames = bytes(own.raw).split(b"\n\n")[1:-1]
        assert len(frames) == 3
        assert all(frame + b"\n\n" in body for frame in frames)


async def test_a_purged_record_is_a_gap_and_not_a_silence(fake: FakeBackend) -> None:
    for task in (A, B):
        await fake.publish(task_record(task), status("x", task), task=task)
    async with broker(fake, nats__verify_s=60) as running:
        stream = await watch(running, f"task={A}&task={B}")
        await stream.take(3)
        fake.faults.lose(2)
        sequence = await fake.publish(status("lost", A), task=A)
        await until(lambda: fake.faults.lost == 2)
        fake.faults.stall()
        await fake.publish(status("after", A), task=A)
        await fake.delete(sequence)
        fake.faults.flow()
        gap = await stream.next()
        assert (gap.kind, gap["reason"]) == ("stream.gap", "expired")
        await fake.publish(status("on", B), task=B)
        assert (await stream.until(lambda frame: frame.json.get("text") == "on"))[
            -1
        ].id == f"epoch1-{sequence + 2}"


# --- anything at all

MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 4), st.integers(1, 4)),
        st.tuples(st.just("neighbour"), st.just(0), st.integers(1, 3)),
        st.tuples(st.just("lose"), st.just(0), st.integers(1, 4)),
        st.tuples(st.just("stall"), st.just(0), st.just(0)),
        st.tuples(st.just("flow"), st.just(0), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("turn"), st.just(0), st.integers(1, 20)),
    ),
    max_size=25,
)
QUERIES = ("task=t0&task=t1&task=t2&task=t3&task=t4", "context=context-1", "agent=1")


@settings(max_examples=30)
@given(moves=MOVES, seed=st.integers(0, 2**16))
def test_every_client_knows_in_the_end_what_was_published(
    moves: list[tuple[str, int, int]], seed: int
) -> None:
    asyncio.run(run(moves, random.Random(seed)))


async def run(moves: list[tuple[str, int, int]], chance: random.Random) -> None:
    backend = FakeBackend()
    texts = {f"t{number}": "-" for number in range(5)}
    for task in texts:
        await backend.publish(task_record(task), artifact("-", task), task=task)
    async with broker(backend, nats__page_events=chance.choice((2, 100)), nats__verify_s=0.1) as running:
        queries = [chance.choice(QUERIES) for _ in range(4)]
        clients = [Client() for _ in queries]
        streams = [await watch(running, query) for query in queries]
        for move, which, count in moves:
            match move:
                case "publish":
                    for _ in range(count):
                        text = chance.choice("abcdefgh")
                        texts[f"t{which}"] += text
                        await chunk(backend, f"t{which}", text)
                case "neighbour":
                    for _ in range(count):
                        await backend.publish_on(NEIGHBOUR, status("x", "t"))
                case "lose":
                    backend.faults.lose(count)
                case "stall":
                    backend.faults.stall()
                case "flow":
                    backend.faults.flow()
                case "cut":
                    clients[which].take(await whatever_has_come(streams[which]))
                    await streams[which].close()
                    backend.faults.flow()
                    streams[which] = await watch(running, queries[which], clients[which].last_id)
                case "turn":
                    for _ in range(count):
                        await asyncio.sleep(0)
        backend.faults.flow()
        backend.faults.lose(0)
        for task in texts:
            await backend.publish(done(task), task=task)
        for stream, client in zip(streams, clients, strict=True):
            ended = {frame["taskId"] for frame in stream.frames if frame.kind == "stream.end"}
            while ended != texts.keys():
                frame = await stream.next()
                client.take([frame])
                if frame.kind == "stream.end":
                    ended.add(frame["taskId"])
            assert client.texts == texts


async def whatever_has_come(stream: Watch) -> list[Frame]:
    found = []
    while True:
        try:
            found.append(await stream.next(0.01))
        except TimeoutError:
            return found
