"""Who watches, as the live page of a broker of several processes shows it: whichever of them answers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from brokers import TASK, ChildBroker, RealBackend, child_broker, encode, task_record, until
from sse import Watch

from sidecast_schemas.subjects import TaskKey, events_subject

PATH = f"/ui/api/streams?task={TASK}"
STREAMS = 16
ASKED = 16
"""Connections to ask over: that all of them reach the same of two workers happens once in 32,768 times."""
SECRET = "s" * 32
AUTH = {
    "auth__jwt_issuer": "https://issuer",
    "auth__jwt_audience": "sidecast",
    "auth__jwt_secret": SECRET,
    "auth__refusal_floor_ms": 0,
}


def bearer(sub: str, **claims: object) -> dict[str, str]:
    said = {"iss": "https://issuer", "aud": "sidecast", "exp": 4_102_444_800, "sub": sub} | claims
    return {"Authorization": f"Bearer {jwt.encode(said, SECRET, 'HS256')}"}


@asynccontextmanager
async def workers(real: RealBackend, folder: Path, **changes: object) -> AsyncIterator[ChildBroker]:
    async with child_broker(real, folder / "log", server__workers=2, **changes) as child:
        yield child


async def opened(child: ChildBroker, count: int = STREAMS, task: str = TASK, **query: object) -> list[Watch]:
    streams = [await child.watch(task, **query) for _ in range(count)]
    for stream in streams:
        await stream.take(2)
    return streams


async def held(child: ChildBroker) -> dict[int, set[str]]:
    """Give the peers of the streams of the task at each worker, as the internal listener says it."""
    found: dict[int, set[str]] = {}
    for stream in (await child.internal("/streams"))[1]["streams"]:
        if stream["task"] == TASK:
            found.setdefault(stream["worker"], set()).add(stream["peer"])
    return found


def told(body: dict[str, Any]) -> dict[int, set[str]]:
    """Give the same, as the page is told it."""
    assert body["watching"] == len(body["streams"])
    found: dict[int, set[str]] = {}
    for stream in body["streams"]:
        found.setdefault(stream["worker"], set()).add(stream["peer"])
    return found


class Askers:
    """Connections that are open before something happens to who serves them."""

    def __init__(self, child: ChildBroker) -> None:
        self._child = child
        self._open = AsyncExitStack()
        self._sessions: list[aiohttp.ClientSession] = []

    async def __aenter__(self) -> Askers:
        for _ in range(ASKED):
            session = await self._open.enter_async_context(aiohttp.ClientSession())
            self._sessions.append(session)
            await self._ask(session, "/ui/")
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._open.aclose()

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> Any:
        async with session.get(self._child.url + path) as answer:
            assert answer.status == 200
            return await answer.json() if answer.content_type == "application/json" else None

    async def ask(self, path: str, timeout_s: float = 4) -> list[Any]:
        """Ask over all of them at once; give the answers of those that answer."""
        asked = (asyncio.wait_for(self._ask(each, path), timeout_s) for each in self._sessions)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert not [
            each for each in answers if isinstance(each, BaseException) and not isinstance(each, TimeoutError)
        ]
        return [each for each in answers if isinstance(each, dict)]


async def test_whichever_worker_answers_tells_of_all(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    await real.publish(task_record("other"), task="other")
    async with workers(real, tmp_path) as child:
        await opened(child, max_rate=5)
        await opened(child, 3, "other")
        wanted = await held(child)
        assert set(wanted) == {1, 2}, "the kernel gives connections to both"
        async with Askers(child) as askers:
            for body in await askers.ask(PATH):
                assert told(body) == wanted
                assert (body["task"], body["worker"], body["silent"]) == (TASK, False, [])
                assert {stream["pace"]["max_rate"] for stream in body["streams"]} == {5}
            for body in await askers.ask("/ui/api/tasks"):
                assert {each["task"]: each["watchers"] for each in body["tasks"]} == {
                    TASK: STREAMS,
                    "other": 3,
                }
                assert body["silent"] == []
        for task in ("none", "", "x" * 400, "%F0%9F%92%A9" * 64, "a%26worker=1%23"):
            code, body = await child.get(f"/ui/api/streams?task={task}")
            assert (code, body["watching"], body["streams"], body["silent"]) == (200, 0, [], [])
            assert body["worker"] is False
        # What workers ask each other, nobody else can ask.
        key = f"tenant=&agent=agent&task={TASK}"
        for path in (f"/watching/task?{key}", f"/watching/agent?{key}", "/watching/x"):
            assert (await child.get(path))[0] == 404
            assert (await child.internal(path))[0] == 404
            hidden = f"/publish/..%2f..{path.replace('/', '%2f').replace('?', '%3f')}"
            code, _ = await child.internal(hidden, "POST", encode({}), {"Content-Type": "application/json"})
            assert code == 422


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_one_that_hangs_is_missing_and_the_answer_says_so(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path) as child:
        await opened(child)
        wanted, pid = await held(child), child.workers()[2]
        async with Askers(child) as askers, Askers(child) as others:
            with stopped(pid):
                bodies, lists = await asyncio.gather(askers.ask(PATH), others.ask("/ui/api/tasks"))
        assert 0 < len(bodies) < ASKED
        for body in bodies:
            assert (told(body), body["silent"], body["worker"]) == ({1: wanted[1]}, [2], False)
        assert 0 < len(lists) < ASKED
        for body in lists:
            assert [each["watchers"] for each in body["tasks"]] == [len(wanted[1])]
            assert body["silent"] == [2]
        assert told((await child.get(PATH))[1]) == wanted
        # One that died has no streams that could be missing.
        os.kill(pid, signal.SIGKILL)
        await until(lambda: child.logged("worker_died"))
        body = (await child.get(PATH))[1]
        assert (told(body), body["silent"]) == ({1: wanted[1]}, [])
        await until(lambda: child.logged("worker_restarted"))
        await opened(child)
        assert told((await child.get(PATH))[1]) == await held(child)


async def test_when_nobody_can_be_asked_each_tells_of_its_own(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    async with workers(real, tmp_path) as child:
        await opened(child)
        wanted = await held(child)
        async with Askers(child) as askers, Askers(child) as others:
            child.signal(signal.SIGSTOP)
            try:
                bodies, lists = await asyncio.gather(askers.ask(PATH), others.ask("/ui/api/tasks"))
            finally:
                child.signal(signal.SIGCONT)
        assert len(bodies) == len(lists) == ASKED
        by_peers = [{stream["peer"] for stream in body["streams"]} for body in bodies]
        assert all(peers in wanted.values() for peers in by_peers)
        assert {body["worker"] for body in bodies} == {True}
        assert {body["tasks"][0]["watchers"] for body in lists} <= {len(each) for each in wanted.values()}


async def test_nobody_sees_more_than_at_one_process(real: RealBackend, tmp_path: Path) -> None:
    await real.publish(task_record())
    await real.publish_on(events_subject(TaskKey("acme", "agent", TASK)), task_record())
    everything = {"sidecast_grants": ["*/*/*"]}
    counts = {"": STREAMS, "acme": STREAMS - 1}
    async with workers(real, tmp_path, **AUTH) as child:
        for tenant, count in counts.items():
            for _ in range(count):
                token = bearer("watcher", tenant=tenant, **everything)
                await (await child.watch(headers=token)).take(2)
        for tenant, count in counts.items():
            for _ in range(4):
                assert (await child.get(PATH))[0] == 401
                assert (await child.get(PATH, bearer("alice", tenant=tenant, **everything)))[0] == 403
                admin = bearer("root", tenant=tenant, sidecast_rights=["admin"])
                code, body = await child.get(PATH, admin)
                assert (code, body["watching"], set(told(body))) == (200, count, {1, 2})
                assert {stream["tenant"] for stream in body["streams"]} == {tenant}
                assert (await child.get(PATH, admin | {"Origin": "https://evil.example"}))[0] == 403
                code, body = await child.get("/ui/api/tasks", bearer("bob", tenant=tenant))
                assert (code, body["tasks"]) == (200, []), "how many watch a task is for who may watch it"
                code, body = await child.get("/ui/api/tasks", bearer("alice", tenant=tenant, **everything))
                assert [each["watchers"] for each in body["tasks"]] == [count]
