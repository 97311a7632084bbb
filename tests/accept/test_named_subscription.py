"""A client that is killed a hundred times, and knows nothing afterwards, is given every event in order.

10,000 events of one task, or of a context's in turn; two brokers behind one port, each killed and started
again, both at once among that; the client sends no cursor: its named subscription remembers what it has
confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import nats
import pytest
from brokers import done, status, subject_of, task_record
from e2e.broker import Broker
from e2e.ports import fixed_ports
from nats_server import NatsServer, create_stream
from sse import Frame, Parser

pytestmark = pytest.mark.accept

EVENTS = 10_000
KILLS = 100
LIFE_S_MAX = 0.5
PUBLISH_S = 0.4 * KILLS * LIFE_S_MAX
SEED = 20261127


class Front:
    """One port before several brokers: a connection goes to any that accepts it."""

    def __init__(self, brokers: list[Broker], chance: random.Random) -> None:
        [self.port] = fixed_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.used = [0 for _ in brokers]
        self._brokers = brokers
        self._chance = chance
        self._links: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Front]:
        """Accept connections for the length of the block."""
        server = await asyncio.start_server(self._link, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            if self._links:  # they end with their clients, who have gone
                await asyncio.wait(self._links, timeout=10)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            for index in self._chance.sample(range(len(self._brokers)), len(self._brokers)):
                try:
                    back = await asyncio.open_connection("127.0.0.1", self._brokers[index].port)
                except OSError:
                    continue
                self.used[index] += 1
                ways = {
                    asyncio.create_task(_pass(reader, back[1])),
                    asyncio.create_task(_pass(back[0], writer)),
                }
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
                    back[1].transport.abort()
                return
        finally:
            writer.transport.abort()
            self._links.discard(task)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


class Client:
    """One client over its lives: each is given events, and confirms some; nothing else outlives it.

    Attributes:
        lives: the sequences each was given, in order.
        confirmed: newest sequence whose confirmation was answered.
        asked: newest sequence it tried to confirm.
        ended: whether it was given all.
    """

    def __init__(self, url: str, path: str, tasks: int, chance: random.Random) -> None:
        self.lives: list[tuple[int, int, list[int]]] = []
        self.confirmed = 0
        self.asked = 0
        self.ended = False
        self._url = url
        self._path = path
        self._tasks = tasks
        self._chance = chance

    async def live(self) -> None:
        """Follow what the subscription is to from where it is at, until killed or at the end."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            while not self.ended:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    await self._follow(session)
                await asyncio.sleep(0.01)

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        given: list[int] = []
        self.lives.append((self.confirmed, self.asked, given))
        path = f"{self._url}{self._path}subscription=sub&ack=client&from=start"
        parser, until_ack = Parser(), self._chance.randint(1, 60)
        async with session.get(path, headers={"Accept": "text/event-stream"}) as answer:
            self.ended = answer.status == 204
            async for data in answer.content.iter_any():
                for frame in parser.feed(data):
                    if not isinstance(frame, Frame):
                        continue
                    assert frame.kind != "stream.gap"
                    # A task's own record, which begins it; never in place of what was missed.
                    assert frame.kind != "task.snapshot" or frame.json["seq"] <= self._tasks
                    if frame.kind.startswith("task."):
                        given.append(frame.json["seq"])
                        self.ended = given[-1] == EVENTS
                        until_ack -= 1
                    if frame.kind == "stream.end":
                        assert "state" in frame.json or frame.json["reason"] == "displaced"
                    if self.ended:
                        return
                    if not until_ack:
                        await self._confirm(session, frame.id)
                        until_ack = self._chance.randint(1, 60)

    async def _confirm(self, session: aiohttp.ClientSession, event_id: str | None) -> None:
        assert event_id is not None
        sequence = int(event_id.rpartition("-")[2])
        self.asked = max(self.asked, sequence)
        async with session.post(f"{self._url}/subscriptions/sub/ack", json={"id": event_id}) as answer:
            assert answer.status in (200, 503), await answer.text()
            if answer.status == 200:
                stored = int((await answer.json())["acknowledged"].rpartition("-")[2])
                # What an earlier life asked for may be stored only after that was killed.
                assert sequence <= stored <= self.asked
                self.confirmed = max(self.confirmed, stored)


