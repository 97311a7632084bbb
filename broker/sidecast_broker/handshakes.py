"""Encrypted connections from their arrival to the end of their handshake: counted first, and not for long.

Must not know certificates, nor what is asked for on a connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import TimerHandle
from collections.abc import Sequence
from typing import Protocol

import structlog

from sidecast_broker.connection import ClientConnections
from sidecast_broker.limits import Place, Places
from sidecast_broker.metrics import Metrics

logger = structlog.get_logger(__name__)

ACCEPTS_MAX = 64
"""Taken in one turn of the event loop, so that who connects often stalls nobody."""
PAUSE_S = 1.0
"""Without file descriptors the next attempt would fail as well."""


class Contexts(Protocol):
    """Knows how to encrypt."""

    def context(self) -> ssl.SSLContext:
        """Give the context for a connection that has just come."""


class Handshakes:
    """Accepts the connections of a listener that speaks TLS.

    asyncio's own server makes a connection known when its handshake is over: too late to count who never
    ends one. It is also bound to one context, whatever becomes of the certificate.

    Args:
        connections: makes what serves a connection.
        contexts: encrypts.
        places: counts.
        handshake_s: how long a handshake may take.
        metrics: where to count those that fail.
    """

    def __init__(
        self,
        connections: ClientConnections,
        contexts: Contexts,
        places: Places,
        handshake_s: float,
        metrics: Metrics,
    ) -> None:
        self._connections = connections
        self._contexts = contexts
        self._places = places
        self._handshake_s = handshake_s
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._listening: list[socket.socket] = []
        self._shaking: set[asyncio.Task[None]] = set()
        self._paused: dict[socket.socket, TimerHandle] = {}

    def open(self, sockets: Sequence[socket.socket], backlog: int) -> None:
        """Listen on bound sockets, which are closed with this."""
        for listening in sockets:
            listening.setblocking(False)
            listening.listen(backlog)
            self._listening.append(listening)
            self._loop.add_reader(listening, self._accept, listening)

    async def close(self) -> None:
        """Accept no more, and give up what is under way; who is connected stays."""
        for timer in self._paused.values():
            timer.cancel()
        for listening in self._listening:
            self._loop.remove_reader(listening)
            listening.close()
        self._listening.clear()
        for task in self._shaking:
            task.cancel()
        await asyncio.gather(*self._shaking, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("accept_failed", detail=error.strerror, consequence="a pause")
                self._pause(listening)
                return
            place = self._places.enter(peer[0])
            if place is None:
                accepted.close()
                continue
            task = self._loop.create_task(self._shake(accepted, place))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    def _pause(self, listening: socket.socket) -> None:
        self._loop.remove_reader(listening)

        def go_on() -> None:
            del self._paused[listening]
            self._loop.add_reader(listening, self._accept, listening)

        self._paused[listening] = self._loop.call_later(PAUSE_S, go_on)

    async def _shake(self, accepted: socket.socket, place: Place) -> None:
        """Encrypt a connection; from then on it keeps its place itself."""
        connection = self._connections.new(place)
        accepted.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._contexts.context(),
                ssl_handshake_timeout=self._handshake_s,
            )
        except OSError as error:
            # Whatever is wrong with it, the client knows, or doesn't want to be known.
            self._metrics.rejected.labels("handshake").inc()
            logger.debug("handshake_failed", detail=str(error)[:200])
        finally:
            if not connection.made:
                self._places.leave(place)
