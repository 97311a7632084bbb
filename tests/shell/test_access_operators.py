"""The internal listener and the page's list of tasks, where credentials are needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from access_rig import (
    ACME,
    ALICES,
    BOBS,
    HERS_ELSEWHERE,
    MISSING,
    OPEN,
    OWNERLESS,
    PRINCIPALS,
    RecordingBackend,
    stocked,
)
from askers import Askers, Service, bearer, says
from brokers import OwnBroker, broker, done, status, task_record

from sidecast_broker import page
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey, events_subject

JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def checking(
    backend: RecordingBackend | None = None, **settings: Any
) -> AsyncIterator[tuple[OwnBroker, RecordingBackend]]:
    backend = backend or stocked()
    settings = {"auth__required": "true", "auth__refusal_floor_ms": 0} | settings
    async with broker(backend, authenticator=Askers(*PRINCIPALS), **settings) as running:
        backend.asked.clear()
        yield running, backend


# --- rights


@pytest.mark.parametrize(
    ("who", "streams", "publishes"),
    [
        (None, 401, 401),
        ("mallory", 401, 401),
        ("alice", 403, 403),
        ("carol", 403, 403),
        ("holder", 403, 403),
        ("teller", 403, 200),
        ("root", 200, 200),
        ("chief", 200, 200),
    ],
)
async def test_operations_need_their_rights(who: str | None, streams: int, publishes: int) -> None:
    async with checking() as (running, backend):
        headers = bearer(who) if who else {}
        before = backend.server.last
        assert (await running.internal("/streams", headers=headers))[0] == streams
        answer = await running.internal("/publish/new", "POST", task_record("new"), headers | JSON)
        assert answer[0] == publishes
        assert (backend.server.last > before) is (publishes == 200)
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await running.internal(path))[0] == 200


async def test_who_is_led_here_by_another_name_is_not_asked_for_a_credential() -> None:
    async with checking() as (running, _backend):
        headers = bearer("root") | {"Host": "evil.example"}
        assert (await running.internal("/streams", headers=headers))[0] == 421
        assert (await running.internal("/publish/x", "POST", task_record("x"), headers | JSON))[0] == 421


async def test_who_is_known_asks_of_the_streams_of_their_tenant() -> None:
    async with checking() as (running, backend):
        backend.store("there", task_record("there"), owner="alice", tenant=ACME)
        await (await running.watch(OPEN, headers=bearer("alice"))).take(2)
        await (await running.watch("there", headers=bearer("dave"))).take(2)

        async def seen(who: str) -> list[str]:
            _status, body = await running.internal("/streams", headers=bearer(who))
            return sorted(stream["task"] for stream in body["streams"])

        assert await seen("root") == [OPEN, "there"]
        assert await seen("chief") == ["there"]


# --- publishing


def stored(backend: RecordingBackend, task: str, tenant: str = "", agent: str = "agent") -> list[str | None]:
    """Give the owners that a task's records name."""
    messages = backend.server.of(events_subject(TaskKey(tenant, agent, task)))
    return [message.headers.get(names.OWNER) for message in messages]


async def test_who_publishes_owns_what_they_begin() -> None:
    async with checking() as (running, backend):
        body = task_record("new") + b"\n" + status("x", "new")
        headers = bearer("teller") | {"Content-Type": "application/x-ndjson"}
        assert (await running.internal("/publish/new", "POST", body, headers))[0] == 200
        assert (await running.internal("/publish/new", "POST", done("new"), bearer("root") | JSON))[0] == 200
        assert stored(backend, "new") == ["teller"] * 3
        assert (await running.get("/tasks/new/events", bearer("teller")))[0] == 200
        assert (await running.get("/tasks/new/events", bearer("bob")))[0] == 404


async def test_an_owner_may_be_named() -> None:
    async with checking() as (running, backend):
        path = "/publish/new?owner=bob%40example.org"
        assert (await running.internal(path, "POST", task_record("new"), bearer("teller") | JSON))[0] == 200
        assert stored(backend, "new") == ["=Ym9iQGV4YW1wbGUub3Jn"]


async def test_what_exists_keeps_its_owner() -> None:
    async with checking() as (running, backend):
        for task, owners in ((OPEN, ["alice"] * 3), (OWNERLESS, [None] * 4)):
            headers = bearer("teller") | JSON
            assert (await running.internal(f"/publish/{task}", "POST", status("x", task), headers))[0] == 200
            assert stored(backend, task) == owners
        path = f"/publish/{OPEN}?owner=mallory"
        assert (await running.internal(path, "POST", done(OPEN), bearer("teller") | JSON))[0] == 200
        assert (await running.get(f"/tasks/{OPEN}/events", bearer("alice")))[0] == 200
        assert (await running.get(f"/tasks/{OPEN}/events", bearer("mallory")))[0] == 401


@pytest.mark.parametrize("owner", ["x" * 257, "%ff", "%"])
async def test_an_owner_that_is_no_name_is_refused(owner: str) -> None:
    async with checking() as (running, backend):
        before = backend.server.last
        path = f"/publish/new?owner={owner}"
        assert (await running.internal(path, "POST", task_record("new"), bearer("teller") | JSON))[0] == 400
        assert backend.server.last == before


