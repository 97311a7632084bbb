"""Clients that are sent elsewhere must not come back on the connection they have: it leads here again."""

from __future__ import annotations

import aiohttp
import pytest
from brokers import TASK, FakeBackend, OwnBroker, broker, task_record, until

STREAM = {"Accept": "text/event-stream"}
PATH = f"/tasks/{TASK}/events"


async def answer_to(session: aiohttp.ClientSession, running: OwnBroker, path: str = PATH) -> bytes:
    async with session.get(running.url + path, headers=STREAM) as answer:
        return await answer.read()


def kept(session: aiohttp.ClientSession) -> int:
    """Give how many connections a client would use again."""
    connector = session.connector
    assert isinstance(connector, aiohttp.TCPConnector)
    return sum(held.is_connected() for idle in connector._conns.values() for held, _since_s in idle)


async def test_who_is_sent_away_for_age_connects_anew(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with (
        broker(fake, stream__age_max_s=0.4, stream__heartbeat_s=0.2) as running,
        aiohttp.ClientSession() as session,
    ):
        body = await answer_to(session, running)
        assert b"stream.drain" in body
        await until(lambda: kept(session) == 0)  # its head has said nothing of that


@pytest.mark.parametrize("query", ["", "?refusal=status"])
async def test_who_is_turned_away_by_a_draining_broker_connects_anew(fake: FakeBackend, query: str) -> None:
    await fake.publish(task_record())
    async with broker(fake) as running, aiohttp.ClientSession() as session:
        running.listening.streams.draining = True
        body = await answer_to(session, running, PATH + query)
        assert b"draining" in body
        assert kept(session) == 0


@pytest.mark.parametrize("query", ["", "?refusal=status"])
async def test_who_is_turned_away_by_a_full_broker_connects_anew(fake: FakeBackend, query: str) -> None:
    await fake.publish(task_record())
    async with broker(fake, stream__streams_max=1) as running, aiohttp.ClientSession() as session:
        stream = await running.watch()
        await stream.take(2)
        body = await answer_to(session, running, PATH + query)
        assert b"limit" in body
        assert kept(session) == 0


async def test_others_keep_theirs(fake: FakeBackend) -> None:
    await fake.publish(task_record(state="COMPLETED"))
    async with broker(fake) as running, aiohttp.ClientSession() as session:
        body = await answer_to(session, running)
        assert b"stream.end" in body
        assert kept(session) == 1
