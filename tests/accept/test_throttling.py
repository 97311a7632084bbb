"""Five events a second of a task with 200: none too many, joined never a second old, A2A all in order."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accept.stage import AGENT, Stage, stage
from e2e.check import label, labels_in
from sse import EndOfStream, Watch

from sidecast_adapters import Publisher

pytestmark = pytest.mark.accept

RATE = 200.0
MAX_RATE = 5.0
BURST = 20
SECONDS = 40.0
WINDOW_S = 10.0
STATE_S = 1.0

Seen = list[tuple[float, list[int]]]
"""When a frame came, and the numbers it tells of."""


async def publish(url: str, published: list[float]) -> None:
    """Publish chunks of a text and progress in turn, numbered from 1; note when."""
    async with Publisher(url, agent=AGENT) as publisher:
        began_s = time.monotonic()
        async with publisher.task("one", context_id="c") as task:
            while len(published) < RATE * SECONDS:
                text = label("one", len(published) + 1)
                published.append(time.monotonic())
                if len(published) % 2:
                    artifact = {"artifactId": "out", "parts": [{"text": text}]}
                    await task.publish({"artifactUpdate": {"artifact": artifact, "append": True}})
                else:
                    await task.progress(len(published) / RATE / SECONDS, text)
                await asyncio.sleep(max(began_s + len(published) / RATE - time.monotonic(), 0))
            await publisher.flush(10)
            await asyncio.sleep(STATE_S)


async def follow(there: Stage, path: str, headers: dict[str, str], seen: Seen) -> None:
    """Take what comes, as soon as there is something."""
    async with Watch(f"{there.broker.url}{path}", headers) as watch:
        if watch.status == 404:
            await asyncio.sleep(0.05)
            await follow(there, path, headers, seen)
            return
        assert watch.status == 200
        while True:
            try:
                frame = await watch.next(60)
            except EndOfStream:
                return
            # Not the Task that each stream begins with.
            if "task.snapshot" not in frame.data[:40] and '"task":' not in frame.data[:40]:
                seen.append((time.monotonic(), [number for _task, number in labels_in(frame.data)]))


def most_in_a_window(seen: Seen) -> int:
    """Give how many frames came within any ten seconds, once the burst is used up: one had to be waited for.

    What tokens came back while the burst went out belongs to it.
    """
    times = [at_s for at_s, numbers in seen if numbers]
    waited = (at for at in range(BURST, len(times)) if times[at] - times[at - 1] >= 0.8 / MAX_RATE)
    times = times[next(waited) :]
    return max(bisect_right(times, at_s + WINDOW_S - 0.01) - index for index, at_s in enumerate(times))


def ages_of(seen: Seen, published: list[float]) -> Iterator[float]:
    """Give how old the state that frames tell of is at the end of each second."""
    for second in range(2, int(SECONDS)):
        at_s = published[0] + second
        known = max((max(numbers) for came_s, numbers in seen if came_s <= at_s and numbers), default=0)
        yield at_s - published[known] if known < len(published) and published[known] < at_s else 0.0


async def test_a_rate(tmp_path: Path, report: Callable[[str], None]) -> None:
    a2a, plain, thinned, several, several_thinned = [], [], [], [], []
    async with stage(tmp_path) as there:
        paths: list[tuple[str, dict[str, str], Seen]] = [
            ("/tasks/one/events?from=now&wait_s=10&max_rate=5", {}, plain),
            ("/tasks/one/events?from=now&wait_s=10&max_rate=5&coalesce=1", {}, thinned),
            ("/tasks/one:subscribe?max_rate=5", {"A2A-Version": "1.0"}, a2a),
            ("/events?agent=1&from=now&max_rate=5", {}, several),
            ("/events?agent=1&from=now&max_rate=5&coalesce=1", {}, several_thinned),
        ]
        published: list[float] = []
        publishing = asyncio.ensure_future(publish(there.nats_url, published))
        while len(published) < 2:
            await asyncio.sleep(0.01)
        following = [asyncio.ensure_future(follow(there, *each)) for each in paths]
        await publishing
        ended_s = time.monotonic()
        await asyncio.wait(following, timeout=2)
        for each in following:
            each.cancel()
        failed = [each.exception() for each in following if each.done() and not each.cancelled()]
        assert not any(failed), failed
    ages = [*ages_of(thinned, published), *ages_of(several_thinned, published)]
    most = {
        name: most_in_a_window(seen)
        for name, seen in (
            ("plain", plain),
            ("coalesced", thinned),
            ("A2A", a2a),
            ("several", several),
            ("several coalesced", several_thinned),
        )
    }
    told = [number for _at, numbers in a2a for number in numbers]
    report(
        f"at most {most} frames in {WINDOW_S:g} s after the burst; coalesced state at most {max(ages):.2f} s "
        f"old at the end of a second, in {len(thinned)} frames for {len(published)} events; A2A: {len(told)} "
        f"events, {(ended_s - published[told[-1] - 1]):.1f} s late"
    )
    assert max(most.values()) <= MAX_RATE * WINDOW_S
    assert max(ages) <= STATE_S
    for seen in (a2a, plain, several):
        told = [number for _at, numbers in seen for number in numbers]
        assert len(told) > MAX_RATE * (SECONDS - 5)
        assert told == list(range(told[0], told[0] + len(told)))
    for seen in (thinned, several_thinned):
        joined = [number for _at, numbers in seen for number in numbers if number % 2]
        assert joined == list(range(joined[0], joined[0] + 2 * len(joined), 2))
        assert joined[-1] >= len(published) - 1
