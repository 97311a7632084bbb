from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from askers import Answer, Service, says
from brokers import until
from nats_server import free_ports

from sidecast_broker.auth.webhook import ANSWERS_MAX, FAULT_S, Webhook
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.settings import Auth
from sidecast_schemas.subjects import TaskKey

ALICE = Principal("alice", "jwt")
KEY = TaskKey("acme", "planner", "task-1")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Setting:
    """A webhook, the service behind it, and the time."""

    def __init__(self, service: Service, webhook: Webhook, clock: Clock) -> None:
        self.service = service
        self.webhook = webhook
        self.clock = clock

    async def allows(self, key: TaskKey = KEY, principal: Principal = ALICE) -> bool:
        return await self.webhook.allows(principal, key, "watch")


@asynccontextmanager
async def asking(url: str = "", **settings: float) -> AsyncIterator[Setting]:
    clock = Clock()
    async with Service().serving() as service:
        webhook = Webhook(Auth(webhook_url=url or service.url, **settings), clock=clock)
        try:
            yield Setting(service, webhook, clock)
        finally:
            await webhook.close()


async def test_it_is_told_who_wants_what_of_which_task() -> None:
    async with asking() as it:
        assert await it.webhook.allows(ALICE, KEY, "cancel")
        assert it.service.asked == [
            {"principal": "alice", "tenant": "acme", "agent": "planner", "task": "task-1", "action": "cancel"}
        ]
        assert it.service.headers["Content-Type"] == "application/json"


ANSWERS: dict[str, tuple[Answer, bool]] = {
    "yes": (says(True), True),
    "no": (says(False), False),
    "a number": (says(1), False),
    "a text": (says("true"), False),
    "null": (says(None), False),
    "nothing": (lambda _: web.json_response({}), False),
    "a list": (lambda _: web.json_response([True]), False),
    "no JSON": (lambda _: web.Response(text="allow"), False),
    "an empty body": (lambda _: web.Response(), False),
    "bytes": (lambda _: web.Response(body=b"\xff\xfe"), False),
    "more than asked for": (lambda _: web.json_response({"allow": True, "why": "x"}), True),
    "another name's case": (lambda _: web.json_response({"Allow": True}), False),
    "201": (lambda _: web.json_response({"allow": True}, status=201), False),
    "403": (lambda _: web.json_response({"allow": True}, status=403), False),
    "500": (lambda _: web.json_response({"allow": True}, status=500), False),
    "a redirect": (lambda _: web.Response(status=307, headers={"Location": "/yes"}), False),
    "too much": (lambda _: web.Response(body=b'{"allow":true,"x":"' + b"x" * 100_000 + b'"}'), False),
    "too deep": (lambda _: web.Response(body=b'{"x":' + b"[" * 60_000), False),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_only_a_clear_yes_is_one(name: str) -> None:
    answer, wanted = ANSWERS[name]
    async with asking() as it:
        it.service.answer = answer
        assert await it.allows() is wanted
        assert len(it.service.asked) == 1


async def test_who_is_away_allows_nothing() -> None:
    (port,) = free_ports(1)
    async with asking(url=f"http://127.0.0.1:{port}/") as it:
        assert not await it.allows()


async def test_who_is_slow_allows_nothing() -> None:
    over = asyncio.Event()

    async def never(_asked: dict[str, Any]) -> web.StreamResponse:
        await over.wait()
        return web.json_response({"allow": True})

    async with asking(webhook_timeout_s=0.05) as it:
        it.service.answer = never
        assert not await it.allows()
        over.set()


async def test_who_answers_piece_by_piece_has_no_more_time() -> None:
    over = asyncio.Event()

    async def dribble(_asked: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=pieces())

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"allow":'
        await over.wait()
        yield b"true}"

    async with asking(webhook_timeout_s=0.05) as it:
        it.service.answer = dribble
        assert not await it.allows()
        over.set()


@pytest.mark.parametrize("allow", [True, False])
async def test_an_answer_holds_for_a_while(allow: bool) -> None:
    async with asking(webhook_cache_s=5) as it:
        it.service.answer = says(allow)
        assert await it.allows() is allow
        it.service.answer = says(not allow)
        it.clock.now = 4.9
        assert await it.allows() is allow
        it.clock.now = 5.0
        assert await it.allows() is (not allow)
        assert len(it.service.asked) == 2


async def test_a_fault_holds_shorter() -> None:
    async with asking(webhook_cache_s=60) as it:
        it.service.answer = ANSWERS["500"][0]
        assert not await it.allows()
        it.service.answer = says(True)
        it.clock.now = FAULT_S - 0.1
        assert not await it.allows()
        it.clock.now = FAULT_S
        assert await it.allows()


async def test_nothing_is_remembered_where_that_is_switched_off() -> None:
    async with asking(webhook_cache_s=0) as it:
        assert await it.allows()
        assert await it.allows()
        assert len(it.service.asked) == 2


async def test_each_question_has_its_own_answer() -> None:
    async with asking() as it:
        it.service.answer = lambda asked: web.json_response({"allow": asked["task"] == "task-1"})
        assert await it.allows()
        others = [KEY._replace(task="task-2"), KEY._replace(tenant="x"), KEY._replace(agent="x")]
        it.service.answer = says(False)
        assert [await it.allows(key) for key in others] == [False] * 3
        assert not await it.allows(principal=Principal("bob", "jwt"))
        assert not await it.webhook.allows(ALICE, KEY, "send")
        assert len(it.service.asked) == 6
        assert await it.allows()


async def test_who_asks_the_same_at_once_shares_one_question() -> None:
    gate = asyncio.Event()

    async def gated(_asked: dict[str, Any]) -> web.StreamResponse:
        await gate.wait()
        return web.json_response({"allow": True})

    async with asking() as it:
        it.service.answer = gated
        asking_ = [asyncio.create_task(it.allows()) for _ in range(20)]
        await until(lambda: it.service.asked)
        asking_[0].cancel()
        gate.set()
        assert await asyncio.gather(*asking_[1:]) == [True] * 19
        assert asking_[0].cancelled()
        assert len(it.service.asked) == 1


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecast_broker.auth.webhook.ANSWERS_MAX", 10)
    assert ANSWERS_MAX == 10_000
    async with asking() as it:
        for number in range(11):
            assert await it.allows(KEY._replace(task=f"t{number}"))
        assert await it.allows(KEY._replace(task="t10"))
        assert len(it.service.asked) == 11
        assert await it.allows(KEY._replace(task="t0"))
        assert len(it.service.asked) == 12


async def test_closing_ends_what_is_asked() -> None:
    over = asyncio.Event()

    async def never(_asked: dict[str, Any]) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with asking(webhook_timeout_s=30) as it:
        it.service.answer = never
        asked = asyncio.create_task(it.allows())
        await until(lambda: it.service.asked)
        await it.webhook.close()
        with pytest.raises(asyncio.CancelledError):
            await asked
        over.set()
