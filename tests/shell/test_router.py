"""Which handler answers: paths as they were sent, methods, and what there is not."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from brokers import FakeBackend, broker, task_record
from yarl import URL

from sidecast_broker.refused import Refused
from sidecast_broker.router import Router, get, get_or_head, post


async def first(_request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError


async def second(_request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError


ROUTER = Router(
    [
        get("/tasks/*/events", first),
        post("/tasks/*/events", second),
        *get_or_head("/ui/*", first),
        get("/ui/fixed", second),
        get("/ui/", second),
    ]
)


@pytest.mark.parametrize(
    ("method", "target", "handler"),
    [
        ("GET", "/tasks/a/events", first),
        ("GET", "/tasks/a/events?x=/tasks", first),
        ("POST", "/tasks/%2F/events", second),
        ("HEAD", "/ui/app.js", first),
        ("GET", "/ui/fixed", second),
        ("GET", "/ui/", second),
        ("GET", "/tasks/*/events", first),
    ],
)
def test_what_matches(method: str, target: str, handler: object) -> None:
    assert ROUTER.find(method, target) is handler


@pytest.mark.parametrize(
    "target",
    [
        *("", "/", "//", "/tasks//events", "/tasks/a/events/", "/tasks/a/b/events", "/tasks/a%2Fevents"),
        *("/Tasks/a/events", "/ui", "/ui/a/b", "/" * 10_000, "?/tasks/a/events", "/tasks/a/events#x"),
    ],
)
def test_what_matches_nothing(target: str) -> None:
    with pytest.raises(Refused) as refused:
        ROUTER.find("GET", target)
    assert refused.value.code == "not-found"


def test_another_method_names_those_there_are() -> None:
    with pytest.raises(Refused) as refused:
        ROUTER.find("DELETE" * 1000, "/tasks/a/events")
    assert refused.value.code == "method-not-allowed"
    assert refused.value.response().headers["Allow"] == "GET,POST"
    assert len(refused.value.detail) < 100


async def _exchange(url: str, head: str, *, until: bytes) -> bytes:
    at = URL(url)
    reader, writer = await asyncio.open_connection(at.host, at.port)
    writer.write(head.encode())
    async with asyncio.timeout(10):
        answer = await reader.readuntil(until)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_client_that_waits_with_its_body_is_told_to_send_it(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        head = "POST /publish/task-1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        url = running.internal_url
        told = await _exchange(
            url, head + "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n", until=b"\r\n\r\n"
        )
        assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
        told = await _exchange(url, head + "Content-Length: 9\r\nExpect: miracles\r\n\r\n", until=b"}}")
        assert told.startswith(b"HTTP/1.1 400 ")


async def test_the_head_of_a_stream_and_its_first_frame_leave_together(fake: FakeBackend) -> None:
    async with broker(fake) as running:
        await fake.publish(task_record())
        at = URL(running.url)
        reader, writer = await asyncio.open_connection(at.host, at.port)
        writer.write(b"GET /tasks/task-1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read(65536)
        writer.close()
        await writer.wait_closed()
        assert b"task.snapshot" in answer
