"""`sidecast drain`: have a running broker send its clients elsewhere and end, and wait for that.

Must not know how a broker drains.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import click

from sidecast_broker.commands.client_options import client_options
from sidecast_broker.commands.processes import brokers, terminate
from sidecast_broker.commands.terminal import printable
from sidecast_broker.commands.watcher import decode_object, text_of

REQUEST_S_MAX = 10.0
POLL_S = 0.2
BEYOND_S = 15.0
"""How much longer than it said a broker may take: to send last frames, and to close its connections."""


class DrainFailed(Exception):  # noqa: N818 - named as the message reads
    """The broker refused, could not be reached, or is still there."""


class Drain:
    """Talks to one broker.

    Args:
        session: carries the credential, if any.
        url: of its internal listener.
        pause: waits that many seconds.
        clock: gives seconds from any fixed point.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._url = url
        self._pause = pause
        self._clock = clock

    async def begin(self) -> tuple[int, float]:
        """Have it drain; give how many streams it holds, and over how many seconds it ends them.

        Raises:
            DrainFailed: it can't be reached, or refuses.
        """
        try:
            async with self._session.post(f"{self._url}/drain", json={}) as answer:
                status, body = answer.status, decode_object(await answer.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise DrainFailed(f"can't reach {self._url}: {str(error) or 'no answer'}") from error
        if status != 202:
            fault = body.get("error")
            detail = text_of(fault, "message") if isinstance(fault, dict) else ""
            raise DrainFailed(f"{status} {detail}".strip())
        return int(_number(body, "streams")), _number(body, "drain_s")

    async def wait(self, drain_s: float) -> None:
        """Wait until the broker is gone.

        Raises:
            DrainFailed: it takes much longer than it said.
        """
        until_s = self._clock() + drain_s + BEYOND_S
        while await self._is_there():
            if self._clock() >= until_s:
                raise DrainFailed("the broker still listens")
            await self._pause(POLL_S)

    async def _is_there(self) -> bool:
        """Tell whether it listens; one that doesn't drain is another in its place."""
        try:
            async with self._session.get(f"{self._url}/readyz") as answer:
                body = decode_object(await answer.read())
        except TimeoutError:
            return True
        except (aiohttp.ClientError, OSError):
            return False
        return body.get("status") == "draining"


def _number(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


@click.command("drain")
@client_options("internal", "http://127.0.0.1:8481")
@click.option(
    "--local",
    is_flag=True,
    help="This user's broker in this container, by SIGTERM: needs no credential.",
)
def command(url: str, token: str | None, local: bool) -> None:
    """Have a broker go away in good order, as SIGTERM does, and wait until it is gone.

    It opens no streams any more, and sends its clients elsewhere one after the other.
    """
    if local:
        found = brokers(os.environ)
        if not found:
            raise click.ClickException("no broker of this user and with these settings runs here")
        terminate(found)
        click.echo("the broker is gone")
        return
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def drain() -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_S_MAX)
        # Each on a connection of its own: one that is kept would be closed by the listener under a question.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
            broker = Drain(session, url)
            streams, drain_s = await broker.begin()
            plural = "" if streams == 1 else "s"
            click.echo(f"draining {streams} stream{plural} over {drain_s:g} s", err=True)
            await broker.wait(drain_s)

    try:
        asyncio.run(drain())
    except DrainFailed as error:
        raise click.ClickException(printable(str(error))) from error
    click.echo("the broker is gone")
