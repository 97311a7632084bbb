"""Streams of a hundred tasks where one task's history is held back, and everything is killed meanwhile.

A real nats-server and a broker in a process of its own; what holds back one task's reads is a proxy between
the two. What the stream holds in the end is what every client must have been given, once and in its order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import aiohttp
import nats
import nats.errors
import pytest
from brokers import done, encode, status, subject_of, task_record, until
from e2e.broker import Broker
from e2e.proxy import Proxy
from nats.aio.client import Client as Nats
from nats_server import NatsServer, create_stream
from sse import EndOfStream, Watch

from sidecast_schemas import headers as names

pytestmark = pytest.mark.accept

COUNT = 100
TASKS = [f"t{number}" for number in range(COUNT)]
ELSEWHERE = "of-another-context"
NEIGHBOUR = "sidecast.v1.events._.neighbour.t"
ROUNDS = 4
PAUSE_S = 0.004
BEHIND_S_MAX = 60
SEED = 20261127


class Page:
    """One client over its connections: all it keeps between them is the newest id.

    Attributes:
        given: the sequences it was given, in order.
        newest: the last of them.
        opened: how many streams.
        beats: heartbeats on streams that were cut before they told of anything.
        ended: whether it was told that all tasks are over.
    """

    def __init__(self, url: str, query: str) -> None:
        self.given: list[int] = []
        self.newest = 0
        self.opened = 0
        self.beats = 0
        self.ended = False
        self._url = f"{url}/events?{query}&from=start"
        self._life: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Follow from the newest id on, coming again whenever the stream ends."""
        self._life = asyncio.create_task(self._live())

    async def cut(self) -> None:
        """Leave, in the middle of whatever is on its way."""
        assert self._life is not None
        self._life.cancel()
        await asyncio.wait({self._life})
        if not self._life.cancelled():
            self._life.result()

    async def _live(self) -> None:
        while not self.ended:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._follow()
            await asyncio.sleep(0.05)

    async def _follow(self) -> None:
        headers = {"Last-Event-ID": f"epoch1-{self.newest}"} if self.newest else {}
        async with Watch(self._url, headers) as stream:
            assert stream.status in (200, 204), stream.status
            self.ended = stream.status == 204
            try:
                await self._take(stream)
            finally:
                self.beats += 0 if stream.frames else len(stream.comments)

    async def _take(self, stream: Watch) -> None:
        with contextlib.suppress(EndOfStream):
            while not self.ended:
                frame = await stream.next(BEHIND_S_MAX)
                if frame.kind == "stream.open":
                    self.opened += 1
                    assert frame["mode"] == "replay"
                assert frame.kind != "stream.gap", frame
                if frame.kind.startswith("task."):
                    self.newest = frame["seq"]
                    assert frame.id == f"epoch1-{self.newest}"
                    self.given.append(self.newest)
                self.ended = frame.kind == "stream.end" and frame["reason"] == "tasks-ended"


class Publisher:
    """Publishes each event until the server says that it is stored, however often that takes.

    Attributes:
        stored: whose event the server says stands at which sequence.
        tasks: those of the context that have begun.
    """

    def __init__(self, url: str, chance: random.Random) -> None:
        self.stored: dict[int, str] = {}
        self.tasks: list[str] = []
        self._url = url
        self._chance = chance
        self._client: Nats | None = None

    @property
    def newest(self) -> int:
        """The sequence of the newest event."""
        return max(self.stored)

    async def put(self, subject: str, payload: bytes) -> None:
        """Store one event."""
        headers = {names.MSG_ID: secrets.token_hex(8)}
        while True:
            try:
                client = self._client or await nats.connect(self._url, allow_reconnect=False)
                self._client = client
                answer = json.loads((await client.request(subject, payload, timeout=1, headers=headers)).data)
                if "seq" in answer:
                    self.stored[answer["seq"]] = subject
                    return
            except (nats.errors.Error, OSError, TimeoutError):
                client, self._client = self._client, None
                if client is not None:
                    await client.close()
            await asyncio.sleep(0.05)

    async def begin(self, task: str) -> None:
        """Have one more task of the context."""
        await self.put(subject_of(task), task_record(task))
        self.tasks.append(task)

    async def run(self, enough: asyncio.Event) -> None:
        """Publish on tasks in any order, and what is none of the clients' in between."""
        number = 0
        while not enough.is_set():
            number += 1
            task = self._chance.choice(self.tasks)
            await self.put(subject_of(task), status(str(number), task))
            if number % 7 == 0:
                await self.put(NEIGHBOUR, status("x", "t"))
            if number % 11 == 0:
                await self.put(subject_of(ELSEWHERE), elsewhere(str(number)))
            await asyncio.sleep(PAUSE_S)

    async def finish(self) -> None:
        """End all tasks, and the connection."""
        for task in self.tasks:
            await self.put(subject_of(task), done(task))
        assert self._client is not None
        await self._client.close()


