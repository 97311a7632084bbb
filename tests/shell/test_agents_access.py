"""Credentials where there are several agents: who is who at each, and what a ticket of one opens."""

from __future__ import annotations

from pathlib import Path

import pytest
from access_rig import RecordingBackend
from askers import Askers, bearer
from brokers import (
    ask,
)
from several_agents import FOREIGN, PATHS, V1, several, stock, texts
from sse import Watch

from sidecast_broker.auth.api_keys import hash_key
from sidecast_broker.core.auth.principal import Principal


@pytest.fixture
def backend() -> RecordingBackend:
    return RecordingBackend()


# --- credentials, tickets, subscriptions

ALICE = Principal("alice", "jwt")


@pytest.fixture
def askers() -> Askers:
    return Askers(ALICE, Principal("bob", "jwt"))


async def test_a_ticket_is_of_the_agent_whose_path_it_is_asked_at(
    backend: RecordingBackend, tmp_path: Path
) -> None:
    for agent, said in (("agent", "of the first"), ("b", "of the second")):
        await stock(backend, agent, "t", said)
    (tmp_path / "keys.toml").write_text(
        f'[[key]]\nid = "alice"\nsha256 = "{hash_key("key")}"\nprincipal = "alice"\n'
    )
    headers = {"X-API-Key": "key", "Content-Type": "application/json"}
    async with several(backend, auth__api_keys_file=tmp_path / "keys.toml") as running:
        code, made = await ask("POST", f"{running.url}/agents/b/tickets", b'{"tasks":["t"]}', headers)
        assert code == 200
        query = f"?from=start&ticket={made['ticket']}"
        async with Watch(f"{running.url}/agents/b/tasks/t/events{query}") as watch:
            assert "of the second" in texts(await watch.rest())
        for prefix in ("", "/agents/agent", "/agents/other"):
            code, _said = await ask("GET", f"{running.url}{prefix}/tasks/t/events{query}")
            assert code == 404
        missing = await ask("POST", f"{running.url}/agents/b/tickets", b'{"tasks":["x"]}', headers)
        assert missing[0] == 404
        assert (
            await ask("POST", f"{running.url}/agents/other/tickets", b'{"tasks":["t"]}', headers) == missing
        )


async def test_who_is_unknown_hears_the_same_of_every_agent(
    backend: RecordingBackend, askers: Askers
) -> None:
    await stock(backend, "b", "t", "x")
    async with several(backend, auth__required="true", authenticator=askers) as running:
        for prefix in ("", "/agents/b", *FOREIGN):
            for path in PATHS.values():
                code, _said = await ask("GET", running.url + prefix + path.format("t"))
                assert code == 401
            for way in ("/tickets", "/"):
                json_headers = {"Content-Type": "application/json"}
                code, _said = await ask("POST", running.url + prefix + way, b"{}", json_headers | V1)
                assert code == 401


async def test_with_credentials_another_agent_is_to_the_byte_like_a_missing_task(
    backend: RecordingBackend, askers: Askers
) -> None:
    await stock(backend, "b", "t", "x")
    async with several(
        backend, auth__required="true", auth__refusal_floor_ms=0, authenticator=askers
    ) as running:
        for path in PATHS.values():
            answers = [
                await ask("GET", running.url + prefix + path.format(task), headers=bearer(who))
                for prefix, task, who in (
                    ("/agents/b", "missing", "alice"),
                    ("/agents/b", "t", "bob"),
                    ("/agents/other", "t", "alice"),
                    ("/agents/agent", "t", "alice"),
                )
            ]
            assert answers[0][0] == 404
            assert answers.count(answers[0]) == len(answers)
