from __future__ import annotations

import asyncio
from typing import Any

import pytest
from access_rig import PRINCIPALS
from askers import Askers, bearer
from brokers import OTHER, TASK, Backend, broker, done, status, task_record
from sse import kinds

from sidecast_schemas import headers as names

CHECKED: dict[str, Any] = {"auth__required": "true", "authenticator": Askers(*PRINCIPALS)}
OF_ALICE = {names.OWNER: "alice"}


async def test_the_first_retained_record_says_whose_a_task_is(backend: Backend) -> None:
    await backend.publish(task_record(), headers=OF_ALICE)
    await backend.publish(status("x"), done(), headers={names.OWNER: "bob"})
    await backend.publish(task_record(OTHER), task=OTHER)
    async with broker(backend, **CHECKED) as running:
        assert (await running.get(f"/tasks/{TASK}/events", bearer("alice")))[0] == 200
        for who, task in (("bob", TASK), ("alice", OTHER), ("alice", "missing")):
            assert (await running.get(f"/tasks/{task}/events", bearer(who)))[0] == 404
    # What the first record said is not known any more once it is gone: the next one counts.
    await backend.expire(1)
    async with broker(backend, **CHECKED) as running:
        assert (await running.get(f"/tasks/{TASK}/events", bearer("bob")))[0] == 200
        assert (await running.get(f"/tasks/{TASK}/events", bearer("alice")))[0] == 404


async def test_a_header_of_another_case_names_nobody(backend: Backend) -> None:
    await backend.publish(task_record(), done(), headers={**OF_ALICE, names.OWNER.lower(): "mallory"})
    async with broker(backend, **CHECKED) as running:
        assert (await running.get(f"/tasks/{TASK}/events", bearer("alice")))[0] == 200


async def test_a_task_that_begins_while_its_owner_waits_is_served(backend: Backend) -> None:
    async with broker(backend, **CHECKED) as running:
        hers, his = [
            await running.watch(headers=bearer(who), wait_s=wait_s)
            for who, wait_s in (("alice", 30), ("bob", 2))
        ]
        await asyncio.gather(hers.item(), his.item())
        await backend.publish(task_record(), done(), headers=OF_ALICE)
        assert kinds(await hers.rest()) == ["stream.open", "task.snapshot", "stream.end"]
        assert kinds(await his.rest()) == ["stream.end"]


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_with_nats_away_nobody_is_let_in_by_ownership(backend: Backend, who: str) -> None:
    await backend.publish(task_record(), headers=OF_ALICE)
    async with broker(backend, **CHECKED) as running:
        watching = await running.watch(headers=bearer("alice"))
        await watching.take(2)
        await backend.go_away()
        headers = bearer(who) | {"Accept": "application/json"}
        assert (await running.get(f"/tasks/{TASK}/events", headers))[0] == 503
        assert (await running.get("/tasks/missing/events", headers))[0] == 503
        granted = bearer("root") | {"Accept": "application/json"}
        assert (await running.get(f"/tasks/{TASK}/events", granted))[0] == 200
        await backend.come_back()
