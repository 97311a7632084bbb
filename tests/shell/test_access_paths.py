"""Every path that names a task, asked by those who may and those who may not."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from a2a_rig.wire import Wire, request
from access_rig import (
    ACME,
    ALIASES,
    ALICES,
    BOBS,
    BROWSER,
    FLOOR_MS,
    HERS_ELSEWHERE,
    MISSING,
    OPEN,
    OWNERLESS,
    PASSED,
    STREAMED,
    TASK_PATHS,
    V1_REST,
    V1_RPC,
    Ask,
    Path,
    Rig,
    answered,
    body_of,
    rig,
    status_of,
)
from aiohttp import web
from askers import Service, bearer, says
from brokers import done, status, task_record, until
from distributions import differ, same, threshold
from nats_server import free_ports
from sse import kinds

FLOOR_S = FLOOR_MS / 1000

FORBIDDEN = [
    ("bob", ALICES),
    ("bob", OPEN),
    ("bob", MISSING),
    ("bob", OWNERLESS),
    ("alice", BOBS),
    ("alice", MISSING),
    ("alice", HERS_ELSEWHERE),
    ("dave", ALICES),
    ("dave", MISSING),
    ("root", MISSING),
]
"""Who is told that there is no such task: it is another's, nobody's, in another tenant, or isn't there."""


def without_root(path: Path) -> list[tuple[str, str]]:
    # Who may see every task is told by the agent itself what it doesn't know.
    passed = path in PASSED.values() or path in STREAMED.values()
    return [each for each in FORBIDDEN if not (passed and each[0] in ("root", "dave"))]


# --- who may not


@pytest.mark.row("C07", "C52")
@pytest.mark.parametrize("path", TASK_PATHS.values(), ids=TASK_PATHS)
async def test_what_may_not_be_seen_is_byte_for_byte_what_is_not_there(path: Path) -> None:
    async with rig() as it:
        answers: set[bytes] = set()
        for who, task in without_root(path):
            began_s = time.monotonic()
            answers.add(await it.ask(path, who, task))
            assert time.monotonic() - began_s >= FLOOR_S
            asked = it.asked_of(task)
            if who not in ("root", "dave"):
                assert asked == ["next 1"]
        assert len(answers) == 1, answers
        assert status_of(answers.pop()) in (404, 200)
        assert it.agent.requests == []
        assert len(it.broker.listening.streams) == 0


@pytest.mark.row("C52")
@pytest.mark.parametrize("path", [*BROWSER.values(), STREAMED["subscribe rest-1.0"]])
async def test_a_task_in_memory_is_looked_up_like_any_other(path: Path) -> None:
    async with rig() as it:
        watching = await it.broker.watch(OPEN, headers=bearer("alice"))
        await watching.take(2)
        it.backend.asked.clear()
        hot = await it.ask(path, "bob", OPEN)
        assert it.asked_of(OPEN) == ["next 1"]
        assert hot == await it.ask(path, "bob", MISSING)


def test_the_refusal_of_each_wire() -> None:
    """The table below says what every path answers, so a path that is served by mistake can't look alike."""
    assert TASK_PATHS.keys() == REFUSALS.keys()


REFUSALS: dict[str, tuple[int, object]] = (
    dict.fromkeys(BROWSER, (404, "not-found"))
    | {name: (404, 404) for name in TASK_PATHS if "rest" in name or "by GET" in name}
    | {name: (200, -32001) for name in TASK_PATHS if "jsonrpc" in name or "rpc" in name.split()[-1]}
    | {name: (200, -32001) for name in TASK_PATHS if "push 1.0" in name or "push 0.3" in name}
    | {"subscribe /a2a": (200, -32001), "subscribe behind the agent": (404, 404)}
    | {
        name: (404, -32001)
        for name in TASK_PATHS
        if "rest-0.3" in name or "rest 0.3" in name or "GET 0.3" in name
    }
)


