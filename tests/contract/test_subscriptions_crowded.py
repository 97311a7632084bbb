"""Named subscriptions at a real nats-server when many come at once, and ask for what can't be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from brokers import TASK, Broker, RealBackend, ask, broker, numbered, settings_of, task_record, until
from nats_server import request_api
from sse import kinds

from sidecast_broker.answers import Away
from sidecast_broker.consumers import Consumers
from sidecast_broker.core.subscriptions import State, Subscription
from sidecast_broker.positions import Positions
from sidecast_broker.pulls import Pulls

JSON = {"Content-Type": "application/json"}


async def ack(running: Broker, path: str, event_id: str, **more: str) -> tuple[int, Any]:
    """Confirm an event in the subscription of a name, given as it stands in the path."""
    body = json.dumps({"id": event_id, **more}).encode()
    return await ask("POST", f"{running.url}/subscriptions/{path}/ack", body, JSON)


async def consumers(real: RealBackend) -> list[str]:
    """Give the names of the stream's consumers, by the server's word."""
    answer = await request_api(real.server.url, "CONSUMER.NAMES.SIDECAST", {"offset": 0})
    return list(answer["consumers"] or ())


async def begun(running: Broker, name: str = "s") -> None:
    """Open a subscription from the task's beginning, and leave it."""
    stream = await running.watch(subscription=name, ack="client", **{"from": "start"})
    await stream.take(1)
    await stream.close()


def sequence_in(answer: dict[str, Any]) -> int:
    """Give the position an answer tells."""
    return int(answer["acknowledged"].rpartition("-")[2])


