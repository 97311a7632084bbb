"""The NATS permissions that the documentation gives are enough for an agent and its broker, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import nats
import nats.errors
import pytest
import structlog
from a2a_rig.processes import Agent
from a2a_rig.wire import V1_REST, Door, numbers, outline, text_after
from askers import Askers, bearer
from brokers import ENVIRON, TASK, OwnBroker, ask, status, task_record, until
from documented_permissions import configuration
from e2e.broker import Broker
from nats_server import NatsServer
from sse import TIMEOUT_S

from sidecast_broker.app import serving
from sidecast_broker.configuration import load
from sidecast_broker.core.auth.principal import Principal
from sidecast_schemas.subjects import TaskKey, events_subject


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    config = tmp_path / "nats.conf"
    config.write_text(configuration())
    with NatsServer(tmp_path / "nats", "--config", str(config)) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def url_of(server: NatsServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:pw@")


@pytest.mark.parametrize("capture", ["adapter", "proxy"])
async def test_they_are_enough(
    capture: str, tmp_path: Path, server: NatsServer, session: aiohttp.ClientSession
) -> None:
    publishes = url_of(server, "agent") if capture == "adapter" else ""
    settings = {"agent.name": "planner", "agent.capture": capture, "stream.drain_s": 0.2}
    with (
        Agent(tmp_path, nats_url=publishes, options=("--agent", "planner")) as agent,
        Broker(tmp_path, [url_of(server, "broker")], settings | {"agent.url": agent.url}) as broker,
    ):
        door = Door(session, broker.url)
        for _ in range(2):
            async with door.open(V1_REST, "stream", text="chunks 3", message_id="m1") as stream:
                frames = await stream.rest()
            assert text_after([frame.result for frame in frames]) == numbers(1, 3)
            assert outline(frames[-1].result) == "status completed"
        assert len(agent.seen["messages"]) == 1
        events = [line["event"] for line in broker.log_lines()]
        assert "bucket_created" in events
        assert "nats_away" not in events


@pytest.mark.parametrize("user", ["agent", "broker"])
@pytest.mark.parametrize(
    "subject",
    ["sidecast.v1.events._.other.t", "sidecast.v1.live._.planner.t", "$KV.SIDECAST_MESSAGES._.other.m"],
)
async def test_they_end_at_the_agent(user: str, subject: str, server: NatsServer) -> None:
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error).lower())

    connection = await nats.connect(url_of(server, user), error_cb=note, allow_reconnect=False)
    try:
        await connection.publish(subject, b"{}")
        await until(lambda: errors)
        assert "permissions violation for publish" in errors[0]
        assert subject.lower() in errors[0]
    finally:
        await connection.close()


async def test_they_are_enough_to_revoke(server: NatsServer) -> None:
    settings = load(
        None,
        ENVIRON | {"SIDECAST_NATS_URL": url_of(server, "broker"), "SIDECAST_AUTH_REQUIRED": "true"},
        {"agent.name": "planner"},
    )
    root = Principal("root", "jwt", rights=frozenset({"admin"}))
    async with serving(settings, authenticator=Askers(root, Principal("alice", "jwt"))) as listening:
        headers = bearer("root") | {"Content-Type": "application/json"}
        url = f"{listening.internal_url}/revoke"
        for revision in (1, 2):
            status, answer = await ask("POST", url, b'{"principal":"alice"}', headers)
            assert (status, answer["stored"]["revision"]) == (200, revision)


async def test_they_are_enough_for_named_subscriptions(server: NatsServer) -> None:
    key = TaskKey("", "planner", TASK)
    settings = load(
        None, ENVIRON | {"SIDECAST_NATS_URL": url_of(server, "broker")}, {"agent.name": "planner"}
    )
    async with AsyncExitStack() as stack:
        one, other = [OwnBroker(await stack.enter_async_context(serving(settings))) for _ in range(2)]
        for running in (one, other):
            await running.ready()
            stack.push_async_callback(running.leave)
        agent = await nats.connect(url_of(server, "agent"))
        stack.push_async_callback(agent.close)
        for payload in (task_record(), status("one")):
            await agent.request(events_subject(key), payload)
        first = await one.watch(subscription="s", ack="client")
        _opened, snapshot = await first.take(2)
        body = json.dumps({"id": snapshot.id}).encode()
        code, _answer = await ask(
            "POST", f"{one.url}/subscriptions/s/ack", body, {"Content-Type": "application/json"}
        )
        assert code == 200
        second = await other.watch(subscription="s", ack="client")
        assert (await second.next())["cursor"] == snapshot.id
        assert (await first.rest())[-1]["reason"] == "displaced"
        assert (await ask("DELETE", f"{one.url}/subscriptions/s"))[0] == 204
        assert (await second.rest())[-1]["reason"] == "deleted"
        of_context = await one.watch(path="/events?context=context-1&subscription=s")
        assert (await of_context.take(2))[-1].id == snapshot.id
        code, answer = await ask(
            "POST", f"{other.url}/subscriptions/s/ack", body, {"Content-Type": "application/json"}
        )
        assert (code, answer["context"]) == (200, "context-1")


MISSING = {
    "$JS.API.STREAM.INFO.SIDECAST": "publish",
    "$JS.API.DIRECT.GET.SIDECAST": "publish",
    "$JS.API.STREAM.MSG.GET.SIDECAST": "publish",
    "sidecast.v1.live._.planner.*": "subscription",
}


@pytest.mark.parametrize("subject", MISSING)
async def test_a_broker_says_which_one_is_missing(subject: str, tmp_path: Path) -> None:
    text = configuration()
    agent, mark, broker = text.partition("user: broker")
    config = tmp_path / "nats.conf"
    config.write_text(agent + mark + broker.replace(f'"{subject}", ', "").replace(f', "{subject}"', ""))
    assert config.read_text() != text
    with NatsServer(tmp_path / "nats", "--config", str(config)) as running:
        publishes = await nats.connect(url_of(running, "agent"), allow_reconnect=False)
        environ = ENVIRON | {"SIDECAST_NATS_URL": url_of(running, "broker"), "SIDECAST_AGENT_NAME": "planner"}
        with structlog.testing.capture_logs() as lines:
            async with serving(load(None, environ, {})) as listening:

                def said() -> list[str]:
                    return [str(line["error"]) for line in lines if line["event"] == "nats_away"]

                wanted = (
                    f'permissions violation for {MISSING[subject]} to "{subject.removesuffix(".*")}'.lower()
                )
                key = TaskKey("", "planner", TASK)
                asked = f"{listening.url}/tasks/{TASK}/events"
                async with asyncio.timeout(TIMEOUT_S):
                    while not any(wanted in each.lower() for each in said()):
                        # The stream may not be there yet: nothing is stored, and nothing to be read.
                        with contextlib.suppress(nats.errors.Error):
                            await publishes.request(events_subject(key), task_record(), timeout=1)
                        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                            await ask("GET", asked, headers={"Accept": "application/json"})
        await publishes.close()