def story(tasks: int) -> list[tuple[str, bytes]]:
    """Give the records of so many tasks in turn, each with its task."""
    names = [f"task-{number}" for number in range(1, tasks + 1)]
    rounds = EVENTS // tasks - 2
    lines = [[task_record(name) for name in names]]
    lines += [[status(str(number), name) for name in names] for number in range(rounds)]
    lines += [[done(name) for name in names]]
    return [pair for line in lines for pair in zip(names, line, strict=True)]


async def publish(url: str, records: list[tuple[str, bytes]]) -> list[int]:
    """Publish all in the time the kills take; give the sequences."""
    connection = await nats.connect(url)
    sequences, block = [], 100
    try:
        for start in range(0, len(records), block):
            for task, payload in records[start : start + block]:
                answer = await connection.request(subject_of(task), payload, timeout=5)
                sequences.append(json.loads(answer.data)["seq"])
            await asyncio.sleep(PUBLISH_S * block / len(records))
    finally:
        await connection.close()
    return sequences


async def harass(brokers: list[Broker], chance: random.Random, enough: asyncio.Event) -> None:
    """Kill brokers and start them again, one, the other, both, until it is enough."""
    while not enough.is_set():
        for victims in ([0], [1], [0, 1]):
            await asyncio.sleep(chance.uniform(1.0, 2.5))
            for victim in victims:
                brokers[victim].kill9()
            for victim in victims:
                await asyncio.to_thread(brokers[victim].start)


@pytest.mark.parametrize(
    ("path", "tasks"),
    [("/tasks/task-1/events?", 1), ("/events?context=context-1&", 20)],
    ids=["task", "context"],
)
async def test_a_client_killed_a_hundred_times(
    path: str, tasks: int, tmp_path: Path, report: Callable[[str], None]
) -> None:
    chance = random.Random(SEED)
    with NatsServer(tmp_path / "nats") as server:
        await create_stream(server.url)
        settings = {"stream.retry_ms": 10}
        with (
            Broker(tmp_path, [server.url], settings) as one,
            Broker(tmp_path, [server.url], settings) as other,
        ):
            brokers = [one, other]
            async with Front(brokers, chance).open() as front:
                publishing = asyncio.create_task(publish(server.url, story(tasks)))
                enough = asyncio.Event()
                harassing = asyncio.create_task(harass(brokers, chance, enough))
                client = Client(front.url, path, tasks, chance)
                for _kill in range(KILLS):
                    life = asyncio.create_task(client.live())
                    await asyncio.wait({life}, timeout=chance.uniform(0, LIFE_S_MAX))
                    assert not life.done() or life.exception() is None
                    life.cancel()
                    await asyncio.gather(life, return_exceptions=True)
                sequences = await publishing
                enough.set()
                await harassing
                async with asyncio.timeout(60):
                    await client.live()
            used = front.used
    place = {sequence: index for index, sequence in enumerate([0, *sequences])}
    newest, first_seen = 0, []
    for confirmed, asked, given in client.lives:
        if not given:
            continue
        begins, ends = place[given[0]], place[given[-1]]
        assert given == sequences[begins - 1 : ends], "each life is given a run without a hole"
        # What was confirmed last counts; of what it asked for while it died, nobody knows.
        assert place[confirmed] < begins <= place[max(asked, confirmed)] + 1
        first_seen += [sequence for sequence in given if sequence > newest]
        newest = max(newest, given[-1])
    assert first_seen == sequences == list(range(1, EVENTS + 1))
    given_all = sum(len(given) for _confirmed, _asked, given in client.lives)
    report(
        f"{KILLS} kills, {one.kills} and {other.kills} of the brokers, which took {used} connections; "
        f"{given_all} events given for {len(sequences)}, in {len(client.lives)} streams"
    )
    assert min(one.kills, other.kills, *used) > 2
