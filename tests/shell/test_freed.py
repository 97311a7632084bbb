"""What has ended is freed by its reference counts: a broker's collector looks at old objects very seldom."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from brokers import TASK, FakeBackend, OwnBroker, broker, done, status, task_record, until
from sse import TIMEOUT_S, exchange

EVENTS = f"GET /tasks/{TASK}/events"
FREED = {
    *("Connection", "Request", "Response", "_ErrInfo", "BadHttpMessage", "BadHttpMethod"),
    *("Stream", "BoardStream", "Subscriber", "Held"),
    *("Hub", "Board", "Log", "Fold", "Record", "Fanout", "Pacer", "Batches", "Errands"),
}
TIMES = 5
OPENED = b'"stream.open"'
RESUBSCRIBE = {"jsonrpc": "2.0", "id": 1, "method": "tasks/resubscribe", "params": {"id": TASK}}


def _get(target: str, *lines: str) -> bytes:
    return "\r\n".join((f"GET {target} HTTP/1.1", "Host: x", "Connection: close", *lines, "", "")).encode()


def _post(target: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    lines = ("Content-Type: application/json", f"Content-Length: {len(data)}", "Connection: close")
    return "\r\n".join((f"POST {target} HTTP/1.1", "Host: x", *lines, "", "")).encode() + data


def alive() -> Counter[str]:
    """Count the objects that are to be freed."""
    return Counter(name for each in gc.get_objects() if (name := type(each).__name__) in FREED)


async def idle(running: OwnBroker) -> None:
    """Wait until nobody watches and no task is in memory."""
    await until(lambda: not len(running.listening.streams))
    async with asyncio.timeout(TIMEOUT_S):
        while await running.metric("sidecast_tasks"):
            await asyncio.sleep(0.01)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Have the collector look at nothing."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def running() -> AsyncIterator[OwnBroker]:
    """Give a broker that lets a task go as soon as nobody watches it."""
    backend = FakeBackend()
    await backend.publish(task_record(), status("on it"))
    await backend.publish(task_record("ended"), done("ended"), task="ended")
    async with broker(backend, log__idle_s=0.01) as running:
        yield running


@pytest.mark.parametrize(
    ("request_", "leaves_at"),
    {
        "a stream that ends": (_get("/tasks/ended/events"), b""),
        "a stream that is left": (_get(f"/tasks/{TASK}/events"), OPENED),
        "a paced one": (_get(f"/tasks/{TASK}/events?max_rate=5&coalesce=1"), OPENED),
        "one by A2A": (_get(f"/tasks/{TASK}:subscribe", "A2A-Version: 1.0"), b"data:"),
        "one by JSON-RPC": (_post("/", RESUBSCRIBE), b"data:"),
        "one that waits": (_get("/tasks/none/events?wait_s=5"), b"\r\n\r\n"),
        "one of a context": (_get("/events?context=context-1"), OPENED),
        "one of a list": (_get(f"/events?task={TASK}&task=ended"), OPENED),
        "one of the agent": (_get("/events?agent=1"), OPENED),
        "an answer": (_get(f"/tasks/{TASK}/events", "Accept: application/json"), b""),
        "an answer about a context": (_get("/events?context=context-1", "Accept: application/json"), b""),
        "a task there is not": (_get("/tasks/none/events", "Accept: application/json"), b""),
        "no HTTP": (b"\0\1\2\r\n\r\n", b""),
        "a head too large": (_get("/" + "x" * 9000), b""),
    }.values(),
    ids=str,
)
async def test_what_a_request_took_is_freed(
    request_: bytes, leaves_at: bytes, running: OwnBroker, uncollected: None
) -> None:
    await exchange(running.url, request_, until=leaves_at)  # what is made once is made
    await idle(running)
    before = alive()
    for _ in range(TIMES):
        await exchange(running.url, request_, until=leaves_at)
        await idle(running)
    # One that is left in the middle of its beginning may wait for the collector; not each of them does.
    try:
        await until(lambda: max((alive() - before).values(), default=0) < TIMES)
    except TimeoutError:
        raise AssertionError(f"kept: {alive() - before}") from None
