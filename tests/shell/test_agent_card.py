from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import httpx
import pytest
import uvicorn
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.compat.v0_3.types import AgentCard as AgentCardV03
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import a2a_pb2 as pb
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from brokers import until
from multidict import CIMultiDict
from nats_server import free_ports
from sse import exchange
from starlette.applications import Starlette
from yarl import URL

from sidecast_broker import agent_card as module
from sidecast_broker.agent import Agent
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.core.a2a.card import InvalidCard
from sidecast_broker.listener import Listener
from sidecast_broker.metrics import Metrics
from sidecast_broker.router import Router, post
from sidecast_broker.settings import Agent as AgentSettings
from sidecast_broker.settings import Server, Settings

NEW = "/.well-known/agent-card.json"
OLD = "/.well-known/agent.json"
CARD: dict[str, Any] = {
    "name": "planner",
    "description": "Plans.",
    "version": "1",
    "capabilities": {},
    "supportedInterfaces": [{"url": "http://a/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
    "defaultInputModes": ["text"],
    "defaultOutputModes": ["text"],
    "skills": [],
    "signatures": [{"protected": "e30", "signature": "c2ln"}],
}


class Clock:
    """Turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """An agent that has a card, or something else in its place."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {NEW: (200, json.dumps(CARD).encode())}
        self.tag: str | None = None
        self.asked: list[tuple[str, str | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.path, request.headers.get("If-None-Match")))
        await self.gate.wait()
        status, body = self.answers.get(request.path, (404, b"not found"))
        headers = {"ETag": self.tag} if self.tag else {}
        if self.tag and request.headers.get("If-None-Match") == self.tag:
            return web.Response(status=304, headers=headers)
        return web.Response(status=status, body=body, headers=headers)

    @asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[None]:
        runner = web.ServerRunner(web.Server(self.handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield
        finally:
            await runner.cleanup()


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def urls(self) -> set[str]:
        """All URLs under which this card says the agent is."""
        card = self.json
        named = card["supportedInterfaces"] + card["additionalInterfaces"]
        return {card["url"], *(each["url"] for each in named)}


class Broker:
    """A listener that serves an agent's card."""

    def __init__(self, cards: AgentCards, clock: Clock, url: str) -> None:
        self.cards = cards
        self.clock = clock
        self.url = url
        self.session = aiohttp.ClientSession()

    async def get(self, path: str = NEW, **options: Any) -> Got:
        url = URL(self.url + path, encoded=True)
        async with self.session.get(url, allow_redirects=False, **options) as response:
            return Got(response.status, response.headers.copy(), await response.read())


@asynccontextmanager
async def serving(agent_url: str, public_url: str = "", name: str = "planner") -> AsyncIterator[Broker]:
    settings = Settings(
        server=Server(public_url=public_url), agent=AgentSettings(name=name, url=agent_url, card_s=60)
    )
    async with AsyncExitStack() as stack:
        agent, clock = Agent(settings.agent), Clock()
        agent.start()
        cards = AgentCards(agent, settings, clock)
        routes = [*cards.routes(), post("/a2a", agent_rpc(agent))]
        listener = Listener(Router(routes), settings, Metrics())
        broker = Broker(cards, clock, await listener.open("127.0.0.1", 0))
        for close in (agent.close, cards.close, listener.close, broker.session.close):
            stack.push_async_callback(close)
        yield broker


def agent_rpc(agent: Agent) -> Any:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await agent.pass_on(request, await request.read(), target="/rpc")

    return answer


@pytest.fixture
def port() -> int:
    (free,) = free_ports(1)
    return free


@pytest.fixture
async def source(port: int) -> AsyncIterator[Source]:
    made = Source()
    async with made.serving(port):
        yield made


@pytest.fixture
async def broker(source: Source, port: int) -> AsyncIterator[Broker]:
    async with serving(f"http://127.0.0.1:{port}") as made:
        yield made


# --- serving


@pytest.mark.parametrize("path", [NEW, OLD])
async def test_the_card_names_only_this_broker(broker: Broker, path: str) -> None:
    response = await broker.get(path)
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.urls == {broker.url, f"{broker.url}/a2a"}
    assert "signatures" not in response.json


async def test_behind_the_prefix_of_the_agent(broker: Broker) -> None:
    for path in (NEW, OLD):
        response = await broker.get(f"/agents/planner{path}")
        assert response.urls == {f"{broker.url}/agents/planner", f"{broker.url}/agents/planner/a2a"}
    assert (await broker.get(f"/agents/other{NEW}")).status == 404


async def test_a_name_that_needs_escapes(source: Source, port: int) -> None:
    async with serving(f"http://127.0.0.1:{port}", name="plan/ä") as broker:
        response = await broker.get(f"/agents/plan%2F%C3%A4{NEW}")
        assert response.urls == {
            f"{broker.url}/agents/plan%2F%C3%A4",
            f"{broker.url}/agents/plan%2F%C3%A4/a2a",
        }


async def test_the_public_url_goes_before_the_host(source: Source, port: int) -> None:
    async with serving(f"http://127.0.0.1:{port}", "https://broker.example/team/") as broker:
        response = await broker.get(headers={"Host": "evil.example"})
        assert response.urls == {"https://broker.example/team", "https://broker.example/team/a2a"}
        prefixed = await broker.get(f"/agents/planner{NEW}")
        assert "https://broker.example/team/agents/planner/a2a" in prefixed.urls


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("broker.example", "http://broker.example"),
        ("Broker.Example:8480", "http://broker.example:8480"),
        ("[::1]:8480", "http://[::1]:8480"),
    ],
)
async def test_the_host_of_the_request(broker: Broker, host: str, base: str) -> None:
    assert (await broker.get(headers={"Host": host})).urls == {base, f"{base}/a2a"}


@pytest.mark.parametrize(
    "hosts", [["a b"], ["a/b"], ["user@h"], ["h:port"], ['h"x'], [""], ["a", "b"], ["a\\b"], ["x" * 300]]
)
async def test_a_host_that_is_none(broker: Broker, hosts: list[str]) -> None:
    head = "".join(f"Host: {host}\r\n" for host in hosts)
    answer = await exchange(broker.url, f"GET {NEW} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
    assert answer.split()[1] == b"400"


async def test_without_a_host_the_address_counts(broker: Broker) -> None:
    answer = await exchange(broker.url, f"GET {NEW} HTTP/1.0\r\n\r\n".encode())
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["url"] == f"{broker.url}/a2a"


async def test_caching(broker: Broker) -> None:
    first = await broker.get()
    assert first.headers["Cache-Control"] == "public, max-age=60"
    tag = first.headers["ETag"]
    for asked in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await broker.get(headers={"If-None-Match": asked})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["ETag"] == tag
        assert again.headers["Cache-Control"] == "public, max-age=60"
    for asked in ('"other"', "nonsense", ""):
        assert (await broker.get(headers={"If-None-Match": asked})).status == 200
    assert (await broker.get(f"/agents/planner{NEW}")).headers["ETag"] != tag


async def test_head(broker: Broker) -> None:
    async with broker.session.head(broker.url + NEW) as response:
        assert response.status == 200
        assert response.headers["ETag"] == (await broker.get()).headers["ETag"]
        assert await response.read() == b""


async def test_hosts_of_clients_do_not_fill_the_memory(broker: Broker) -> None:
    for number in range(module.BASES_MAX * 2 + 1):
        await broker.get(headers={"Host": f"h{number}"})
    assert len(broker.cards._served) <= module.BASES_MAX


async def test_an_extended_card_is_rewritten_the_same(broker: Broker) -> None:
    request = make_mocked_request("GET", "/extendedAgentCard", headers={"Host": "b"})
    served = json.loads(broker.cards.rewritten(request, json.dumps(CARD | {"name": "more"}).encode()))
    assert (served["name"], served["url"]) == ("more", "http://b/a2a")
    with pytest.raises(InvalidCard):
        broker.cards.rewritten(request, b"[]")


# --- fetching


async def test_the_agent_is_asked_once_a_minute(broker: Broker, source: Source) -> None:
    for _ in range(3):
        assert (await broker.get()).status == 200
    assert len(source.asked) == 1
    broker.clock.now += 59
    await broker.get()
    assert len(source.asked) == 1
    source.answers[NEW] = (200, json.dumps(CARD | {"name": "changed"}).encode())
    broker.clock.now += 1
    assert (await broker.get()).json["name"] == "changed"
    assert len(source.asked) == 2


async def test_an_unchanged_card_is_not_sent_again(broker: Broker, source: Source) -> None:
    source.tag = '"v1"'
    before = await broker.get()
    broker.clock.now += 60
    after = await broker.get()
    assert source.asked == [(NEW, None), (NEW, '"v1"')]
    assert after.body == before.body
    broker.clock.now += 59
    await broker.get()
    assert len(source.asked) == 2


async def test_a_stampede_asks_once(broker: Broker, source: Source) -> None:
    source.gate.clear()
    waiting = [asyncio.ensure_future(broker.get()) for _ in range(50)]
    await until(lambda: source.asked)
    source.gate.set()
    assert {response.status for response in await asyncio.gather(*waiting)} == {200}
    assert len(source.asked) == 1


async def test_one_who_leaves_does_not_end_it_for_the_others(broker: Broker, source: Source) -> None:
    source.gate.clear()
    first = asyncio.ensure_future(broker.cards.card())
    await until(lambda: source.asked)
    second = asyncio.ensure_future(broker.cards.card())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.gate.set()
    assert (await second).interfaces[0].path == "/rpc"
    assert len(source.asked) == 1


async def test_an_agent_of_v02_has_its_card_elsewhere(broker: Broker, source: Source) -> None:
    source.answers = {OLD: (200, b'{"url": "http://a/", "name": "old", "capabilities": {}}')}
    assert (await broker.get()).status == 200
    assert [path for path, _ in source.asked] == [NEW, OLD]
    assert (await broker.cards.card()).interface("jsonrpc", "0.3") is not None


HOSTILE = {
    "nothing": (404, b""),
    "a fault": (500, json.dumps(CARD).encode()),
    "a refusal": (401, b""),
    "a redirect": (302, b""),
    "no JSON": (200, b"<html>"),
    "no object": (200, b"[1]"),
    "10 MB": (200, b'{"name": "' + b"x" * 10_000_000 + b'"}'),
    "wrong types": (200, json.dumps(CARD | {"capabilities": 1}).encode()),
    "wrong types further in": (200, json.dumps(CARD | {"skills": [1]}).encode()),
    "deep": (200, b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "no text": (200, b"\xff\xfe"),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_no_card_is_not_served(
    broker: Broker, source: Source, answer: tuple[int, bytes]
) -> None:
    source.answers = {NEW: answer}
    response = await broker.get()
    assert response.status == 502
    assert response.json["error"]["code"] == "bad-gateway"
    with pytest.raises(AgentAway):
        await broker.cards.card()


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
async def test_the_last_good_card_is_served_on(
    broker: Broker, source: Source, answer: tuple[int, bytes]
) -> None:
    good = await broker.get()
    source.answers = {NEW: answer}
    broker.clock.now += 75
    stale = await broker.get()
    assert stale.status == 200
    assert stale.body == good.body
    assert stale.headers["ETag"] == good.headers["ETag"]
    assert stale.headers["Sidecast-Card"] == "stale"
    assert stale.headers["Cache-Control"] == "no-cache"
    assert stale.headers["Age"] == "75"
    assert (await broker.cards.card()).interfaces[0].path == "/rpc"


async def test_an_agent_that_failed_is_left_alone_for_a_moment(broker: Broker, source: Source) -> None:
    source.answers = {}
    for _ in range(3):
        assert (await broker.get()).status == 502
    assert len(source.asked) == 2  # both paths, once
    source.answers = {NEW: (200, json.dumps(CARD).encode())}
    broker.clock.now += module.RETRY_S
    response = await broker.get()
    assert response.status == 200
    assert "Sidecast-Card" not in response.headers


async def test_an_agent_that_is_away_and_comes_back(port: int) -> None:
    source = Source()
    async with serving(f"http://127.0.0.1:{port}") as broker:
        response = await broker.get()
        assert response.status == 503
        assert response.headers["Retry-After"] == "2"
        broker.clock.now += module.RETRY_S
        async with source.serving(port):
            assert (await broker.get()).status == 200
        broker.clock.now += 60
        assert (await broker.get()).headers["Sidecast-Card"] == "stale"


async def test_an_agent_that_takes_too_long(
    broker: Broker, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.1)
    source.gate.clear()
    response = await broker.get()
    assert response.status == 503
    assert "within 0.1 s" in response.json["error"]["message"]
    source.gate.set()


async def test_no_agent() -> None:
    async with serving("", name="watched") as broker:
        response = await broker.get()
        assert response.status == 200
        assert response.json["name"] == "watched"
        assert response.urls == {broker.url, f"{broker.url}/a2a"}
        assert response.json["capabilities"]["streaming"] is True
        assert not (await broker.cards.card()).interfaces
        broker.clock.now += 3600
        again = await broker.get(headers={"If-None-Match": response.headers["ETag"]})
        assert again.status == 304
        assert "Sidecast-Card" not in again.headers
        AgentCardV03.model_validate((await broker.get(OLD)).json)


# --- a real agent of a2a-sdk, and its own clients


class Hello(AgentExecutor):
    """Answers with a message."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        parts = [pb.Part(text=f"hello {context.get_user_input()}")]
        await event_queue.enqueue_event(pb.Message(message_id="m2", role=pb.Role.ROLE_AGENT, parts=parts))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise AssertionError


@pytest.fixture
async def sdk_agent() -> AsyncIterator[str]:
    """Give the URL of a real agent whose JSON-RPC is at `/rpc`, of both versions."""
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    card = pb.AgentCard(
        name="hello",
        description="Greets.",
        version="1.0",
        capabilities=pb.AgentCapabilities(streaming=True),
        supported_interfaces=[
            pb.AgentInterface(url=f"{url}/rpc", protocol_binding="JSONRPC", protocol_version=version)
            for version in ("1.0", "0.3")
        ],
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[pb.AgentSkill(id="hello", name="Hello", description="Greets.", tags=["hello"])],
    )
    handler = DefaultRequestHandler(agent_executor=Hello(), task_store=InMemoryTaskStore(), agent_card=card)
    routes = [
        *create_agent_card_routes(card),
        *create_jsonrpc_routes(handler, rpc_url="/rpc", enable_v0_3_compat=True),
    ]
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve([listening]))
    await until(lambda: server.started)
    yield url
    server.should_exit = True
    await running
    listening.close()


async def test_a_real_client_finds_the_broker_by_its_card_and_is_answered(sdk_agent: str) -> None:
    async with serving(sdk_agent, name="hello") as broker, httpx.AsyncClient() as client:
        card = await A2ACardResolver(client, broker.url).get_agent_card()
        assert {each.url for each in card.supported_interfaces} == {broker.url, f"{broker.url}/a2a"}
        factory = ClientFactory(ClientConfig(httpx_client=client, streaming=False))
        message = pb.Message(message_id="m1", role=pb.Role.ROLE_USER, parts=[pb.Part(text="you")])
        request = pb.SendMessageRequest(message=message)
        answers = [answer async for answer in factory.create(card).send_message(request)]
        assert answers[0].message.parts[0].text == "hello you"


async def test_what_passes_is_byte_for_byte_what_the_agent_answers(sdk_agent: str) -> None:
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": "one",
            "method": "GetTask",
            "params": {"id": "no-such-task"},
        }
    ).encode()
    headers = {"A2A-Version": "1.0", "Content-Type": "application/json"}
    async with serving(sdk_agent, name="hello") as broker:
        async with broker.session.post(f"{sdk_agent}/rpc", data=body, headers=headers) as direct:
            expected = (direct.status, await direct.read())
        async with broker.session.post(f"{broker.url}/a2a", data=body, headers=headers) as passed:
            assert (passed.status, await passed.read()) == expected
        assert b"-32001" in expected[1]


async def test_what_the_agent_has_is_known(sdk_agent: str) -> None:
    async with serving(sdk_agent, name="hello") as broker:
        card = await broker.cards.card()
        assert [(each.binding, each.version, each.path) for each in card.interfaces] == [
            ("jsonrpc", "1.0", "/rpc"),
            ("jsonrpc", "0.3", "/rpc"),
        ]
        assert card.streaming
        AgentCardV03.model_validate((await broker.get(OLD)).json)
