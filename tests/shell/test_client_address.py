"""Whose request it is where proxies stand between: what is shown and logged by it, and what is not."""

from __future__ import annotations

import json

import pytest
import structlog
from brokers import TASK, FakeBackend, OwnBroker, broker, task_record
from sse import exchange

PROXIES = {"server__trusted_proxies": "127.0.0.1/32,10.0.0.0/8"}


async def shown(running: OwnBroker, headers: dict[str, str]) -> str:
    """Give the peer of a stream as `/streams` shows it; it must be logged alike."""
    with structlog.testing.capture_logs() as lines:
        stream = await running.watch(headers=headers)
        await stream.take(2)
        _status, body = await running.internal("/streams")
        (described,) = body["streams"]
        await running.leave()
        while not (closed := [line for line in lines if line["event"] == "stream_closed"]):
            await running.internal("/livez")
    assert closed[0]["peer"] == described["peer"]
    peer = described["peer"]
    assert isinstance(peer, str)
    return peer


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
        ({"X-Forwarded-For": "6.6.6.6, 203.0.113.9:4711, 10.0.0.2"}, "203.0.113.9"),
        ({"Forwarded": 'for="[2001:db8::9]:1";proto=https;host=evil'}, "2001:db8::9"),
        ({"Forwarded": "for=203.0.113.9", "X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
    ],
)
async def test_what_a_trusted_proxy_says_is_shown(
    fake: FakeBackend, headers: dict[str, str], wanted: str
) -> None:
    await fake.publish(task_record())
    async with broker(fake, **PROXIES) as running:
        assert await shown(running, headers) == wanted


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Forwarded-For": "nonsense"},
        {"X-Forwarded-For": "unknown"},
        {"Forwarded": "for=_hidden"},
        {"Forwarded": 'for="6.6.6.6'},
        {"Forwarded": "for=6.6.6.6", "X-Forwarded-For": "203.0.113.9"},
        {"X-Real-IP": "6.6.6.6", "CF-Connecting-IP": "6.6.6.6", "True-Client-IP": "6.6.6.6"},
    ],
)
async def test_otherwise_it_is_the_peer(fake: FakeBackend, headers: dict[str, str]) -> None:
    await fake.publish(task_record())
    async with broker(fake, **PROXIES) as running:
        assert (await shown(running, headers)).startswith("127.0.0.1:")


@pytest.mark.parametrize("proxies", ["", "10.0.0.0/8", "::1", "127.0.0.2/32"])
async def test_a_client_is_not_believed(fake: FakeBackend, proxies: str) -> None:
    await fake.publish(task_record())
    async with broker(fake, server__trusted_proxies=proxies) as running:
        for header, value in (("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=6.6.6.6")):
            assert (await shown(running, {header: value})).startswith("127.0.0.1:")


async def test_over_ipv6_the_port_can_be_told_from_the_address(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, server__host="::1") as running:
        assert (await shown(running, {"X-Forwarded-For": "6.6.6.6"})).startswith("[::1]:")


async def test_an_ipv6_proxy_is_believed(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, server__host="::1", server__trusted_proxies="::1") as running:
        assert await shown(running, {"X-Forwarded-For": "203.0.113.9"}) == "203.0.113.9"


async def test_nothing_else_a_proxy_says_is_believed(fake: FakeBackend) -> None:
    card = (
        b"GET /.well-known/agent-card.json HTTP/1.1\r\nHost: own.example\r\nConnection: close\r\n"
        b"A2A-Version: 1.0\r\n"
    )
    said = (
        b"Forwarded: for=203.0.113.9;host=evil.example;proto=https\r\nX-Forwarded-Host: evil.example\r\n"
        b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /evil\r\n"
    )
    async with broker(fake, **PROXIES) as running:
        plain, forwarded = [await exchange(running.url, card + more + b"\r\n") for more in (b"", said)]
        assert b"http://own.example" in plain
        assert json.loads(forwarded.partition(b"\r\n\r\n")[2]) == json.loads(plain.partition(b"\r\n\r\n")[2])


async def test_on_the_internal_listener_nobody_is_a_proxy(fake: FakeBackend) -> None:
    async with broker(fake, **PROXIES) as running:
        headers = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "Host": "evil.example"}
        assert (await running.internal("/streams", headers=headers))[0] == 421


async def test_a_very_long_chain_costs_nothing(fake: FakeBackend) -> None:
    await fake.publish(task_record())
    async with broker(fake, **PROXIES) as running:
        chain = ",".join(["10.0.0.2"] * 800)
        status_code, _ = await running.get(
            f"/tasks/{TASK}/events", {"X-Forwarded-For": chain, "Accept": "application/json"}
        )
        assert status_code == 200