async def test_who_has_a_tenant_publishes_there_and_nowhere_else() -> None:
    async with checking() as (running, backend):
        headers = bearer("chief") | JSON
        for query in ("", f"?tenant={ACME}", "?agent=other"):
            path = f"/publish/new{query}"
            assert (await running.internal(path, "POST", task_record("new"), headers))[0] == 200
        assert len(stored(backend, "new", ACME)) == 2
        assert len(stored(backend, "new", ACME, "other")) == 1
        answers = [
            await running.internal(f"/publish/{task}?tenant={tenant}", "POST", task_record(task), headers)
            for task, tenant in ((ALICES, "other"), (MISSING, "other"), ("new", "_"))
        ]
        assert [code for code, _body in answers] == [404] * 3
        assert len({str(body) for _code, body in answers}) == 1


async def test_who_has_none_publishes_in_any() -> None:
    async with checking() as (running, backend):
        headers = bearer("teller") | JSON
        assert (await running.internal("/publish/new?tenant=x", "POST", task_record("new"), headers))[
            0
        ] == 200
        assert stored(backend, "new", "x") == ["teller"]


async def test_nothing_is_stored_where_owners_cannot_be_looked_up() -> None:
    async with checking() as (running, backend):
        backend.server.leaderless = True
        answer = await running.internal("/publish/new", "POST", task_record("new"), bearer("teller") | JSON)
        assert answer[0] == 503
        assert answer[1]["stored"] == []


async def test_without_credentials_no_owner_is_made_up() -> None:
    async with checking(auth__required="auto") as (running, backend):
        assert (await running.internal("/publish/new", "POST", task_record("new"), JSON))[0] == 200
        assert (await running.internal("/publish/new?owner=bob", "POST", done("new"), JSON))[0] == 200
        assert stored(backend, "new") == [None, "bob"]


# --- the page's list


async def listed(running: OwnBroker, who: str | None) -> tuple[int, Any]:
    return await running.get("/ui/api/tasks", bearer(who) if who else None)


@pytest.mark.parametrize(
    ("who", "tasks"),
    [
        ("alice", {ALICES, OPEN}),
        ("bob", {BOBS}),
        ("erin", set()),
        ("carol", {ALICES, OPEN, BOBS, OWNERLESS}),
        ("root", {ALICES, OPEN, BOBS, OWNERLESS}),
        ("insider", {ALICES, OPEN, BOBS, OWNERLESS}),
        ("dave", {HERS_ELSEWHERE}),
        ("holder", {ALICES, OPEN}),
    ],
)
async def test_a_list_shows_what_who_asks_may_watch(who: str, tasks: set[str]) -> None:
    async with checking() as (running, backend):
        code, body = await listed(running, who)
        assert code == 200
        assert {task["task"] for task in body["tasks"]} == tasks
        assert (body["truncated"], body["partial"]) == (False, False)
        assert body["tenant"] == (ACME if who == "dave" else "")
        assert [what for what, _subject in backend.asked if what != "next 1"] == []


@pytest.mark.parametrize("who", [None, "mallory"])
async def test_a_list_needs_a_credential(who: str | None) -> None:
    async with checking() as (running, _backend):
        assert (await listed(running, who))[0] == 401


async def test_later_records_give_nobody_a_place_in_the_list() -> None:
    async with checking() as (running, backend):
        backend.store(OPEN, status("x", OPEN), owner="bob")
        assert {task["task"] for task in (await listed(running, "bob"))[1]["tasks"]} == {BOBS}
        assert {task["task"] for task in (await listed(running, "alice"))[1]["tasks"]} == {ALICES, OPEN}


async def test_a_list_shows_the_newest_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecast_broker.auth.visibility.LOOKUPS_MAX", 3)
    monkeypatch.setattr(page, "TASKS_MAX", 2)
    async with checking() as (running, backend):
        for number in range(10):
            backend.store(f"b{number}", task_record(f"b{number}"), owner="bob")
        _code, body = await listed(running, "alice")
        assert [task["task"] for task in body["tasks"]] == [OPEN, ALICES]
        assert body["truncated"]
        _code, body = await listed(running, "bob")
        assert [task["task"] for task in body["tasks"]] == ["b9", "b8"]
        assert body["truncated"]


async def test_owners_are_looked_up_once_for_many_lists() -> None:
    async with checking() as (running, backend):
        for who in ("alice", "bob", "erin", "alice"):
            await listed(running, who)
        looked_up = [subject for what, subject in backend.asked if what == "next 1"]
        assert len(looked_up) == len(set(looked_up)) == 4


async def test_a_list_without_the_leader_shows_what_is_known() -> None:
    async with checking() as (running, backend):
        await listed(running, "alice")
        backend.store("later", task_record("later"), owner="alice")
        backend.server.leaderless = True
        _code, body = await listed(running, "alice")
        assert {task["task"] for task in body["tasks"]} == {ALICES, OPEN}
        backend.server.leaderless = False


async def test_a_list_asks_the_webhook_too() -> None:
    async with Service().serving() as hook:
        hook.answer = says(False)
        async with checking(auth__webhook_url=hook.url, auth__webhook_cache_s=0) as (running, _backend):
            assert (await listed(running, "erin"))[1]["tasks"] == []
            assert {asked["task"] for asked in hook.asked} == {ALICES, OPEN, BOBS, OWNERLESS}
            hook.answer = says(True)
            assert len((await listed(running, "erin"))[1]["tasks"]) == 4


async def test_the_page_itself_needs_no_credential() -> None:
    async with checking() as (running, _backend):
        assert (await running.get("/ui/"))[0] == 200
