"""What answers say, and how long they take, tells nobody which tasks there are."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from access_rig import ALICES, BOBS, HERS_ELSEWHERE, MISSING, OPEN, OWNERLESS, status_of
from attacks.scene import Scene, scene
from attacks.table import VERSION, Shooter, alice, bob, calls, sends, watch
from brokers import artifact
from distributions import differ, same, threshold
from nats_server import NatsServer

ROUNDS = 40
FLOOR_MS = 100
LARGE = 200_000
"""Bytes of a first record: the look-up of its owner has the more to carry."""
LARGER = 800_000

CASES = [
    ("bob", ALICES),
    ("bob", MISSING),
    ("bob", OPEN),
    ("bob", "task-large---"),
    ("alice", HERS_ELSEWHERE),
    ("alice", BOBS),
    ("bob", OWNERLESS),
]
"""Who asks for what is there and somebody else's, is there and nobody's, or isn't there."""


def _who(name: str) -> str:
    return alice() if name == "alice" else bob()


def waiting(name: str, task: str, wait_s: float) -> Shooter:
    target = f"/tasks/{task}/events?wait_s={wait_s}"
    return sends("GET", target, "Accept: text/event-stream", _who(name))


PUBLIC = {
    "browser": lambda name, task: watch(_who(name), target=f"/tasks/{task}/events"),
    "A2A by JSON-RPC": lambda name, task: calls("GetTask", _who(name), id=task),
    "A2A stream": lambda name, task: sends("GET", f"/tasks/{task}:subscribe", VERSION, _who(name)),
    "ticket": lambda name, task: sends(
        "POST", "/tickets", _who(name), body=b'{"tasks":["%b"]}' % task.encode()
    ),
    "waiting": lambda name, task: waiting(name, task, 0.1),
}


async def timed(
    it: Scene, path: str, rounds: int, cases: Sequence[tuple[str, str]] = CASES, at_once: int = 12
) -> tuple[list[list[float]], set[bytes]]:
    """Ask in random order, several at a time; give the times of each case, and all answers."""
    order = [index for index in range(len(cases)) for _ in range(rounds)]
    random.Random(1).shuffle(order)
    found: list[list[float]] = [[] for _ in cases]
    answers: set[bytes] = set()
    slots = asyncio.Semaphore(at_once)

    async def measure(index: int) -> None:
        shot = PUBLIC[path](*cases[index])(it)
        async with slots:
            began_s = time.perf_counter()
            answers.add(await it.fire(shot))
            found[index].append(time.perf_counter() - began_s)

    await asyncio.gather(*map(measure, order))
    return found, answers


@pytest.mark.row("C52")
@pytest.mark.parametrize("path", PUBLIC)
async def test_neither_bytes_nor_times_tell_what_there_is(
    path: str, nats_of_run: NatsServer, tmp_path: Path, unharmed: None
) -> None:
    settings = {"auth__refusal_floor_ms": FLOOR_MS, "auth__tickets_per_minute_max": 10_000}
    async with scene(nats_of_run, tmp_path, **settings) as it:
        large = artifact("x" * LARGE, "task-large---")
        await it.backend.store("task-large---", large, owner="alice")
        before = await it.state()

        async def measure() -> list[list[float]]:
            found, answers = await timed(it, path, ROUNDS)
            assert len(answers) == 1, answers
            assert min(map(min, found)) >= FLOOR_MS / 1000
            return found

        await same(measure, threshold(ROUNDS))
        assert await it.state() == before


async def test_times_are_measured_finely_enough_to_tell(nats_of_run: NatsServer, tmp_path: Path) -> None:
    async with scene(nats_of_run, tmp_path, auth__refusal_floor_ms=0) as it:
        large = artifact("x" * LARGER, "task-large---")
        await it.backend.store("task-large---", large, owner="alice")
        pair = [("bob", MISSING), ("bob", "task-large---")]

        async def measure() -> list[list[float]]:
            return (await timed(it, "browser", 2 * ROUNDS, pair, at_once=1))[0]

        # Without the floor a large record shows.
        await differ(measure, threshold(2 * ROUNDS))


async def test_a_foreign_task_waited_for_is_one_that_never_comes(
    nats_of_run: NatsServer, tmp_path: Path, unharmed: None
) -> None:
    async with scene(nats_of_run, tmp_path) as it:
        before = await it.state()
        began_s = time.monotonic()
        cases = [*CASES, ("bob", "task-later---")]
        asked = asyncio.gather(*(it.fire(waiting(name, task, 0.6)(it)) for name, task in cases))
        await it.backend.store("task-later---", artifact("x", "task-later---"), owner="alice")
        answers = await asked
        assert time.monotonic() - began_s >= 0.6
        assert len(set(answers)) == 1, set(answers)
        assert (status_of(answers[0]), b'"reason":"not-found"' in answers[0]) == (200, True)
        (after, *rest), (stored, *others) = await it.state(), before
        assert rest == others
        assert after != stored, "what came meanwhile"
        # The same request by who owns it is served at once.
        assert b"task.snapshot" in await it.fire(waiting("alice", ALICES, 0.6)(it))