@pytest.mark.parametrize("name", TASK_PATHS)
async def test_a_refusal_has_the_form_of_its_wire(name: str) -> None:
    async with rig() as it:
        answer = await it.ask(TASK_PATHS[name], "bob", ALICES)
        said: Any
        if b"text/event-stream" in answer:
            said = answer.partition(b"data: ")[2].partition(b"\n")[0]
            assert b'"code":-32001' in said
            assert (status_of(answer), -32001) == REFUSALS[name]
            return
        said = body_of(answer)
        assert (status_of(answer), said.get("error", said)["code"]) == REFUSALS[name]
        assert not any(secret in answer for secret in (b"alice", b"bob", ALICES.encode()))


@pytest.mark.row("C51", "C52")
@pytest.mark.parametrize("path", TASK_PATHS.values(), ids=TASK_PATHS)
async def test_who_is_unknown_is_asked_who_they_are_before_anything_else(path: Path) -> None:
    async with rig(auth__refusal_floor_ms=0) as it:
        answers = {
            await it.ask(path, who, task) for who in (None, "mallory") for task in (ALICES, MISSING, "!x~")
        }
        assert len(answers) == 1, answers
        answer = answers.pop()
        assert status_of(answer) == 401
        assert b'\r\nWWW-Authenticate: Bearer realm="sidecast"\r\n' in answer
        assert it.backend.asked == []
        assert it.agent.requests == []


@pytest.mark.parametrize("path", [*BROWSER.values(), *STREAMED.values()])
async def test_where_owners_cannot_be_looked_up_nothing_is_said(path: Path) -> None:
    async with rig() as it:
        it.backend.server.leaderless = True
        answers = {_unjittered(await it.ask(path, "bob", task)) for task in (ALICES, MISSING, BOBS)}
        assert len(answers) == 1, answers
        assert it.agent.requests == []


def _unjittered(answer: bytes) -> bytes:
    return re.sub(rb"(retry: |reconnect_in_ms\":|Content-Length: )[0-9]+", rb"\1", answer)


# --- who may

ALLOWED = [("alice", ALICES), ("bob", BOBS), ("carol", ALICES), ("root", OWNERLESS), ("carol", BOBS)]


@pytest.mark.parametrize("path", BROWSER.values(), ids=BROWSER)
async def test_who_may_watch_is_served(path: Path) -> None:
    async with rig() as it:
        for who, task in ALLOWED:
            answer = await it.ask(path, who, task)
            assert status_of(answer) == 200
            assert b"TASK_STATE_COMPLETED" in answer
            assert "next 1" in it.asked_of(task)[:1] or who == "carol"


@pytest.mark.parametrize("path", STREAMED.values(), ids=STREAMED)
async def test_who_may_watch_gets_to_the_tasks_stream(path: Path) -> None:
    async with rig() as it:
        for who, task in ALLOWED:
            # The task has ended: that is what an A2A stream says of it (C05).
            assert b"The task has ended" in await it.ask(path, who, task)


@pytest.mark.parametrize("path", PASSED.values(), ids=PASSED)
async def test_what_passes_to_the_agent_names_who_asks(path: Path) -> None:
    async with rig() as it:
        for who, task in ALLOWED:
            answer = await it.ask(path, who, task)
            assert status_of(answer) == 200, answer
            (request, _body) = it.agent.requests.pop()
            assert it.agent.requests == []
            assert request.headers.getall("Sidecast-Principal") == [who]
            assert "Sidecast-Tenant" not in request.headers


@pytest.mark.row("C52")
@pytest.mark.parametrize("path", [*BROWSER.values(), *STREAMED.values()])
async def test_a_ticket_opens_the_tasks_it_names_and_no_others(path: Path) -> None:
    async with rig() as it:
        answers = [await it.ask(path, "holder", task) for task in (BOBS, MISSING, OWNERLESS, ALICES)]
        assert it.asked_of(BOBS) == []
        assert answers[0] == answers[1] == answers[2]
        is_post = path(ALICES).method == "POST"
        assert (answers[3] == answers[0]) is is_post
        if is_post:
            assert status_of(answers[0]) == 403


