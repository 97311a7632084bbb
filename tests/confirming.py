"""Clients of named subscriptions that confirm as they go, at several brokers, and check what they are told.

Must not know what goes wrong meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import nats
import nats.errors
from e2e.broker import Broker
from nats.js.api import AckPolicy, ConsumerConfig
from sse import Frame, Parser

from sidecast_adapters import Publisher
from sidecast_broker.core.subscriptions import PREFIX

AGENT = "agent"
CONTEXT = "context-1"
ACKS_AT_ONCE = 3
ANSWER_S_MAX = 15.0
"""How long an answer to a confirmation may take: what a request and a lost pull may, and a busy machine."""
RETRY_S = 0.05


class Life(NamedTuple):
    """One connection of a client.

    Attributes:
        confirmed: newest sequence whose confirmation was answered when it asked for the stream.
        asked: newest sequence it had tried to confirm when it was given the first event.
        given: the sequences it was given, in order.
        began: when it asked, and whom.
    """

    confirmed: int
    asked: int
    given: list[int]
    began: str


class Confirming:
    """One client over its lives: each begins without a cursor, and confirms some of what it is given.

    Args:
        brokers: each connection and each confirmation goes to any.
        task: what it follows.
        name: of its subscription.
        chance: all that is random.
        every: confirms at most every so manyth event.
        life_s: how long a connection lives at most; None: to the end of the task.

    Attributes:
        lives: those that were given something.
        confirmed: newest sequence whose confirmation was answered.
        asked: newest sequence it tried to confirm.
        stored: confirmations that were answered so.
        refused: confirmations that were refused for the moment.
        latest_s: how long the slowest answer to a confirmation took.
    """

    def __init__(
        self,
        brokers: Sequence[Broker],
        task: str,
        name: str,
        chance: random.Random,
        *,
        every: int = 10,
        life_s: float | None = None,
    ) -> None:
        self.lives: list[Life] = []
        self.confirmed = self.asked = self.stored = self.refused = 0
        self.latest_s = 0.0
        self._brokers = brokers
        self._task = task
        self._name = name
        self._chance = chance
        self._every = every
        self._life_s = life_s
        self._ended = False
        self._last_id = ""
        self._acks: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Follow the task to its end, and confirm that."""
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not self._ended:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._life_s and self._chance.uniform(0, self._life_s)):
                        await self._live(session)
                await asyncio.sleep(RETRY_S)
            await asyncio.gather(*self._acks)
            while self.confirmed < self.lives[-1].given[-1]:
                await self._confirm(session, self._last_id)
                await asyncio.sleep(RETRY_S)

    async def _live(self, session: aiohttp.ClientSession) -> None:
        confirmed, life = self.confirmed, None
        parser, until_ack = Parser(), self._chance.randint(1, self._every)
        url = f"{self._any()}/tasks/{self._task}/events?ack=client&from=start"
        url += "" if self.lives else "&wait_s=10"  # then there is such a task, whatever happens
        headers = {"Accept": "text/event-stream"}
        began = f"at {time.monotonic():.2f} of {url[:22]}"
        async with session.get(f"{url}&subscription={quote(self._name)}", headers=headers) as answer:
            assert answer.status in (200, 204), await answer.text()
            self._ended = answer.status == 204
            async for data in answer.content.iter_any():
                for frame in parser.feed(data):
                    if not isinstance(frame, Frame):
                        continue
                    assert frame.kind != "stream.gap", frame
                    if frame.kind.startswith("task."):
                        if life is None:
                            life = Life(confirmed, self.asked, [], began)
                            self.lives.append(life)
                        assert frame.id is not None
                        life.given.append(frame.json["seq"])
                        self._last_id = frame.id
                        until_ack -= 1
                    if frame.kind == "stream.end":
                        # A request of its own that it gave up, or that was refused, may be done late.
                        assert frame.json["reason"] in ("task-ended", "displaced"), frame
                        self._ended = frame.json["reason"] == "task-ended"
                    if until_ack <= 0 and len(self._acks) < ACKS_AT_ONCE:
                        ack = asyncio.create_task(self._confirm(session, self._last_id))
                        self._acks.add(ack)
                        until_ack = self._chance.randint(1, self._every)
                    self._reap()

    def _reap(self) -> None:
        for ack in [each for each in self._acks if each.done()]:
            self._acks.discard(ack)
            ack.result()

    async def _confirm(self, session: aiohttp.ClientSession, event_id: str) -> None:
        sequence = int(event_id.rpartition("-")[2])
        self.asked = max(self.asked, sequence)
        url = f"{self._any()}/subscriptions/{quote(self._name, safe='')}/ack"
        began_s = asyncio.get_running_loop().time()
        async with (
            asyncio.timeout(ANSWER_S_MAX),
            session.post(url, json={"id": event_id, "task": self._task}) as answer,
        ):
            text = await answer.text()
            self.latest_s = max(self.latest_s, asyncio.get_running_loop().time() - began_s)
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) > 0
                self.refused += 1
                return
            assert answer.status == 200, text
            stored = int((await answer.json())["acknowledged"].rpartition("-")[2])
            assert sequence <= stored <= self.asked
            self.confirmed = max(self.confirmed, stored)
            self.stored += 1

    def _any(self) -> str:
        return self._chance.choice(self._brokers).url

    def problems(self, sequences: Sequence[int]) -> list[str]:
        """Say what is wrong with what it was given over all its lives.

        Args:
            sequences: those the stream holds of the task, in order.
        """
        place = {sequence: index for index, sequence in enumerate([0, *sequences])}
        newest, first_seen, found = 0, [], []
        for life in self.lives:
            confirmed, asked, given, began = life
            begins, ends = place[given[0]], place[given[-1]]
            story = f"{began} {self._name}: {confirmed} confirmed, {asked} asked for, {given[0]} given"
            if given != sequences[begins - 1 : ends]:
                found.append(f"{story}: a hole")
            if begins <= place[confirmed]:
                found.append(f"{story}: what was answered with success is given again")
            if begins > place[max(asked, confirmed)] + 1:
                found.append(f"{story}: what was not confirmed is left out")
            first_seen += [sequence for sequence in given if sequence > newest]
            newest = max(newest, given[-1])
        return found if first_seen == sequences else [*found, f"{self._name}: not given everything in order"]


