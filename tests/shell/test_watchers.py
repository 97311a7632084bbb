"""Who watches a task, as the page asks for it: the same as `/streams` says, to nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from access_rig import ACME, ALICES, MISSING, OPEN, PRINCIPALS, stocked
from askers import Askers, bearer
from brokers import TASK, FakeBackend, broker, numbered, task_record

from sidecast_broker import onlookers

PATH = f"/ui/api/streams?task={ALICES}"
PACES: list[dict[str, object]] = [
    {},
    {"max_rate": 5, "coalesce": 1, "slow": "snapshot"},
    {"batch_ms": 100},
]
CHECKING: dict[str, Any] = {"auth__required": "true", "auth__refusal_floor_ms": 0}


@pytest.mark.parametrize(
    ("who", "wanted"),
    [
        (None, 401),
        ("mallory", 401),
        ("alice", 403),
        ("carol", 403),
        ("holder", 403),
        ("teller", 403),
        ("root", 200),
        ("chief", 200),
    ],
)
async def test_it_needs_the_right_that_streams_needs(who: str | None, wanted: int) -> None:
    async with broker(stocked(), authenticator=Askers(*PRINCIPALS), **CHECKING) as running:
        headers = bearer(who) if who else {}
        status, body = await running.get(PATH, headers)
        assert status == wanted
        refused, there = await running.internal("/streams", headers=headers)
        assert refused == wanted
        if wanted != 200:
            assert body == there  # to the letter
        if wanted != 401:
            assert (await running.get("/ui/api/tasks", headers))[1]["watchers"] is (wanted == 200)


async def test_who_is_bound_to_a_tenant_sees_streams_of_it_only() -> None:
    backend = stocked()
    async with broker(backend, authenticator=Askers(*PRINCIPALS), **CHECKING) as running:
        backend.store(OPEN, task_record(OPEN), owner="alice", tenant=ACME)
        await (await running.watch(OPEN, headers=bearer("alice"))).take(2)
        for _ in range(2):
            await (await running.watch(OPEN, headers=bearer("dave"))).take(2)

        async def seen(who: str) -> list[str]:
            body = (await running.get(f"/ui/api/streams?task={OPEN}", bearer(who)))[1]
            assert body["watching"] == len(body["streams"])
            return [stream["tenant"] for stream in body["streams"]]

        assert await seen("root") == [""]
        assert await seen("chief") == [ACME, ACME]


async def test_it_says_of_each_what_is_known_and_of_other_tasks_nothing(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record(), *numbered(3))
        await fake.publish(task_record("other"), task="other")
        open_now = [await running.watch(TASK, **query) for query in PACES]
        other = await running.watch("other")
        for watch in (*open_now, other):
            await watch.take(2)
        status, body = await running.get(f"/ui/api/streams?task={TASK}")
        assert (status, body["watching"], body["worker"]) == (200, 3, False)
        everything = (await running.internal("/streams"))[1]["streams"]
        known = {stream["peer"]: stream for stream in everything if stream["task"] == TASK}
        told = {stream["peer"]: stream for stream in body["streams"]}
        assert told.keys() == known.keys()
        for peer, stream in told.items():
            assert stream.keys() == known[peer].keys()
            assert stream["pace"] == known[peer]["pace"]
        assert sorted((s["slow"], s["coalesce"], bool(s["pace"])) for s in told.values()) == [
            ("disconnect", False, False),
            ("disconnect", False, True),
            ("snapshot", True, True),
        ]
        for task in (MISSING, "", "%00", "a%2Fb"):
            answer = await running.get(f"/ui/api/streams?task={task}")
            assert (answer[0], answer[1]["watching"], answer[1]["streams"]) == (200, 0, [])


@pytest.mark.parametrize("query", ["", "?", "?other=1", "?task=a&task=b", "?task=%zz", "?task=%ff"])
async def test_a_task_must_be_named_once(fake: FakeBackend, query: str) -> None:
    async with broker(fake) as running:
        assert (await running.get(f"/ui/api/streams{query}"))[0] == 400


async def test_of_many_those_furthest_behind_are_told(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onlookers, "STREAMS_MAX", 2)
    async with broker(fake, pace__burst=1) as running:
        await fake.publish(task_record())
        slow = await running.watch(TASK, max_rate=0.1)
        await slow.take(2)
        for _ in range(4):
            await (await running.watch(TASK)).take(2)
        await fake.publish(*numbered(5))
        last = await running.watch(TASK)
        await last.take(2)
        body = (await running.get(f"/ui/api/streams?task={TASK}"))[1]
        assert (body["watching"], len(body["streams"])) == (6, 2)
        assert body["streams"][0]["pace"]["max_rate"] == 0.1
        assert body["streams"][0]["behind_events"] >= 3


@pytest.mark.parametrize(
    ("settings", "headers", "wanted"),
    [
        ({}, {}, 200),
        ({}, {"Host": "localhost:8480"}, 200),
        ({}, {"Host": "evil.example"}, 421),
        ({"server__internal_host": "127.0.0.2"}, {"Host": "127.0.0.2"}, 200),
        ({}, {"Origin": "https://evil.example"}, 403),
        ({}, {"Sec-Fetch-Site": "cross-site"}, 403),
        ({"server__cors_origins": "*"}, {"Origin": "https://evil.example"}, 403),
        ({"internal__open": "false"}, {}, 401),
        ({"server__trusted_proxies": "127.0.0.1"}, {"X-Forwarded-For": "192.0.2.7"}, 401),
    ],
    ids=str,
)
async def test_without_a_scheme_it_is_for_this_machine(
    fake: FakeBackend, settings: dict[str, str], headers: dict[str, str], wanted: int
) -> None:
    async with broker(fake, **settings) as running:
        assert (await running.get(PATH, headers))[0] == wanted
        status, body = await running.get("/ui/api/tasks", headers)
        assert (status, body["watchers"]) == (200, wanted == 200)


async def test_with_a_credential_the_public_name_is_no_matter_but_the_origin_is() -> None:
    async with broker(stocked(), authenticator=Askers(*PRINCIPALS), **CHECKING) as running:
        asked = bearer("root") | {"Host": "tasks.example.com"}
        assert (await running.get(PATH, asked))[0] == 200
        assert (await running.get(PATH, asked | {"Origin": "https://evil.example"}))[0] == 403
