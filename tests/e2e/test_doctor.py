"""`sidecast doctor` beside a real NATS server, a real broker and a real agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from a2a_rig.processes import Agent
from documented_permissions import documented
from e2e.broker import Broker
from nats_server import NatsServer

from sidecast_broker.configuration import load
from sidecast_broker.core.permissions import Permission, needed
from sidecast_broker.doctor.bus import Bus

SETTINGS = {"agent.name": "planner", "agent.capture": "proxy", "auth.required": "true"}
NEEDED = needed(
    stream="SIDECAST",
    tenant="",
    agent="planner",
    manages=True,
    captures=True,
    has_agent=True,
    keeps_messages=True,
    authenticates=True,
)


def examine(settings: dict[str, object], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the command; give its exit code and findings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAST_")}
    given = {f"SIDECAST_{name.replace('.', '_').upper()}": str(value) for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "sidecast_broker", "doctor", "--json", "--wait", "1", *arguments],
        env=clean | given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def of(findings: list[dict[str, Any]], check: str) -> list[tuple[str, str]]:
    return [(each["level"], each["text"]) for each in findings if each["check"] == check]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[str], NatsServer]]:
    """Gives a server whose one user has some permissions, as its configuration writes them."""
    with ExitStack() as stack:

        def serve(rights: str) -> NatsServer:
            config = tmp_path / "nats.conf"
            user = f"{{user: broker, password: pw, permissions: {{\n{rights}\n}}}}"
            config.write_text(f"authorization {{ users: [\n{user}\n] }}\n")
            return stack.enter_context(NatsServer(tmp_path / "nats", "--config", str(config)))

        yield serve


def url_of(server: NatsServer) -> str:
    return server.url.replace("//", "//broker:pw@")


def test_all_is_well_where_all_is_as_documented(served: Callable[[str], NatsServer], tmp_path: Path) -> None:
    server = served(documented()["broker"])
    with Agent(tmp_path, nats_url="", options=("--agent", "planner")) as agent:
        settings = SETTINGS | {"agent.url": agent.url, "auth.required": "auto"}
        with Broker(tmp_path, [url_of(server)], settings) as broker:
            code, found = examine(settings | {"nats.url": url_of(server)}, "--url", broker.url)
    wrong = [each for each in found if each["level"] == "fail"]
    assert (code, wrong) == (0, [])
    assert {each["check"] for each in found if each["level"] == "ok"} >= {
        *("nats", "permissions", "stream", "clock", "agent", "stream through", "card")
    }


@pytest.mark.parametrize("missing", NEEDED, ids=lambda each: f"{each.direction} {each.subject}")
async def test_a_permission_that_is_missing_is_named(
    missing: Permission, served: Callable[[str], NatsServer]
) -> None:
    allowed: dict[str, list[str]] = {"publish": [], "subscribe": []}
    for each in NEEDED:
        if each != missing:
            allowed[each.direction].append(each.subject)
    server = served(
        "\n".join(f"{way}: {{ allow: {json.dumps(subjects)} }}" for way, subjects in allowed.items())
    )
    flags = SETTINGS | {"agent.url": "http://127.0.0.1:9", "nats.url": url_of(server)}
    bus = Bus(load(None, {}, flags))
    try:
        assert (await bus.connect()).level == "ok"
        (named,) = await bus.look_at_permissions()
    finally:
        await bus.close()
    assert named.level == ("fail" if missing.essential else "warn")
    assert named.text.startswith(f"may not {missing.direction} to {missing.subject}: ")


async def test_permissions_are_looked_at_for_each_of_several_agents(
    served: Callable[[str], NatsServer],
) -> None:
    rights = documented()["broker"]
    server = served(rights)
    environ = {
        "SIDECAST_NATS_URL": url_of(server),
        "SIDECAST_AGENT_NAME": "planner",
        "SIDECAST_AGENTS": '{"second": {"url": "http://127.0.0.1:9"}}',
    }
    bus = Bus(load(None, environ, {}))
    try:
        assert (await bus.connect()).level == "ok"
        found = await bus.look_at_permissions()
    finally:
        await bus.close()
    assert ("fail", True) in {(each.level, "sidecast.v1.live._.second.*" in each.text) for each in found}
    # Of the first agent nothing is missing, nor of what all have in common.
    assert all("._.second." in each.text for each in found)


def test_nothing_is_left_behind(served: Callable[[str], NatsServer]) -> None:
    server = served(documented()["broker"])
    settings = SETTINGS | {"agent.capture": "adapter", "nats.url": url_of(server)}
    for _ in range(2):
        _code, found = examine(settings)
        assert of(found, "stream") == [("ok", "SIDECAST is missing: the broker will create it")]


def test_nats_that_is_away_or_knows_us_not_fails_without_showing_a_password(
    served: Callable[[str], NatsServer],
) -> None:
    server = served(documented()["broker"])
    for url in ("nats://broker:secret@127.0.0.1:9", server.url.replace("//", "//broker:secret@")):
        code, found = examine({"nats.url": url})
        assert code == 1
        ((level, text),) = of(found, "nats")
        assert level == "fail"
        assert "secret" not in json.dumps(found)
        assert "127.0.0.1" in text