async def until_stored(clients: Sequence[Confirming], count: int) -> None:
    """Wait until each client has had so many more confirmations stored."""
    before = [client.stored for client in clients]
    while any(client.stored < old + count for client, old in zip(clients, before, strict=True)):
        await asyncio.sleep(0.02)


async def publish(urls: list[str], tasks: Sequence[str], rate: float, enough: asyncio.Event) -> int:
    """Publish tasks side by side, whatever happens to the servers, until it is enough, and end them.

    Args:
        urls: the servers.
        tasks: their names.
        rate: events per second of each.
        enough: set when they are to end.

    Returns:
        How many events were stored.
    """

    async def one(publisher: Publisher, name: str) -> None:
        clock = asyncio.get_running_loop().time
        begin_s, number = clock(), 0
        async with publisher.task(name, context_id=CONTEXT) as task:
            while not enough.is_set():
                await task.status("working", str(number))
                number += 1
                await asyncio.sleep(max(0.0, begin_s + number / rate - clock()))

    async with Publisher(urls, agent=AGENT) as publisher:
        await asyncio.gather(*(one(publisher, name) for name in tasks))
        assert await publisher.flush(60)
        assert publisher.counts.dropped_events == 0
        return publisher.counts.stored_events


async def sequences_of(urls: list[str], subject: str) -> list[int]:
    """Give the sequences of all records the stream holds of a subject, in order."""
    connection = await nats.connect(urls)
    try:
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, headers_only=True)
        pull = await connection.jetstream().pull_subscribe(subject, stream="SIDECAST", config=config)
        left = (await pull.consumer_info()).num_pending or 0
        found: list[int] = []
        while left > len(found):
            messages = await pull.fetch(min(500, left - len(found)), timeout=5)
            found += [message.metadata.sequence.stream for message in messages]
        return found
    finally:
        await connection.close()


async def consumers_of(urls: list[str]) -> list[dict[str, Any]]:
    """Give what the leaders of all subscriptions' consumers say of them, once each has one."""
    connection = await nats.connect(urls, max_reconnect_attempts=-1)

    async def ask(path: str, body: bytes = b"") -> dict[str, Any]:
        while True:
            with contextlib.suppress(nats.errors.Error):
                answer = await connection.request(f"$JS.API.CONSUMER.{path}", body, timeout=2)
                decoded: dict[str, Any] = json.loads(answer.data)
                if "error" not in decoded:
                    return decoded
            await asyncio.sleep(RETRY_S)

    try:
        names = (await ask("NAMES.SIDECAST", b'{"offset":0}'))["consumers"] or []
        return await asyncio.gather(
            *(ask(f"INFO.SIDECAST.{name}") for name in names if name.startswith(PREFIX))
        )
    finally:
        await connection.close()
