"""A broker under fuzzed inputs, and what must hold of it when all is over.

Must not know how inputs are made, nor whether the broker is a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from access_rig import ACME, ALICES, BOBS, HERS_ELSEWHERE, OPEN
from attacks.asks import CANARY, ORIGIN
from attacks.inputs import Input
from attacks.keyring import ROOT, WATCHER
from attacks.knocking import Client, Malformed
from attacks.outcome import SECRET, Outcome
from brokers import Backend, Broker, FakeBackend, RealBackend, done, status, task_record, texts
from nats_server import read_records, request_api
from recording_agent import RecordingAgent

from sidecast_broker.core.auth.revocation import decode_revocation
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey, encode_token, events_subject

PULSE_S = 0.05
RUN_S_MAX = 3600.0
SETTINGS: dict[str, object] = {
    "auth__refusal_floor_ms": 5,
    "auth__tickets_per_minute_max": 0,
    "server__header_s": 0.25,
    "server__body_s": 0.25,
    "server__body_bytes_max": 65_536,
    "server__cors_origins": ORIGIN,
    "agent__passthrough": "/docs",
    "agent__timeout_s": 4,
}
"""As a user would set it, but that who sends too little is given up soon."""


# --- what is behind the broker


async def stock(backend: Backend) -> None:
    """Store tasks of several owners, one of which says what only alice may read."""
    for task, owner, tenant in ((ALICES, "alice", ""), (BOBS, "bob", ""), (HERS_ELSEWHERE, "alice", ACME)):
        payloads = (task_record(task), status(SECRET if task == ALICES else "on it", task), done(task))
        await _store(backend, task, owner, tenant, *payloads)
    await _store(backend, OPEN, "alice", "", task_record(OPEN), status(SECRET, OPEN))
    await _store(backend, CANARY, "watcher", "", task_record(CANARY))


async def _store(backend: Backend, task: str, owner: str, tenant: str, *payloads: bytes) -> None:
    subject = events_subject(TaskKey(tenant, "agent", task))
    for payload in payloads:
        await backend.publish_on(subject, payload, {names.OWNER: encode_token(owner)})


async def state_of(backend: Backend) -> tuple[dict[str, int], list[str | None]]:
    """Give what inputs without a right may not change: events by subject, and the tenants of revocations.

    Left out is what those with a right may do: all of acme's; and what the test itself publishes.
    """
    if isinstance(backend, RealBackend):
        url = backend.server.url
        info = await request_api(url, "STREAM.INFO.SIDECAST", {"subjects_filter": ">"})
        subjects: dict[str, int] = info["state"]["subjects"]
        revoked = [
            value for _, value in await read_records(url, "$KV.SIDECAST_REVOKED.>", "KV_SIDECAST_REVOKED")
        ]
    else:
        assert isinstance(backend, FakeBackend)
        subjects = Counter(message.subject for message in backend.server.messages.values())
        revoked = [each.payload for each in backend.server._buckets.get("KV_SIDECAST_REVOKED", {}).values()]
    own = re.compile(rf"sidecast\.v1\.events\.(?:{ACME}\..*|_\.agent\.{CANARY})")
    tenants = {decode_revocation(value).tenant for value in revoked}
    kept = {subject: count for subject, count in subjects.items() if own.fullmatch(subject) is None}
    return kept, sorted(tenants - {ACME}, key=str)


# --- running


@asynccontextmanager
async def _canary(backend: Backend, broker: Broker) -> AsyncIterator[None]:
    """Publish and watch one task all the while; every event comes, in order, on one stream."""
    watch = await broker.watch(CANARY, headers={"Authorization": f"Bearer {WATCHER}"})
    await watch.until("task.snapshot")
    published = 0

    async def pulse() -> None:
        nonlocal published
        while True:
            await backend.publish(status(str(published), CANARY), task=CANARY)
            published += 1
            await asyncio.sleep(PULSE_S)

    loop = asyncio.get_running_loop()
    watching, beating = loop.create_task(watch.rest(RUN_S_MAX)), loop.create_task(pulse())
    try:
        yield
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        assert not watching.done(), "the stream of the canary has ended"
        await backend.publish(done(CANARY), task=CANARY)
        found = texts(await watching)
        assert found == list(map(str, range(published))), f"{published} were published, and came: {found}"
    finally:
        watching.cancel()
        beating.cancel()


async def knock(broker: Broker, inputs: Iterable[Input], connections: int) -> Outcome:
    """Send all inputs over so many connections at a time."""
    outcome = Outcome()
    waiting: Iterator[Input] = iter(inputs)

    async def client() -> None:
        clients = Client(broker.url), Client(broker.internal_url)
        try:
            for given in waiting:
                try:
                    outcome.take(given, await clients[given.internal].send(given))
                except (Malformed, TimeoutError, ValueError, OSError) as error:
                    outcome.fail(given, repr(error))
                    clients[given.internal].close()
        finally:
            for each in clients:
                each.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(client())
    return outcome


async def withstand(
    backend: Backend, broker: Broker, agent: RecordingAgent, inputs: Iterable[Input], connections: int
) -> Outcome:
    """Send all inputs to a broker, and check that nothing has come of it that must not."""
    before = await state_of(backend)
    async with _canary(backend, broker):
        outcome = await knock(broker, inputs, connections)
    await _streams_end(broker)
    assert (await broker.internal("/readyz"))[1]["status"] == "ok"
    after = await state_of(backend)
    assert after == before, f"changed by who has no right to: {before}, {after}"
    assert agent.faults == [], f"what the agent gets could be taken apart in two ways: {agent.faults[:3]}"
    nameless = [heard for heard in agent.heard if len(heard.values("sidecast-principal")) != 1]
    assert nameless == [], "the agent isn't told for whom it works"
    return outcome


async def _streams_end(broker: Broker) -> None:
    """Wait until nothing is left of the clients' streams."""
    left: list[Any] = []

    async def look() -> None:
        headers = {"Authorization": f"Bearer {ROOT}"}
        left[:] = (await broker.internal("/streams", headers=headers))[1]["streams"]

    await look()
    try:
        async with asyncio.timeout(20):
            while left:
                await asyncio.sleep(0.05)
                await look()
    except TimeoutError:
        raise AssertionError(f"streams whose clients have left: {left[:5]}") from None