def elsewhere(text: str) -> bytes:
    """Give an event of a task that the context's streams must not tell of."""
    message = {"messageId": f"m-{text}", "role": "ROLE_AGENT", "parts": [{"text": text}]}
    body = {"state": "TASK_STATE_WORKING", "message": message}
    return encode({"statusUpdate": {"taskId": ELSEWHERE, "contextId": "other", "status": body}})


def history_of(tasks: set[str]) -> Callable[[str, bytes], bool]:
    """Give what tells a read of the history of one of these tasks."""
    wanted = [f'"next_by_subj":"{subject_of(task)}"'.encode() for task in tasks]
    return lambda subject, body: ".DIRECT.GET." in subject and any(each in body for each in wanted)


async def harass(
    number: int,
    broker: Broker,
    server: NatsServer,
    proxy: Proxy,
    publisher: Publisher,
    pages: list[Page],
    chance: random.Random,
) -> int:
    """Kill and cut while the history of one task, and of one that begins, is held back; count the reads."""
    late = f"late-{number}"
    victim = chance.choice(TASKS)
    proxy.hold(history_of({victim, late}))
    broker.kill9()
    await asyncio.to_thread(broker.start)
    await until(lambda: proxy.held, BEHIND_S_MAX)
    await publisher.begin(late)
    for _cut in range(2):
        await asyncio.sleep(chance.uniform(0.2, 1.5))  # how long they are left alone is what is random
        for page in pages:
            await page.cut()
            page.open()
    if number % 2:
        server.kill9()
        await asyncio.to_thread(server.start)
    newest, held = publisher.newest, len(proxy.held)
    proxy.release()
    # Two of them are given everything; the list has no event of its own to wait for.
    await until(lambda: all(page.newest >= newest for page in pages[1:]), BEHIND_S_MAX)
    return held


async def test_a_hundred_tasks_where_one_history_is_held_back(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    chance = random.Random(SEED)
    with NatsServer(tmp_path / "nats") as server:
        await create_stream(server.url)
        async with Proxy(server.url) as proxy:
            broker = Broker(tmp_path, [proxy.url], {"stream.retry_ms": 50, "stream.heartbeat_s": 1})
            await asyncio.to_thread(broker.start)
            try:
                publisher = Publisher(server.url, chance)
                for task in TASKS:
                    await publisher.begin(task)
                listed = "&".join(f"task={task}" for task in TASKS)
                pages = [Page(broker.url, query) for query in (listed, "context=context-1", "agent=1")]
                for page in pages:
                    page.open()
                enough = asyncio.Event()
                publishing = asyncio.create_task(publisher.run(enough))
                held = 0
                for number in range(ROUNDS):
                    held += await harass(number, broker, server, proxy, publisher, pages, chance)
                enough.set()
                await publishing
                await publisher.finish()
                await until(lambda: all(page.newest == publisher.newest for page in pages[1:]), BEHIND_S_MAX)
                await until(lambda: pages[0].ended, BEHIND_S_MAX)
                for page in pages:
                    await page.cut()
            finally:
                await asyncio.to_thread(broker.stop)
    stored = sorted(publisher.stored.items())
    ours = [(sequence, subject) for sequence, subject in stored if subject != NEIGHBOUR]
    of_context = [(sequence, subject) for sequence, subject in ours if subject != subject_of(ELSEWHERE)]
    listed_subjects = {subject_of(task) for task in TASKS}
    of_list = [each for each in of_context if each[1] in listed_subjects]
    for page, wanted in zip(pages, (of_list, of_context, ours), strict=True):
        assert page.given == [sequence for sequence, _subject in wanted]
    report(
        f"{len(ours)} events on {COUNT + ROUNDS + 1} tasks, {held} reads held back, broker killed "
        f"{broker.kills} times, nats-server {ROUNDS // 2}; streams opened {[page.opened for page in pages]}, "
        f"heartbeats of the list alone {pages[0].beats}"
    )
    assert held >= ROUNDS
