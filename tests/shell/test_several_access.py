"""Several tasks on one stream, for who may see some of them: what may not be seen is like what isn't."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest
from access_rig import ALICES, BOBS, MISSING, OPEN, PRINCIPALS, stocked
from aiohttp import web
from askers import EVERYTHING, Askers, Service, bearer, says
from brokers import OwnBroker, broker, done, status, subject_of, task_record, until
from lives import revoke
from sse import Frame, Watch, exchange, kinds

from sidecast_broker.answers import Away
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.current import Current
from sidecast_broker.entry import Member
from sidecast_schemas.subjects import TaskKey

FLOOR_MS = 20
JSON = {"Accept": "application/json"}
CHECKED = {
    "authenticator": Askers(*PRINCIPALS),
    "auth__required": "true",
    "auth__refusal_floor_ms": FLOOR_MS,
}


async def watch(running: OwnBroker, who: str, query: str, cursor: str | None = None) -> Watch:
    return await running.watch(path=f"/events?{query}", cursor=cursor, headers=bearer(who))


def whose(frames: list[Frame]) -> set[str]:
    return {frame["taskId"] for frame in frames if "taskId" in frame.json}


async def raw(running: OwnBroker, who: str, query: str) -> bytes:
    """Give all bytes of an answer."""
    head = (
        f"GET /events?{query} HTTP/1.1\r\nHost: b\r\nConnection: close\r\nAuthorization: Bearer {who}\r\n\r\n"
    )
    answer = await exchange(running.url, head.encode())
    return re.sub(rb"Date: [^\r]*", b"", answer)


# --- lists


@pytest.mark.parametrize("more", ["", "&wait_s=0.3", "&from=now", "&from=start"])
async def test_a_foreign_task_in_a_list_is_to_the_byte_like_a_missing_one(more: str) -> None:
    async with broker(stocked(), **CHECKED) as running:
        for hers in (f"task={ALICES}&", ""):
            answers = [
                (await raw(running, "alice", f"{hers}task={task}{more}")).replace(task.encode(), b"task")
                for task in (BOBS, MISSING)
            ]
            assert answers[0] == answers[1]
            assert (b" 404 " in answers[0]) == (not hers and "wait" not in more)


async def test_a_foreign_task_needs_as_much_looking_up_as_a_missing_one_and_is_not_opened() -> None:
    backend = stocked()
    async with broker(backend, **CHECKED) as running:
        asked = []
        for task in (BOBS, MISSING):
            backend.asked.clear()
            await raw(running, "alice", f"task={ALICES}&task={task}")
            asked.append([question for question, subject in backend.asked if subject.endswith(task)])
        assert asked[0] == asked[1] == ["next 1"]


async def test_a_list_with_something_unseen_is_answered_no_sooner_than_a_refusal() -> None:
    backend = stocked()
    async with broker(backend, **(CHECKED | {"auth__refusal_floor_ms": 200})) as running:
        for task in (BOBS, MISSING):
            began_s = time.monotonic()
            stream = await watch(running, "alice", f"task={OPEN}&task={task}")
            await stream.take(2)
            assert time.monotonic() - began_s >= 0.2


async def test_a_foreign_task_that_begins_while_it_is_waited_for_is_never_seen() -> None:
    backend = stocked()
    async with broker(backend, **CHECKED) as running:
        stream = await watch(running, "alice", f"task={OPEN}&task={BOBS}&task=new&task=hers&wait_s=1")
        await stream.take(2)
        backend.asked.clear()
        backend.store("new", task_record("new"), status("secret", "new"), owner="bob")
        backend.store(BOBS, status("secret", BOBS), owner="bob")
        backend.store("hers", task_record("hers"), status("mine", "hers"), owner="alice")
        backend.store(OPEN, status("on", OPEN), owner="alice")
        frames = await stream.take(5)
        assert [(frame.kind, frame["taskId"]) for frame in frames] == [
            ("task.snapshot", "hers"),
            ("task.status", "hers"),
            ("task.status", OPEN),
            ("stream.end", "new"),
            ("stream.end", BOBS),
        ] or {frame["taskId"] for frame in frames[3:]} == {"new", BOBS}
        assert not [entry for entry in backend.asked if entry[1].endswith((".new", BOBS))]
        assert b"secret" not in bytes(stream.raw)


async def test_a_ticket_opens_the_tasks_it_holds_and_no_others() -> None:
    async with broker(stocked(), **CHECKED) as running:
        stream = await watch(running, "holder", f"task={ALICES}&task={OPEN}&task={BOBS}")
        frames = await stream.take(5)
        assert whose(frames[:-1]) == {ALICES, OPEN}
        assert [(f["taskId"], f["reason"]) for f in frames if f.kind == "stream.end"][-1] == (
            BOBS,
            "not-found",
        )


# --- the whole agent


async def test_an_agent_is_what_one_owns_or_has_a_grant_for() -> None:
    backend = stocked()
    async with broker(backend, **CHECKED) as running:
        hers = await watch(running, "alice", "agent=1")
        his = await watch(running, "bob", "agent=1")
        every = await watch(running, "root", "agent=1")
        assert whose(await hers.take(4)) == {ALICES, OPEN}  # with the end of the one that is over
        assert whose(await his.take(3)) == {BOBS}
        assert len(whose(await every.take(8))) == 4
        for number in range(3):
            backend.store(f"a{number}", task_record(f"a{number}"), owner="alice")
            backend.store(f"b{number}", task_record(f"b{number}"), owner="bob")
        assert whose(await hers.take(3)) == {"a0", "a1", "a2"}
        assert whose(await his.take(3)) == {"b0", "b1", "b2"}
        assert [frame["taskId"] for frame in await every.take(6)] == ["a0", "b0", "a1", "b1", "a2", "b2"]
        cursor = hers.frames[-3].id
        backend.store("a0", status("on", "a0"), owner="alice")
        assert (await hers.next())["taskId"] == "a0"
        again = await watch(running, "alice", "agent=1", cursor)
        assert [frame["taskId"] for frame in (await again.take(4))[1:]] == ["a1", "a2", "a0"]


async def test_new_tasks_of_others_cost_no_look_up() -> None:
    backend = stocked()
    async with broker(backend, **CHECKED) as running:
        stream = await watch(running, "alice", "agent=1")
        await stream.take(4)
        backend.asked.clear()
        for number in range(20):
            backend.store(f"b{number}", task_record(f"b{number}"), owner="bob")
        backend.store(OPEN, status("on", OPEN), owner="alice")
        assert (await stream.next())["taskId"] == OPEN
        assert not [subject for _question, subject in backend.asked if ".b" in subject]


async def test_a_webhook_is_asked_as_tasks_appear() -> None:
    backend, service = stocked(), Service()
    service.answer = lambda asked: says(asked["task"] == "shared")(asked)
    async with service.serving(), broker(backend, auth__webhook_url=service.url, **CHECKED) as running:
        stream = await watch(running, "erin", "agent=1")
        assert kinds(await stream.take(1)) == ["stream.open"]
        backend.store("private", task_record("private"), owner="bob")
        backend.store("shared", task_record("shared"), owner="bob")
        assert (await stream.next())["taskId"] == "shared"


async def test_a_slow_webhook_is_asked_about_many_new_tasks_at_once() -> None:
    backend, service, count = stocked(), Service(), 20
    all_asked = asyncio.Event()

    async def answer(asked: dict[str, Any]) -> web.StreamResponse:
        if asked["task"].startswith("private"):
            if sum(each["task"].startswith("private") for each in service.asked) >= count:
                all_asked.set()
            await all_asked.wait()
        return web.json_response({"allow": not asked["task"].startswith("private")})

    service.answer = answer
    changes: dict[str, Any] = {"auth__webhook_timeout_s": 5, **CHECKED}
    async with service.serving(), broker(backend, auth__webhook_url=service.url, **changes) as running:
        stream = await watch(running, "erin", "agent=1")
        assert (await stream.take(1))[0].kind == "stream.open"
        for number in range(count):
            backend.store(f"private{number}", task_record(f"private{number}"), owner="bob")
        backend.store("shared", task_record("shared"), status("seen", "shared"), owner="bob")
        assert (await stream.until("task.status"))[-1]["text"] == "seen"


async def test_a_tenant_bounds_the_agent() -> None:
    async with broker(stocked(), **CHECKED) as running:
        stream = await watch(running, "dave", "agent=1")
        assert whose(await stream.take(3)) == {"task-of-acme-"}


async def test_who_is_nobody_is_refused() -> None:
    async with broker(stocked(), **CHECKED) as running:
        for query in ("agent=1", f"task={ALICES}", "context=context-1"):
            assert (await watch(running, "nobody", query)).status == 401


async def test_a_context_brings_only_what_may_be_seen_of_it() -> None:
    backend = stocked()
    async with broker(backend, **CHECKED) as running:
        stream = await watch(running, "bob", "context=context-1")
        assert whose(await stream.take(3)) == {BOBS}
        backend.store("a0", task_record("a0"), owner="alice")
        backend.store("b0", task_record("b0"), owner="bob")
        assert (await stream.next())["taskId"] == "b0"


@pytest.mark.parametrize("query", ["context=context-1", "context=another", "agent=1"])
async def test_how_long_tasks_are_looked_for_tells_nothing_of_those_of_others(query: str) -> None:
    backend = stocked()
    backend.slow = lambda found: 0.04 if found is not None else 0.0  # the owner of what is there
    async with broker(backend, **(CHECKED | {"auth__refusal_floor_ms": 600})) as running:
        for accept in ("application/json", "text/event-stream"):
            began_s = time.monotonic()
            headers = bearer("erin") | {"Accept": accept}
            if accept == "application/json":
                assert (await running.get(f"/events?{query}", headers))[1]["tasks"] == []
            else:
                await (await running.watch(path=f"/events?{query}", headers=headers)).take(1)
            assert 0.6 <= time.monotonic() - began_s < 1.2


async def test_owners_that_can_not_be_looked_up_are_no_tasks_that_are_missing() -> None:
    backend = stocked()

    def away(_found: object) -> float:
        raise Away("no leader")

    async with broker(backend, **CHECKED) as running:
        backend.slow = away
        assert (await running.get("/events?agent=1", bearer("alice") | JSON))[0] == 503


@pytest.mark.parametrize("query", [f"task={OPEN}&task={ALICES}", "agent=1", "context=context-1"])
async def test_a_task_that_is_another_owners_once_it_is_read_is_not_shown(
    query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Purged and begun anew between the look-up of its owner and the reading of what is stored."""
    backend = stocked()
    take = Current.take

    async def late(current: Current, keys: Iterable[TaskKey], *, begun: bool = False) -> list[Member]:
        if wanted := list(keys):
            backend.server.purge(subject_of(OPEN))
            backend.store(OPEN, task_record(OPEN), status("secret", OPEN), owner="bob")
        return await take(current, wanted, begun=begun)

    async with broker(backend, **CHECKED) as running:
        monkeypatch.setattr(Current, "take", late)
        stream = await watch(running, "alice", query)
        await stream.take(2)
        monkeypatch.undo()
        if "task=" not in query:
            backend.store("hers", task_record("hers"), owner="alice")
            await stream.until(lambda frame: frame.json.get("taskId") == "hers")
        assert b"secret" not in bytes(stream.raw)
        assert OPEN not in whose(stream.frames)


