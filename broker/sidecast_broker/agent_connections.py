"""Connections to the agent: one request to its head, its body piece by piece, and what can go wrong between.

Must not know what is asked, nor for whom.
"""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator
from typing import Any, Literal

import aiohttp
import structlog
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

logger = structlog.get_logger(__name__)

CONNECT_S = 5.0
IDLE_S = 3.0
"""How long an unused connection is kept: less than the 5 s after which uvicorn closes it, in the middle of a
request if need be."""
READ_BYTES = 256 * 1024
PIECE_BYTES = 64 * 1024
PROBE_S = 15
PROBES = 4
"""A silent stream's peer is probed: a machine that vanished says nothing, and may say nothing for hours."""

EVENT_STREAM = "text/event-stream"

Reason = Literal["none", "unreachable", "timeout", "broken"]


class AgentAway(Exception):  # noqa: N818 - a state of the world
    """The agent gives no answer that can be used; its text is for clients, who don't read where the agent is.

    Attributes:
        reason: `none` is configured; `unreachable`: no connection, so the agent knows nothing of the request;
            `timeout`: silent for too long; `broken`: what came was no HTTP, was cut off, or was too large.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Connections:
    """Makes requests to one address, and to no other: redirects are answers like all others.

    Args:
        url: the agent's base URL, without a slash at its end; empty for none.
        timeout_s: how long it may be silent.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._reported = ""

    def start(self) -> None:
        """Make what connections need; none is opened before it is used."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                # Each watched turn holds a connection; what bounds them bounds the streams.
                limit=0,
                keepalive_timeout=IDLE_S,
                socket_factory=_socket,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BYTES,
            skip_auto_headers=(hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def head(
        self, method: str, target: str, headers: CIMultiDict[str], body: bytes | aiohttp.StreamReader | None
    ) -> aiohttp.ClientResponse:
        """Make a request and wait for the head of its answer.

        Args:
            method: the HTTP method.
            target: raw path and query, below the base URL.
            headers: as they are sent.
            body: what is sent, whole or as it comes.

        Raises:
            AgentAway: no answer.
        """
        if self._session is None or not self._url:
            raise AgentAway("none", "no agent is configured")
        # Concatenated and kept as it is: nothing here may resolve, decode or encode what the client wrote.
        url = URL(self._url + target, encoded=True)
        # Bytes are written in one piece, files in many, between which others have their turn.
        data = io.BytesIO(body) if isinstance(body, bytes) and len(body) > PIECE_BYTES else body
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._session.request(
                    method, url, headers=headers, data=data, allow_redirects=False
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise self._away("unreachable", "the agent can't be reached", error) from error
        except TimeoutError as error:
            raise AgentAway("timeout", f"the agent did not answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._away("broken", "the agent's answer can't be read", error) from error
        self._reported = ""
        return answer

    def _away(self, reason: Reason, told: str, error: Exception) -> AgentAway:
        """Say what a client reads, and log what the operator needs beside: once, as long as it stays so."""
        detail = str(error)[:200] or type(error).__name__
        if self._reported != detail:
            self._reported = detail
            logger.warning("agent_away", reason=reason, detail=detail)
        return AgentAway(reason, told)

    async def pieces(self, upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Give the body as it comes; only a stream of events may be silent for longer than the time-out.

        Raises:
            AgentAway: it was cut off, or nothing came for too long.
        """
        limit_s = None if upstream.content_type == EVENT_STREAM else self._timeout_s
        try:
            while True:
                async with asyncio.timeout(limit_s):
                    piece = await upstream.content.readany()
                if not piece:
                    return
                yield piece
        except TimeoutError as error:
            raise AgentAway("timeout", f"the agent was silent for {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._away("broken", "the agent's answer was cut off", error) from error

    async def body(self, upstream: aiohttp.ClientResponse, bytes_max: int) -> bytes:
        """Give the whole body.

        Args:
            upstream: an answer of which nothing was read.
            bytes_max: longest body that is taken.

        Raises:
            AgentAway: it was cut off, is too long, or is encoded in a way that was not asked for.
        """
        encoding = upstream.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise AgentAway("broken", f"the agent's answer is encoded as {encoding[:40]!r}, unasked")
        body = bytearray()
        async for piece in self.pieces(upstream):
            body += piece
            if len(body) > bytes_max:
                upstream.close()
                raise AgentAway("broken", f"the agent's answer is longer than {bytes_max} bytes")
        return bytes(body)


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _name, _address = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    return made
