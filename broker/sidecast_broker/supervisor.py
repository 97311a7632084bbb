"""A broker of several worker processes: one public port, one internal listener, one end.

Must not know what workers serve. This process holds no stream and no connection to NATS.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from sidecast_broker import sockets
from sidecast_broker.caution import warn
from sidecast_broker.listener import Listener
from sidecast_broker.metrics import Metrics
from sidecast_broker.overview import Overview
from sidecast_broker.router import Router
from sidecast_broker.settings import Settings
from sidecast_broker.workers import Workers, overview_path

logger = structlog.get_logger(__name__)

BEYOND_S = 15.0
"""How much longer than a drain workers may take: to send last frames, and to close their connections."""


class Supervised(NamedTuple):
    """A broker whose workers serve."""

    url: str
    internal_url: str
    probe_url: str
    workers: Workers
    overview: Overview


@asynccontextmanager
async def supervising(settings: Settings, stop: Callable[[], None]) -> AsyncIterator[Supervised]:
    """Run the workers for the length of the block; at its end they are not drained, only ended.

    Args:
        settings: all settings.
        stop: called when an operator asks for what SIGTERM does.

    Raises:
        OSError: an address can't be listened on.
        StartFailed: a worker can't serve.
    """
    server, metrics = settings.server, Metrics()
    kept = await sockets.reserved(server.host, server.port)
    try:
        with tempfile.TemporaryDirectory(
            prefix="sidecast-", dir=folder_for_sockets(), ignore_cleanup_errors=True
        ) as folder:
            shared = shared_settings(settings, kept[0].getsockname()[1])
            workers = Workers(server.workers, Path(folder), shared, lambda number: overview.bury(number))
            overview = Overview(workers, metrics, stop)
            listener = Listener(Router(overview.routes()), settings, metrics)
            for_probes = Listener(Router(overview.probes()), settings, metrics)
            for_workers = Listener(Router(overview.for_workers()), settings, metrics)
            try:
                internal_url, probe_url = await listener.open(server.internal_host, server.internal_port), ""
                if server.probe_host:
                    probe_url = await for_probes.open(server.probe_host, server.probe_port)
                await for_workers.open_at(overview_path(Path(folder)))
                await workers.start()
                yield Supervised(workers.url, internal_url, probe_url, workers, overview)
            finally:
                await workers.close()
                await listener.close()
                await for_probes.close()
                await for_workers.close()
    finally:
        sockets.close(kept)


def folder_for_sockets() -> str:
    """Give a folder to make one in that nobody else can look into."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        # A container whose file system is read-only has this nevertheless.
        return "/dev/shm"  # noqa: S108 - the folder in it is made with a random name, and for this user only


def shared_settings(settings: Settings, port: int) -> Settings:
    """Give the settings of all workers: what each would choose for itself is chosen once."""
    server = msgspec.structs.replace(settings.server, port=port, workers=1)
    auth = settings.auth
    if settings.auth_on and not auth.ticket_secret:
        # A ticket that one has made opens streams at all of them.
        auth = msgspec.structs.replace(auth, ticket_secret=secrets.token_urlsafe(48))
    return msgspec.structs.replace(settings, server=server, auth=auth)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or an operator, then have all workers drain; a second signal ends at once.

    Raises:
        OSError: an address can't be listened on.
        StartFailed: a worker can't serve.
    """
    loop = asyncio.get_running_loop()
    asked, signalled, forced = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (forced if signalled.is_set() else signalled).set()
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with supervising(settings, asked.set) as supervised:
        supervised.overview.started = True
        warn(settings)
        urls = {"url": supervised.url, "internal_url": supervised.internal_url}
        if supervised.probe_url:
            urls["probe_url"] = supervised.probe_url
        logger.info("listening", **urls, workers=[running.pid for running in supervised.workers.running])
        await asked.wait()
        drain_s = settings.stream.drain_s
        logger.info("draining", workers=len(supervised.workers.running), drain_s=drain_s)
        supervised.overview.draining = True
        supervised.workers.drain()
        ended = loop.create_task(supervised.workers.ended())
        force = loop.create_task(forced.wait())
        await asyncio.wait({ended, force}, timeout=drain_s + BEYOND_S, return_when=asyncio.FIRST_COMPLETED)
        force.cancel()
        if not ended.done():
            await supervised.workers.close()
        await ended
    logger.info("stopped")