# --- what ends


async def test_a_revoked_task_is_taken_off_and_the_others_go_on() -> None:
    backend = stocked()
    backend.store("second", task_record("second"), owner="alice")
    async with broker(backend, **CHECKED) as running:
        streams = [
            await watch(running, "alice", f"task={OPEN}&task=second"),
            await watch(running, "alice", f"task={OPEN}&task=second"),
            await watch(running, "root", "agent=1"),
        ]
        for stream, count in zip(streams, (3, 3, 9), strict=True):
            await stream.take(count)
        await revoke(running, task=OPEN)
        for stream in streams:
            (end,) = await stream.take(1)
            assert (end.kind, end["taskId"], end["reason"], end["state"]) == (
                "stream.end",
                OPEN,
                "revoked",
                None,
            )
        backend.store(OPEN, status("secret", OPEN), owner="alice")
        backend.store("second", status("on", "second"), owner="alice")
        for stream in streams:
            assert (await stream.next())["taskId"] == "second"
        backend.store("second", done("second"), owner="alice")
        assert (await streams[0].rest())[-1]["reason"] == "tasks-ended"
        again = await watch(running, "alice", f"task={OPEN}&task=second", "epoch1-1")
        assert OPEN not in whose([frame for frame in await again.rest() if frame.kind.startswith("task.")])


