"""Looks at NATS as a broker finds it: connection, permissions, stream, clock.

Must not change anything there: what it publishes is refused by the server, or heard by nobody.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import nats
import nats.errors
from nats.aio.client import Client

from sidecast_broker.answers import STREAM_NOT_FOUND, decode_info, parse_time
from sidecast_broker.core.permissions import Permission, needed
from sidecast_broker.doctor.finding import Finding
from sidecast_broker.nats_credentials import connect_options
from sidecast_broker.setting_urls import mask_url
from sidecast_broker.settings import Settings
from sidecast_broker.stream_config import desired_config, differences, unusable_because
from sidecast_schemas import headers as names

VERSION_MIN = (2, 12)
CONNECT_S = 6.0
SKEW_S = 2.0
"""Clocks further apart spoil what streams say of delays, and the end of credentials."""
NOBODY = "doctor"
"""Stands where a subject has a wildcard: a task of this name, of which nothing is ever stored."""
IMPOSSIBLE = str(2**62)
"""No subject's last sequence: a publish that expects it is refused, and so shows that it is permitted."""
DOCUMENTED = "docs/operations.md, NATS permissions"

_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)


class Bus:
    """One connection with a broker's settings.

    Args:
        settings: a broker's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._errors: list[str] = []

    async def connect(self) -> Finding:
        """Connect once."""
        given = self._settings.nats
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(CONNECT_S):
                self._client = await nats.connect(
                    [url.strip() for url in given.url.split(",")],
                    name="sidecast-doctor",
                    **connect_options(given),
                    allow_reconnect=False,
                    max_reconnect_attempts=0,
                    connect_timeout=2,
                    error_cb=self._note,
                )
                await self._client.flush()
        except Exception as error:  # noqa: BLE001 - a bad credentials file raises one of many
            said = "; ".join(dict.fromkeys([*self._errors, str(error) or type(error).__name__]))
            return Finding(
                "nats",
                "fail",
                f"can't connect to {mask_url(given.url)}: {said}",
                "nats.url, nats.credentials_file, nats.nkey_seed_file, nats.tls_*",
            )
        taken_ms = (time.perf_counter() - began_s) * 1e3
        server = self._client.connected_url
        version = self._client.connected_server_version
        number = f"{version.major}.{version.minor}.{version.patch}"
        where = f"{server.hostname}:{server.port}" if server else mask_url(given.url)
        if (version.major, version.minor) < VERSION_MIN:
            return Finding(
                "nats", "fail", f"{where} is nats-server {number}", "nats-server 2.12 or newer is needed"
            )
        return Finding("nats", "ok", f"{where}, nats-server {number}, connected in {taken_ms:.0f} ms")

    async def close(self) -> None:
        """Close the connection; nothing happens where there is none."""
        if self._client is not None:
            await self._client.close()

    async def _note(self, error: Exception) -> None:
        self._errors.append(str(error))

    async def look_at_permissions(self) -> list[Finding]:
        """Use every subject a broker uses, changing nothing, and hear what the server forbids."""
        given = self._settings
        # Most are the same for all agents; nothing is tried twice.
        permissions = list(dict.fromkeys(each for one in given.of_agents for each in _needed_for(one)))
        client = self._connected()
        self._errors.clear()
        inbox = client.new_inbox()
        for permission in permissions:
            subject = permission.subject.replace("*", NOBODY).replace(">", NOBODY)
            if permission.direction == "subscribe":
                await client.subscribe(permission.subject)
            elif permission.subject.startswith("$JS."):
                # No JSON: an answer is an error, whatever is asked.
                await client.publish(subject, b"-", reply=inbox)
            else:
                expected = {names.EXPECTED_LAST_SUBJECT_SEQUENCE: IMPOSSIBLE}
                await client.publish(subject, b"", reply=inbox, headers=expected)
        # The server answers in order, but nats-py's first PING may overtake what it has not written yet.
        await client.flush()
        await client.flush()
        forbidden = {
            (kind.lower().replace("subscription", "subscribe"), subject.upper())
            for error in self._errors
            for kind, subject in _VIOLATION.findall(error)
        }
        found = list(_missing(permissions, forbidden))
        return found or [
            Finding("permissions", "ok", f"all {len(permissions)} that a broker of {_whom(given)} uses")
        ]

    async def look_at_stream(self) -> list[Finding]:
        """Compare the stream with what a broker creates, and the server's clock with ours."""
        given = self._settings.nats
        try:
            answer, began_s, ended_s = await self._info()
        except (TimeoutError, nats.errors.Error) as error:
            detail = str(error) or type(error).__name__
            return [
                Finding("stream", "fail", f"no answer about {given.stream}: {detail}", "Is JetStream on?")
            ]
        info = decode_info(answer)
        if info.error is not None and info.error.err_code == STREAM_NOT_FOUND:
            if given.manage_stream:
                return [Finding("stream", "ok", f"{given.stream} is missing: the broker will create it")]
            remedy = "create it (docs/operations.md, The NATS stream), or set nats.manage_stream"
            return [Finding("stream", "fail", f"{given.stream} is missing", remedy)]
        if info.error is not None:
            return [Finding("stream", "fail", f"{given.stream}: {info.error.description}")]
        found = list(self._compared(info.config))
        if not found:
            state = info.state
            # One that never held any says 0 for both.
            events = state.last_seq - state.first_seq + 1 - state.num_deleted if state.last_seq else 0
            found = [Finding("stream", "ok", f"{given.stream}: as the broker creates it; {events:,} events")]
        stamp = msgspec.json.decode(answer).get("ts")
        if isinstance(stamp, str):
            found.append(compare_clocks("NATS", parse_time(stamp), began_s, ended_s))
        return found

    async def _info(self) -> tuple[bytes, float, float]:
        began_s = time.time()
        subject = f"$JS.API.STREAM.INFO.{self._settings.nats.stream}"
        answer = await self._connected().request(subject, b"", timeout=self._settings.nats.request_s)
        return answer.data, began_s, time.time()

    def _compared(self, config: dict[str, Any]) -> Iterator[Finding]:
        given = self._settings.nats
        for reason in unusable_because(config):
            yield Finding(
                "stream", "fail", f"{given.stream}: {reason}", "docs/operations.md, The NATS stream"
            )
        different = differences(config, desired_config(given))
        if different:
            said = "; ".join(f"{key} {how}" for key, how in different.items())
            yield Finding("stream", "warn", f"{given.stream}: {said}", "fine where it is meant so")

    def _connected(self) -> Client:
        assert self._client is not None
        return self._client


