"""Tasks that the log lacks and the agent has: what watching one asks of the agent, and what it never does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from a2a_rig.awkward import AwkwardAgent, nothing, unary
from aiohttp import web
from brokers import AS_JSON, TASK, FakeBackend, artifact, broker, done, task_record, until
from capturing import Capturing, FakeAgent, outline
from nats_server import free_ports
from sse import kinds

from sidecast_broker import adoption as module
from sidecast_broker import opening
from sidecast_broker.adoption import Adoption
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.refused import Refused
from sidecast_schemas.subjects import TaskKey

KEY = TaskKey("", "agent", TASK)


class SlowAgent(FakeAgent):
    """Says what it knows when the test lets it.

    Attributes:
        finds: ids that were asked for.
        gate: what the answers wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.finds: list[str] = []
        self.gate = asyncio.Event()

    async def find(self, task_id: str) -> bytes | None:
        self.finds.append(task_id)
        await self.gate.wait()
        return await super().find(task_id)


@pytest.fixture
async def agent() -> SlowAgent:
    return SlowAgent()


@pytest.fixture
async def capturing(fake: FakeBackend, agent: SlowAgent) -> AsyncIterator[Capturing]:
    async with Capturing(fake, agent) as running:
        yield running


@pytest.fixture
async def adoption(capturing: Capturing) -> AsyncIterator[Adoption]:
    made = Adoption(capturing.hubs, capturing.capture)
    yield made
    await made.close()
    await until(lambda: capturing.hubs.watchers(KEY) == 0)


async def test_a_task_of_the_agent_is_captured_from_then_on(
    fake: FakeBackend, agent: SlowAgent, capturing: Capturing, adoption: Adoption
) -> None:
    agent.gate.set()
    agent.say(task_record(state="WORKING"), artifact("x"))
    hub = await adoption.open(KEY)
    assert json.loads(hub.fold.task()) == json.loads(agent.task())
    capturing.hubs.release(hub)
    await until(agent.subscribed)
    agent.say(done())
    await capturing.idle()
    assert await outline(fake) == ["task working", "completed"]


async def test_who_waits_gets_it_too(agent: SlowAgent, capturing: Capturing, adoption: Adoption) -> None:
    agent.say(task_record(), done())
    hub = await adoption.open_waiting(KEY)
    assert hub.first is None
    agent.gate.set()
    await until(lambda: hub.fold.terminal)
    capturing.hubs.release(hub)
    await capturing.idle()


@pytest.mark.parametrize("known", ["to the log", "to nobody"])
async def test_no_more_is_asked_than_has_to_be(
    known: str, fake: FakeBackend, agent: SlowAgent, capturing: Capturing, adoption: Adoption
) -> None:
    agent.gate.set()
    if known == "to the log":
        await fake.publish(task_record())
        for found in (await adoption.open(KEY), await adoption.open_waiting(KEY)):
            capturing.hubs.release(found)
        assert agent.finds == []
        return
    with pytest.raises(Refused) as refused:
        await adoption.open(KEY)
    assert refused.value.code == "not-found"
    assert agent.finds == [TASK]
    assert len(capturing.capture) == 0
    assert agent.subscriptions == 0


async def test_an_agent_that_publishes_itself_is_not_asked(agent: SlowAgent, capturing: Capturing) -> None:
    adoption = Adoption(capturing.hubs, None)
    with pytest.raises(Refused):
        await adoption.open(KEY)
    capturing.hubs.release(await adoption.open_waiting(KEY))
    assert agent.finds == []


async def test_of_a_task_there_is_one_look_at_a_time(
    agent: SlowAgent, capturing: Capturing, adoption: Adoption
) -> None:
    coming = [asyncio.create_task(adoption.open(KEY)) for _ in range(20)]
    waiting = [await adoption.open_waiting(KEY) for _ in range(20)]
    await until(lambda: agent.finds)
    coming[0].cancel()
    agent.gate.set()
    answers = await asyncio.gather(*coming, return_exceptions=True)
    assert [type(each) for each in answers] == [asyncio.CancelledError, *[Refused] * 19]
    assert agent.finds == [TASK]
    for hub in waiting:
        capturing.hubs.release(hub)