@pytest.mark.parametrize("path", PASSED.values(), ids=PASSED)
async def test_a_ticket_only_opens_streams(path: Path) -> None:
    async with rig() as it:
        answers = {await it.ask(path, "holder", task) for task in (ALICES, BOBS, MISSING)}
        assert [status_of(answer) for answer in answers] == [403]
        assert it.backend.asked == []
        assert it.agent.requests == []


async def test_a_principals_tenant_is_where_they_are() -> None:
    async with rig() as it:
        for path in BROWSER.values():
            assert status_of(await it.ask(path, "dave", HERS_ELSEWHERE)) == 200
        for path in STREAMED.values():
            assert b"The task has ended" in await it.ask(path, "dave", HERS_ELSEWHERE)
        for path in PASSED.values():
            assert status_of(await it.ask(path, "dave", HERS_ELSEWHERE)) == 200
            request, _body = it.agent.requests[-1]
            assert request.headers["Sidecast-Tenant"] == ACME


# --- other tenants


TENANTED = {
    "path": "/acme/tasks/{}:subscribe",
    "path of get": "/acme/tasks/{}",
    "query": "/tasks/{}?tenant=acme",
    "query of subscribe": "/tasks/{}:subscribe?tenant=acme",
}
TENANTED_TWICE = {
    "in capitals": "/tasks/{}?Tenant=acme",
    "twice": "/tasks/{}?tenant=&tenant=acme",
    "twice, with semicolons": "/tasks/{}?x=1;tenant=acme",
}


@pytest.mark.parametrize("target", TENANTED.values(), ids=TENANTED)
async def test_another_tenant_is_unknown(target: str) -> None:
    async with rig() as it:
        headers = {"A2A-Version": "1.0"}
        asks = [Ask("GET", target.format(task), None, headers) for task in (ALICES, HERS_ELSEWHERE, MISSING)]
        unknown = await it.ask(Ask("GET", f"/tasks/{MISSING}", None, headers), "bob")
        assert {await it.ask(ask, "insider") for ask in asks} == {unknown}
        assert it.backend.asked[1:] == []
        assert it.agent.requests == []


@pytest.mark.parametrize("target", TENANTED_TWICE.values(), ids=TENANTED_TWICE)
async def test_a_tenant_that_readers_would_read_differently_is_refused_whosever_the_task(target: str) -> None:
    async with rig() as it:
        headers = {"A2A-Version": "1.0"}
        asks = [Ask("GET", target.format(task), None, headers) for task in (ALICES, HERS_ELSEWHERE, MISSING)]
        (answer,) = {await it.ask(ask, who) for ask in asks for who in ("insider", "alice")}
        assert status_of(answer) == 400
        assert it.backend.asked[1:] == []
        assert it.agent.requests == []


@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
@pytest.mark.parametrize("do", ["subscribe", "get", "cancel", "send", "stream"])
async def test_another_tenant_in_the_parameters_is_unknown(wire: Wire, do: str) -> None:
    async with rig() as it:

        def ask(task: str, tenant: str) -> Ask:
            fields: dict[str, Any] = {"tenant": tenant} if tenant else {}
            method, path, body, headers = request(wire, do, task=task, text="go", message_id="m", **fields)
            return Ask(method, path, body, headers)

        unknown = await it.ask(ask(MISSING, ""), "bob")
        assert {await it.ask(ask(task, ACME), "insider") for task in (ALICES, HERS_ELSEWHERE)} == {unknown}
        assert it.agent.requests == []


