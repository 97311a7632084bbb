"""Looks at the way clients take: opens a stream through the public URL, and times what comes.

Must not know what stands on the way.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp
from aiohttp import hdrs

from sidecast_broker.core.a2a.card import InvalidCard
from sidecast_broker.core.a2a.card import read as read_card
from sidecast_broker.doctor.bus import compare_clocks
from sidecast_broker.doctor.finding import Finding

CHECK = "stream through"
LATE_S = 1.0
"""The first event leaves the broker at once, or after `auth.refusal_floor_ms`."""
CUT_S = 0.5
BEYOND_S = 10.0
CARD = "/.well-known/agent-card.json"
CARD_BYTES_MAX = 1024 * 1024
PROXIES = "docs/proxies.md"


class Timed(NamedTuple):
    """What came of a stream, in seconds after it was asked for.

    Attributes:
        status: of the answer.
        headers: of the answer.
        first_s: when the first byte came; None: none came.
        end_s: when it ended.
        whole: whether it ended with the end of the body, not with the connection.
        body: all that came.
    """

    status: int
    headers: dict[str, str]
    first_s: float | None
    end_s: float
    whole: bool
    body: bytes


async def look_at_way(url: str, token: str | None, wait_s: int) -> list[Finding]:
    """Open a stream of a task that never comes, so that nobody's events are read.

    Args:
        url: base URL under which clients reach the broker.
        token: what is sent as bearer, or None.
        wait_s: for how long the stream is held, 1 to 60; longer than the heartbeat, and it shows whether
            something on the way gives up on silent streams.
    """
    headers = {hdrs.ACCEPT: "text/event-stream"}
    if token:
        headers[hdrs.AUTHORIZATION] = f"Bearer {token}"
    timeout = aiohttp.ClientTimeout(total=wait_s + BEYOND_S)
    async with aiohttp.ClientSession(
        timeout=timeout, headers=headers, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        began_s = time.time()
        target = f"{url}/tasks/sidecast-doctor-{secrets.token_hex(8)}/events?wait_s={wait_s}"
        try:
            timed = await _stream(session, target)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return [Finding(CHECK, "fail", f"{url}: {str(error) or 'no answer in time'}")]
        found = judge(url, timed, wait_s)
        if (date := timed.headers.get("date")) is not None:
            found += _clock(date, began_s, timed)
        found += await _look_at_card(session, url)
    return found


async def _stream(session: aiohttp.ClientSession, target: str) -> Timed:
    began_s = time.monotonic()
    first_s, whole, body = None, True, bytearray()
    async with session.get(target, allow_redirects=False) as answer:
        try:
            async for piece in answer.content.iter_any():
                if first_s is None:
                    first_s = time.monotonic() - began_s
                body += piece
        except (aiohttp.ClientError, OSError):
            whole = False
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Timed(answer.status, headers, first_s, time.monotonic() - began_s, whole, bytes(body))


def judge(url: str, timed: Timed, wait_s: float) -> list[Finding]:
    """Say what the times of a stream mean."""
    if timed.status in (401, 403):
        return [Finding(CHECK, "skip", f"{url} answered {timed.status}", "give a credential: --token")]
    kind = timed.headers.get("content-type", "")
    if timed.status != 200 or not kind.startswith("text/event-stream"):
        text = f"{url} answered {timed.status} with {kind or 'no content type'}, not with a stream"
        return [
            Finding(CHECK, "fail", text, "Is it the broker's public URL, with the path that a proxy adds?")
        ]
    if timed.first_s is None or b"stream.busy" in timed.body:
        return [Finding(CHECK, "warn", f"{url} opens no stream at the moment", "look again in a minute")]
    if timed.first_s > min(LATE_S, wait_s / 2):
        text = f"the first event took {timed.first_s:.1f} s: something on the way holds it back"
        return [Finding(CHECK, "fail", text, f"switch response buffering off ({PROXIES})")]
    found = []
    if timed.headers.get("content-encoding", "identity") != "identity":
        text = f"something on the way compresses the stream ({timed.headers['content-encoding']})"
        found.append(
            Finding(CHECK, "warn", text, f"switch compression off for text/event-stream ({PROXIES})")
        )
    if not timed.whole or timed.end_s < wait_s - CUT_S:
        text = f"the stream was cut after {timed.end_s:.1f} s, and should have stood for {wait_s:g} s"
        found.append(
            Finding(CHECK, "fail", text, f"raise idle time-outs over stream.heartbeat_s ({PROXIES})")
        )
    if not found:
        text = (
            f"{url}: the first event came after {timed.first_s * 1e3:.0f} ms, and it stood for {wait_s:g} s"
        )
        found.append(Finding(CHECK, "ok", text))
    return found


def _clock(date: str, began_s: float, timed: Timed) -> list[Finding]:
    try:
        theirs_s = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return []
    # It is written in whole seconds, when the answer begins.
    return [compare_clocks("the broker", theirs_s, began_s - 1, began_s + (timed.first_s or timed.end_s))]


async def _look_at_card(session: aiohttp.ClientSession, url: str) -> list[Finding]:
    """Compare where the card sends clients with where they come from."""
    try:
        async with asyncio.timeout(BEYOND_S), session.get(url + CARD) as answer:
            body = await answer.content.read(CARD_BYTES_MAX)
            if answer.status != 200:
                return [
                    Finding("card", "warn", f"{url}{CARD} answered {answer.status}", "Is the agent there?")
                ]
            read_card(body)
    except (aiohttp.ClientError, OSError, TimeoutError, InvalidCard) as error:
        return [Finding("card", "fail", f"{url}{CARD}: {error}")]
    if f'"{url}'.encode() not in body:
        text = f"the card doesn't send clients to {url}"
        return [Finding("card", "fail", text, f'set server.public_url = "{url}"')]
    return [Finding("card", "ok", f"sends clients to {url}")]
