"""One address that is listened on: its sockets, and what every request on it goes through.

Must not know what is served there.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

import structlog
from aiohttp import HttpVersion11, hdrs, web

from sidecast_broker.connection import ClientConnections, Limits, Request
from sidecast_broker.core.forwarded import parse_networks
from sidecast_broker.cors import Cors, tell_safe
from sidecast_broker.encryption import Encryption
from sidecast_broker.handshakes import Handshakes
from sidecast_broker.limits import Places
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Code, Refused
from sidecast_broker.router import Router
from sidecast_broker.settings import Settings
from sidecast_broker.sockets import bound, url_of

logger = structlog.get_logger(__name__)

SHUTDOWN_S = 2.0
KEEPALIVE_S = 75
LINGER_S = 2.0
"""How long the rest of a body nobody wants is read away, so that its sender can see the answer."""
UNACKNOWLEDGED_S = 2.0
"""How much longer than `stream.lag_s_max` the kernel waits for a peer that acknowledges nothing."""

_CODES: dict[int, Code] = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
}


class Listener:
    """Answers the requests on one address.

    Args:
        router: who answers what.
        settings: all settings.
        metrics: where to count.
        cors: which web pages may read the answers; None: none.
        public: whether connections are limited and encrypted, and proxies in front of it believed.
        turns_away: tells whether clients had better come back on a new connection, which may lead elsewhere.
    """

    def __init__(
        self,
        router: Router,
        settings: Settings,
        metrics: Metrics,
        *,
        cors: Cors | None = None,
        public: bool = False,
        turns_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._router = router
        self._settings = settings
        self._metrics = metrics
        self._cors = cors
        self._public = public
        self._turns_away = turns_away
        self._runner: web.ServerRunner | None = None
        self._handshakes: Handshakes | None = None

    async def open(self, host: str, port: int, *, shared: bool = False) -> str:
        """Listen; give the URL.

        Args:
            host: a name or an address; all addresses of a name are listened on.
            port: 0 picks a free one.
            shared: whether other processes listen on the same port.

        Raises:
            OSError: one of the addresses can't be listened on.
            UnusableFile: the certificate can't be used.
        """
        settings = self._settings.server
        encryption = Encryption(settings) if self._public and settings.tls_certificate else None
        places = Places(settings, self._metrics) if self._public else None
        server = await self._serve(places)
        assert self._runner is not None
        opened = await bound(host, port, shared=shared, prepare=self._prepare)
        if encryption is not None and places is not None:
            self._handshakes = Handshakes(server, encryption, places, settings.header_s, self._metrics)
            self._handshakes.open(opened, settings.backlog)
        else:
            for listening in opened:
                await web.SockSite(self._runner, listening, backlog=settings.backlog).start()
        return url_of(opened[0], "https" if encryption is not None else "http")

    async def open_at(self, path: str) -> None:
        """Listen on a Unix socket; who may connect, the folder it is in decides.

        Raises:
            OSError: it can't be made.
        """
        await self._serve(None)
        assert self._runner is not None
        await web.UnixSite(self._runner, path, backlog=self._settings.server.backlog).start()

    async def _serve(self, places: Places | None) -> ClientConnections:
        settings = self._settings.server
        server = ClientConnections(
            self._answer,
            self._limits(),
            self._refuse,
            self._dress,
            places,
            max_line_size=settings.head_line_bytes_max,
            max_field_size=settings.head_line_bytes_max,
            max_headers=settings.head_fields_max,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            # TCP_USER_TIMEOUT finds a dead peer; a probe of an idle one would tell nothing more.
            tcp_keepalive=False,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        return server

    def _limits(self) -> Limits:
        server = self._settings.server
        limits = Limits(server.header_s, server.body_s, server.body_bytes_max, server.head_bytes_max)
        if not self._public:
            return limits
        trusted = parse_networks(server.trusted_proxies)
        return limits._replace(trusted=trusted, forwarded_header=server.forwarded_header)

    async def close(self) -> None:
        """Listen no more, and end what is still being answered."""
        if self._handshakes is not None:
            await self._handshakes.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _prepare(self, listening: socket.socket) -> None:
        """Set what every accepted connection inherits: set on each one, it costs 25 µs a stream."""
        stream = self._settings.stream
        # What the client has not taken must show here soon, not hide in the kernel (ADR 5).
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, stream.send_buffer_bytes)
        unacknowledged_ms = round((stream.lag_s_max + UNACKNOWLEDGED_S) * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged_ms)

    def _refuse(self, refused: Refused) -> web.Response:
        self._metrics.rejected.labels(refused.reason).inc()
        response = refused.response()
        # What is cut before it is a request is dressed by nobody else.
        tell_safe(response)
        return response

    def _close_after(self, refused: Refused) -> web.Response:
        """Refuse a request that a proxy in between may take to end elsewhere (RFC 9112, section 6.1)."""
        response = self._refuse(refused)
        response.force_close()
        return response

    def _dress(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        if self._cors is not None:
            self._cors.dress(request, response)
        else:
            tell_safe(response)
        if self._turns_away():
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if cast(Request, request).is_foreign:
                return self._close_after(Refused("bad-request", "only HTTP/1.0 and HTTP/1.1 are spoken here"))
            target = request.raw_path
            if not target.startswith("/"):
                raise Refused("bad-request", "the request target must be a path")
            if request.method == hdrs.METH_CONNECT:
                return self._close_after(Refused("bad-request", "no tunnel leads through here"))
            coding = request.headers.get(hdrs.TRANSFER_ENCODING)
            if coding is not None and (request.version < HttpVersion11 or coding.lower() != "chunked"):
                return self._close_after(Refused("bad-request", "only chunked is a transfer encoding here"))
            handler = self._router.find(request.method, target)
            if hdrs.EXPECT in request.headers:
                await _continue(request)
            return await handler(request)
        except Refused as refused:
            if refused.allow and request.method == hdrs.METH_OPTIONS and self._cors is not None:
                preflight = self._cors.preflight(request, refused.allow)
                if preflight is not None:
                    return preflight
            return self._refuse(refused)
        except ConnectionResetError:
            if request.transport is not None and not request.transport.is_closing():
                raise
            return web.Response()  # the client left: not an error, and nobody reads this
        except web.HTTPException as error:
            return self._refuse(Refused(_CODES.get(error.status, "bad-request"), error.reason))


async def _continue(request: web.BaseRequest) -> None:
    """Tell a client that waits with its body to send it (RFC 9110, section 10.1.1)."""
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        raise Refused("bad-request", "only 100-continue can be expected")
    writer = cast(Any, request.writer)
    await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    writer.output_size = 0  # what it counts from here on is the response
