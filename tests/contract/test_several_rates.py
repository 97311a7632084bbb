"""A rate holds over several tasks on one stream, wherever the events a client lacks are taken from."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from brokers import Backend, OwnBroker, activity, artifact, broker, done, status, task_record, until
from sse import Frame, Watch, data_frames, kinds

from sidecast_broker.core.pace import SLACK

A, B = "task-a", "task-b"
BOTH = f"/events?task={A}&task={B}"
RATE, BURST = 60, 5
ROUNDS = 10
PAGE = 20


async def publish(backend: Backend, *tasks: str) -> None:
    """Publish three records of each of these tasks in turn: one that stays, and two that can be thinned."""
    for number in range(ROUNDS):
        task = tasks[number % len(tasks)]
        await backend.publish(
            status(f"{number}", task),
            artifact(f"{number}", task, append=True),
            activity("progress", task, progress=number / ROUNDS),
            task=task,
        )


async def end(backend: Backend) -> None:
    for task in (A, B):
        await backend.publish(done(task), task=task)


@asynccontextmanager
async def watching(backend: Backend, place: str, query: str) -> AsyncIterator[tuple[OwnBroker, Watch, float]]:
    """Watch at a rate what is stored, in memory, to come, or left out by snapshots that are ahead."""
    for task in (A, B):
        await backend.publish(task_record(task), artifact("-", task), task=task)
    async with broker(backend, nats__verify_s=60, nats__page_events=PAGE, pace__burst=BURST) as running:
        first = None
        if place in ("memory", "apart"):
            first = await running.watch(path=BOTH)
            await first.take(3)
        if place == "apart":
            # What is stored of B reaches neither its hub nor the order of all; what comes of A its hub alone.
            backend.faults.stall()
            backend.faults.lose(2 * 3 * ROUNDS)
            await publish(backend, B)
            await until(lambda: backend.faults.lost == 2 * 3 * ROUNDS)
            await backend.publish(artifact("+", A, append=True), task=A)
            await running.until_answer(A, lambda answer: "+" in str(answer["task"]["artifacts"]))
        elif place != "live":
            await publish(backend, A, B)
            await end(backend)
        began_s = time.monotonic()
        stream = await running.watch(
            path=f"{BOTH}&max_rate={RATE}{query}", cursor=None if place == "apart" else "epoch1-4"
        )
        if place == "apart":
            assert kinds(await stream.take(3)) == ["stream.open", "task.snapshot", "task.snapshot"]
            backend.faults.flow()
            await end(backend)
        if place == "live":
            await stream.next()
            await publish(backend, A, B)
            await end(backend)
        yield running, stream, began_s
        if first is not None:
            await first.close()


@pytest.mark.parametrize("query", ["", "&coalesce=1", "&coalesce=1&batch=array"])
@pytest.mark.parametrize("place", ["stream", "memory", "live", "apart"])
async def test_no_event_comes_before_the_rate_allows_it(backend: Backend, place: str, query: str) -> None:
    async with watching(backend, place, query) as (_running, stream, began_s):
        frames: list[Frame] = []
        sent, told = 0, []
        while not frames or frames[-1].kind != "stream.end" or "taskId" in frames[-1].json:
            frames.append(frame := await stream.next())
            events = frame["events"] if frame.kind == "task.batch" else [frame.json]
            told += [event for event in events if event["type"] == "task.artifact"]
            sent += sum(event["type"].startswith("task.") for event in events)
            # Two of a thinned stream may go at once, where only both are a place to go on from.
            most = BURST + 1 + (time.monotonic() - began_s) * RATE / (1 + SLACK)
            assert sent <= most
    tasks = (B,) if place == "apart" else (A, B)
    for number, task in enumerate(tasks):
        text = "".join(str(round_) for round_ in range(ROUNDS) if round_ % len(tasks) == number)
        assert "".join(event["text"] for event in told if event["taskId"] == task) == text
    # A status between any two that could be joined keeps them apart.
    assert sent == 3 * ROUNDS + 2
    assert (data_frames(frames)[0].id is None) == (place == "apart")


async def test_a_page_is_used_up_before_the_next_is_read(backend: Backend) -> None:
    async with watching(backend, "stream", "") as (_running, stream, _began_s):
        before = backend.faults.reads
        await stream.rest()
        assert backend.faults.reads - before <= 3 * ROUNDS // PAGE + 1
