"""The internal listener of a broker with workers: asks all of them, and answers as one broker does.

Must not know how they are started, nor credentials: they are passed on, and each worker decides.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec
import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from sidecast_broker.gathered import GATHER_S_MAX, Gathered, Said
from sidecast_broker.merged import MergedMetrics
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused
from sidecast_broker.router import Route, get, get_or_head, post
from sidecast_broker.workers import Running, Workers

logger = structlog.get_logger(__name__)

ASK_S_MAX = 5.0
READY_S_MAX = 0.7
"""A probe gives up after a second: a worker that is busy for so long is not ready."""

_HOP_BY_HOP = frozenset(
    [
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_KEPT = (hdrs.CACHE_CONTROL, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE, hdrs.ALLOW)


class Answer(NamedTuple):
    """What a worker says."""

    running: Running
    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """Its body, where it is a JSON object."""
        return msgspec.json.decode(self.body, type=dict[str, Any])

    def response(self) -> web.Response:
        """Give the same answer."""
        headers = {name: self.headers[name] for name in _KEPT if name in self.headers}
        kind = self.headers.get(hdrs.CONTENT_TYPE, "application/json")
        return web.Response(body=self.body, status=self.status, headers=headers | {hdrs.CONTENT_TYPE: kind})


class Overview:
    """Serves the internal listener of all workers.

    Args:
        workers: whom to ask.
        metrics: what this process counts itself.
        stop: has all of them drain and end, as SIGTERM does.

    Attributes:
        started: all of them have begun to serve.
        draining: they go away.
    """

    def __init__(self, workers: Workers, metrics: Metrics, stop: Callable[[], None]) -> None:
        self.started = False
        self.draining = False
        self._workers = workers
        self._metrics = metrics
        self._merged = MergedMetrics()
        self._stop = stop

    def probes(self) -> list[Route]:
        """Give the routes of health and metrics, which need no credential."""
        return [
            *get_or_head("/livez", self._live),
            *get_or_head("/readyz", self._ready),
            *get_or_head("/metrics", self._show_metrics),
        ]

    def routes(self) -> list[Route]:
        """Give all routes."""
        return [
            *self.probes(),
            get("/streams", self._list_streams),
            post("/publish/*", self._pass_on),
            post("/revoke", self._pass_on),
            post("/drain", self._drain),
        ]

    def for_workers(self) -> list[Route]:
        """Give the routes by which a worker asks all, itself too; who may know has been settled there."""
        return [get("/watching/*", self._gather)]

    def bury(self, number: int) -> None:
        """Take note of a worker that has died."""
        self._metrics.worker_restarts.inc()
        self._merged.bury(number)

    # ------------------------------------------------------------------ health and metrics

    async def _live(self, _request: web.BaseRequest) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.BaseRequest) -> web.Response:
        answers = await self._ask_all(request, timeout_s=READY_S_MAX) if self.started else []
        # Passed on, a request may be longer than it came, and be refused.
        if refused := [answer for answer in answers if answer.status not in (200, 503)]:
            return refused[0].response()
        bodies = [answer.json for answer in answers]
        ready = [body for body in bodies if body["status"] == "ok"]
        nats = [body["nats"] for body in bodies]
        newest: dict[str, Any] = max(nats, key=lambda each: each["last_sequence"] or 0, default={})
        body = {
            "status": "draining" if self.draining else "ok" if ready else "starting",
            "nats": {
                "connected": bool(nats) and all(each["connected"] for each in nats),
                "stream": newest.get("stream"),
                # Known once it is to all of them: then whoever is asked next can serve.
                "epoch": newest.get("epoch") if all(each["epoch"] for each in nats) else None,
                "last_sequence": newest.get("last_sequence"),
            },
            "streams": sum(body["streams"] for body in bodies),
            "workers": {"configured": len(self._workers), "ready": len(ready)},
        }
        return web.json_response(body, status=200 if ready and not self.draining else 503)

    async def _show_metrics(self, request: web.BaseRequest) -> web.Response:
        for answer in await self._ask_all(request):
            # What one has counted that has died meanwhile stays as it was read before: it is buried.
            if answer.status == 200 and answer.running in self._workers.running:
                self._merged.put(answer.running.number, answer.body.decode())
        self._metrics.workers.set(0)
        body = self._merged.render(self._metrics.render().decode())
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: self._metrics.content_type})

    # ------------------------------------------------------------------ operators

    async def _list_streams(self, request: web.BaseRequest) -> web.Response:
        streams: list[dict[str, Any]] = []
        answers = await self._ask_all(request)
        for answer in answers:
            if answer.status != 200:
                return answer.response()
            streams += [{"worker": answer.running.number, **each} for each in answer.json["streams"]]
        if not answers:
            raise _nobody()
        return web.json_response({"streams": streams})

    async def _drain(self, request: web.BaseRequest) -> web.Response:
        def heard(answer: Answer) -> None:
            if answer.status == 202:
                # One that took it is going, and is not to be followed by another.
                self._stop()

        answers = await self._ask_all(request, await request.read(), heard=heard)
        refused = [answer for answer in answers if answer.status != 202]
        if refused:
            return refused[0].response()
        if not answers:
            raise _nobody()
        body = answers[0].json | {"streams": sum(answer.json["streams"] for answer in answers)}
        return web.json_response(body, status=202)

    async def _pass_on(self, request: web.BaseRequest) -> web.Response:
        """Have one worker answer: the same for the same path, because it keeps those requests in order."""
        body = await request.read()
        running = self._workers.running
        first = zlib.crc32(request.path.encode()) % max(1, len(self._workers))
        for each in sorted(running, key=lambda worker: (worker.number - 1 - first) % len(self._workers)):
            try:
                # Many lines take their time; one that hangs is killed, which ends this.
                return (await self._ask(each, request, body, None)).response()
            except aiohttp.ClientConnectorError:
                continue  # it has just died, and was sent nothing
            except (aiohttp.ClientError, OSError) as error:
                raise Refused(
                    "unavailable", "the worker went away; what became of this is not known", retry_after_s=1
                ) from error
        raise _nobody()

    # ------------------------------------------------------------------ asking

    async def _gather(self, request: web.BaseRequest) -> web.Response:
        running = self._workers.running
        answers = await self._ask_all(request, timeout_s=GATHER_S_MAX)
        said = [Said(each.running.number, msgspec.Raw(each.body)) for each in answers if each.status == 200]
        heard = {each.worker for each in said}
        silent = [each.number for each in running if each.number not in heard]
        body = msgspec.json.encode(Gathered(said, silent))
        return web.Response(body=body, content_type="application/json")

    async def _ask_all(
        self,
        request: web.BaseRequest,
        body: bytes = b"",
        timeout_s: float = ASK_S_MAX,
        heard: Callable[[Answer], None] = lambda _answer: None,
    ) -> list[Answer]:
        """Give the answers of all that answer in time, and each of them at once to `heard`."""

        async def ask(worker: Running) -> Answer:
            answer = await self._ask(worker, request, body, timeout_s)
            heard(answer)
            return answer

        running = self._workers.running
        outcomes = await asyncio.gather(*map(ask, running), return_exceptions=True)
        answers: list[Answer] = []
        for each, outcome in zip(running, outcomes, strict=True):
            if isinstance(outcome, Answer):
                answers.append(outcome)
            elif isinstance(outcome, aiohttp.ClientError | OSError):
                logger.debug("worker_silent", worker=each.number, detail=str(outcome)[:200])
            else:
                raise outcome
        return answers

    async def _ask(
        self, worker: Running, request: web.BaseRequest, body: bytes, timeout_s: float | None
    ) -> Answer:
        """Ask one worker what was asked here.

        Raises:
            aiohttp.ClientError: it doesn't answer.
            OSError: the same; a TimeoutError is one.
        """
        headers = CIMultiDict(
            (name, value) for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP
        )
        # What stands behind a # would be no part of the path any more.
        url = URL("http://worker" + request.raw_path.replace("#", "%23"), encoded=True)
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(worker.path, force_close=True),
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            session.request(
                "POST" if request.method == "POST" else "GET",
                url,
                headers=headers,
                skip_auto_headers=(hdrs.CONTENT_TYPE, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT),
                data=body or None,
                allow_redirects=False,
            ) as answer,
        ):
            return Answer(worker, answer.status, CIMultiDict(answer.headers), await answer.read())


def _nobody() -> Refused:
    return Refused("unavailable", "no worker answers at the moment", retry_after_s=1)
