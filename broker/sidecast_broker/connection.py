"""One client's connection: how long what arrives on it may take, how large it may be, and what is no HTTP.

Must not know what is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import structlog
from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from sidecast_broker.core.forwarded import Header, Network, client_of
from sidecast_broker.limits import Place, Places
from sidecast_broker.refused import Refused
from sidecast_broker.tracing import Asked
from sidecast_schemas.headers import TRACEPARENT
from sidecast_schemas.trace import only_traceparent

logger = structlog.get_logger(__name__)

_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER_ZLIB = 32 + zlib.MAX_WBITS
"""Takes gzip's header as well as that of zlib, which `deflate` means (RFC 9110, section 8.4.1)."""


Dress = Callable[[web.BaseRequest, web.StreamResponse], None]


class Limits(NamedTuple):
    """What a client may take.

    Attributes:
        header_s: from the first byte of a request's head to its last.
        body_s: from the head to the last byte of a body that is read as a whole.
        body_bytes_max: of such a body, also after it was unpacked.
        head_bytes_max: of a head that has not ended yet.
        trusted: networks of proxies that are believed who their client is.
        forwarded_header: the header they say it in.
    """

    header_s: float
    body_s: float
    body_bytes_max: int
    head_bytes_max: int
    trusted: tuple[Network, ...] = ()
    forwarded_header: Header = "any"


class ClientConnections(web.Server):
    """Makes the connections of one listener.

    Args:
        answer: answers requests.
        limits: what clients may take.
        refuse: gives the answer to what is no request.
        dress: sets the headers that all answers have, before one is sent.
        places: counts the connections; None: nobody does.
        options: of aiohttp's server.
    """

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Any],
        limits: Limits,
        refuse: Callable[[Refused], web.Response],
        dress: Dress,
        places: Places | None = None,
        **options: Any,
    ) -> None:
        # Unpacked is only what is read here: what passes on stays the bytes its Content-Encoding names.
        super().__init__(answer, request_factory=self._request, auto_decompress=False, **options)
        self.limits = limits
        self.refuse = refuse
        self.dress = dress
        self.places = places

    def __call__(self) -> RequestHandler:
        """Give a new connection."""
        return self.new(None)

    def new(self, place: Place | None) -> Connection:
        """Give a new connection, which has its place already where it was counted before it was encrypted."""
        return Connection(self, place, loop=self._loop, **self._kwargs)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return Request(
            message, payload, protocol, writer, task, self._loop, limits=self.limits, dress=self.dress
        )