@pytest.mark.parametrize("do", ["send", "stream", "list"])
async def test_another_tenant_is_unknown_also_where_no_task_is_named(do: str) -> None:
    async with rig() as it:
        params: dict[str, Any] = {"tenant": ACME}
        method = "ListTasks"
        if do != "list":
            params["message"] = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}
            method = "SendMessage" if do == "send" else "SendStreamingMessage"
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        answer = await it.ask(Ask("POST", "/", json.dumps(body).encode(), {"A2A-Version": "1.0"}), "insider")
        assert body_of(answer)["error"]["code"] == -32001
        assert it.agent.requests == []


# --- what stands beside the path

HIDDEN = {
    "id": ("GET", f"/tasks/{ALICES}?id={BOBS}", None),
    "taskId": ("GET", f"/tasks/{ALICES}?taskId={BOBS}", None),
    "task_id": ("GET", f"/tasks/{ALICES}/pushNotificationConfigs?task_id={BOBS}", None),
    "in another case": ("GET", f"/tasks/{ALICES}?TASKID={BOBS}", None),
    "percent-encoded": ("GET", f"/tasks/{ALICES}?task%49d={BOBS}", None),
    "name": ("GET", f"/tasks/{ALICES}?name=tasks/{BOBS}", None),
    "the body of POST": ("POST", f"/tasks/{ALICES}:cancel", b'{"id":"%b"}' % BOBS.encode()),
    "both": ("POST", f"/tasks/{ALICES}:cancel?id={BOBS}", b"{}"),
}


@pytest.mark.parametrize("name", HIDDEN)
async def test_no_other_task_can_be_named_beside_the_path(name: str) -> None:
    method, target, body = HIDDEN[name]
    async with rig() as it:
        answer = await it.ask(Ask(method, target, body, {"A2A-Version": "1.0"}), "alice")
        assert status_of(answer) == 400
        assert it.agent.requests == []


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", f"/tasks/{ALICES}"), ("DELETE", f"/tasks/{ALICES}/pushNotificationConfigs/c")],
)
async def test_a_body_where_none_belongs_does_not_reach_the_agent(method: str, target: str) -> None:
    async with rig() as it:
        body = b'{"id":"%b"}' % BOBS.encode()
        assert status_of(await it.ask(Ask(method, target, body, {"A2A-Version": "1.0"}), "alice")) == 200
        ((_request, received),) = it.agent.requests
        assert received == b""


async def test_a_query_that_names_the_same_passes() -> None:
    async with rig() as it:
        ask = Ask("GET", f"/tasks/{ALICES}?id={ALICES}&historyLength=2", None, {"A2A-Version": "1.0"})
        assert status_of(await it.ask(ask, "alice")) == 200
        assert it.agent.requests[0][0].raw_path == f"/tasks/{ALICES}?id={ALICES}&historyLength=2"


HOSTILE = [
    "*",
    ">",
    "_",
    "x" * 256,
    "x" * 257,
    "%2e%2e",
    "a%2Fb",
    "task%20of",
    "%F0%9F%98%80",
    "%ff",
    "%",
    "..;",
]


@pytest.mark.parametrize("task", HOSTILE)
async def test_an_id_of_any_kind_opens_nothing(task: str) -> None:
    async with rig() as it:
        for path in (*(BROWSER[name] for name in ALIASES), STREAMED["subscribe rest-1.0"]):
            answer = await it.ask(path, "bob", task)
            assert status_of(answer) in (400, 404)
        assert all(what == "next 1" for what, _subject in it.backend.asked)
        assert not any("*" in subject or ">" in subject for _what, subject in it.backend.asked)
        assert it.agent.requests == []


# --- waiting


def waiting(task: str, wait_s: float, path: str = ALIASES["events"]) -> Ask:
    target = path.format(task)
    query = f"{'&' if '?' in target else '?'}wait_s={wait_s}"
    return Ask("GET", target + query, None, {"Accept": "text/event-stream"})


