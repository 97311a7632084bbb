"""How many confirmations of named subscriptions one broker stores a second, and what each costs."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nats
import pytest
from accept.stage import AGENT, Stage, stage
from accept.test_workers import cpu_s
from brokers import artifact, task_record

from sidecast_schemas.subjects import TaskKey, events_subject

pytestmark = pytest.mark.accept

TASKS = [f"t{number}" for number in range(10)]
SUBSCRIPTIONS = 200
RATE = 100.0
EVERY = 10
WARM_S, WINDOW_S = 3.0, 15.0
OPEN_AT_ONCE = 4
TICK_S = 0.01

_ID = re.compile(rb"(?:^|\n)id: ([a-z0-9]+-\d+)\n")


class Reader(asyncio.Protocol):
    """One stream, of which only the event ids are looked at.

    Attributes:
        frames: how many it was given.
        newest: id of the newest.
        came: set with each.
    """

    def __init__(self, request: bytes) -> None:
        self.frames = 0
        self.newest = b""
        self.came = asyncio.Event()
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if found := _ID.findall(data):
            self.frames += len(found)
            self.newest = found[-1]
            self.came.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self.came.set()


class Confirmations:
    """What clients that confirm each tenth event are answered.

    Attributes:
        took_s: how long each answer took.
        open: streams that have begun.
        refused: the answers that something can't be stored for the moment.
        passed: tenth events that came, also while an answer was awaited.
    """

    def __init__(self, there: Stage) -> None:
        self.took_s: list[float] = []
        self.passed = self.open = 0
        self.refused: list[bytes] = []
        self._there = there
        self._gate = asyncio.Semaphore(OPEN_AT_ONCE)

    async def follow(self, number: int) -> None:
        """Follow a task by a subscription of its own, and confirm each tenth event, or one after it."""
        task = TASKS[number % len(TASKS)]
        broker = self._there.broker
        target = f"/tasks/{task}/events?subscription=s{number}&ack=client&from=now"
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode()
        loop = asyncio.get_running_loop()
        async with self._gate:
            transport, reader = await loop.create_connection(lambda: Reader(head), broker.host, broker.port)
            await reader.came.wait()
            assert reader.newest, "no stream that can be confirmed at once"
            self.open += 1
        answers, requests = await asyncio.open_connection(broker.host, broker.port)
        path, due = f"/subscriptions/s{number}/ack", 0
        try:
            while True:
                while reader.frames < due:
                    reader.came.clear()
                    await reader.came.wait()
                self.passed += 1 + (reader.frames - due) // EVERY
                due = reader.frames + EVERY - (reader.frames - due) % EVERY
                body = b'{"id":"%b","task":"%b"}' % (reader.newest, task.encode())
                began_s = time.monotonic()
                requests.write(
                    f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                answer = await answers.readuntil(b"\r\n\r\n")
                [length] = re.findall(rb"Content-Length: (\d+)", answer)
                text = await answers.readexactly(int(length))
                if b" 200 " in answer.partition(b"\r\n")[0]:
                    self.took_s.append(time.monotonic() - began_s)
                else:
                    assert b" 503 " in answer.partition(b"\r\n")[0], answer
                    self.refused.append(text)
        finally:
            transport.abort()
            requests.transport.abort()


async def publish(there: Stage) -> None:
    """Publish on all tasks in turn; each event replaces an artifact, so that the tasks stay small."""
    client = await nats.connect(there.nats_url)
    loop = asyncio.get_running_loop()
    begin_s, number = loop.time(), 0
    try:
        while True:
            while number < (loop.time() - begin_s) * RATE * len(TASKS):
                task = TASKS[number % len(TASKS)]
                await client.publish(subject(task), artifact(f"{number} {'x' * 100}", task))
                number += 1
            await asyncio.sleep(TICK_S)
    finally:
        await client.close()


def subject(task: str) -> str:
    """Give a task's events subject."""
    return events_subject(TaskKey("", AGENT, task))


async def begin(there: Stage) -> None:
    """Publish the beginning of all tasks."""
    client = await nats.connect(there.nats_url)
    for task in TASKS:
        await client.request(subject(task), task_record(task), timeout=10)
    await client.close()


async def test_how_many_confirmations_are_stored(tmp_path: Path, report: Callable[[str], None]) -> None:
    async with stage(tmp_path) as there:
        await begin(there)
        confirmations = Confirmations(there)
        clients = [asyncio.create_task(confirmations.follow(number)) for number in range(SUBSCRIPTIONS)]
        everything = list(clients)
        try:
            async with asyncio.timeout(60):
                while confirmations.open < SUBSCRIPTIONS:
                    await asyncio.sleep(0.1)
                    assert not any(task.done() for task in everything)
            everything.append(asyncio.create_task(publish(there)))
            await asyncio.sleep(WARM_S)
            used_s, began_s = cpu_s(there), time.monotonic()
            stored, passed = len(confirmations.took_s), confirmations.passed
            await asyncio.sleep(WINDOW_S)
            used_s, took_s = cpu_s(there) - used_s, time.monotonic() - began_s
            answers = sorted(confirmations.took_s[stored:])
            passed = confirmations.passed - passed
            assert not any(task.done() for task in everything)
        finally:
            for task in everything:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*everything)
    report(
        f"{len(answers) / took_s:.0f} confirmations stored a second of {passed / took_s:.0f} that were due, "
        f"{len(confirmations.refused)} refused in all; {SUBSCRIPTIONS} streams of {RATE:g} events/s; "
        f"the broker used {used_s / took_s:.2f} cores; answered after "
        f"{statistics.median(answers) * 1e3:.0f} ms (p50), "
        f"{answers[len(answers) * 99 // 100] * 1e3:.0f} ms (p99)"
    )
    for text, count in Counter(confirmations.refused).most_common(5):
        report(f"refused {count} times: {text.decode()}")