class Connection(RequestHandler):
    """Cuts off who sends the head of a request too slowly, and answers what is no HTTP without a stack trace.

    A connection on which nothing was sent yet is bounded by the keep-alive time, as one between two requests.
    A head that has begun behind a request is bounded from when that is answered.
    """

    __slots__ = ("_connections", "_head_bytes", "_head_due", "_heard_meanwhile", "_made", "_place")

    def __init__(self, connections: ClientConnections, place: Place | None, **options: Any) -> None:
        super().__init__(connections, **options)
        self._connections = connections
        self._head_due: TimerHandle | None = None
        self._head_bytes = 0
        self._heard_meanwhile = False
        self._place = place
        self._made = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once where there are too many: nothing is read then."""
        places = self._connections.places
        if places is not None and self._place is None:
            peer = transport.get_extra_info("peername")
            self._place = places.enter(peer[0] if isinstance(peer, tuple) else "")
            if self._place is None:
                cast(asyncio.Transport, transport).abort()
                return
        self._made = True
        super().connection_made(transport)
        assert self._task_handler is not None
        self._task_handler.add_done_callback(_let_go)

    @property
    def made(self) -> bool:
        """Whether it has ever begun; from then on, its end is told to it."""
        return self._made

    def data_received(self, data: bytes) -> None:
        """Take bytes; while they make no whole head, its time is running, and its size is counted."""
        if not self._made:
            return
        super().data_received(data)
        if self._messages:
            # What is no HTTP comes last. Its error holds the frame that holds it, and this connection: it
            # would wait for the collector, which is seldom there.
            error = getattr(self._messages[-1][0], "exc", None)
            if isinstance(error, BaseException):
                error.__traceback__ = None
            self._end_broken()
        if not self._waits:
            self._stop_waiting()
            self._heard_meanwhile = True
            return
        self._expect_head()
        self._head_bytes += len(data)
        if self._head_bytes > self._connections.limits.head_bytes_max:
            self._cut(_too_large_head())

    async def _handle_request(self, *asked: Any) -> tuple[web.StreamResponse, bool]:
        try:
            return await super()._handle_request(*asked)
        finally:
            if self._heard_meanwhile and not self._messages:
                self._heard_meanwhile = False
                self._expect_head()

    def _expect_head(self) -> None:
        """Have the time of a head run, unless the connection has ended: nothing is to be held by it then."""
        if self._head_due is None and self.transport is not None:
            self._head_due = self._loop.call_later(self._connections.limits.header_s, self._cut_slow)

    def _end_broken(self) -> None:
        """Tell who reads a body that it never ends: what follows one that has not ended is no HTTP.

        That is all the answer there is: a second one to the same request would pass for the next one's.
        """
        bodies = [body for _message, body in self._messages]
        if self._current_request is not None:
            bodies.insert(0, self._current_request.content)
        if len(bodies) > 1 and not bodies[-2].is_eof():
            bodies[-2].set_exception(web.RequestPayloadError("the body is not framed as HTTP demands"))
            bodies[-2].feed_eof()
            self._messages.pop()
            self.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Know that it has ended."""
        self._stop_waiting()
        if not self._made:
            return
        if self._connections.places is not None and self._place is not None:
            self._connections.places.leave(self._place)
            self._place = None
        super().connection_lost(exc)

    @property
    def _waits(self) -> bool:
        if self._waiter is None:
            # uvloop hands over what comes with a connection before the connection's task has run once.
            return self._request_count == 0
        return not self._waiter.done()

    def _stop_waiting(self) -> None:
        self._head_bytes = 0
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _cut_slow(self) -> None:
        self._head_due = None
        if self._waits and (self._head_bytes or self._has_begun()):
            self._cut(Refused("request-timeout", "the head of the request took too long to arrive"))

    def _has_begun(self) -> bool:
        """Tell whether a head has begun: to the parser this is the end, so where one has, all must end."""
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except HttpProcessingError:
            return True

    def _cut(self, refused: Refused) -> None:
        """Refuse a head that has not ended: there is no request that aiohttp could answer."""
        if self.transport is None:
            return
        answer = self._connections.refuse(refused)
        body = answer.body if isinstance(answer.body, bytes) else b""
        lines = (
            f"HTTP/1.1 {answer.status} {answer.reason}",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        self.transport.write("\r\n".join((*lines, "", "")).encode() + body)
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP as every other wrong request; a fault of ours is logged, as before."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        logger.debug("no_http", peer=request.remote, detail=str(exc)[:200])
        # The parser tells more than one line or field too many by its message alone.
        too_large = isinstance(exc, LineTooLong) or "Too many headers" in str(exc)
        refused = _too_large_head() if too_large else Refused("bad-request", "this is no valid HTTP request")
        answer = self._connections.refuse(refused)
        answer.force_close()
        return answer


def _let_go(task: asyncio.Task[None]) -> None:
    """Take a task's error from it: that holds its frames, and one of them the task."""
    if task.cancelled():
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()


def _too_large_head() -> Refused:
    return Refused(
        "head-too-large", "the request's target or a header field is too long, or all together are"
    )


class Request(web.BaseRequest):
    """A request whose body can be read in bounded time and space, and which knows whose it is.

    Attributes:
        is_foreign: whether it is of a version of HTTP that is not spoken here.
        arrived_ns: when its head had come, in ns since 1970.
    """

    ATTRS = web.BaseRequest.ATTRS | frozenset({"_limits", "_dress", "arrived_ns", "is_foreign"})

    def __init__(self, *made_of: Any, limits: Limits, dress: Dress) -> None:
        super().__init__(*made_of, client_max_size=limits.body_bytes_max)
        self._limits = limits
        self._dress = dress
        self.arrived_ns = time.time_ns()
        self.is_foreign = self._version not in (HttpVersion10, HttpVersion11)
        if self.is_foreign:
            # An answer would repeat the version, which the parser takes whatever it is.
            self._version = HttpVersion11

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # The one place that every answer comes by, also streams and aiohttp's own, after the defaults of
        # aiohttp are set and before the head is written.
        self._dress(self, response)

    @property
    def asked(self) -> Asked | None:
        """The trace that it is part of; None: it names none, or more than one."""
        context = only_traceparent(self.headers.getall(TRACEPARENT, ()))
        return None if context is None else Asked(context, self.arrived_ns)

    @property
    def remote(self) -> str | None:
        """The client's address, as far as trusted proxies say it; for limits and logs, never for rights."""
        client = self._cache.get("client")
        if client is None:
            client = self._cache["client"] = self._client()
        return client

    def _client(self) -> str:
        peer = self._protocol.peername
        limits, headers = self._limits, self.headers
        return client_of(
            peer[0] if isinstance(peer, tuple) else "",
            limits.trusted,
            headers.getall(hdrs.FORWARDED, ()) if limits.trusted else (),
            headers.getall(hdrs.X_FORWARDED_FOR, ()) if limits.trusted else (),
            limits.forwarded_header,
        )

    async def read(self) -> bytes:
        """Give the whole body, unpacked.

        Raises:
            Refused: it is too large, takes too long, breaks HTTP's framing, or is packed in an unknown way.
        """
        if self._read_bytes is None and self.body_exists:
            encoding = self.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
            if encoding not in _PACKED and encoding not in ("", "identity"):
                raise Refused("unsupported-media-type", "a body may be encoded with gzip or deflate only")
            if (self.content_length or 0) > self._limits.body_bytes_max:
                raise self._too_large()
            body = await self._received()
            self._read_bytes = self._unpacked(body) if encoding in _PACKED else body
        return await super().read()

    async def _received(self) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_s):
                return await super().read()
        except TimeoutError as error:
            raise Refused("request-timeout", "the body took too long to arrive") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise self._too_large() from error
        except (web.RequestPayloadError, HttpProcessingError) as error:
            raise Refused("bad-request", "the body is not framed as HTTP demands") from error

    def _unpacked(self, body: bytes) -> bytes:
        unpacking = zlib.decompressobj(_EITHER_ZLIB)
        try:
            unpacked = unpacking.decompress(body, self._limits.body_bytes_max + 1)
        except zlib.error as error:
            raise Refused("bad-request", "the body is not encoded as it says") from error
        if len(unpacked) > self._limits.body_bytes_max:
            raise self._too_large()
        if not unpacking.eof or unpacking.unused_data:
            raise Refused("bad-request", "the body is not encoded as it says")
        return unpacked

    def _too_large(self) -> Refused:
        return Refused("body-too-large", f"the body is larger than {self._limits.body_bytes_max} bytes")
