"""A key-value bucket on a real nats-server: made, written once, read at the leader, gone and back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from brokers import Backend, until
from nats_server import NatsServer, request_api

from sidecast_broker.answers import Away, PublishConflict
from sidecast_broker.bucket import BYTES_MAX, Bucket
from sidecast_broker.jetstream import JetStream
from sidecast_broker.messages import Begun, Claim, Messages
from sidecast_broker.settings import Nats

NAME = "SIDECAST_MESSAGES"
KEY = "_.agent.k1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
def name() -> str:
    """Give a name that no bucket has."""
    return f"bucket-{uuid.uuid4()}"


@asynccontextmanager
async def bucket_in(backend: Backend, name: str) -> AsyncIterator[Bucket]:
    """Give a bucket of the double or of a real server: what holds for one must hold for the other."""
    chosen = Nats(url=backend.environ.get("SIDECAST_NATS_URL", "nats://double"))
    stream = backend.connect(chosen, lambda _reason: None)
    stream.start()
    try:
        await until(lambda: stream.connected)
        yield Bucket(stream, name, chosen, 3600)
    finally:
        await stream.close()


@asynccontextmanager
async def bucket_of(server: NatsServer, age_s: int = 3600, **settings: Any) -> AsyncIterator[Bucket]:
    chosen = Nats(url=server.url, **settings)
    stream = JetStream(chosen, lambda _reason: None)
    stream.start()
    try:
        await until(lambda: stream.connected)
        yield Bucket(stream, NAME, chosen, age_s)
    finally:
        await stream.close()


async def test_an_entry_is_written_only_by_who_knows_the_last(backend: Backend, name: str) -> None:
    async with bucket_in(backend, name) as one, bucket_in(backend, name) as other:
        first = await one.put(KEY, b"a", 0)
        with pytest.raises(PublishConflict):
            await other.put(KEY, b"b", 0)
        found = await other.get(KEY)
        assert found is not None
        assert (found.revision, found.value) == (first, b"a")
        assert abs(found.at_s - await one.now_s()) < 5
        second = await other.put(KEY, b"b", first)
        with pytest.raises(PublishConflict):
            await one.put(KEY, b"c", first)
        third = await one.put(KEY, None, second)
        deleted = await other.get(KEY)
        assert deleted is not None
        assert (deleted.revision, deleted.value) == (third, None)
        await other.put(KEY, b"", third)
        again = await one.get(KEY)
        assert again is not None
        assert again.value == b""
        assert await one.get("_.agent.k2") is None


async def test_all_entries_above_a_revision(backend: Backend, name: str) -> None:
    async with bucket_in(backend, name) as one, bucket_in(backend, name) as other:
        with pytest.raises(Away):
            await one.above(0)
        created, last = await one.standing()
        assert last == 0
        assert await one.above(0) == []
        revisions = [await one.put(f"k{number}", b"%d" % number, 0) for number in range(150)]
        revisions[7] = await one.put("k7", b"again", revisions[7])
        revisions[149] = await one.put("k149", None, revisions[149])
        assert await other.standing() == (created, revisions[149])
        found = await other.above(0)
        assert [each.entry.revision for each in found] == sorted(revisions)
        assert {each.key: each.entry.value for each in found} == {
            f"k{number}": b"%d" % number for number in range(150)
        } | {"k7": b"again", "k149": None}
        assert [each.key for each in await other.above(revisions[148])] == ["k7", "k149"]
        assert await other.above(revisions[149]) == []


async def test_nats_clients_read_it(server: NatsServer) -> None:
    async with bucket_of(server) as bucket:
        revision = await bucket.put(KEY, b"a", 0)
        connection = await nats.connect(server.url)
        try:
            theirs = await connection.jetstream().key_value(NAME)
            entry = await theirs.get(KEY)
            assert (entry.value, entry.revision) == (b"a", revision)
            assert await theirs.keys() == [KEY]
            await theirs.delete(KEY)
        finally:
            await connection.close()
        found = await bucket.get(KEY)
        assert found is not None
        assert found.value is None


async def test_what_is_made(server: NatsServer) -> None:
    async with bucket_of(server, age_s=60) as bucket:
        await bucket.put(KEY, b"a", 0)
    config = (await request_api(server.url, f"STREAM.INFO.KV_{NAME}", {}))["config"]
    assert config["max_age"] == 60 * 10**9
    assert config["max_bytes"] == BYTES_MAX
    assert config["max_msgs_per_subject"] == 1
    assert config["num_replicas"] == 1
    assert config["discard"] == "old"


async def test_a_full_bucket_forgets_what_is_oldest(server: NatsServer) -> None:
    async with bucket_of(server) as bucket:
        await bucket.put(KEY, b"a", 0)
        config = (await request_api(server.url, f"STREAM.INFO.KV_{NAME}", {}))["config"]
        await request_api(server.url, f"STREAM.UPDATE.KV_{NAME}", config | {"max_bytes": 2000})
        for number in range(40):
            await bucket.put(f"_.agent.more{number}", b"x" * 100, 0)
        assert await bucket.get(KEY) is None


async def test_entries_expire(server: NatsServer) -> None:
    async with bucket_of(server, age_s=1) as bucket:
        await bucket.put(KEY, b"a", 0)
        async with asyncio.timeout(10):
            while await bucket.get(KEY) is not None:
                await asyncio.sleep(0.1)
        await bucket.put(KEY, b"b", 0)


async def test_two_brokers_make_it_at_once(server: NatsServer) -> None:
    async with bucket_of(server) as one, bucket_of(server) as other:
        done = await asyncio.gather(one.put(KEY, b"a", 0), other.put(KEY, b"b", 0), return_exceptions=True)
        assert sorted(map(type, done), key=str) == sorted([int, PublishConflict], key=str)


async def test_who_may_not_make_it(server: NatsServer) -> None:
    async with bucket_of(server, manage_stream=False) as bucket:
        with pytest.raises(Away, match="manage_stream is off"):
            await bucket.put(KEY, b"a", 0)
        async with bucket_of(server) as other:
            await other.put(KEY, b"b", 0)
        with pytest.raises(PublishConflict):
            await bucket.put(KEY, b"a", 0)


async def test_one_that_was_deleted_is_made_again(server: NatsServer) -> None:
    async with bucket_of(server, request_s=0.5) as bucket:
        await bucket.put(KEY, b"a", 0)
        await request_api(server.url, f"STREAM.DELETE.KV_{NAME}", {})
        with pytest.raises(Away):
            await bucket.put(KEY, b"b", 0)
        with pytest.raises(Away):
            await bucket.get(KEY)
        await bucket.put(KEY, b"b", 0)


async def test_a_value_that_is_too_large(server: NatsServer) -> None:
    async with bucket_of(server) as bucket:
        with pytest.raises(Away):
            await bucket.put(KEY, b"x" * 2_000_000, 0)


async def test_while_nats_is_away(server: NatsServer) -> None:
    async with bucket_of(server, request_s=0.3) as bucket:
        revision = await bucket.put(KEY, b"a", 0)
        server.kill9()
        with pytest.raises(Away):
            await bucket.put(KEY, b"b", revision)
        with pytest.raises(Away):
            await bucket.get(KEY)
        with pytest.raises(Away):
            await bucket.now_s()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(20):
            while True:
                try:
                    found = await bucket.get(KEY)
                    break
                except Away:
                    await asyncio.sleep(0.05)
        assert found is not None
        assert found.value == b"a"


async def test_of_forty_claims_over_two_brokers_one_sends(backend: Backend, name: str) -> None:
    async with bucket_in(backend, name) as one, bucket_in(backend, name) as other:
        brokers = [
            Messages(each, "agent", abandoned_s=60, patience_s=5) for each in (one, other) for _ in range(20)
        ]
        asking = [asyncio.create_task(each.claim("", "", "m1")) for each in brokers]
        try:
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            (winner,) = [each.result() for each in done]
            assert isinstance(winner, Claim)
            await winner.settle(Begun("task-1", b""))
            found = await asyncio.gather(*asking)
            assert found.count(Begun("task-1", b"")) == 39
        finally:
            for each in brokers:
                await each.close()