async def test_what_was_read_of_a_revoked_task_is_not_sent() -> None:
    backend = stocked()
    backend.store("second", task_record("second"), owner="alice")
    for number in range(20):
        for task in (OPEN, "second"):
            backend.store(task, status(f"{number}", task), owner="alice")
    async with broker(backend, **CHECKED, pace__burst=2) as running:
        stream = await watch(running, "alice", f"task={OPEN}&task=second&from=start&max_rate=40")
        await stream.take(6)
        await revoke(running, task=OPEN)
        await stream.until(lambda frame: frame.json.get("reason") == "revoked")
        backend.store("second", done("second"), owner="alice")
        rest = await stream.rest()
        assert {frame["taskId"] for frame in rest if frame.kind.startswith("task.")} == {"second"}
        assert rest[-1]["reason"] == "tasks-ended"


async def test_a_revoked_principal_loses_the_stream() -> None:
    async with broker(stocked(), **CHECKED) as running:
        stream = await watch(running, "alice", f"task={OPEN}&task={ALICES}")
        await stream.take(3)
        await revoke(running, principal="alice")
        (end,) = [frame for frame in await stream.rest() if "taskId" not in frame.json]
        assert (end["reason"], end["state"]) == ("revoked", None)


async def test_the_credentials_end_is_the_streams() -> None:
    ends = Principal("ends", "jwt", grants=(EVERYTHING,), ends_at_s=time.time() + 1.5)
    async with broker(stocked(), **(CHECKED | {"authenticator": Askers(ends)})) as running:
        stream = await watch(running, "ends", "agent=1")
        assert kinds(await stream.rest())[-2:] == ["stream.expiring", "stream.end"]
        assert stream.frames[-1]["reason"] == "expired"


async def test_what_was_open_is_closed_when_the_last_client_has_left() -> None:
    backend = stocked()
    async with broker(backend, log__idle_s=0, **CHECKED) as running:
        streams = await asyncio.gather(*(watch(running, "alice", f"task={OPEN}") for _ in range(3)))
        for stream in streams:
            await stream.take(2)
        (connection,) = backend.connections
        assert len(connection._subscriptions) >= 2
        for stream in streams:
            await stream.close()
        await until(lambda: not connection._subscriptions)