@pytest.mark.parametrize("path", ALIASES.values(), ids=ALIASES)
async def test_a_foreign_task_waited_for_is_one_that_never_comes(path: str) -> None:
    async with rig() as it:
        began_s = time.monotonic()
        answers = await asyncio.gather(*(it.ask(waiting(task, 0.5, path), who) for who, task in FORBIDDEN))
        assert time.monotonic() - began_s >= 0.5
        assert len(set(answers)) == 1, set(answers)
        assert status_of(answers[0]) == 200
        assert b"stream.end" in answers[0]
        assert b'"not-found"' in answers[0]
        for task in (ALICES, OPEN, OWNERLESS, BOBS):
            subject = f"sidecast.v1.events._.agent.{task}"
            assert {what for what, of in it.backend.asked if of == subject} == {"next 1"}, task
        subscribed = [of for what, of in it.backend.asked if what == "subscribe"]
        assert all(MISSING in of or f".{ACME}." in of for of in subscribed), "only where a grant allows it"
        await until(lambda: not len(it.broker.listening.streams))


async def test_waiting_for_a_foreign_task_beats_like_waiting_for_none() -> None:
    async with rig(stream__heartbeat_s=0.1) as it:
        answers = await asyncio.gather(*(it.ask(waiting(t, 1.2), "bob") for t in (ALICES, MISSING)))
        beats = [answer.count(b"1\r\n:\n") + answer.count(b"2\r\n:\n") for answer in answers]
        assert min(beats) >= 4
        assert max(beats) - min(beats) <= 1
        assert answers[0].replace(b"2\r\n:\n\r\n", b"") == answers[1].replace(b"2\r\n:\n\r\n", b"")


async def test_a_task_that_begins_while_its_owner_waits_is_served() -> None:
    async with rig() as it:
        watch = await it.broker.watch("new", headers=bearer("alice"), wait_s=20)
        await until(lambda: ("next 1", "sidecast.v1.events._.agent.new") in it.backend.asked)
        assert [what for what, _subject in it.backend.asked if what != "next 1"] == []
        it.backend.store("new", task_record("new"), status("one", "new"), owner="alice")
        frames = await watch.take(2)
        assert kinds(frames) == ["stream.open", "task.snapshot"]
        assert frames[1]["task"]["id"] == "new"
        it.backend.store("new", done("new"), owner="alice")
        assert kinds(await watch.rest()) == ["task.status", "stream.end"]
        await until(lambda: not len(it.broker.listening.streams))


async def test_a_task_of_somebody_else_that_begins_meanwhile_never_comes() -> None:
    async with rig() as it:
        asked = asyncio.create_task(it.ask(waiting("task-later---", 1), "bob"))
        await until(lambda: it.backend.asked)
        it.backend.store("task-later---", task_record("task-later---"), done("task-later---"), owner="alice")
        assert await asked == await it.ask(waiting(MISSING, 0.2), "bob")


async def test_who_waits_sees_a_task_that_begins_anew_as_theirs() -> None:
    async with rig() as it:
        watch = await it.broker.watch(ALICES, headers=bearer("bob"), wait_s=20)
        await until(lambda: it.backend.asked)
        it.backend.server.purge(f"sidecast.v1.events._.agent.{ALICES}")
        it.backend.store(ALICES, task_record(ALICES), done(ALICES), owner="bob")
        assert kinds(await watch.rest()) == ["stream.open", "task.snapshot", "stream.end"]


async def test_who_has_a_grant_waits_as_without_credentials() -> None:
    async with rig() as it:
        watch = await it.broker.watch("task-new", headers=bearer("carol"), wait_s=20)
        await until(lambda: len(it.broker.listening.streams))
        it.backend.store("task-new", task_record("task-new"), done("task-new"))
        assert kinds(await watch.rest()) == ["stream.open", "task.snapshot", "stream.end"]


