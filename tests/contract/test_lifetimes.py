"""A stream ends with the credential that opened it, in every format."""

from __future__ import annotations

import contextlib
import time
from contextlib import AsyncExitStack

import aiohttp
import pytest
from a2a_rig.wire import WIRES, Door
from askers import Askers, bearer
from brokers import TASK, Backend, broker, done, numbered, numbers, status, task_record, texts, until
from lives import CHECKED, PATH, WITHIN_S, assert_broken_off, ending, opened, revoke
from sse import Stalled, kinds

from sidecast_broker import lifetimes
from sidecast_broker.core.auth.life import Life
from sidecast_broker.core.auth.revocation import Revoked


@pytest.mark.row("C53")
async def test_streams_of_all_formats_end_with_their_credential(backend: Backend) -> None:
    await backend.publish(task_record())
    ends_in_s = 2.5
    settings = ending(ends_in_s) | {"auth__expiring_s": 1.4}
    began_s = time.monotonic()
    async with broker(backend, **settings) as running:
        async with opened(running, "carol") as (browser, streams):
            other = await running.watch(headers=bearer("alice"))
            await other.take(2)
            (expiring,) = await browser.take(1)
            assert (expiring.kind, expiring.id, expiring.json.keys()) == (
                "stream.expiring",
                None,
                {"type", "expires_in_s"},
            )
            assert 0 < expiring["expires_in_s"] <= 1.4
            (end,) = await browser.rest()
            lived_s = time.monotonic() - began_s
            assert (end.kind, end["reason"], end["state"], end.id) == (
                "stream.end",
                "expired",
                "submitted",
                None,
            )
            assert ends_in_s <= lived_s < ends_in_s + 2
            assert not browser.broken
            for wire, stream in streams.items():
                await assert_broken_off(wire, stream, 401, "UNAUTHENTICATED")
        await running.until_metric("sidecast_streams_closed_total", 5, reason="expired")
        # Somebody else's goes on.
        await backend.publish(*numbered(2))
        assert texts(await other.take(2)) == numbers(2)


async def test_one_that_ended_while_the_stream_was_being_opened_shows_nothing(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, **ending(-1)) as running:
        (end,) = await (await running.watch(headers=bearer("carol"))).rest()
        assert (end.kind, end["reason"]) == ("stream.end", "expired")
        async with aiohttp.ClientSession(headers=bearer("carol")) as session:
            for wire in WIRES:
                async with Door(session, running.url).open(wire, "subscribe", task=TASK) as stream:
                    await assert_broken_off(wire, stream, 401, "UNAUTHENTICATED")


async def test_who_comes_again_is_authorised_afresh_and_misses_nothing(backend: Backend) -> None:
    await backend.publish(task_record())
    async with broker(backend, **ending(1.5)) as running:
        stream = await running.watch(headers=bearer("carol"))
        await stream.take(2)
        await backend.publish(*numbered(2))
        frames = await stream.rest()
        assert texts(frames) == numbers(2)
        assert frames[-1]["reason"] == "expired"
        await backend.publish(*numbered(2, 2), done())
        again = await running.watch(cursor=stream.last_id, headers=bearer("alice"))
        assert texts(await again.rest()) == numbers(2, 2)


async def test_one_who_waits_for_a_task_waits_no_longer_than_that(backend: Backend) -> None:
    async with broker(backend, **ending(1.5)) as running:
        waiting = await running.watch(headers=bearer("carol"), wait_s=30)
        frames = await waiting.rest()
        assert kinds(frames) == ["stream.expiring", "stream.end"]
        assert (frames[1]["reason"], frames[1]["state"]) == ("expired", None)


async def test_a_client_that_takes_nothing_gets_nothing_more(backend: Backend) -> None:
    await backend.publish(task_record())
    small = {"stream__send_buffer_bytes": 4096, "stream__buffer_bytes_max": 4096}
    async with broker(backend, **CHECKED | small) as running:
        async with Stalled(running.url, PATH, "Authorization: Bearer alice") as stalled:
            await stalled.read_until(b"task.snapshot")
            for number in range(100):
                await backend.publish(status(str(number), metadata={"padding": "x" * 4000}))
            await until(lambda: any(s["unsent_bytes"] for s in running.listening.streams.describe()))
            began_s = time.monotonic()
            await revoke(running, token_id="t-1")
            await until(lambda: not len(running.listening.streams))
            assert time.monotonic() - began_s < WITHIN_S
            with contextlib.suppress(ConnectionError):
                while await stalled.read():
                    pass
            assert b"stream.end" not in stalled.received
            assert not stalled.received.endswith(b"0\r\n\r\n")
        assert await running.metric("sidecast_streams_closed_total", reason="revoked") == 1


async def test_an_event_costs_nothing_more(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at a stream nothing is asked of its credential, however many events it gets."""
    await backend.publish(task_record())
    rarely = {"stream__heartbeat_s": 300, "stream__a2a_heartbeat_s": 300, "stream__lag_s_max": 3600}
    monkeypatch.setattr("sidecast_broker.streams.CHECK_S", 3600.0)
    calls: list[str] = []

    def counted(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def count(self: object, *arguments: object) -> object:
            calls.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(owner, name, count)

    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(broker(backend, **ending(3600) | rarely))
        browser, streams = await stack.enter_async_context(opened(running, "carol"))
        for owner, name in (
            (lifetimes.Lifetimes, "look"),
            (lifetimes.Lifetimes, "begin"),
            (Life, "step"),
            (Life, "left_s"),
            (Revoked, "covers_credential"),
            (Revoked, "covers_task"),
            (Askers, "principal"),
        ):
            counted(owner, name)
        for payload in numbered(200):
            await backend.publish(payload)
        assert texts(await browser.take(200)) == numbers(200)
        for stream in streams.values():
            await stream.take(200)
        assert calls == []
        await running.watch(headers=bearer("carol"))
        assert calls != []
