"""`sidecast doctor`: looks at what a broker needs, and says what is amiss and what to do about it.

Must not know how each thing is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import click
import msgspec
import structlog

from sidecast_broker.commands.settings_options import settings_from, settings_options
from sidecast_broker.commands.terminal import printable
from sidecast_broker.doctor.agent import look_at_agents
from sidecast_broker.doctor.bus import Bus
from sidecast_broker.doctor.credentials import look_at_credentials
from sidecast_broker.doctor.finding import Finding
from sidecast_broker.doctor.machine import look_at_limits
from sidecast_broker.doctor.way import look_at_way
from sidecast_broker.settings import Settings

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "white"}


async def examine(
    settings: Settings, url: str | None, token: str | None, wait_s: int
) -> AsyncIterator[Finding]:
    """Look at one thing after the other, and give what is found as it is found.

    Args:
        settings: a broker's.
        url: under which clients reach it; None: `server.public_url`, and nothing where that is empty.
        token: a credential to verify, and to open a stream with.
        wait_s: how long that stream is held.
    """
    bus = Bus(settings)
    try:
        connected = await bus.connect()
        yield connected
        if connected.level == "fail":
            yield Finding("permissions", "skip", "not connected to NATS")
            yield Finding("stream", "skip", "not connected to NATS")
        else:
            for finding in (*await bus.look_at_permissions(), *await bus.look_at_stream()):
                yield finding
    finally:
        await bus.close()
    async for finding in look_at_agents(settings):
        yield finding
    for finding in await look_at_credentials(settings, token):
        yield finding
    for finding in look_at_limits(settings.server, settings.stream, settings.log.bytes_max):
        yield finding
    reached = (url or settings.server.public_url).rstrip("/")
    if not reached:
        yield Finding("stream through", "skip", "no public URL", "give --url, or set server.public_url")
        return
    for finding in await look_at_way(reached, token, wait_s):
        yield finding


def line_of(finding: Finding) -> str:
    """Write a finding for a terminal, what to do on a line of its own."""
    level = click.style(f"{finding.level:<5}", fg=COLOURS[finding.level], bold=finding.level == "fail")
    text = f"{level} {finding.check:<15} {printable(finding.text)}"
    return (
        f"{text}\n{'':<22}{printable(finding.remedy)}" if finding.remedy and finding.level != "ok" else text
    )


@click.command("doctor")
@settings_options
@click.option("--url", help="Under which clients reach the broker; by default setting server.public_url.")
@click.option(
    "--token", envvar="SIDECAST_TOKEN", help="A token or API key to verify and to use; also SIDECAST_TOKEN."
)
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(1, 60),
    default=3,
    show_default=True,
    help="How long a stream through the URL is held, in seconds; 20 shows proxies that give up on silence.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding and line.")
def command(url: str | None, token: str | None, wait_s: int, as_json: bool, **options: Any) -> None:
    """Look at all a broker needs: NATS, permissions, the stream, the agent, credentials, clocks and limits.

    With a URL, also at the way clients take: whether a stream arrives at once, and stands. Run it with the
    broker's settings, where the broker runs. It changes nothing. The exit code is 1 where something fails.
    """
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} is not http:// or https:// with a host", param_hint="--url")
    settings = settings_from(options)
    # What is amiss is said once, by the findings.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    async def look() -> bool:
        fine = True
        async for finding in examine(settings, url, token, wait_s):
            fine = fine and finding.level != "fail"
            click.echo(msgspec.json.encode(finding) if as_json else line_of(finding))
        return fine

    if not asyncio.run(look()):
        raise SystemExit(1)
