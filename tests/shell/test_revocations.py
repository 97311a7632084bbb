from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
from brokers import FakeBackend, until

from sidecast_broker.answers import Away
from sidecast_broker.auth import revocations as module
from sidecast_broker.auth.revocations import Revocations
from sidecast_broker.bucket import Bucket, Entry, Found, Standing
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.auth.revocation import Revocation
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Nats

NAME = "SIDECAST_REVOKED"
NOW_S = 1_800_000_000.0

ALICE = Principal("alice", "jwt", credential_id="t-1")
OF_ALICE = Revocation("principal", "alice", NOW_S)
OF_BOB = Revocation("principal", "bob", NOW_S)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    monkeypatch.setattr(module, "READY_S", 0.1)


@asynccontextmanager
async def known_by_a_broker(backend: FakeBackend, **settings: bool) -> AsyncIterator[Revocations]:
    """Give what one broker knows."""
    chosen = Nats(**settings)
    stream = backend.connect(chosen, lambda reason: known.doubt(reason))
    bucket = Bucket(stream, NAME, chosen, 86400, forgets=False)
    known = Revocations(bucket, 86400, clock=lambda: NOW_S)
    stream.start()
    known.start()
    try:
        yield known
    finally:
        await known.close()
        await stream.close()


async def is_revoked(known: Revocations, principal: Principal = ALICE) -> bool:
    try:
        await known.admit(principal)
    except Refused as refused:
        if refused.code != "unauthenticated":
            raise
        return True
    return False


async def test_what_one_broker_revokes_another_refuses(fake: FakeBackend) -> None:
    async with known_by_a_broker(fake) as one, known_by_a_broker(fake) as other:
        assert not await is_revoked(other)
        kept = await one.revoke(OF_ALICE)
        assert (kept.bucket, kept.key, kept.revision) == (NAME, OF_ALICE.key, 1)
        assert await is_revoked(one)
        await until(lambda: other.covers_credential(ALICE))
        assert await is_revoked(other)
    async with known_by_a_broker(fake) as third:
        assert await is_revoked(third)


async def test_the_same_again_is_the_same_but_newer(fake: FakeBackend) -> None:
    async with known_by_a_broker(fake) as one, known_by_a_broker(fake) as other:
        await until(lambda: one.loaded)
        first = await one.revoke(OF_ALICE)
        await until(lambda: other.covers_credential(ALICE))
        later = Revocation("principal", "alice", NOW_S + 100)
        again = await other.revoke(later)
        assert (again.key, again.revision > first.revision) == (first.key, True)
        since = Principal("alice", "jwt", issued_at_s=NOW_S + 50)
        assert other.covers_credential(since)
        await until(lambda: one.covers_credential(since))


async def test_two_at_once_are_both_told_that_it_is_stored(fake: FakeBackend) -> None:
    async with known_by_a_broker(fake) as one, known_by_a_broker(fake) as other:
        await until(lambda: one.loaded and other.loaded)
        kept = await asyncio.gather(*(each.revoke(OF_ALICE) for each in (one, other) for _ in range(2)))
        assert len({each.key for each in kept}) == 1


async def test_before_they_are_read_nobody_passes(fake: FakeBackend) -> None:
    await fake.go_away()
    async with known_by_a_broker(fake) as known:
        with pytest.raises(Refused) as caught:
            await known.admit(ALICE)
        assert (caught.value.code, caught.value.retry_after_s) == ("unavailable", 1)
        with pytest.raises(Away):
            await known.revoke(OF_ALICE)
        await fake.come_back()
        assert not await is_revoked(known)


