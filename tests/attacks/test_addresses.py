"""Limits by address hold whatever a client writes about its address."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from access_rig import ALICES, status_of
from attacks.scene import Scene, scene
from attacks.table import alice, sends
from nats_server import NatsServer

Claim = Callable[[int], tuple[str, ...]]
"""Gives the lines by which one client seems to be another one each time."""

DIRECT: dict[str, object] = {}
BEHIND = {"server__trusted_proxies": "127.0.0.0/8"}
ELSEWHERE = {"server__trusted_proxies": "10.0.0.0/8"}
FORWARDED = {**BEHIND, "server__forwarded_header": "forwarded"}
X_FORWARDED = {**BEHIND, "server__forwarded_header": "x-forwarded-for"}


def _any(number: int) -> str:
    return f"203.0.113.{number}"


CLAIMS: dict[str, tuple[dict[str, object], Claim]] = {
    "X-Forwarded-For to nobody who believes it": (DIRECT, lambda n: (f"X-Forwarded-For: {_any(n)}",)),
    "Forwarded to nobody who believes it": (DIRECT, lambda n: (f"Forwarded: for={_any(n)}",)),
    "X-Forwarded-For from no proxy": (ELSEWHERE, lambda n: (f"X-Forwarded-For: {_any(n)}",)),
    "both from no proxy": (
        ELSEWHERE,
        lambda n: (f"X-Forwarded-For: {_any(n)}", f"Forwarded: for={_any(n)}"),
    ),
    "X-Real-IP and others": (
        BEHIND,
        lambda n: tuple(
            f"{name}: {_any(n)}" for name in ("X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "Client-IP")
        ),
    ),
    "before what the proxy wrote": (BEHIND, lambda n: (f"X-Forwarded-For: {_any(n)}, 198.51.100.9",)),
    "in a line before the proxy's": (
        BEHIND,
        lambda n: (f"X-Forwarded-For: {_any(n)}", "X-Forwarded-For: 198.51.100.9"),
    ),
    "before the proxy's Forwarded": (BEHIND, lambda n: (f"Forwarded: for={_any(n)}, for=198.51.100.9",)),
    "Forwarded beside the proxy's X-Forwarded-For": (
        X_FORWARDED,
        lambda n: (f"Forwarded: for={_any(n)}", "X-Forwarded-For: 198.51.100.9"),
    ),
    "X-Forwarded-For beside the proxy's Forwarded": (
        FORWARDED,
        lambda n: (f"X-Forwarded-For: {_any(n)}", "Forwarded: for=198.51.100.9"),
    ),
    "the other addresses of one's IPv6 network": (BEHIND, lambda n: (f"X-Forwarded-For: 2001:db8::{n}",)),
    "other ports": (BEHIND, lambda n: (f"X-Forwarded-For: 198.51.100.9:{n + 1}",)),
    "IPv4 in IPv6": (
        BEHIND,
        lambda n: ("X-Forwarded-For: " + ("198.51.100.9" if n % 2 else "::ffff:198.51.100.9"),),
    ),
    "what is no address": (BEHIND, lambda n: (f"X-Forwarded-For: nobody-{n}",)),
}
ALLOWED = 3


async def answers(it: Scene, claim: Claim, count: int) -> list[int]:
    """Give the statuses of so many requests, one after the other."""
    target = f"/tasks/{ALICES}/events?refusal=status"
    shots = [sends("GET", target, "Accept: text/event-stream", alice(), *claim(n)) for n in range(count)]
    return [status_of(await it.fire(shot(it))) for shot in shots]


@pytest.mark.parametrize("name", CLAIMS)
async def test_who_claims_to_be_many_is_one(
    name: str, nats_of_run: NatsServer, tmp_path: Path, unharmed: None
) -> None:
    settings, claim = CLAIMS[name]
    limit = {"stream__opens_per_address_per_minute_max": ALLOWED}
    async with scene(nats_of_run, tmp_path, **settings, **limit) as it:
        began_s = time.monotonic()
        found = await answers(it, claim, ALLOWED + 9)
        before = await it.state()
        found += await answers(it, claim, 3)
        assert await it.state() == before
        # One more is allowed every twenty seconds, which a busy machine may take.
        allowed = ALLOWED + (time.monotonic() - began_s) * ALLOWED / 60
        assert set(found) == {200, 429}
        assert found.count(200) <= allowed, found


@pytest.mark.parametrize("settings", [BEHIND, X_FORWARDED], ids=["any", "named"])
async def test_those_a_proxy_names_are_many(
    settings: dict[str, object], nats_of_run: NatsServer, tmp_path: Path
) -> None:
    limit = {"stream__opens_per_address_per_minute_max": ALLOWED}
    async with scene(nats_of_run, tmp_path, **settings, **limit) as it:
        found = await answers(it, lambda n: (f"X-Forwarded-For: 198.51.100.9, {_any(n)}",), ALLOWED * 3)
        assert found == [200] * ALLOWED * 3