async def test_who_waits_while_nats_is_away_waits_on() -> None:
    async with rig() as it:
        watch = await it.broker.watch("new", headers=bearer("alice"), wait_s=20)
        await until(lambda: it.backend.asked)
        it.backend.server.leaderless = True
        count = len(it.backend.asked)
        await until(lambda: len(it.backend.asked) > count)
        it.backend.server.leaderless = False
        it.backend.store("new", task_record("new"), done("new"), owner="alice")
        assert kinds(await watch.rest()) == ["stream.open", "task.snapshot", "stream.end"]


async def test_who_waits_is_sent_away_by_a_drain() -> None:
    async with rig() as it:
        watches = [
            await it.broker.watch(task, headers=bearer("bob"), wait_s=30) for task in (ALICES, MISSING)
        ]
        await until(lambda: len(it.broker.listening.streams) == 2)
        await it.broker.listening.streams.drain()
        assert [kinds(await watch.rest()) for watch in watches] == [["stream.drain"]] * 2


async def test_who_leaves_while_waiting_leaves_nothing_behind() -> None:
    async with rig() as it:
        for task in (ALICES, MISSING):
            watch = await it.broker.watch(task, headers=bearer("bob"), wait_s=30)
            await until(lambda: len(it.broker.listening.streams))
            await watch.close()
            await until(lambda: not len(it.broker.listening.streams))
            it.backend.asked.clear()
        await it.ask(BROWSER["events"], "bob", MISSING)
        assert it.backend.asked == [("next 1", f"sidecast.v1.events._.agent.{MISSING}")]


# --- the webhook

SERVICES: dict[str, Any] = {
    "refuses": says(False),
    "fails": lambda _asked: web.Response(status=500),
    "is slow": None,
}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("path", [*(BROWSER[name] for name in ALIASES), *STREAMED.values(), *PASSED.values()])
async def test_a_webhook_that_does_not_allow_is_as_no_task(path: Path, service: str) -> None:
    over = asyncio.Event()

    async def never(_asked: dict[str, Any]) -> web.StreamResponse:
        await over.wait()
        return web.json_response({"allow": True})

    async with Service().serving() as hook:
        hook.answer = SERVICES[service] or never
        timeout_s = 0.2 if SERVICES[service] is None else 10
        async with rig(auth__webhook_url=hook.url, auth__webhook_timeout_s=timeout_s) as it:
            answers = {await it.ask(path, "erin", task) for task in (ALICES, MISSING, OWNERLESS)}
            assert len(answers) == 1, answers
            assert [asked["task"] for asked in hook.asked] == [ALICES, MISSING, OWNERLESS]
            assert {what for what, _subject in it.backend.asked} == {"next 1"}
            assert it.agent.requests == []
        over.set()


async def test_a_webhook_that_is_away_allows_nothing() -> None:
    (port,) = free_ports(1)
    async with rig(auth__webhook_url=f"http://127.0.0.1:{port}/") as it:
        for path in (BROWSER["events"], STREAMED["subscribe rest-1.0"], PASSED["get rest-1.0"]):
            assert status_of(await it.ask(path, "erin", ALICES)) == 404


async def test_a_webhook_that_allows_opens_what_there_is() -> None:
    async with Service().serving() as hook:
        async with rig(auth__webhook_url=hook.url) as it:
            for path in BROWSER.values():
                assert status_of(await it.ask(path, "erin", ALICES)) == 200
                assert status_of(await it.ask(path, "erin", MISSING)) == 404
            for path in STREAMED.values():
                assert b"The task has ended" in await it.ask(path, "erin", ALICES)
            for path in PASSED.values():
                assert status_of(await it.ask(path, "erin", ALICES)) == 200
        actions = {asked["action"] for asked in hook.asked if asked["task"] == ALICES}
        assert actions == {"watch", "send", "cancel", "notify"}
        assert len(hook.asked) == 5, "each question is asked once"


# --- time


