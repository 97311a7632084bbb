"""The NATS permissions that the documentation gives are enough for an agent and its broker, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import nats
import pytest
from a2a_rig.processes import Agent
from a2a_rig.wire import V1_REST, Door, numbers, outline, text_after
from askers import Askers, bearer
from brokers import ENVIRON, ask, until
from documented_permissions import configuration
from e2e.broker import Broker
from nats_server import NatsServer

from sidecast_broker.app import serving
from sidecast_broker.configuration import load
from sidecast_broker.core.auth.principal import Principal


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
