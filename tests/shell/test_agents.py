"""Several agents in one broker: each behind its own prefix, and none of them seen by another's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from access_rig import RecordingBackend
from brokers import (
    AS_JSON,
    OwnBroker,
    ask,
    task_record,
)
from recording_agent import Heard, RecordingAgent, Said
from several_agents import FOREIGN, HOSTILE, HOSTILE_SEGMENT, PATHS, V1, several, stock, texts
from sse import Watch, kinds


@pytest.fixture
def backend() -> RecordingBackend:
    return RecordingBackend()


# --- the browser format


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_one_id_is_another_task_at_each_agent(backend: RecordingBackend, path: str) -> None:
    await stock(backend, "agent", "t", "of the first")
    await stock(backend, "b", "t", "of the second")
    await stock(backend, HOSTILE, "t", "of the third", "acme")
    async with several(backend) as running:
        for prefix, said in {
            "": "of the first",
            "/agents/agent": "of the first",
            "/agents/b": "of the second",
            "/agents/%62": "of the second",
            f"/agents/{HOSTILE_SEGMENT}": "of the third",
        }.items():
            mark = "&" if "?" in path else "?"
            target = f"{prefix}{path.format('t')}{mark}from=start&named=1"
            async with Watch(running.url + target) as watch:
                frames = await watch.rest()
            assert said in texts(frames)
            assert texts(frames).count("of the ") == 1


async def test_all_tasks_of_an_agent_are_those_of_no_other(backend: RecordingBackend) -> None:
    await stock(backend, "agent", "one", "x")
    await stock(backend, "b", "two", "y")
    async with several(backend) as running:
        for prefix, task in {"": "one", "/agents/b": "two"}.items():
            code, said = await ask("GET", f"{running.url}{prefix}/events?agent=1", headers=AS_JSON)
            assert (code, [each["task"]["id"] for each in said["tasks"]]) == (200, [task])
            context = f"{running.url}{prefix}/events?context=context-1"
            _code, said = await ask("GET", context, headers=AS_JSON)
            assert [each["task"]["id"] for each in said["tasks"]] == [task]


async def test_a_task_that_begins_at_one_agent_ends_no_wait_at_another(backend: RecordingBackend) -> None:
    async with (
        several(backend) as running,
        Watch(f"{running.url}/agents/b/tasks/t/events?wait_s=20") as right,
        Watch(f"{running.url}/agents/agent/tasks/t/events?wait_s=0.5") as wrong,
    ):
        await stock(backend, "b", "t", "hers")
        assert "hers" in texts(await right.rest())
        frames = await wrong.rest()
    assert kinds(frames)[-1] == "stream.end"
    assert frames[-1].json["reason"] == "not-found"


# --- agents that aren't served


@pytest.mark.parametrize("prefix", FOREIGN)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_another_agent_answers_like_a_missing_task_and_leaves_nothing(
    backend: RecordingBackend, prefix: str, path: str
) -> None:
    await stock(backend, "other", "t", "secret")
    await stock(backend, "unknown", "t", "secret")
    async with several(backend) as running:
        known = await ask("GET", running.url + path.format("missing"))
        backend.asked.clear()
        assert await ask("GET", running.url + prefix + path.format("t")) == known
        assert await ask("GET", running.url + prefix + path.format("missing")) == known
        assert known[0] == 404
        assert backend.asked == [], "nobody is asked about it"
        assert await running.metric("sidecast_tasks") == 0


async def test_waiting_for_a_task_of_another_agent_is_waiting_for_one_that_never_comes(
    backend: RecordingBackend,
) -> None:
    await stock(backend, "other", "t", "secret")
    async with several(backend) as running:
        ends = []
        for target in ("/agents/other/tasks/t/events", "/agents/b/tasks/missing/events"):
            async with Watch(f"{running.url}{target}?wait_s=0.3") as watch:
                frames = await watch.rest()
            ends.append([(frame.kind, frame.json.get("reason")) for frame in frames])
        assert ends[0] == ends[1]
        assert ends[0][-1] == ("stream.end", "not-found")


@pytest.mark.parametrize("together", ["agent=1", "context=context-1", "task=t&wait_s=5"])
async def test_no_feed_is_opened_for_another_agent(backend: RecordingBackend, together: str) -> None:
    await stock(backend, "other", "t", "secret")
    async with several(backend) as running:
        backend.asked.clear()
        code, _said = await ask("GET", f"{running.url}/agents/other/events?{together}")
        assert code == 404
        assert backend.asked == []


@pytest.mark.parametrize("segment", ["%FF", "%zz", "%C0%AE"])
async def test_a_name_that_is_no_text_is_no_request(backend: RecordingBackend, segment: str) -> None:
    async with several(backend) as running:
        for path in ("/tasks/t/events", "/.well-known/agent-card.json", "/tasks/t", "/stream/tasks/t"):
            code, _said = await ask("GET", f"{running.url}/agents/{segment}{path}", headers=V1)
            assert code == 400, path


@pytest.mark.parametrize("target", ["/agents/../tasks/t", "/agents/%2e%2e/tasks/t", "/agents//tasks/t"])
async def test_a_prefix_that_servers_read_differently_is_refused(
    backend: RecordingBackend, target: str
) -> None:
    await stock(backend, "agent", "t", "x")
    async with several(backend) as running:
        code, _said = await ask("GET", running.url + target, headers=V1)
        assert code == 400


# --- the card and the A2A door


async def test_each_agent_has_its_own_card_with_its_own_addresses(backend: RecordingBackend) -> None:
    async with several(backend) as running:
        for prefix, name in {"": "agent", "/agents/b": "b", f"/agents/{HOSTILE_SEGMENT}": HOSTILE}.items():
            code, card = await ask("GET", f"{running.url}{prefix}/.well-known/agent-card.json")
            assert (code, card["name"]) == (200, name)
            urls = {each["url"] for each in card["supportedInterfaces"]}
            assert urls <= {f"{running.url}{prefix}", f"{running.url}{prefix}/a2a"}
        for prefix in FOREIGN:
            code, _said = await ask("GET", f"{running.url}{prefix}/.well-known/agent-card.json")
            assert code == 404


def answering(name: str) -> Any:
    def answer(heard: Heard) -> Said:
        return Said(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"heard": name}}).encode())

    return answer


@asynccontextmanager
async def before_two(backend: RecordingBackend, **changes: Any) -> AsyncIterator[tuple[Any, Any, OwnBroker]]:
    """Run a broker before two agents that write down what they are sent."""
    async with RecordingAgent() as one, RecordingAgent() as two:
        one.answer, two.answer = answering("one"), answering("two")
        agents = {"b": {"url": two.url, "passthrough": "/docs"}}
        async with several(backend, agents, agent__url=one.url, **changes) as running:
            yield one, two, running


async def test_what_is_asked_of_an_agent_reaches_it_alone_without_the_prefix(
    backend: RecordingBackend,
) -> None:
    await stock(backend, "agent", "t", "x")
    body = b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t"}}'
    headers = V1 | {"Content-Type": "application/json"}
    async with before_two(backend) as (one, two, running):
        for prefix, mine, others in (("/agents/b", two, one), ("", one, two), ("/agents/agent", one, two)):
            mine.heard.clear()
            others.heard.clear()
            await ask("POST", f"{running.url}{prefix}/a2a", body, headers)
            await ask("GET", f"{running.url}{prefix}/tasks/t?historyLength=1", headers=V1)
            assert [heard.line for heard in mine.heard] == ["POST /", "GET /tasks/t?historyLength=1"]
            assert others.heard == []
        two.heard.clear()
        await ask("GET", f"{running.url}/agents/b/docs/x?y=1", headers=V1)
        code, _said = await ask("GET", f"{running.url}/docs/x", headers=V1)
        assert ([heard.line for heard in two.heard], code) == (["GET /docs/x?y=1"], 404)


async def test_nothing_for_another_agent_reaches_any(backend: RecordingBackend) -> None:
    body = b'{"jsonrpc":"2.0","id":"seven","method":"GetTask","params":{"id":"t"}}'
    headers = V1 | {"Content-Type": "application/json"}
    async with before_two(backend) as (one, two, running):
        for prefix in FOREIGN:
            code, said = await ask("POST", f"{running.url}{prefix}/", body, headers)
            assert (code, said["error"]["code"], said["id"]) == (200, -32001, "seven")
            code, _said = await ask("GET", f"{running.url}{prefix}/tasks/t", headers=V1)
            assert code == 404
            code, _said = await ask("GET", f"{running.url}{prefix}/docs/x", headers=V1)
            assert code == 404
        assert one.heard + two.heard == []


# --- beside


async def test_the_page_and_its_list_are_the_default_agents(backend: RecordingBackend) -> None:
    await stock(backend, "agent", "one", "x")
    await stock(backend, "b", "two", "y")
    async with several(backend) as running:
        _code, said = await ask("GET", f"{running.url}/ui/api/tasks")
        assert [each["task"] for each in said["tasks"]] == ["one"]


async def test_the_list_is_the_default_agents_also_while_nats_is_away(backend: RecordingBackend) -> None:
    await stock(backend, "agent", "one", "x")
    await stock(backend, "b", "two", "y")
    async with several(backend) as running:
        for path in ("/tasks/one/events", "/agents/b/tasks/two/events"):
            assert (await ask("GET", running.url + path, headers=AS_JSON))[0] == 200
        assert await running.metric("sidecast_tasks") == 2
        await backend.go_away()
        _code, said = await ask("GET", f"{running.url}/ui/api/tasks")
        assert said["partial"]
        assert [each["task"] for each in said["tasks"]] == ["one"]


async def test_publishing_over_http_names_the_agent(backend: RecordingBackend) -> None:
    async with several(backend) as running:
        url = f"{running.internal_url}/publish/t?agent=b"
        headers = {"Content-Type": "application/json"}
        code, _said = await ask("POST", url, task_record("t"), headers)
        assert code == 200
        seen = [
            (await ask("GET", f"{running.url}{prefix}/tasks/t/events", headers=AS_JSON))[0]
            for prefix in ("", "/agents/b")
        ]
        assert seen == [404, 200]


async def test_what_is_made_for_agents_is_made_at_start(backend: RecordingBackend) -> None:
    async with several(backend) as running:
        tasks = len(asyncio.all_tasks())
        for number in range(100):
            await ask("GET", f"{running.url}/agents/x{number}/tasks/t/events")
        assert await running.metric("sidecast_tasks") == 0
        assert len(asyncio.all_tasks()) <= tasks + 1