async def times(it: Rig, path: Path, cases: list[tuple[str, str]], rounds: int) -> list[list[float]]:
    """Measure answers in random order, a dozen at a time."""
    order = [index for index in range(len(cases)) for _ in range(rounds)]
    random.Random(1).shuffle(order)
    found: list[list[float]] = [[] for _ in cases]
    slots = asyncio.Semaphore(12)

    async def measure(index: int) -> None:
        who, task = cases[index]
        async with slots:
            began_s = time.perf_counter()
            await answered(it.broker.url, path(task), who)
            found[index].append(time.perf_counter() - began_s)

    await asyncio.gather(*map(measure, order))
    return found


ROUNDS = 80
SAME = threshold(ROUNDS, 1.95)

TIMED = [("bob", ALICES), ("bob", MISSING), ("alice", HERS_ELSEWHERE), ("holder", MISSING)]
"""The owner is looked up of the first three; the ticket decides the last."""


@pytest.mark.row("C52")
@pytest.mark.parametrize(
    "name", ["events", "events json", "subscribe by GET", "subscribe rest-1.0", "subscribe jsonrpc-0.3"]
)
async def test_how_long_a_refusal_takes_tells_nothing(name: str) -> None:
    # A ticket is refused every POST, before any task is looked at.
    asked = [each for each in TIMED if each[0] != "holder" or TASK_PATHS[name](ALICES).method == "GET"]
    async with rig(auth__refusal_floor_ms=100) as it:
        # A large first record takes its time on the way; one that isn't there takes none.
        it.backend.slow = lambda found: 0.02 if found is not None else 0.0

        async def measure() -> list[list[float]]:
            found = await times(it, TASK_PATHS[name], asked, ROUNDS)
            assert min(map(min, found)) >= 0.1
            return found

        await same(measure, SAME)


async def test_when_a_stream_that_waits_opens_tells_nothing() -> None:
    async with rig(auth__refusal_floor_ms=100) as it:
        it.backend.slow = lambda found: 0.02 if found is not None else 0.0

        async def measure() -> list[list[float]]:
            found = await times(it, lambda task: waiting(task, 0.05), TIMED[:3], ROUNDS)
            assert min(map(min, found)) >= 0.15
            return found

        await same(measure, SAME)


async def test_without_the_floor_it_would_tell() -> None:
    async with rig(auth__refusal_floor_ms=0) as it:
        it.backend.slow = lambda found: 0.02 if found is not None else 0.0

        async def measure() -> list[list[float]]:
            return (await times(it, BROWSER["events"], TIMED, ROUNDS))[:2]

        await differ(measure, 2 * SAME)


async def test_the_end_of_a_body_sent_late_tells_nothing() -> None:
    async with rig(auth__refusal_floor_ms=100) as it:
        ask = STREAMED["subscribe jsonrpc-1.0"](ALICES)
        head, _, body = ask.raw("bob").partition(b"\r\n\r\n")
        address = urlsplit(it.broker.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(head + b"\r\n\r\n" + body[:-1])
        await asyncio.sleep(0.15)
        writer.write(body[-1:])
        began_s = time.monotonic()
        await reader.read()
        assert time.monotonic() - began_s >= 0.1
        writer.close()
        await writer.wait_closed()


# --- without credentials


async def test_without_credentials_nothing_is_asked_for_and_nothing_held_back() -> None:
    async with rig(auth__required="auto", auth__refusal_floor_ms=10_000) as it:
        for path in BROWSER.values():
            assert status_of(await it.ask(path, None, BOBS)) == 200
            async with asyncio.timeout(5):
                assert status_of(await it.ask(path, None, MISSING)) == 404
        for path in PASSED.values():
            assert status_of(await it.ask(path, None, MISSING)) == 200
        assert not any("Sidecast-Principal" in request.headers for request, _body in it.agent.requests)


async def test_opening_without_credentials_asks_the_stream_what_it_asked_before() -> None:
    async with rig(auth__required="auto") as it:
        await it.ask(BROWSER["events"], None, ALICES)
        assert it.asked_of(ALICES) == ["next 1", "subscribe", "last", "read", "next 1"][:4]