def _needed_for(given: Settings) -> list[Permission]:
    return needed(
        stream=given.nats.stream,
        tenant=given.agent.tenant,
        agent=given.agent.name,
        manages=given.nats.manage_stream,
        captures=given.agent.capture == "proxy",
        has_agent=bool(given.agent.url),
        keeps_messages=bool(given.nats.messages_age_s),
        authenticates=given.auth_on,
    )


def _missing(permissions: list[Permission], forbidden: set[tuple[str, str]]) -> Iterator[Finding]:
    for permission in permissions:
        used = permission.subject
        if permission.direction == "publish":
            used = used.replace("*", NOBODY).replace(">", NOBODY)
        if (permission.direction, used.upper()) in forbidden:
            yield Finding(
                "permissions",
                "fail" if permission.essential else "warn",
                f"may not {permission.direction} to {permission.subject}: can't {permission.use}",
                f"allow it to the broker's user ({DOCUMENTED})",
            )


def _whom(given: Settings) -> str:
    return f"these {len(given.agents) + 1} agents" if given.agents else "this agent"


def compare_clocks(whose: str, theirs_s: float, began_s: float, ended_s: float) -> Finding:
    """Compare a clock with this machine's.

    Args:
        whose: clock it is.
        theirs_s: what it said, in seconds since 1970.
        began_s: when it was asked, by our clock.
        ended_s: when it had answered.
    """
    ahead_s = 0.0
    if not began_s - SKEW_S <= theirs_s <= ended_s + SKEW_S:
        ahead_s = theirs_s - (began_s + ended_s) / 2
    if ahead_s:
        way = "ahead of" if ahead_s > 0 else "behind"
        text = f"{whose} is {abs(ahead_s):,.1f} s {way} this machine"
        return Finding(
            "clock", "warn", text, "synchronise both (NTP): delays and ends of credentials are wrong"
        )
    return Finding("clock", "ok", f"{whose} and this machine agree")