async def test_who_comes_first_is_kept_waiting_a_moment(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_S", 30)
    await fake.go_away()
    async with known_by_a_broker(fake) as known:
        asked = asyncio.create_task(is_revoked(known))
        await asyncio.sleep(0.05)
        assert not asked.done()
        await fake.come_back()
        assert not await asked


async def test_what_keeps_them_away_is_said_once(fake: FakeBackend) -> None:
    with structlog.testing.capture_logs() as lines:
        async with known_by_a_broker(fake, manage_stream=False):
            await asyncio.sleep(0.2)
    away = [line for line in lines if line["event"] == "revocations_away"]
    assert [line["error"] for line in away] == [f"bucket {NAME} does not exist and nats.manage_stream is off"]


async def test_a_bucket_that_was_lost_lets_nobody_in_again(fake: FakeBackend) -> None:
    async with known_by_a_broker(fake) as one:
        await until(lambda: one.loaded)
        await one.revoke(OF_ALICE)
        await one.revoke(OF_BOB)
        fake.server.delete_bucket(NAME)
        async with known_by_a_broker(fake) as other:
            await until(lambda: other.loaded)
            # Its revisions begin anew, below what the first broker has seen.
            await other.revoke(Revocation("principal", "carol", NOW_S))
            await until(lambda: one.covers_credential(Principal("carol", "jwt")))
        assert await is_revoked(one)


async def test_what_cannot_be_read_is_said_and_hides_nothing(fake: FakeBackend) -> None:
    async with known_by_a_broker(fake) as known:
        await until(lambda: known.loaded)
        with structlog.testing.capture_logs() as lines:
            fake.server.publish(f"$KV.{NAME}.broken", b"{", {})
            await known.revoke(OF_BOB)
            fake.server.publish(f"$KV.{NAME}.broken2", b"\xff", {})
            async with known_by_a_broker(fake) as other:
                assert await is_revoked(other, Principal("bob", "jwt"))
                assert not await is_revoked(other)
    assert {line["key"] for line in lines if line["event"] == "revocation_unreadable"} == {
        "broken",
        "broken2",
    }


async def test_one_that_an_operator_deletes_is_lifted(fake: FakeBackend) -> None:
    async with known_by_a_broker(fake) as known:
        await until(lambda: known.loaded)
        await known.revoke(OF_ALICE)
        fake.server.publish(f"$KV.{NAME}.{OF_ALICE.key}", b"", {"KV-Operation": "DEL"})
        await until(lambda: not known.covers_credential(ALICE))


async def test_many_are_all_read(fake: FakeBackend) -> None:
    async with known_by_a_broker(fake) as known:
        await until(lambda: known.loaded)
        for number in range(300):
            await known.revoke(Revocation("token_id", f"t-{number % 250}", NOW_S + number))
    async with known_by_a_broker(fake) as other:
        await until(lambda: other.loaded)
        revoked = [other.covers_credential(Principal("x", "jwt", credential_id=f"t-{n}")) for n in range(251)]
        assert revoked == [True] * 250 + [False]


class Stuck:
    """A bucket that answers its first question never, as one does whose connection broke meanwhile."""

    name = NAME

    def __init__(self) -> None:
        self.asked = 0

    async def standing(self) -> Standing:
        self.asked += 1
        if self.asked == 1:
            await asyncio.Event().wait()
        return Standing("now", 1)

    async def above(self, revision: int) -> list[Found]:
        value = b'{"kind":"principal","value":"alice","at_s":1800000000}'
        return [Found(OF_ALICE.key, Entry(1, value, NOW_S))] if revision < 1 else []

    async def get(self, key: str) -> Entry | None:
        raise AssertionError(key)

    async def put(self, key: str, value: bytes | None, after: int) -> int:
        raise AssertionError((key, value, after))


async def test_a_question_that_a_broken_connection_took_along_is_asked_anew() -> None:
    stuck = Stuck()
    known = Revocations(stuck, 86400, clock=lambda: NOW_S)
    known.start()
    try:
        await until(lambda: stuck.asked == 1)
        known.doubt("slow-consumer")
        await asyncio.sleep(0.05)
        assert stuck.asked == 1
        known.doubt("reconnected")
        await until(lambda: known.covers_credential(ALICE))
    finally:
        await known.close()
