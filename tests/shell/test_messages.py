"""Who may send a message, over a bucket that loses acknowledgements and goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from brokers import until
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker import messages as module
from sidecast_broker.answers import Away, PublishConflict
from sidecast_broker.bucket import Entry
from sidecast_broker.core.a2a.errors import A2AError
from sidecast_broker.messages import Begun, Claim, Messages, _hash

ABANDONED_S = 60.0
TASK = Begun("task-1", b"")


class FakeBucket:
    """A bucket in memory.

    Attributes:
        away: whether it can't be reached.
        acks_to_lose: so many writes are made, and the writer isn't told.
        writes: what was written, in order.
    """

    def __init__(self) -> None:
        self.away = False
        self.acks_to_lose = 0
        self.writes: list[Any] = []
        self.time_s = 1000.0
        self.entries: dict[str, Entry] = {}
        self._revision = 0

    async def get(self, key: str) -> Entry | None:
        await self._reach()
        return self.entries.get(key)

    async def put(self, key: str, value: bytes | None, after: int) -> int:
        await self._reach()
        held = self.entries.get(key)
        if (held.revision if held is not None else 0) != after:
            raise PublishConflict("wrong last sequence")
        self._revision += 1
        self.entries[key] = Entry(self._revision, value, self.time_s)
        self.writes.append(json.loads(value) if value is not None else None)
        if self.acks_to_lose:
            self.acks_to_lose -= 1
            raise Away("timeout")
        return self._revision

    async def now_s(self) -> float:
        await self._reach()
        return self.time_s

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Away("not connected")


@asynccontextmanager
async def broker(
    bucket: Any, *, abandoned_s: float = ABANDONED_S, patience_s: float = 0
) -> AsyncIterator[Messages]:
    messages = Messages(bucket, "agent", abandoned_s=abandoned_s, patience_s=patience_s)
    try:
        yield messages
    finally:
        await messages.close()


async def claimed(messages: Messages, message_id: str = "m1", tenant: str = "", principal: str = "") -> Claim:
    found = await messages.claim(tenant, principal, message_id)
    assert isinstance(found, Claim)
    return found


async def test_who_comes_later_is_led_to_what_the_first_has_begun() -> None:
    bucket = FakeBucket()
    async with broker(bucket) as one, broker(bucket) as other:
        claim = await claimed(one)
        await claim.settle(TASK)
        assert len(bucket.writes) == 2
        for messages in (one, other):
            assert await messages.claim("", "", "m1") == TASK
        assert len(bucket.writes) == 2


async def test_messages_are_told_apart() -> None:
    bucket = FakeBucket()
    async with broker(bucket) as messages:
        asked = [("", "", "m1"), ("", "", "m2"), ("acme", "", "m1"), ("", "alice", "m1"), ("", "a", "licem1")]
        for tenant, principal, message_id in asked:
            await claimed(messages, message_id, tenant, principal)
        assert len(bucket.entries) == len(asked)
        assert sum(key.startswith("_.agent.") for key in bucket.entries) == 4
        assert sum(key.startswith("acme.agent.") for key in bucket.entries) == 1


@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_no_two_messages_have_one_key(pairs: list[tuple[str, str]]) -> None:
    one, other = (_hash(*pair) for pair in pairs)
    assert one != other
    assert one.isalnum()


def test_any_text_has_a_key() -> None:
    assert _hash("\ud800", "\x00") != _hash("", "\ud800\x00")


async def test_of_many_at_once_one_sends() -> None:
    bucket = FakeBucket()
    async with broker(bucket) as one, broker(bucket) as two, broker(bucket) as three:
        asking = [asyncio.create_task(each.claim("", "", "m1")) for each in (one, two, three)]
        await until(lambda: any(each.done() for each in asking))
        (winner,) = [each.result() for each in asking if each.done()]
        assert isinstance(winner, Claim)
        await winner.settle(TASK)
        found = [await each for each in asking]
        assert found.count(TASK) == 2


async def test_what_came_to_nothing_may_be_sent_again() -> None:
    bucket = FakeBucket()
    async with broker(bucket) as one, broker(bucket) as other:
        claim = await claimed(one)
        waiting = asyncio.create_task(other.claim("", "", "m1"))
        await until(lambda: len(bucket.writes) == 1)
        await claim.release()
        assert isinstance(await waiting, Claim)
        assert [type(each) for each in bucket.writes] == [dict, type(None), dict]


async def test_an_answer_that_is_a_message_is_kept() -> None:
    bucket = FakeBucket()
    answer = Begun(None, b'{"message":{"messageId":"a1","n":1.50}}')
    async with broker(bucket) as one, broker(bucket) as other:
        await (await claimed(one)).settle(answer)
        assert await other.claim("", "", "m1") == answer
        large = b'{"message":{"messageId":"%b"}}' % (b"x" * module.MESSAGE_BYTES_MAX)
        await (await claimed(one, "m2")).settle(Begun(None, large))
        with pytest.raises(A2AError, match="is not kept"):
            await other.claim("", "", "m2")
        assert all(len(json.dumps(each)) < 200 for each in bucket.writes)


# --- brokers that die


async def test_the_claim_of_a_dead_broker_is_taken_over_when_it_is_old() -> None:
    bucket = FakeBucket()
    async with broker(bucket) as dead:
        await claimed(dead)
    async with broker(bucket) as other:
        waiting = asyncio.create_task(other.claim("", "", "m1"))
        bucket.time_s += ABANDONED_S - 1
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done()
        bucket.time_s += 1
        assert isinstance(await waiting, Claim)


async def test_a_claim_lasts_as_long_as_its_broker_waits_for_the_agent() -> None:
    bucket = FakeBucket()
    async with broker(bucket, abandoned_s=0.1) as one:
        claim = await claimed(one)
        await until(lambda: len(bucket.writes) > 3)
        claim.drop()
        assert all(each == bucket.writes[0] for each in bucket.writes)
        await until(lambda: not one._keeping)


async def test_of_two_that_take_over_one_sends() -> None:
    bucket = FakeBucket()
    async with broker(bucket) as dead:
        await claimed(dead)
    bucket.time_s += ABANDONED_S
    async with broker(bucket) as one, broker(bucket) as two:
        asking = [asyncio.create_task(each.claim("", "", "m1")) for each in (one, two)]
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(waiting)) == (1, 1)
        winner = done.pop().result()
        assert isinstance(winner, Claim)
        await winner.settle(TASK)
        assert await waiting.pop() == TASK


async def test_a_broker_that_was_taken_for_dead_writes_nothing_over_its_successor() -> None:
    bucket = FakeBucket()
    async with broker(bucket) as slow, broker(bucket) as other:
        late = await claimed(slow)
        bucket.time_s += ABANDONED_S
        await (await claimed(other)).settle(TASK)
        await late.settle(Begun("task-2", b""))
        await late.release()
        assert await other.claim("", "", "m1") == TASK


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"{", b"\xff", b'{"task": 1}', b'{"message": null}', b"null", b"[" * 100_000]
)
async def test_what_cannot_be_read_is_a_claim_of_nobody(value: bytes) -> None:
    bucket = FakeBucket()
    async with broker(bucket) as messages:
        await claimed(messages)
        (key,) = bucket.entries
        bucket.entries[key] = Entry(bucket.entries[key].revision, value, bucket.time_s)
        asking = asyncio.create_task(messages.claim("", "", "m1"))
        await asyncio.wait([asking], timeout=0.1)
        assert not asking.done()
        bucket.time_s += ABANDONED_S
        assert isinstance(await asking, Claim)


# --- a bucket that goes away


async def test_a_message_is_refused_while_nobody_knows_whether_it_was_sent() -> None:
    bucket = FakeBucket()
    bucket.away = True
    async with broker(bucket) as messages:
        with pytest.raises(Away):
            await messages.claim("", "", "m1")


async def test_a_short_absence_is_waited_out() -> None:
    bucket = FakeBucket()
    bucket.away = True
    async with broker(bucket, patience_s=10) as messages:
        asking = asyncio.create_task(messages.claim("", "", "m1"))
        await asyncio.wait([asking], timeout=0.1)
        assert not asking.done()
        bucket.away = False
        assert isinstance(await asking, Claim)


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_lost_acknowledgements(lost: int) -> None:
    bucket = FakeBucket()
    bucket.acks_to_lose = lost
    async with broker(bucket, patience_s=10) as one, broker(bucket) as other:
        await (await claimed(one)).settle(TASK)
        assert await other.claim("", "", "m1") == TASK


async def test_what_was_begun_is_written_when_the_bucket_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_S_MAX", 0.05)
    bucket = FakeBucket()
    async with broker(bucket) as one, broker(bucket) as other:
        claim = await claimed(one)
        bucket.away = True
        await claim.settle(TASK)
        claim.drop()
        bucket.away = False
        assert await other.claim("", "", "m1") == TASK


async def test_a_claim_that_was_forgotten_meanwhile_is_settled_anew() -> None:
    bucket = FakeBucket()
    async with broker(bucket) as one, broker(bucket) as other:
        claim = await claimed(one)
        bucket.entries.clear()
        await claim.settle(TASK)
        assert await other.claim("", "", "m1") == TASK
