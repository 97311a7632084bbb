"""The HTTP client to the agent: requests of the broker's own, and those of clients passed on as they came.

Must not know A2A operations, tasks or NATS, nor how connections are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from sidecast_broker.agent_answers import Answer, Reply
from sidecast_broker.agent_connections import EVENT_STREAM, AgentAway, Connections
from sidecast_broker.agent_headers import (
    NOTHING,
    own_headers,
    passed_headers,
    reason,
    received_headers,
    refuse_upgrade,
    told_of,
)
from sidecast_broker.core.a2a.card import Interface
from sidecast_broker.core.a2a.forwarding import UnsafeTarget, check_target, lies_under
from sidecast_broker.refused import Refused
from sidecast_broker.settings import MIB
from sidecast_broker.settings import Agent as AgentSettings
from sidecast_broker.tracing import in_log
from sidecast_schemas.headers import TRACEPARENT
from sidecast_schemas.trace import only_traceparent

logger = structlog.get_logger(__name__)

T = TypeVar("T")

ANSWER_BYTES_MAX = 64 * MIB
"""Longest answer that is read as a whole."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Agent:
    """Talks to the agent.

    Args:
        settings: where it is, and how long it may be silent.
    """

    def __init__(self, settings: AgentSettings) -> None:
        self._url = settings.url.rstrip("/")
        self._base_path = URL(self._url, encoded=True).raw_path.rstrip("/") if self._url else ""
        self._connections = Connections(self._url, settings.timeout_s)
        self._passed = settings.passthrough_paths
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def configured(self) -> bool:
        """Whether there is an agent to talk to."""
        return bool(self._url)

    def start(self) -> None:
        """Make what connections need; none is opened before it is used."""
        self._connections.start()

    async def close(self) -> None:
        """End all requests, also those whose client has left."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._connections.close()

    # ------------------------------------------------------------------ where to

    def target(self, interface: Interface, path: str = "") -> str:
        """Give the target of a request to one of the agent's interfaces.

        Args:
            interface: one its card names; of its URL the path counts, below the path of `agent.url`.
            path: what follows for REST, raw, from a slash on, with its query.
        """
        own = interface.path
        if self._base_path and (own == self._base_path or own.startswith(self._base_path + "/")):
            own = own[len(self._base_path) :]
        query = f"?{interface.query}" if interface.query and not path else ""
        return (own + path or "/") + query

    def passes(self, target: str) -> bool:
        """Tell whether `agent.passthrough` names this target, path and query as the client sent them."""
        return self.configured and lies_under(target, self._passed)

    # ------------------------------------------------------------------ requests of the broker's own

    async def call(
        self,
        body: bytes | None,
        *,
        target: str = "/",
        method: str = "POST",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        principal: str | None = None,
        tenant: str | None = None,
    ) -> Reply:
        """Make one request and give the whole answer.

        It goes on to its end when the caller is cancelled: a client that leaves cancels nothing.

        Args:
            body: JSON, or None.
            target: raw path and query, below `agent.url`.
            method: the HTTP method.
            headers: what a client sent, or what is to be sent; what belongs to one connection or to another
                body is left out.
            principal: whom the client is.
            tenant: the one the request is about.

        Raises:
            AgentAway: no usable answer.
        """
        ours = own_headers(headers, told_of(principal, tenant), "application/json", body)
        return await self._unabandoned(self._whole(method, target, ours, body, ANSWER_BYTES_MAX))

    async def fetch(self, target: str, headers: Mapping[str, str], bytes_max: int) -> Reply:
        """Get something small that nothing depends on: it is given up when the caller is cancelled.

        Args:
            target: raw path and query, below `agent.url`.
            headers: what is to be sent.
            bytes_max: longest answer that is taken.

        Raises:
            AgentAway: no usable answer.
        """
        ours = own_headers(headers, NOTHING, "application/json", None)
        return await self._whole("GET", target, ours, None, bytes_max)

    @asynccontextmanager
    async def stream(
        self,
        body: bytes | None,
        *,
        target: str = "/",
        method: str = "POST",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        principal: str | None = None,
        tenant: str | None = None,
    ) -> AsyncIterator[Answer]:
        """Make one request whose answer may be a stream of events, for the length of the block.

        Leaving the block closes the connection, which an agent may take for a cancellation: run it in a task
        that outlives the client.

        Args:
            body: JSON, or None.
            target: raw path and query, below `agent.url`.
            method: the HTTP method.
            headers: as for `call`.
            principal: whom the client is.
            tenant: the one the request is about.

        Raises:
            AgentAway: no usable answer.
        """
        told = told_of(principal, tenant)
        ours = own_headers(headers, told, f"{EVENT_STREAM}, application/json", body)
        upstream = await self._connections.head(method, target, ours, body)
        try:
            streams = upstream.status == 200 and upstream.content_type == EVENT_STREAM
            yield Answer(
                upstream, None if streams else await self._connections.body(upstream, ANSWER_BYTES_MAX)
            )
        finally:
            upstream.close()

    # ------------------------------------------------------------------ requests of clients

    async def pass_on(
        self,
        request: web.BaseRequest,
        body: bytes | None = None,
        *,
        target: str | None = None,
        headers: Iterable[tuple[str, str]] | None = None,
        principal: str | None = None,
        tenant: str | None = None,
    ) -> web.StreamResponse:
        """Pass a request on, and its answer back: method, raw target, headers and bytes as they are.

        What isn't safe to repeat goes on to its end when the client leaves.

        Args:
            request: the client's.
            body: its body where it has been read; None streams what it sends.
            target: another raw target than the client's, for example without a prefix that is ours.
            headers: others than the client's.
            principal: whom the client is.
            tenant: the one the request is about.

        Raises:
            AgentAway: no usable answer; nothing was sent to the client yet.
            Refused: the target could mean something else to the agent, the connection is to be upgraded, or
                what the client sends is no body.
        """
        try:
            check_target(request.raw_path)
            check_target(request.raw_path if target is None else target)
        except UnsafeTarget as unsafe:
            raise Refused("bad-request", str(unsafe)) from unsafe
        refuse_upgrade(request.headers)
        given = request.headers.items() if headers is None else headers
        passed = passed_headers(given, told_of(principal, tenant), body)
        data = request.content if body is None and request.body_exists else body or None
        asking = self._spawn(self._connections.head(request.method, target or request.raw_path, passed, data))
        try:
            upstream = await asyncio.shield(asking)
        except AgentAway as away:
            if request.content.exception() is not None:
                raise Refused("bad-request", "the body is not framed as HTTP demands") from away
            if away.reason == "timeout" and data is request.content and _is_waited_for(request.content):
                raise Refused("request-timeout", "the body took too long to arrive") from away
            raise
        except asyncio.CancelledError:
            self._leave(asking, request.method)
            raise
        response = web.StreamResponse(
            status=upstream.status, reason=reason(upstream), headers=received_headers(upstream)
        )
        try:
            await self._relay(request, response, upstream)
        except ConnectionResetError:
            self._leave(asking, request.method)  # the client left: not an error
        except BaseException:
            self._leave(asking, request.method)
            raise
        else:
            upstream.close()
        return response

    async def _relay(
        self, request: web.BaseRequest, response: web.StreamResponse, upstream: aiohttp.ClientResponse
    ) -> None:
        """Write an answer to the client as it comes, no faster than the client takes it."""
        await response.prepare(request)
        try:
            async for piece in self._connections.pieces(upstream):
                await response.write(piece)
        except AgentAway as away:
            trace = in_log(only_traceparent(request.headers.getall(TRACEPARENT, ())))
            logger.warning("answer_cut_off", detail=str(away), target=request.raw_path[:200], **trace)
            # An orderly end would pass half an answer off as a whole one.
            if request.transport is not None:
                request.transport.abort()

    def _leave(self, asking: asyncio.Task[aiohttp.ClientResponse], method: str) -> None:
        """Go on without a client: what may have an effect is heard out, all else is ended."""
        if method not in _SAFE:
            self._spawn(self._read_out(asking))
        elif not asking.done():
            asking.cancel()
        elif not asking.cancelled() and asking.exception() is None:
            asking.result().close()

    async def _read_out(self, asking: asyncio.Task[aiohttp.ClientResponse]) -> None:
        """Read an answer nobody waits for any more to its end."""
        upstream = await asking
        try:
            async for _ in self._connections.pieces(upstream):
                pass
        finally:
            upstream.close()

    async def _whole(
        self, method: str, target: str, headers: CIMultiDict[str], body: bytes | None, bytes_max: int
    ) -> Reply:
        upstream = await self._connections.head(method, target, headers, body)
        try:
            return Reply(
                upstream.status, received_headers(upstream), await self._connections.body(upstream, bytes_max)
            )
        finally:
            upstream.release()

    # ------------------------------------------------------------------ what outlives its caller

    async def _unabandoned(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and isinstance(task.exception(), AgentAway):
            logger.debug("agent_away", detail=str(task.exception()))


def _is_waited_for(body: aiohttp.StreamReader) -> bool:
    """Tell whether what holds a request up is its client: there is more to come, and room for it."""
    return not (body.is_eof() or body._protocol._reading_paused)