async def test_so_many_looks_there_are_at_once(
    agent: SlowAgent, capturing: Capturing, adoption: Adoption, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKS_MAX", 3)
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    for number in range(3):
        with pytest.raises(AgentAway) as away:
            await adoption.open(KEY._replace(task=f"t{number}"))
        assert away.value.reason == "timeout"
    # Nobody waits any more, but the agent has not answered.
    for open_ in (adoption.open, adoption.open_waiting):
        with pytest.raises(Refused) as refused:
            await open_(KEY)
        assert refused.value.code == "unavailable"
    assert agent.finds == ["t0", "t1", "t2"]
    agent.gate.set()
    await until(lambda: not adoption._looks)
    with pytest.raises(Refused) as refused:
        await adoption.open(KEY)
    assert refused.value.code == "not-found"


async def test_an_agent_that_is_away_says_nothing(
    agent: SlowAgent, capturing: Capturing, adoption: Adoption
) -> None:
    agent.away = True
    agent.gate.set()
    with pytest.raises(AgentAway):
        await adoption.open(KEY)
    hub = await adoption.open_waiting(KEY)
    await until(lambda: not adoption._looks)
    assert hub.first is None
    capturing.hubs.release(hub)


@pytest.mark.parametrize("answer", [b'{"id":"other","status":{"state":"TASK_STATE_WORKING"}}', b"{}", b"7"])
async def test_an_answer_about_something_else_is_none(
    answer: bytes,
    agent: SlowAgent,
    capturing: Capturing,
    adoption: Adoption,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def find(_task_id: str) -> bytes:
        return answer

    monkeypatch.setattr(agent, "find", find)
    with pytest.raises(Refused) as refused:
        await adoption.open(KEY)
    assert refused.value.code == "not-found"
    assert len(capturing.capture) == 0
    assert capturing.counted("other-task") + capturing.counted("invalid") == 1


async def test_a_task_that_does_not_reach_the_log_is_not_waited_for_long(
    fake: FakeBackend, agent: SlowAgent, adoption: Adoption, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LOG_S_MAX", 0.05)
    agent.gate.set()
    agent.say(task_record(), done())
    fake.server.gate.clear()
    with pytest.raises(Refused) as refused:
        await adoption.open(KEY)
    assert refused.value.code == "unavailable"
    fake.server.gate.set()
    await until(lambda: fake.server.of("sidecast.v1.events._.agent.task-1"))


# --- through the browser format

WORKING = {"id": TASK, "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}


def rest_only(agent: AwkwardAgent) -> AwkwardAgent:
    """Leave the agent only its REST interface, where an id stands on a path."""
    assert agent.card is not None
    agent.card["supportedInterfaces"] = agent.card["supportedInterfaces"][1:]
    return agent


@pytest.mark.parametrize("path", [f"/tasks/{TASK}/events", "/a2a/stream"])
@pytest.mark.parametrize("wait_s", [0, 5])
async def test_a_browser_watches_a_task_begun_at_the_agent(
    path: str, wait_s: float, fake: FakeBackend
) -> None:
    async with AwkwardAgent() as agent:
        agent.answer = unary(WORKING | {"status": {"state": "TASK_STATE_COMPLETED"}})
        async with broker(fake, agent__url=agent.url, agent__capture="proxy") as running:
            stream = await running.watch(path=path, wait_s=wait_s, taskId=TASK, named=1)
            frames = await stream.rest()
            assert kinds(frames) == ["stream.open", "task.snapshot", "stream.end"]
            assert frames[1]["state"] == "completed"
            status_code, body = await running.get(f"/tasks/{TASK}/events", AS_JSON)
            assert (status_code, body["state"]) == (200, "completed")


async def test_one_answer_is_given_of_a_task_begun_at_the_agent(fake: FakeBackend) -> None:
    async with AwkwardAgent() as agent:
        agent.answer = unary(WORKING)
        async with broker(fake, agent__url=agent.url, agent__capture="proxy") as running:
            status_code, body = await running.get(f"/tasks/{TASK}/events", AS_JSON)
            assert (status_code, body["state"]) == (200, "working")


@pytest.mark.parametrize(
    ("code", "status", "wanted"),
    [(-32001, 200, 404), (-32603, 200, 404), (-32600, 401, 404)],
    ids=["unknown", "internal error", "unauthorised"],
)
async def test_what_the_agent_does_not_give_is_unknown(
    code: int, status: int, wanted: int, fake: FakeBackend
) -> None:
    async def answer(_request: web.Request, body: bytes) -> web.StreamResponse:
        error = {"code": code, "message": "no"}
        return web.json_response(
            {"jsonrpc": "2.0", "id": json.loads(body)["id"], "error": error}, status=status
        )

    async with AwkwardAgent() as agent:
        agent.answer = answer
        async with broker(fake, agent__url=agent.url, agent__capture="proxy") as running:
            assert (await running.get(f"/tasks/{TASK}/events"))[0] == wanted
            assert len(agent.requests) == 1
            stream = await running.watch(wait_s=0.2)
            assert kinds(await stream.rest()) == ["stream.end"]
            assert len(agent.requests) == 2


async def test_while_the_agent_is_away_a_client_is_told_to_come_back(fake: FakeBackend) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with broker(fake, agent__url=url, agent__capture="proxy") as running:
        status_code, body = await running.get(f"/tasks/{TASK}/events")
        assert (status_code, body["error"]["code"]) == (503, "unavailable")
        stream = await running.watch(headers={"Accept": "text/event-stream"})
        assert kinds(await stream.rest()) == ["stream.busy"]
        await fake.publish(task_record(), done())
        assert (await running.get(f"/tasks/{TASK}/events", AS_JSON))[0] == 200


# --- in a list


@pytest.mark.parametrize("wait_s", [0, 0.2])
async def test_a_list_brings_a_task_begun_at_the_agent(wait_s: float, fake: FakeBackend) -> None:
    await fake.publish(task_record("known"), task="known")
    async with AwkwardAgent() as agent:
        agent.answer = unary(WORKING)
        async with broker(fake, agent__url=agent.url, agent__capture="proxy") as running:
            path = f"/events?task=known&task={TASK}&task=never&wait_s={wait_s}"
            stream = await running.watch(path=path)
            frames = await stream.take(4)
            assert kinds(frames) == ["stream.open", "task.snapshot", "task.snapshot", "stream.end"]
            assert {frame["taskId"] for frame in frames[1:3]} == {"known", TASK}
            assert (frames[3]["taskId"], frames[3]["reason"]) == ("never", "not-found")
            asked = sorted(json.loads(body)["params"]["id"] for _request, body in agent.requests)
            assert "known" not in asked
            assert {TASK, "never"} <= set(asked)


async def test_a_list_goes_without_what_an_agent_that_is_away_may_know(fake: FakeBackend) -> None:
    await fake.publish(task_record("known"), task="known")
    (port,) = free_ports(1)
    async with broker(fake, agent__url=f"http://127.0.0.1:{port}", agent__capture="proxy") as running:
        stream = await running.watch(path=f"/events?task=known&task={TASK}")
        frames = await stream.take(3)
        assert kinds(frames) == ["stream.open", "task.snapshot", "stream.end"]
        assert frames[2]["taskId"] == TASK


async def test_a_list_has_an_agent_that_hangs_asked_for_few_and_waits_as_for_one(
    agent: SlowAgent, adoption: Adoption, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    keys = [TaskKey("", "agent", f"t{number}") for number in range(50)]
    assert await adoption.find(keys) == frozenset()
    assert len(agent.finds) <= 2 * module.LISTED_AT_ONCE


async def test_where_the_agent_publishes_itself_it_is_asked_for_none(capturing: Capturing) -> None:
    assert await Adoption(capturing.hubs, None).find([KEY]) == frozenset()


HOSTILE = [
    *(".", "..", "../x", "..\\x", "x/../..", "/", "//", "/etc", "x/pushNotificationConfigs"),
    *("x:cancel", "x:subscribe", ":subscribe", "%2e%2e", "%2F", "a%00", "\0", "\n", "x\r\nX: y"),
]


@pytest.mark.parametrize("wait_s", [0, 0.1])
@pytest.mark.parametrize("task", HOSTILE, ids=ascii)
async def test_an_id_reaches_no_other_path_of_the_agent(task: str, wait_s: float, fake: FakeBackend) -> None:
    async with rest_only(AwkwardAgent()) as agent:
        agent.answer = unary(WORKING)
        async with broker(fake, agent__url=agent.url, agent__capture="proxy") as running:
            path = f"/a2a/stream?taskId={quote(task, safe='')}&wait_s={wait_s}"
            answered, _ = await running.get(path)
            assert answered == (200 if wait_s else 404)
            assert agent.requests == []


@pytest.mark.parametrize("task", ["x", "x:y", "a b", "ünï", "x?y=1", "x#y", "...", "x;y", "urn:task:1"])
async def test_an_id_that_needs_escaping_stays_one_segment(task: str, fake: FakeBackend) -> None:
    async with rest_only(AwkwardAgent()) as agent:
        agent.answer = nothing
        async with broker(fake, agent__url=agent.url, agent__capture="proxy") as running:
            assert (await running.get(f"/a2a/stream?taskId={quote(task, safe='')}"))[0] == 404
            ((request, _body),) = agent.requests
            assert request.raw_path == f"/tasks/{quote(task, safe='')}"


@pytest.mark.parametrize("task", HOSTILE, ids=ascii)
async def test_by_json_rpc_any_id_is_only_an_id(task: str, fake: FakeBackend) -> None:
    async with AwkwardAgent() as agent:
        agent.answer = unary({"id": "other", "status": {"state": "TASK_STATE_WORKING"}})
        async with broker(fake, agent__url=agent.url, agent__capture="proxy") as running:
            assert (await running.get(f"/a2a/stream?taskId={quote(task, safe='')}"))[0] == 404
            ((request, body),) = agent.requests
            sent: dict[str, Any] = json.loads(body)
            assert (request.raw_path, sent["method"], sent["params"]["id"]) == ("/", "GetTask", task)
