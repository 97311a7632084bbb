"""Requests made to break the A2A door, over raw sockets: a clear error, and nothing asked of anybody but the
agent, which is asked for exactly what it may be asked for.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from brokers import FakeBackend, RealBackend, child_broker, done, task_record
from door import GET_TASK, LIMITS, SMUGGLED, Door, chunked, get, message, opened, post, request, rpc
from hostile_requests import BOMB, CASES, Case
from recording_agent import RecordingAgent, Said, Trap


@pytest.fixture
async def door(fake: FakeBackend, unharmed: None) -> AsyncIterator[Door]:
    await fake.publish(task_record(), done())
    async with opened(fake, RecordingAgent()) as made:
        yield made


async def check(door: Door, case: Case) -> None:
    """Check that a hostile request is answered as it must be, and the next one as ever."""
    door.agent.heard.clear()
    answer = await door.ask(case.raw)
    assert (answer.status, answer.code) == (case.status, case.code), answer.raw
    assert [heard.line for heard in door.agent.heard] == list(case.passes)
    assert (await door.ask(post(GET_TASK))).json["result"]["id"] == "a"
    door.clean()


# --- all of them


@pytest.mark.parametrize("name", CASES)
async def test_a_hostile_request_gets_a_clear_answer(door: Door, name: str) -> None:
    await check(door, CASES[name])


async def test_a_broker_of_its_own_withstands_them_one_after_the_other(
    real: RealBackend, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with Trap() as trap, RecordingAgent() as agent:
        async with child_broker(real, log, agent__url=agent.url, **LIMITS) as child:
            door = Door(child, agent, trap)
            for case in CASES.values():
                await check(door, case)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line for line in lines if line["level"] not in ("debug", "info") or "exception" in line] == []


# --- what reaches the agent


async def test_the_agent_gets_the_clients_headers_and_none_of_the_hops(door: Door) -> None:
    answer = await door.ask(
        request(
            "POST",
            "/",
            "A2A-Version: 1.0",
            "Connection: authorization, X-Forwarded-For , a2a-version,,",
            "Connection: x-hop, close",
            "Authorization: Bearer t",
            "X-Forwarded-For: 192.0.2.1",
            "X-Forwarded-Host: {trap}",
            "X-Hop: 1",
            "X-End: 2",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic x",
            "TE: trailers",
            "Trailer: X-Sum",
            "Sidecast-Principal: root",
            "Sidecast_Principal: root",
            "SIDECAST-Owner: root",
            "Last-Event-ID: epoch1-1",
            "Cookie: a=b",
            "Expect: 100-continue",
            body=GET_TASK.encode(),
            host=door.trap.authority,
        )
    )
    assert answer.status == 200
    (heard,) = door.agent.heard
    assert heard.body == GET_TASK.encode()
    assert sorted(heard.headers) == sorted(
        [
            ("host", door.agent.authority),
            ("a2a-version", "1.0"),
            ("x-forwarded-host", door.trap.authority),
            ("x-end", "2"),
            ("last-event-id", "epoch1-1"),
            ("cookie", "a=b"),
            ("content-length", str(len(GET_TASK))),
        ]
    )
    door.clean()


async def test_a_send_reaches_the_agent_without_what_the_client_says_of_itself(door: Door) -> None:
    lines = (
        "Connection: a2a-version, x-hop",
        "X-Hop: 1",
        "Last-Event-ID:",
        "Sidecast-Principal: root",
        "Transfer-Encoding: chunked",
        "Accept-Encoding: gzip",
    )
    body = rpc("SendStreamingMessage", message()).encode()
    head = request("POST", "/", "A2A-Version: 1.0", *lines)
    answer = await door.ask(head + b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\nHost: y\r\n\r\n" % (len(body), body))
    assert answer.json["result"]["message"]["messageId"] == "m-a"
    (heard,) = door.agent.heard
    assert sorted(heard.headers) == sorted(
        [
            ("host", door.agent.authority),
            ("a2a-version", "1.0"),
            ("content-type", "application/json"),
            ("accept", "text/event-stream, application/json"),
            ("accept-encoding", "identity"),
            ("content-length", str(len(heard.body))),
        ]
    )
    door.clean()


@pytest.mark.parametrize(
    ("raw", "version"),
    [
        (post(GET_TASK, target="/?A2A-Version=1.0", version=""), ["1.0"]),
        (get("/tasks/a?A2A-Version=1.0", version=""), ["1.0"]),
        (post(GET_TASK, "A2A-Version: 1.0"), ["1.0"]),
        (post(GET_TASK, "A2A-Version: 1.0", target="/?A2A-Version=0.3"), ["1.0"]),
        (post(GET_TASK, version="1.0.5"), ["1.0"]),
    ],
)
async def test_the_agent_reads_the_version_the_broker_has_read(
    door: Door, raw: bytes, version: list[str]
) -> None:
    assert (await door.ask(raw)).status == 200
    assert [heard.values("a2a-version") for heard in door.agent.heard] == [version]


async def test_an_agent_of_the_older_version_hears_of_no_other(fake: FakeBackend) -> None:
    async with opened(fake, RecordingAgent(version="0.3")) as door:
        assert (await door.ask(post(rpc("tasks/get"), version=""))).status == 200
        assert (await door.ask(post(rpc("tasks/get"), version="0.3"))).status == 200
        assert (await door.ask(post(GET_TASK))).status == 200
        assert [heard.values("a2a-version") for heard in door.agent.heard] == [[], ["0.3"], ["0.3"]]


async def test_what_can_not_be_said_in_the_agents_version_is_an_error(fake: FakeBackend) -> None:
    async with opened(fake, RecordingAgent(version="0.3")) as door:
        for method in ("SendMessage", "SendStreamingMessage"):
            answer = await door.ask(post(rpc(method, message(parts={"text": "x"}))))
            assert (answer.status, answer.code) == (200, -32602)
        assert door.agent.heard == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_body_without_a_meaning_reaches_nobody(door: Door, method: str) -> None:
    target = "/tasks/a/pushNotificationConfigs/c"
    body = b'{"taskId":"b"}' + SMUGGLED
    answer = await door.ask(request(method, target, "A2A-Version: 1.0", body=body))
    assert answer.status == 200
    (heard,) = door.agent.heard
    assert (heard.line, heard.body) == (f"{method} {target}", b"")
    door.clean()


async def test_a_tenant_in_the_query_is_the_tenant(door: Door) -> None:
    task = "/tasks/" + "task-1:subscribe"
    assert (await door.ask(get(task))).code == 400  # it has ended
    assert (await door.ask(get(task + "?tenant=t"))).code == 404


async def test_a_tenant_on_the_path_reaches_an_agent_that_is_asked_without_one(fake: FakeBackend) -> None:
    async with opened(fake, RecordingAgent()) as door:
        asked = request("POST", "/acme/message:stream", "A2A-Version: 1.0", body=message().encode())
        assert (await door.ask(asked)).status == 200
        (heard,) = door.agent.heard
        assert json.loads(heard.body)["params"]["tenant"] == "acme"
    async with opened(fake, RecordingAgent(version="0.3")) as door:
        assert (await door.ask(get("/acme/tasks/a"))).status == 200
        (heard,) = door.agent.heard
        held = json.loads(heard.body)["params"]["metadata"]["urn:sidecast:v1"]
        assert held["fields"] == {"tenant": "acme"}


async def test_a_packed_body_is_read_and_passed_on_unpacked(door: Door) -> None:
    for encoding, packed in (
        ("gzip", gzip.compress(GET_TASK.encode())),
        ("Deflate", zlib.compress(GET_TASK.encode())),
        ("identity", GET_TASK.encode()),
    ):
        assert (await door.ask(post(packed, f"Content-Encoding: {encoding}"))).status == 200
        heard = door.agent.heard.pop()
        assert (heard.body, heard.values("content-encoding")) == (GET_TASK.encode(), [])
        assert heard.values("content-length") == [str(len(GET_TASK))]


async def test_what_is_passed_on_unread_stays_packed(door: Door) -> None:
    assert (await door.ask(post(BOMB, "Content-Encoding: gzip", target="/docs/x"))).status == 200
    (heard,) = door.agent.heard
    assert (heard.body, heard.values("content-encoding")) == (BOMB, ["gzip"])
    door.clean()


async def test_chunks_are_framed_anew(door: Door) -> None:
    pieces = (b"0\r\n\r\n", SMUGGLED, b"\r\n" * 50)
    assert (await door.ask(chunked(*pieces, target="/docs/x"))).status == 200
    (heard,) = door.agent.heard
    assert heard.body == b"".join(pieces)
    door.clean()


# --- what an agent, or a card, leads to


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
@pytest.mark.parametrize("location", ["http://{trap}/", "//{trap}/", "/docs/smuggled"])
async def test_no_redirect_leads_away(door: Door, status: str, location: str) -> None:
    said = Said(b"{}", status, ("Location: " + location.replace("{trap}", door.trap.authority),))
    door.agent.answer = lambda _heard: said
    code = int(status.split()[0])
    assert (await door.ask(post(GET_TASK))).status == code
    assert (await door.ask(get("/tasks/a"))).status == code
    assert (await door.ask(get("/docs/x"))).status == code
    assert (await door.ask(post(rpc("SendStreamingMessage", message())))).code == -32006
    assert len(door.agent.heard) == 4
    door.clean()


async def test_a_card_leads_nowhere_else(fake: FakeBackend) -> None:
    async with Trap() as elsewhere:
        agent = RecordingAgent(elsewhere=f"http://user:pass@{elsewhere.authority}/api")
        async with opened(fake, agent) as door:
            assert (await door.ask(post(GET_TASK))).status == 200
            assert (await door.ask(get("/tasks/a"))).status == 200
            assert (await door.ask(post(rpc("SendStreamingMessage", message())))).status == 200
            assert [heard.line for heard in agent.heard] == ["POST /api", "GET /api/tasks/a", "POST /api"]
            assert (
                elsewhere.authority not in (await door.ask(get("/.well-known/agent-card.json"))).raw.decode()
            )
            assert elsewhere.caught == 0
            door.clean()


async def test_an_address_in_a_body_is_nobodys_to_visit(door: Door) -> None:
    url = "http://{trap}/hook"
    config = f'{{"taskId":"a","url":"{url}","authentication":{{"scheme":"Bearer"}}}}'
    part = f'{{"url":"{url}","mediaType":"text/html"}}'
    bodies = [
        post(rpc("CreateTaskPushNotificationConfig", config)),
        post(config, target="/tasks/a/pushNotificationConfigs"),
        post(rpc("SendMessage", f'{{"message":{{"messageId":"m","parts":[{part}]}}}}')),
        post(rpc("SendStreamingMessage", f'{{"message":{{"messageId":"n","parts":[{part}]}}}}')),
    ]
    for raw in bodies:
        # The address is longer than its placeholder.
        body = door.write(raw.partition(b"\r\n\r\n")[2])
        target = raw.split()[1].decode()
        assert (await door.ask(post(body, target=target))).status == 200
        assert door.trap.authority.encode() in door.agent.heard[-1].body
    assert len(door.agent.heard) == len(bodies)
    door.clean()


@pytest.mark.parametrize(
    "said",
    [
        Said(b"{}", "200 \udcff\udcfe"),
        Said(b"\xff", "200 OK"),
        Said(b"[" * 5000, "200 OK"),
        Said(b'{"jsonrpc":"2.0","id":1,"result":7}'),
        Said(b'{"jsonrpc":"2.0","id":1,"error":{"code":1e300,"message":7}}'),
        Said(b"data: [\n\n", headers=("Content-Type: text/event-stream",)),
        Said(b"data: " + b"[" * 5000 + b"\n\n", headers=("Content-Type: text/event-stream",)),
    ],
    ids=range(7),
)
async def test_nothing_an_agent_says_is_a_fault_of_the_broker(door: Door, said: Said) -> None:
    door.agent.answer = lambda _heard: said
    assert (await door.ask(post(GET_TASK))).status == 200
    answer = await door.ask(post(rpc("GetExtendedAgentCard", "{}")))
    assert answer.status == 200
    answer = await door.ask(post(rpc("SendStreamingMessage", message())))
    assert (answer.status, answer.code) == (200, -32006)


async def test_an_extended_card_that_is_none_is_the_agents_fault(door: Door) -> None:
    door.agent.answer = lambda _heard: Said(b'{"jsonrpc":"2.0","id":1,"result":{"skills":7}}')
    assert (await door.ask(post(rpc("GetExtendedAgentCard", "{}")))).code == -32006
    door.agent.answer = lambda _heard: Said(b'{"skills":7}')
    assert (await door.ask(get("/extendedAgentCard"))).status == 500


@pytest.mark.parametrize(("version", "wire"), [("1.0", "0.3"), ("0.3", "1.0"), ("1.0 0.3", "1.0")])
async def test_an_extended_card_is_whole_and_names_this_broker(
    fake: FakeBackend, unharmed: None, version: str, wire: str
) -> None:
    async with opened(fake, RecordingAgent(version=version)) as door:
        path = "/v1/card" if wire == "0.3" else "/extendedAgentCard"
        card = (await door.ask(get(path, version=wire))).json  # of the length its head says
        assert card["name"] == "Extended"
        assert card["url"].startswith("http://x")
        assert "trap.example" not in json.dumps(card)
