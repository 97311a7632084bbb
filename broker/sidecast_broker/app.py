"""Puts the parts together, listens, and goes away in good order.

Must not know what any part does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog

from sidecast_broker.administration import Administration
from sidecast_broker.agent_lists import AgentLists
from sidecast_broker.agents import Agents, Shared
from sidecast_broker.auth.access import Access, Authenticator
from sidecast_broker.auth.credentials import Credentials
from sidecast_broker.auth.page_tokens import PageTokens
from sidecast_broker.auth.revocations import Revocations
from sidecast_broker.auth.tickets import Tickets
from sidecast_broker.auth.webhook import Webhook
from sidecast_broker.boards import Boards
from sidecast_broker.bucket import Bucket
from sidecast_broker.caution import warn
from sidecast_broker.collector import Collector
from sidecast_broker.cors import Cors
from sidecast_broker.health import Internal
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_broker.lifetimes import Lifetimes
from sidecast_broker.limits import Limits
from sidecast_broker.listener import Listener
from sidecast_broker.metrics import Metrics
from sidecast_broker.onlookers import Onlookers
from sidecast_broker.page import Page
from sidecast_broker.positioner import Positioner
from sidecast_broker.router import Router
from sidecast_broker.settings import Nats, Settings
from sidecast_broker.streams import Streams
from sidecast_broker.subscriptions import Subscriptions
from sidecast_broker.survey import Survey
from sidecast_broker.task_list import TaskLists
from sidecast_broker.tracing import open_tracing

logger = structlog.get_logger(__name__)

REACHED_S_MAX = 3.0
"""How long a worker waits for the stream before it accepts connections without it."""


class Listening(NamedTuple):
    """Where a running broker answers.

    Attributes:
        url: of the public listener.
        internal_url: of the internal one; of a worker's, the path of its socket.
        probe_url: of the one with health and metrics only; empty where there is none.
        streams: the open streams.
    """

    url: str
    internal_url: str
    probe_url: str
    streams: Streams


@asynccontextmanager
async def serving(
    settings: Settings,
    connect: Callable[[Nats, Callable[[str], None]], JetStream] = JetStream,
    authenticator: Authenticator | None = None,
    stop: Callable[[], None] = lambda: None,
    internal_path: str = "",
    overview_path: str = "",
) -> AsyncIterator[Listening]:
    """Run a broker for the length of the block; streams are not drained at its end, only closed.

    Args:
        settings: all settings.
        connect: makes the connection to JetStream.
        authenticator: tells who asks; by default the credentials that the settings name.
        stop: called when an operator asks for what SIGTERM does.
        internal_path: of one of several workers: they share the public port, and each has its internal
            listener at a Unix socket of its own.
        overview_path: of such a one, where it asks for what all of them know.

    Raises:
        OSError: an address can't be listened on.
        UnusableFile: a file of keys can't be used.
        TracesUnavailable: traces are switched on and can't be made.
    """
    metrics = Metrics()

    def doubt(reason: str) -> None:
        positioner.doubt(reason)
        if revocations is not None:
            revocations.doubt(reason)

    tracing = open_tracing(settings.server)
    stream = connect(settings.nats, doubt)
    positioner = Positioner(stream, settings.nats.verify_s)
    hubs = Hubs(stream, positioner, settings.log, metrics, tracing=tracing)
    revocations = _revocations(stream, settings)
    lifetimes = None if revocations is None else Lifetimes(revocations, settings.auth.expiring_s)
    limits = Limits(settings.stream, settings.auth)
    streams = Streams(settings.stream, metrics, limits, lifetimes, tracing=tracing)
    webhook = Webhook(settings.auth) if settings.auth.webhook_url else None
    tickets = Tickets(settings.auth)
    credentials = Credentials(settings.auth, tickets=tickets)
    access = Access(settings, authenticator or credentials, hubs, webhook, revocations)
    tasks = TaskLists(stream)
    onlookers = Onlookers(streams, hubs, overview_path)
    page = Page(settings, hubs, tasks, access, onlookers)
    internal = Internal(settings, stream, positioner, hubs, streams, access, metrics)
    administration = Administration(settings, internal.authorise, access, streams, revocations, stop)
    server = settings.server
    subscriptions = Subscriptions(stream, settings.nats, settings.stream, metrics)
    boards = Boards(settings, stream, positioner, hubs, access, Survey(stream, tasks, access), metrics)
    page_tokens = PageTokens(settings.auth.ticket_secret, settings.auth.ticket_secret_previous)
    cors = Cors(server)
    shared = Shared(
        stream,
        hubs,
        boards,
        streams,
        access,
        subscriptions,
        tickets,
        limits,
        AgentLists(access, page_tokens),
        _messages(stream, settings.nats),
        cors.origins,
        metrics,
    )
    agents = Agents(settings, shared, page.routes())
    open_to_all = Listener(
        agents.router, settings, metrics, cors=cors, public=True, turns_away=lambda: streams.turns_away
    )
    operated = [*internal.routes(), *administration.routes()]
    if internal_path:
        operated += onlookers.routes()
    for_operators = Listener(Router(operated), settings, metrics)
    for_probes = Listener(Router(internal.probes()), settings, metrics)
    try:
        if settings.auth_on:
            await credentials.start()
        internal_url, probe_url, url = internal_path, "", ""
        if internal_path:
            await for_operators.open_at(internal_path)
        else:
            url = await open_to_all.open(server.host, server.port)
            internal_url = await for_operators.open(server.internal_host, server.internal_port)
            if server.probe_host:
                probe_url = await for_probes.open(server.probe_host, server.probe_port)
        stream.start()
        positioner.start()
        if revocations is not None:
            revocations.start()
        hubs.start()
        streams.start()
        subscriptions.start()
        agents.start()
        if internal_path:
            # The other workers serve meanwhile, where this one would have to say that it can't yet.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REACHED_S_MAX):
                    await positioner.known.wait()
            url = await open_to_all.open(server.host, server.port, shared=True)
        yield Listening(url, internal_url, probe_url, streams)
    finally:
        streams.cut()
        await open_to_all.close()
        await for_operators.close()
        await for_probes.close()
        await agents.close()
        if webhook is not None:
            await webhook.close()
        await credentials.close()
        await streams.close()
        await subscriptions.close()
        await boards.close()
        await hubs.close()
        if revocations is not None:
            await revocations.close()
        await positioner.close()
        await stream.close()
        if tracing is not None:
            await tracing.close()


def _messages(stream: JetStream, nats: Nats) -> Bucket | None:
    if not nats.messages_age_s:
        return None
    return Bucket(stream, f"{nats.stream}_MESSAGES", nats, nats.messages_age_s)


def _revocations(stream: JetStream, settings: Settings) -> Revocations | None:
    if not settings.auth_on:
        return None
    nats, age_s = settings.nats, settings.auth.revocation_s
    # Full, it takes no more: what was revoked first must not be forgotten first.
    bucket = Bucket(stream, f"{nats.stream}_REVOKED", nats, age_s, forgets=False)
    return Revocations(bucket, age_s)


async def run(
    settings: Settings,
    *,
    internal_path: str = "",
    overview_path: str = "",
    announce: Callable[[Listening], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or an operator, then drain; a second signal ends at once, a worker SIGINT.

    Args:
        settings: all settings.
        internal_path: of a worker, as `serving` takes it.
        overview_path: the same.
        announce: called once both listeners accept, in place of the line in the log.

    Raises:
        OSError: an address can't be listened on.
    """
    loop = asyncio.get_running_loop()
    asked, signalled, forced = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        # Where an operator has asked before, the first signal is one more to do the same. A worker may get
        # SIGTERM twice, also from what stops a service with all its processes; SIGINT from above only.
        ends = number == signal.SIGINT if internal_path else signalled.is_set()
        (forced if ends else signalled).set()
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    async with serving(
        settings, stop=asked.set, internal_path=internal_path, overview_path=overview_path
    ) as listening:
        collector = Collector()
        collector.start()
        if announce is not None:
            announce(listening)
        else:
            warn(settings)
            urls = {"url": listening.url, "internal_url": listening.internal_url}
            if listening.probe_url:
                urls["probe_url"] = listening.probe_url
            logger.info("listening", **urls)
        await asked.wait()
        logger.info("draining", streams=len(listening.streams), drain_s=settings.stream.drain_s)
        drain = loop.create_task(listening.streams.drain())
        force = loop.create_task(forced.wait())
        await asyncio.wait({drain, force}, return_when=asyncio.FIRST_COMPLETED)
        drain.cancel()
        force.cancel()
        await collector.close()
    logger.info("stopped")