# --- confirmations at once


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give how many records each pull asks for, as they come."""
    counts: list[int] = []
    pull = Pulls.pull

    async def counted(pulls: Pulls, name: str, count: int) -> Any:
        counts.append(count)
        return await pull(pulls, name, count)

    monkeypatch.setattr(Pulls, "pull", counted)
    return counts


async def test_confirmations_that_come_at_once_are_stored_together(
    real: RealBackend, pulled: list[int]
) -> None:
    await real.publish(task_record(), *numbered(100))
    async with broker(real) as running:
        await begun(running)
        asked = list(range(2, 82))
        answers = await asyncio.gather(*(ack(running, "s", f"epoch1-{each}", task=TASK) for each in asked))
        for sequence, (code, answer) in zip(asked, answers, strict=True):
            assert code == 200
            assert sequence <= sequence_in(answer) <= 81
        assert len(pulled) < 20
        assert (await ack(running, "s", "epoch1-3", task=TASK))[1]["acknowledged"] == "epoch1-81"


async def test_among_the_events_of_many_tasks_little_is_pulled_for_nothing(
    real: RealBackend, pulled: list[int]
) -> None:
    await real.publish(task_record())
    for number in range(60):
        await real.publish(*numbered(1, number))
        for other in range(9):
            await real.publish(task_record(f"other-{number}-{other}"), task=f"other-{number}-{other}")
    async with broker(real) as running:
        await begun(running)
        for number in (10, 19):
            event_id = f"epoch1-{10 * number + 2}"
            assert (await ack(running, "s", event_id, task=TASK))[1]["acknowledged"] == event_id
        assert sum(pulled) <= 32
        pulled.clear()
        assert (await ack(running, "s", "epoch1-592", task=TASK))[1]["acknowledged"] == "epoch1-592"
        assert 40 <= sum(pulled) <= 64


@asynccontextmanager
async def kept(real: RealBackend) -> AsyncIterator[Callable[[int], Awaitable[State | None]]]:
    """Give what confirms in the subscription that `begun` has left, as another broker would."""
    nats = settings_of(real).nats
    stream = real.connect(nats, lambda _reason: None)
    stream.start()
    try:
        await until(lambda: stream.connected)
        positions = Positions(Consumers(stream, nats, 60.0), stream, nats)
        subscription = Subscription(None, "", "", "agent", "task", TASK, "s")
        yield lambda sequence: positions.acknowledge(subscription, sequence)
    finally:
        await stream.close()


async def test_who_waits_for_one_that_fails_tries_itself(
    real: RealBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await real.publish(task_record(), *numbered(20))
    async with broker(real) as running:
        await begun(running)
    pull = Pulls.pull

    async def fail(_pulls: Pulls, _name: str, _count: int) -> Any:
        monkeypatch.setattr(Pulls, "pull", pull)
        raise Away("lost")

    async with kept(real) as confirm:
        monkeypatch.setattr(Pulls, "pull", fail)
        first, *others = await asyncio.gather(*map(confirm, (3, 9, 6)), return_exceptions=True)
        assert isinstance(first, Away)
        assert [state.position for state in others if isinstance(state, State)] == [9, 9]


async def test_who_gives_up_waiting_leaves_the_others_in_line(
    real: RealBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await real.publish(task_record(), *numbered(20))
    async with broker(real) as running:
        await begun(running)
    entered, pull = asyncio.Event(), Pulls.pull

    async def never(_pulls: Pulls, _name: str, _count: int) -> Any:
        monkeypatch.setattr(Pulls, "pull", pull)
        entered.set()
        await asyncio.Event().wait()

    async with kept(real) as confirm:
        monkeypatch.setattr(Pulls, "pull", never)
        waiting = [asyncio.ensure_future(confirm(each)) for each in (3, 9, 6)]
        await entered.wait()
        for given_up in waiting[:2]:
            given_up.cancel()
        state = await waiting[2]
        assert state is not None
        assert state.position == 6
        assert [each.cancelled() for each in waiting] == [True, True, False]


# --- limits


async def test_those_who_come_at_once_to_two_brokers_are_counted_together(real: RealBackend) -> None:
    await real.publish(task_record())
    limit: dict[str, Any] = {"stream__subscriptions_per_principal_max": 5}
    async with broker(real, **limit) as one, broker(real, **limit) as other:
        streams = await asyncio.gather(
            *((one, other)[number % 2].watch(subscription=str(number)) for number in range(24))
        )
        first = [await stream.next() for stream in streams]
        opened = sum(frame.kind == "stream.open" for frame in first)
        assert {frame["reason"] for frame in first if frame.kind == "stream.busy"} == {
            "principal-subscriptions"
        }
        assert len(await consumers(real)) == opened <= 5
        for number in range(24):
            await (await one.watch(subscription=f"later {number}")).next()
        assert len(await consumers(real)) == 5


# --- names and ids that are none


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a%2Fb", 200),
        ("a%252Fb", 404),  # decoded once: another name
        ("a/b", 404),
        ("a%2Fb/", 400),
        ("%2E%2E", 404),
        ("a%2Fb%00", 400),
        ("a%2Fb%0A", 400),
        ("%FF", 400),
        ("%C3", 400),
        ("%C0%AF", 400),
        ("%", 400),
        ("x" * 257, 400),
        ("%C3%BC" * 129, 400),
        ("", 400),
    ],
)
async def test_a_name_is_decoded_once_and_wholly(path: str, code: int, real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(2))
    async with broker(real) as running:
        await begun(running, "a/b")
        assert (await ack(running, path, "epoch1-2", task=TASK))[0] == code
        stored = (await running.get("/subscriptions"))[1]["subscriptions"]
        assert [found["acknowledged"] for found in stored] == ["epoch1-2" if code == 200 else None]


@pytest.mark.parametrize("named", [{"task": TASK}, {}])
@pytest.mark.parametrize(
    "sequence",
    ["6", "9223372036854775807", "9223372036854775808", "18446744073709551615", "9" * 60, "-1", "+3"],
)
async def test_an_id_ahead_of_the_stream_confirms_nothing(
    sequence: str, named: dict[str, str], real: RealBackend
) -> None:
    await real.publish(task_record(), *numbered(4))
    async with broker(real) as running:
        await begun(running)
        code, answer = await ack(running, "s", f"epoch1-{sequence}", **named)
        assert (code, answer["error"]["code"]) == (400, "bad-request")
        await begun(running)
        assert (await running.get("/subscriptions"))[1]["subscriptions"][0]["acknowledged"] is None


async def test_an_id_behind_or_of_what_is_gone_takes_nothing_back(real: RealBackend) -> None:
    await real.publish(task_record(), *numbered(6))
    async with broker(real) as running:
        await begun(running)
        for event_id, position in (
            ("epoch1-0", None),
            ("epoch1-4", "epoch1-4"),
            ("epoch1-0", "epoch1-4"),
            ("epoch1-1", "epoch1-4"),
            ("epoch1-4", "epoch1-4"),
        ):
            code, answer = await ack(running, "s", event_id, task=TASK)
            assert (code, answer["acknowledged"]) == (200, position)
        await real.delete(5)
        assert (await ack(running, "s", "epoch1-5", task=TASK))[0] == 200
        stream = await running.watch(subscription="s", ack="client")
        assert kinds(await stream.take(3)) == ["stream.open", "task.status", "task.status"]
