"""Puts the parts together, listens, and goes away in good order.

Must not know what any part does.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog
from aiohttp import web

from sidecast_broker.health import Internal
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.page import Page
from sidecast_broker.positioner import Positioner
from sidecast_broker.refused import Code, Refused
from sidecast_broker.routes import Public
from sidecast_broker.settings import Nats, Settings
from sidecast_broker.streams import Streams
from sidecast_broker.task_list import TaskList

logger = structlog.get_logger(__name__)

SHUTDOWN_S = 2.0

_CODES: dict[int, Code] = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
}


class Listening(NamedTuple):
    """Where a running broker answers.

    Attributes:
        url: of the public listener.
        internal_url: of the internal one.
        streams: the open streams.
    """

    url: str
    internal_url: str
    streams: Streams


@asynccontextmanager
async def serving(
    settings: Settings, connect: Callable[[Nats, Callable[[str], None]], JetStream] = JetStream
) -> AsyncIterator[Listening]:
    """Run a broker for the length of the block; streams are not drained at its end, only closed.

    Args:
        settings: all settings.
        connect: makes the connection to JetStream.

    Raises:
        OSError: an address can't be listened on.
    """
    metrics = Metrics()
    stream = connect(settings.nats, lambda reason: positioner.doubt(reason))
    positioner = Positioner(stream, settings.nats.verify_s)
    hubs = Hubs(stream, positioner, settings.log, metrics)
    streams = Streams(settings.stream, metrics)
    public = Public(settings, hubs, streams, metrics)
    page = Page(settings, hubs, TaskList(stream, settings.agent.tenant, settings.agent.name))
    internal = Internal(settings, stream, positioner, hubs, streams, metrics)
    runners: list[web.AppRunner] = []
    try:
        server = settings.server
        url = await _listen(
            _app(public.routes() + page.routes(), settings, metrics),
            server.host,
            server.port,
            settings,
            runners,
        )
        internal_app = _app(internal.routes(), settings, metrics)
        internal_url = await _listen(
            internal_app, server.internal_host, server.internal_port, settings, runners
        )
        stream.start()
        positioner.start()
        hubs.start()
        streams.start()
        yield Listening(url, internal_url, streams)
    finally:
        streams.draining = True
        for runner in runners:
            await runner.cleanup()
        await streams.close()
        await hubs.close()
        await positioner.close()
        await stream.close()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

    Raises:
        OSError: an address can't be listened on.
    """
    loop = asyncio.get_running_loop()
    asked, forced = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (forced if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with serving(settings) as listening:
        _calm_collector()
        if settings.auth_on:
            logger.warning("auth_without_scheme", consequence="every stream is answered with 401")
        logger.info("listening", url=listening.url, internal_url=listening.internal_url)
        await asked.wait()
        logger.info("draining", streams=len(listening.streams), drain_s=settings.stream.drain_s)
        drain = loop.create_task(listening.streams.drain())
        force = loop.create_task(forced.wait())
        await asyncio.wait({drain, force}, return_when=asyncio.FIRST_COMPLETED)
        drain.cancel()
        force.cancel()
    logger.info("stopped")


def _calm_collector() -> None:
    """Have the garbage collector look at what is new, and seldom at everything.

    A broker's memory is records and streams, freed by their reference counts; a full collection walks all of
    them and holds the event loop for some 100 ms at 30,000 records.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _app(routes: list[web.RouteDef], settings: Settings, metrics: Metrics) -> web.Application:
    @web.middleware
    async def refusals(request: web.Request, handler: object) -> web.StreamResponse:
        try:
            if not request.raw_path.startswith("/"):
                raise Refused("bad-request", "the request target must be a path")
            return await handler(request)  # type: ignore[operator, no-any-return]
        except Refused as refused:
            metrics.rejected.labels(refused.code).inc()
            return refused.response()
        except web.HTTPException as error:
            if error.status < 400:
                raise
            code = _CODES.get(error.status, "bad-request")
            metrics.rejected.labels(code).inc()
            response = Refused(code, error.reason).response()
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response

    app = web.Application(middlewares=[refusals], client_max_size=settings.server.body_bytes_max)
    app.add_routes(routes)
    return app


async def _listen(
    app: web.Application, host: str, port: int, settings: Settings, runners: list[web.AppRunner]
) -> str:
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=75
    )
    await runner.setup()
    runners.append(runner)
    site = web.TCPSite(runner, host, port, backlog=settings.server.backlog)
    await site.start()
    address = runner.addresses[0]
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{shown}:{address[1]}"
