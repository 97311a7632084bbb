"""A2A with credentials: sends and their turns, lists, the card, and what passes to the agent besides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from a2a_rig.awkward import frames, saying, streamed, unary
from a2a_rig.wire import V03_REST, V03_RPC, V1_REST, V1_RPC, WIRES, Wire, request
from access_rig import (
    ACME,
    ALICES,
    BOBS,
    HERS_ELSEWHERE,
    MISSING,
    OPEN,
    OWNERLESS,
    Ask,
    Rig,
    body_of,
    rig,
    status_of,
)
from aiohttp import web
from brokers import done, status, task_record, turn, until

from sidecast_broker.auth import access
from sidecast_schemas import headers as names

CREATED = "task-created-"


def send(
    wire: Wire,
    do: str = "stream",
    *,
    task: str = "",
    message_id: str = "m-new",
    headers: dict[str, str] | None = None,
) -> Ask:
    """Give a request that sends a message."""
    method, path, body, own = request(wire, do, task=task, text="go", message_id=message_id)
    return Ask(method, path, body, own | (headers or {}))


def task_of(task: str, state: str = "COMPLETED") -> dict[str, Any]:
    return {"id": task, "contextId": "context-1", "status": {"state": f"TASK_STATE_{state}"}}


def begins(
    it: Rig, task: str, owner: str | None, *, tenant: str = "", late: asyncio.Event | None = None
) -> Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]:
    """Be an agent that begins a task, ends it at once, and publishes that as its adapter does."""

    async def publish() -> None:
        if late is not None:
            await late.wait()
        payloads = (task_record(task), turn("m-new", "begin"), done(task), turn("m-new", "end"))
        it.backend.store(task, *payloads, owner=owner, tenant=tenant)

    async def answer(http: web.Request, body: bytes) -> web.StreamResponse:
        publishing = asyncio.create_task(publish())
        if late is None:
            await publishing
        asked = json.loads(body)
        rpc_id = asked.get("id") if http.path == "/" else None
        said = {"task": task_of(task)}
        if "Stream" in str(asked.get("method")) or http.path.endswith(":stream"):
            return await streamed([frames(said, rpc_id=rpc_id)])(http, body)
        return await unary(said)(http, body)

    return answer


def unknown_on(wire: Wire, do: str, answer: bytes) -> bool:
    """Tell whether an answer says that there is no such task."""
    if wire == V03_RPC and do == "stream":
        return b'data: {"jsonrpc":"2.0","id":1,"error":{"code":-32001' in answer
    said = body_of(answer)
    error = said.get("error", said)
    return "code" in error and error["code"] in (-32001, 404) and "result" not in said


# --- sends


@pytest.mark.parametrize("do", ["stream", "send"])
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_who_sends_is_named_to_the_agent_and_sees_what_they_have_begun(wire: Wire, do: str) -> None:
    async with rig() as it:
        it.agent.answer = begins(it, CREATED, "alice")
        answer = await it.ask(send(wire, do), "alice")
        assert status_of(answer) == 200
        assert CREATED.encode() in answer
        (http, _body) = it.agent.requests[0]
        assert http.headers.getall("Sidecast-Principal") == ["alice"]
        watched = await it.ask(Ask("GET", f"/tasks/{CREATED}/events", None, {}), "alice")
        assert b"TASK_STATE_COMPLETED" in watched
        assert status_of(await it.ask(Ask("GET", f"/tasks/{CREATED}/events", None, {}), "bob")) == 404


@pytest.mark.parametrize("do", ["stream", "send"])
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_task_of_somebody_else_is_not_shown_whatever_the_agent_answers(wire: Wire, do: str) -> None:
    async with rig() as it:
        said: dict[str, Any] = {"task": task_of(BOBS) | {"history": [{"text": "secret"}]}}
        stream = streamed([frames(said, rpc_id=1)])

        async def answer(http: web.Request, body: bytes) -> web.StreamResponse:
            return await (stream if do == "stream" else unary(said))(http, body)

        it.agent.answer = answer
        answered = await it.ask(send(wire, do), "alice")
        assert unknown_on(wire, do, answered), answered
        assert b"secret" not in answered
        assert not [what for what in it.asked_of(BOBS) if what != "next 1"]


@pytest.mark.parametrize("do", ["stream", "send"])
async def test_a_task_that_names_no_owner_is_shown_to_who_has_sent(do: str) -> None:
    async with rig() as it:
        it.agent.answer = begins(it, CREATED, None)
        assert CREATED.encode() in await it.ask(send(V1_RPC, do), "alice")
        watched = await it.ask(Ask("GET", f"/tasks/{CREATED}/events", None, {}), "alice")
        assert status_of(watched) == 404, "but to watch it later needs a grant"


@pytest.mark.parametrize("do", ["stream", "send"])
async def test_an_answer_waits_for_the_log_to_say_whose_task_it_is(do: str) -> None:
    async with rig() as it:
        late = asyncio.Event()
        it.agent.answer = begins(it, CREATED, "alice", late=late)
        answer = asyncio.create_task(it.ask(send(V1_RPC, do), "alice"))
        await until(lambda: it.backend.asked.count(("next 1", f"sidecast.v1.events._.agent.{CREATED}")) > 1)
        assert not answer.done()
        late.set()
        assert CREATED.encode() in await answer


async def test_an_answer_about_a_task_nobody_publishes_comes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "FOLLOW_S", 0.05)
    async with rig() as it:
        it.agent.answer = unary({"task": task_of(CREATED)})
        assert body_of(await it.ask(send(V1_RPC, "send"), "alice"))["result"]["task"]["id"] == CREATED


@pytest.mark.parametrize("do", ["stream", "send"])
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_an_answer_that_is_a_message_alone_waits_for_nothing(wire: Wire, do: str) -> None:
    async with rig() as it:
        said = {"message": {"messageId": "a", "role": "ROLE_AGENT", "parts": [{"text": "hello"}]}}
        it.agent.answer = unary(said) if do == "send" else saying(said)
        assert b"hello" in await it.ask(send(wire, do), "alice")
        assert it.backend.asked == []


async def test_a_send_whose_answer_cannot_be_read_is_not_passed_back() -> None:
    async with rig() as it:
        it.agent.answer = unary({"task": {"id": ["secret"], "status": "secret"}})
        answer = await it.ask(send(V1_RPC, "send"), "alice")
        assert body_of(answer)["error"]["code"] == -32006
        assert b"secret" not in answer


async def test_the_agents_own_refusal_of_a_send_is_passed_back_as_it_is() -> None:
    async with rig() as it:
        error = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32099, "message": "too late", "data": [1.50]}}
        it.agent.answer = unary(error)
        assert body_of(await it.ask(send(V1_RPC, "send"), "alice")) == error


@pytest.mark.parametrize("do", ["stream", "send"])
@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_tasks_a_message_refers_to_must_be_the_senders_too(wire: Wire, do: str) -> None:
    async with rig() as it:

        def refers(*tasks: str, to: str = "") -> Ask:
            ask = send(wire, do, task=to)
            body = json.loads(ask.body or b"")
            message = body.get("params", body)["message"]
            message["referenceTaskIds"] = list(tasks)
            return ask._replace(body=json.dumps(body).encode())

        it.agent.answer = begins(it, CREATED, "alice")
        unknown = await it.ask(refers(MISSING), "alice")
        assert unknown_on(wire, do, unknown)
        for tasks in (
            [BOBS],
            [ALICES, BOBS],
            [BOBS, ALICES],
            [OWNERLESS],
            [ALICES, MISSING],
            [HERS_ELSEWHERE],
        ):
            assert await it.ask(refers(*tasks), "alice") == unknown
        assert await it.ask(refers(BOBS, to=OPEN), "alice") == unknown
        assert it.agent.requests == []
        assert CREATED.encode() in await it.ask(refers(ALICES, OPEN, ALICES), "alice")
        assert CREATED.encode() in await it.ask(refers(BOBS, ALICES), "carol")


async def test_the_same_message_of_two_principals_is_two_turns() -> None:
    async with rig() as it:
        it.agent.answer = begins(it, CREATED, "alice")
        assert CREATED.encode() in await it.ask(send(V1_RPC), "alice")
        it.agent.answer = begins(it, "task-second--", "bob")
        answer = await it.ask(send(V1_RPC), "bob")
        assert b"task-second--" in answer
        assert CREATED.encode() not in answer
        assert len(it.agent.requests) == 2
        # And each attaches to their own again.
        assert CREATED.encode() in await it.ask(send(V1_RPC), "alice")
        assert b"task-second--" in await it.ask(send(V1_RPC), "bob")
        assert len(it.agent.requests) == 2


async def test_the_same_message_in_two_tenants_is_two_turns() -> None:
    async with rig() as it:
        it.agent.answer = begins(it, CREATED, "dave", tenant=ACME)
        assert CREATED.encode() in await it.ask(send(V1_RPC), "dave")
        assert it.agent.requests[0][0].headers["Sidecast-Tenant"] == ACME
        it.agent.answer = begins(it, "task-second--", "root")
        assert b"task-second--" in await it.ask(send(V1_RPC), "root")
        assert len(it.agent.requests) == 2


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_cursor_is_no_credential(wire: Wire) -> None:
    async with rig() as it:
        it.backend.store(BOBS, turn("m-1", "begin"), owner="bob")
        sequence = it.backend.server.last

        def resumes(cursor: str, message_id: str = "m-1") -> Ask:
            return send(wire, message_id=message_id, headers={"Last-Event-ID": cursor})

        unknown = await it.ask(resumes("epoch1-9999"), "alice")
        assert b"No turn of this message is known to resume" in unknown
        began_s = asyncio.get_running_loop().time()
        assert await it.ask(resumes(f"epoch1-{sequence}"), "alice") == unknown
        assert asyncio.get_running_loop().time() - began_s >= 0.02
        assert it.agent.requests == []
        # The task's own principal is told what there is.
        assert await it.ask(resumes(f"epoch1-{sequence}"), "bob") != unknown


@pytest.mark.row("C07")
@pytest.mark.parametrize(
    "path", ["/tasks/{}/events", "/tasks/{}:subscribe?A2A-Version=1.0"], ids=["browser", "A2A"]
)
async def test_a_cursor_of_ones_own_opens_no_other_task(path: str) -> None:
    async with rig() as it:
        for cursor in ("epoch1-1", "epoch1-2", "other-1", "x"):
            ask = Ask("GET", path.format(BOBS), None, {"Last-Event-ID": cursor})
            assert await it.ask(ask, "alice") == await it.ask(
                ask._replace(target=path.format(MISSING)), "alice"
            )


async def test_what_the_broker_captures_belongs_to_who_has_asked() -> None:
    async with rig(agent__capture="proxy") as it:
        updates = [
            {"task": task_of(CREATED, "WORKING")},
            {
                "statusUpdate": {
                    "taskId": CREATED,
                    "contextId": "c",
                    "status": {"state": "TASK_STATE_COMPLETED"},
                }
            },
        ]
        it.agent.answer = streamed([frames(*updates, rpc_id=1)])
        answer = await it.ask(send(V1_RPC), "alice")
        assert b"TASK_STATE_COMPLETED" in answer
        log = it.backend.server.of(f"sidecast.v1.events._.agent.{CREATED}")
        assert {message.headers.get(names.OWNER) for message in log} == {"alice"}
        assert status_of(await it.ask(Ask("GET", f"/tasks/{CREATED}/events", None, {}), "bob")) == 404
        assert status_of(await it.ask(Ask("GET", f"/tasks/{CREATED}/events", None, {}), "alice")) == 200


async def test_what_is_captured_of_a_blocking_send_belongs_to_who_has_asked() -> None:
    async with rig(agent__capture="proxy") as it:
        it.agent.answer = unary({"task": task_of(CREATED)})
        assert CREATED.encode() in await it.ask(send(V1_RPC, "send"), "alice")
        watched = await it.ask(Ask("GET", f"/tasks/{CREATED}/events", None, {}), "alice")
        assert status_of(watched) == 200


async def test_who_may_see_a_task_of_the_agent_does_not_become_its_owner() -> None:
    async with rig(agent__capture="proxy") as it:
        it.agent.answer = unary(task_of(MISSING, "WORKING"))
        subscribed = Ask("GET", f"/tasks/{MISSING}", None, {"A2A-Version": "1.0"})
        assert status_of(await it.ask(subscribed, "root")) == 200
        await until(lambda: it.backend.server.of(f"sidecast.v1.events._.agent.{MISSING}"))
        log = it.backend.server.of(f"sidecast.v1.events._.agent.{MISSING}")
        assert names.OWNER not in log[0].headers


# --- lists

LISTED = [ALICES, BOBS, OPEN, OWNERLESS, MISSING, "\U0001f600", "x" * 300]


def listing(**fields: Any) -> dict[str, Any]:
    return {"tasks": [task_of(task) for task in LISTED], "pageSize": 50, "totalSize": 900, **fields}


def list_tasks(wire: Wire, token: str = "") -> Ask:
    headers = {"A2A-Version": wire.version, "Content-Type": "application/json"}
    if wire.binding == "rest":
        prefix = "/v1" if wire.version == "0.3" else ""
        query = f"?pageToken={token}" if token else ""
        return Ask("GET", f"{prefix}/tasks{query}", None, headers)
    params = {"pageToken": token} if token else {}
    body = {"jsonrpc": "2.0", "id": 7, "method": "ListTasks", "params": params}
    return Ask("POST", "/", json.dumps(body).encode(), headers)


def shown(answer: bytes) -> dict[str, Any]:
    said: dict[str, Any] = body_of(answer)
    found: dict[str, Any] = said.get("result", said)
    return found


@pytest.mark.parametrize("wire", [V1_RPC, V1_REST, V03_REST], ids=str)
@pytest.mark.parametrize(
    ("who", "tasks"),
    [
        ("alice", [ALICES, OPEN]),
        ("bob", [BOBS]),
        ("carol", [ALICES, BOBS, OPEN, OWNERLESS]),
        ("erin", []),
        ("root", LISTED[:6]),
        ("dave", []),
    ],
)
async def test_a_list_shows_what_who_asks_may_watch(wire: Wire, who: str, tasks: list[str]) -> None:
    async with rig() as it:
        it.agent.answer = unary(listing())
        answer = await it.ask(list_tasks(wire), who)
        assert status_of(answer) == 200
        found = shown(answer)
        assert [task["id"] for task in found["tasks"] if len(task["id"]) < 300] == tasks
        assert found["totalSize"] == len(found["tasks"])
        assert it.agent.requests[0][0].headers["Sidecast-Principal"] == who
        assert {what for what, _subject in it.backend.asked} <= {"next 1"}


@pytest.mark.parametrize("wire", [V1_RPC, V1_REST], ids=str)
async def test_the_next_page_is_asked_for_with_a_sealed_token(wire: Wire) -> None:
    async with rig() as it:
        it.agent.answer = unary(listing(nextPageToken=f"after-{BOBS}"))
        token = shown(await it.ask(list_tasks(wire), "alice"))["nextPageToken"]
        assert BOBS not in token
        await it.ask(list_tasks(wire, token), "alice")
        http, body = it.agent.requests[1]
        got = http.query["pageToken"] if wire.binding == "rest" else json.loads(body)["params"]["pageToken"]
        assert got == f"after-{BOBS}"
        for who, forged in (("alice", f"after-{BOBS}"), ("bob", token), ("alice", token[:-4])):
            answer = await it.ask(list_tasks(wire, forged), who)
            assert b"pageToken is not one of this list" in answer
        assert len(it.agent.requests) == 2


UNREADABLE = {
    "no list": {"tasks": {"id": ALICES}},
    "no objects": {"tasks": [ALICES]},
    "an id that is a number": {"tasks": [{"id": 1, "x": BOBS}]},
    "a token that is none": {"tasks": [], "nextPageToken": {"x": BOBS}},
}


@pytest.mark.parametrize("wire", [V1_RPC, V1_REST, V03_REST], ids=str)
@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_list_that_cannot_be_read_is_not_passed_back(wire: Wire, name: str) -> None:
    async with rig() as it:
        it.agent.answer = unary(UNREADABLE[name])
        answer = await it.ask(list_tasks(wire), "alice")
        assert BOBS.encode() not in answer
        assert b"can't be read" in answer


async def test_an_error_beside_a_list_hides_the_list() -> None:
    async with rig() as it:
        it.agent.answer = _both
        answer = await it.ask(list_tasks(V1_RPC), "alice")
        assert body_of(answer)["error"]["code"] == -32603
        assert BOBS.encode() not in answer


async def _both(_http: web.Request, _body: bytes) -> web.StreamResponse:
    return web.json_response(
        {"jsonrpc": "2.0", "id": 7, "error": {"code": -32603, "message": "x"}, "result": listing()}
    )


async def test_without_credentials_a_list_is_passed_back_as_it_came() -> None:
    async with rig(auth__required="auto") as it:
        it.agent.answer = unary(listing(nextPageToken="t"))
        assert body_of(await it.ask(list_tasks(V1_REST), None)) == listing(nextPageToken="t")


# --- the card

OF_THE_AGENT: dict[str, Any] = {
    "securitySchemes": {"corp": {"httpAuthSecurityScheme": {"scheme": "basic"}}},
    "securityRequirements": [{"schemes": {"corp": {"list": []}}}],
}


async def test_the_card_says_what_is_taken_here() -> None:
    async with rig() as it:
        assert it.agent.card is not None
        it.agent.card |= OF_THE_AGENT
        it.agent.card["skills"][0] |= {"securityRequirements": [{"schemes": {"corp": {"list": ["x"]}}}]}
        answer = await it.ask(Ask("GET", "/.well-known/agent-card.json", None, {}), None)
        card = body_of(answer)
        assert card["securitySchemes"] == {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "httpAuthSecurityScheme": {"scheme": "bearer", "bearerFormat": "JWT"},
            },
            "apiKey": {
                "type": "apiKey",
                "in": "header",
                "name": "X-API-Key",
                "apiKeySecurityScheme": {"location": "header", "name": "X-API-Key"},
            },
        }
        assert card["security"] == [{"bearer": []}, {"apiKey": []}]
        assert card["securityRequirements"] == [
            {"schemes": {"bearer": {"list": []}}},
            {"schemes": {"apiKey": {"list": []}}},
        ]
        assert not card["skills"][0].keys() & {"security", "securityRequirements"}


async def test_without_credentials_the_card_says_what_the_agent_does() -> None:
    async with rig(auth__required="auto") as it:
        assert it.agent.card is not None
        it.agent.card |= OF_THE_AGENT
        card = body_of(await it.ask(Ask("GET", "/.well-known/agent-card.json", None, {}), None))
        assert list(card["securitySchemes"]) == ["corp"]


# --- what else there is at the agent


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_passed_through_needs_a_credential_and_names_who_asks(method: str) -> None:
    async with rig(agent__passthrough="/docs") as it:
        it.agent.answer = unary({})
        ask = Ask(method, "/docs/x?y=1", b"{}" if method == "POST" else None, {"Sidecast-Principal": "root"})
        assert status_of(await it.ask(ask, None)) == 401
        assert status_of(await it.ask(ask, "holder")) == 403
        assert it.agent.requests == []
        assert status_of(await it.ask(ask, "dave")) == 200
        http, _body = it.agent.requests[0]
        assert http.headers.getall("Sidecast-Principal") == ["dave"]
        assert http.headers.getall("Sidecast-Tenant") == [ACME]


async def test_nothing_at_a_path_is_said_only_to_who_is_known() -> None:
    async with rig() as it:
        ask = Ask("GET", "/nothing/here", None, {})
        assert status_of(answer := await it.ask(ask, None)) == 401
        assert body_of(answer)["error"]["code"] == "unauthenticated"
        assert status_of(await it.ask(ask, "alice")) == 404


@pytest.mark.row("C52")
async def test_a_body_is_not_read_of_who_is_unknown() -> None:
    async with rig() as it:
        ask = Ask("POST", "/", b"{" * 100_000, {"A2A-Version": "1.0"})
        answer = await it.ask(ask, None)
        assert status_of(answer) == 401
        assert body_of(answer)["id"] is None
        assert status_of(await it.ask(ask, "alice")) == 200


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_the_form_of_who_are_you(wire: Wire) -> None:
    async with rig() as it:
        said = body_of(await it.ask(send(wire), None))
        if wire.binding == "jsonrpc":
            assert said == {
                "jsonrpc": "2.0",
                "id": None,
                "error": {"code": -32000, "message": "a credential is required"},
            }
        elif wire.version == "1.0":
            assert said["error"] | {"details": []} == {
                "code": 401,
                "status": "UNAUTHENTICATED",
                "message": "a credential is required",
                "details": [],
            }
        else:
            assert said == {"code": -32000, "message": "a credential is required"}


async def test_a_follow_up_goes_to_ones_own_task() -> None:
    async with rig() as it:

        async def works(http: web.Request, body: bytes) -> web.StreamResponse:
            it.backend.store(OPEN, turn("m-new", "begin"), status("more", OPEN), turn("m-new", "end"))
            return await streamed([frames({"task": task_of(OPEN, "WORKING")}, rpc_id=1)])(http, body)

        it.agent.answer = works
        assert b"more" in await it.ask(send(V1_RPC, task=OPEN), "alice")
        refused = await it.ask(send(V1_RPC, task=OPEN), "bob")
        assert refused == await it.ask(send(V1_RPC, task=MISSING), "bob")
        assert len(it.agent.requests) == 1
