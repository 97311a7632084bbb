"""Puts the broker into pods as they are made: a mutating admission webhook over TLS.

Must not know what a pod looks like, nor how it is changed.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog
from aiohttp import web

from sidecast_broker.auth.watched_file import WatchedFile
from sidecast_broker.core.admission import MalformedReview, Review, format_answer, read_review
from sidecast_broker.core.injection import (
    Injection,
    MalformedPod,
    Template,
    inject,
    read_template,
    shown,
)
from sidecast_broker.listener import Listener
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused
from sidecast_broker.router import Route, Router, get_or_head, post
from sidecast_broker.settings import Settings

logger = structlog.get_logger(__name__)

REVIEWS_MAX = 32
"""Questions whose bodies are in memory at once: with `server.body_bytes_max`, what they may take together."""


class Injector:
    """Answers the API server.

    Args:
        template: gives what is put into pods.
        metrics: where to count.

    Attributes:
        draining: whether it is going away.
    """

    def __init__(self, template: Callable[[], Template], metrics: Metrics) -> None:
        self.draining = False
        self._template = template
        self._metrics = metrics
        self._reading = 0

    def routes(self) -> list[Route]:
        """Give the routes for the API server and for probes over TLS."""
        return [post("/mutate", self._mutate), *self._probes()]

    def internal_routes(self) -> list[Route]:
        """Give the routes that need no TLS."""
        return [*self._probes(), *get_or_head("/metrics", self._show_metrics)]

    def _probes(self) -> list[Route]:
        return [*get_or_head("/livez", self._live), *get_or_head("/readyz", self._ready)]

    async def _mutate(self, request: web.BaseRequest) -> web.Response:
        if self._reading >= REVIEWS_MAX:
            raise Refused("unavailable", "too many reviews are under way", retry_after_s=1)
        self._reading += 1
        try:
            body = await request.read()
        finally:
            self._reading -= 1
        try:
            review = read_review(body)
            injection = self._decide(review)
        except (MalformedReview, MalformedPod) as error:
            raise Refused("bad-request", str(error)) from error
        response = web.Response(body=format_answer(review.uid, injection), content_type="application/json")
        if self.draining:
            # The API server keeps its connections: the next question shall go to another replica.
            response.force_close()
        return response

    def _decide(self, review: Review) -> Injection:
        """Decide and tell: of a pod, its name alone, for its variables may hold secrets.

        Raises:
            MalformedPod: it is no pod.
        """
        if review.pod is None:
            injection = Injection("ignored")
        else:
            injection = inject(review.pod, review.namespace, self._template())
        self._metrics.injections.labels(injection.outcome).inc()
        if review.pod is not None and injection.outcome != "ignored":
            metadata = review.pod["metadata"]
            logger.info(
                "pod_reviewed",
                outcome=injection.outcome,
                uid=shown(review.uid),
                namespace=shown(review.namespace),
                pod=shown(metadata.get("name") or metadata.get("generateName") or ""),
                detail=injection.denial or "; ".join(injection.warnings),
            )
        return injection

    async def _live(self, _request: web.BaseRequest) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, _request: web.BaseRequest) -> web.Response:
        status = "draining" if self.draining else "ok"
        return web.json_response({"status": status}, status=503 if self.draining else 200)

    async def _show_metrics(self, _request: web.BaseRequest) -> web.Response:
        headers = {"Content-Type": self._metrics.content_type}
        return web.Response(body=self._metrics.render(), headers=headers)


class Injecting(NamedTuple):
    """A running injector.

    Attributes:
        url: of the listener that speaks TLS.
        internal_url: of the other one.
        injector: answers there.
    """

    url: str
    internal_url: str
    injector: Injector


@asynccontextmanager
async def injecting(settings: Settings, template: str) -> AsyncIterator[Injecting]:
    """Run an injector for the length of the block.

    Args:
        settings: all settings; those of listeners and logs count.
        template: path of the file that `core.injection.read_template` reads; read again when it changes.

    Raises:
        OSError: an address can't be listened on.
        UnusableFile: the template or the certificate can't be used.
    """
    file = WatchedFile(template, read_template)
    file.open()
    metrics = Metrics()
    injector = Injector(file.look, metrics)
    server = settings.server
    encrypted = Listener(Router(injector.routes()), settings, metrics, public=True)
    internal = Listener(Router(injector.internal_routes()), settings, metrics)
    try:
        url = await encrypted.open(server.host, server.port)
        internal_url = await internal.open(server.internal_host, server.internal_port)
        yield Injecting(url, internal_url, injector)
    finally:
        await encrypted.close()
        await internal.close()


async def run(settings: Settings, template: str) -> None:
    """Serve until SIGTERM or SIGINT, and for `stream.drain_s` more, until the Service knows.

    A second signal ends at once.

    Raises:
        OSError: an address can't be listened on.
        UnusableFile: the template or the certificate can't be used.
    """
    loop = asyncio.get_running_loop()
    asked, forced = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (forced if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with injecting(settings, template) as running:
        logger.info("listening", url=running.url, internal_url=running.internal_url)
        await asked.wait()
        running.injector.draining = True
        logger.info("draining", drain_s=settings.stream.drain_s)
        try:
            await asyncio.wait_for(forced.wait(), settings.stream.drain_s)
        except TimeoutError:
            pass
    logger.info("stopped")
