"""What is revoked is refused on every path: a credential like an invalid one, a task like a missing one."""

from __future__ import annotations

import pytest
from access_rig import ACME, BROWSER, OPEN, PRINCIPALS, TASK_PATHS, RecordingBackend, rig, stocked
from askers import Askers, bearer
from brokers import broker, task_record, until
from lives import revoke
from sse import kinds


@pytest.mark.row("C07")
async def test_a_revoked_task_is_like_one_there_is_not_on_every_path() -> None:
    gone, hers = "task-missing-", OPEN
    async with rig() as run:
        await revoke(run.broker, task=hers)
        for name, path in TASK_PATHS.items():
            unknown = await run.ask(path, "bob", gone)
            for who in ("alice", "root", "carol", "bob", "holder"):
                if who == "holder" and name not in BROWSER:
                    continue  # a ticket is for streams only
                known = await run.ask(path, who, hers)
                assert known.replace(hers.encode(), gone.encode()) == unknown, (who, name)
        page = await run.broker.get("/ui/api/tasks", bearer("alice"))
        assert hers not in [task["task"] for task in page[1]["tasks"]]


async def test_a_revoked_task_needs_as_much_looking_up_as_one_there_is_not() -> None:
    backend = stocked()
    async with rig(backend) as run:
        await revoke(run.broker, task=OPEN)
        for who in ("alice", "root"):
            asked = []
            for task in (OPEN, "task-missing-"):
                run.backend.asked.clear()
                await run.ask(BROWSER["events json"], who, task)
                asked.append(run.asked_of(task))
            assert asked[0] == asked[1] != []


async def test_a_revoked_principal_is_refused_everywhere_but_not_others() -> None:
    async with rig() as run:
        await revoke(run.broker, principal="alice")
        for name, path in TASK_PATHS.items():
            answer = await run.ask(path, "alice", OPEN)
            assert int(answer.split(b" ", 2)[1]) == 401, name
            assert b"WWW-Authenticate" in answer, name
        assert (await run.broker.get("/ui/api/tasks", bearer("alice")))[0] == 401
        assert (await run.broker.get("/ui/api/tasks", bearer("bob")))[0] == 200
        # Also who revokes can be.
        await revoke(run.broker, principal="root")
        assert (await run.broker.internal("/streams", headers=bearer("root")))[0] == 401


async def test_who_was_revoked_in_a_tenant_has_nothing_there() -> None:
    async with rig(agent__tenant=ACME) as run:
        path = BROWSER["events json"]
        assert b" 200 " in await run.ask(path, "alice", "task-of-acme-")
        await revoke(run.broker, "chief", principal="alice")
        known, unknown = [await run.ask(path, "alice", task) for task in ("task-of-acme-", "task-missing-")]
        assert known == unknown
        assert b" 404 " in known
        # Within the same tenant somebody else by another credential goes on.
        assert b" 200 " in await run.ask(path, "dave", "task-of-acme-")


async def test_open_streams_of_what_is_revoked_end_and_others_go_on() -> None:
    settings = {"authenticator": Askers(*PRINCIPALS), "auth__required": "true"}
    async with broker(stocked(), **settings) as running:
        hers, roots = [await running.watch(OPEN, headers=bearer(who)) for who in ("alice", "root")]
        for stream in (hers, roots):
            await stream.take(2)
        await revoke(running, principal="alice")
        (end,) = await hers.rest()
        assert (end.kind, end["reason"], end["state"]) == ("stream.end", "revoked", None)
        assert not hers.broken
        await revoke(running, task=OPEN)
        assert [frame["reason"] for frame in await roots.rest()] == ["revoked"]
        await running.until_metric("sidecast_streams_closed_total", 2, reason="revoked")


async def test_a_revoked_task_that_is_waited_for_never_comes() -> None:
    backend = stocked()
    floor = {"auth__refusal_floor_ms": 0, "auth__required": "true"}
    async with broker(backend, authenticator=Askers(*PRINCIPALS), **floor) as running:
        await revoke(running, task="new")
        hers = await running.watch("new", headers=bearer("alice"), wait_s=1)
        await until(lambda: len(running.listening.streams))
        backend.store("new", task_record("new"), owner="alice")
        assert [frame["reason"] for frame in await hers.rest()] == ["not-found"]


async def test_before_what_is_revoked_is_known_streams_are_refused_for_a_moment() -> None:
    backend = RecordingBackend()
    backend.server.away = True
    async with broker(
        backend, ready=False, authenticator=Askers(*PRINCIPALS), auth__required="true"
    ) as running:
        path = f"/tasks/{OPEN}/events"
        busy = await running.watch(OPEN, headers=bearer("root"))
        frames = await busy.rest()
        assert (kinds(frames), frames[0]["reason"]) == (["stream.busy"], "unavailable")
        status, answer = await running.get(path, bearer("root") | {"Accept": "application/json"})
        assert (status, answer["error"]["code"]) == (503, "unavailable")
        assert (await running.internal("/livez"))[0] == 200
        assert (await running.internal("/readyz"))[0] == 200
        await backend.come_back()
        backend.store(OPEN, task_record(OPEN))
        await running.ready()
        assert (await running.get(path, bearer("root") | {"Accept": "application/json"}))[0] == 200
