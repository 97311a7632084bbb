"""A task id that another owner uses again: who watches the old task gets nothing of the new one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from access_rig import PRINCIPALS
from askers import Askers, bearer
from brokers import TASK, Backend, OwnBroker, RealBackend, broker, status, subject_of, task_record
from sse import TIMEOUT_S, Watch

from sidecast_schemas import headers as names

SUBSCRIBE = f"/tasks/{TASK}:subscribe?A2A-Version=1.0"
PATHS = (
    f"/tasks/{TASK}/events",
    f"/tasks/{TASK}/events?max_rate=50",
    f"/tasks/{TASK}/events?coalesce=1",
    f"/events?task={TASK}",
    "/events?agent=1",
    "/events?context=context-1",
    SUBSCRIBE,
)
NAMED = (f"/tasks/{TASK}/events?subscription=mine", "/events?context=context-1&subscription=mine")
"""These are kept by a server."""
CHECKED: dict[str, Any] = {
    "auth__required": "true",
    "auth__refusal_floor_ms": 20,
    "agent__url": "http://127.0.0.1:9",
    "authenticator": Askers(*PRINCIPALS),
}
OF_ALICE, OF_BOB = {names.OWNER: "alice"}, {names.OWNER: "bob"}


async def opened(running: OwnBroker, *paths: str) -> list[Watch]:
    """Open streams of alice's, and read up to where the task has been shown."""
    streams = [await running.watch(path=path, headers=bearer("alice")) for path in paths]
    for stream in streams:
        await stream.until(lambda frame: "hers" in frame.data)
    return streams


async def see_nothing_more(streams: list[Watch]) -> None:
    for stream in streams:
        await stream.rest()
        assert stream.broken, stream.url
        assert b"his" not in bytes(stream.raw)
        assert b"stream.end" not in bytes(stream.raw)


async def purged(backend: Backend) -> None:
    await backend.purge(subject_of(TASK))


async def renewed(backend: Backend) -> None:
    await backend.create("epoch2")


@pytest.mark.parametrize("end", [purged, renewed])
@pytest.mark.parametrize("pause_s", [0.0, 0.6])
async def test_another_owners_task_of_the_same_id_is_not_delivered(
    backend: Backend, end: Any, pause_s: float
) -> None:
    await backend.publish(task_record(), status("hers"), headers=OF_ALICE)
    async with broker(backend, nats__verify_s=0.2, **CHECKED) as running:
        hers = await opened(running, *PATHS, *(NAMED if isinstance(backend, RealBackend) else ()))
        await end(backend)
        await asyncio.sleep(pause_s)  # noticed before, or by the new task's first record
        await backend.publish(task_record(), status("his"), headers=OF_BOB)
        await see_nothing_more(hers)
        for path in (PATHS[0], PATHS[3], SUBSCRIBE):
            assert (await running.get(path, bearer("alice")))[0] == 404
        his = await running.watch(headers=bearer("bob"))
        assert "his" in (await his.take(2))[1].data


async def test_a_task_begun_anew_by_its_owner_is_delivered_on(backend: Backend) -> None:
    await backend.publish(task_record(), status("hers"), headers=OF_ALICE)
    async with broker(backend, nats__verify_s=0.2, **CHECKED) as running:
        streams = await opened(running, *PATHS)
        await purged(backend)
        await backend.publish(task_record(), status("anew"), headers=OF_ALICE)
        for stream in streams:
            await stream.until(lambda frame: "anew" in frame.data)


async def test_who_waits_for_what_was_purged_comes_again_when_another_begins_it(backend: Backend) -> None:
    await backend.publish(task_record(), status("hers"), headers=OF_ALICE)
    async with broker(backend, nats__verify_s=0.1, **CHECKED) as running:
        await opened(running, PATHS[0])
        await purged(backend)
        async with asyncio.timeout(TIMEOUT_S):
            while (await running.internal("/streams", headers=bearer("root")))[1]["streams"][0][
                "served"
            ] != "waiting":
                await asyncio.sleep(0.01)
        waiting = await running.watch(headers=bearer("root"), wait_s=30)
        await waiting.item()
        await backend.publish(task_record(), status("his"), headers=OF_BOB)
        await see_nothing_more([waiting])
        again = await running.watch(headers=bearer("root"), wait_s=30)
        assert "his" in (await again.take(2))[1].data
