"""Answers of the agent: whole ones, and streams of events.

Must not know what was asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
from multidict import CIMultiDict

from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.agent_headers import received_headers
from sidecast_broker.core.a2a.server_sent import EventTooLarge, Parser, Received
from sidecast_broker.settings import MIB

EVENT_BYTES_MAX = 16 * MIB
"""Longest event of an agent's stream; a2a-go reads 10 MiB."""


class Reply(NamedTuple):
    """A whole answer; its headers are those of the connection's end to end."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class Answer:
    """An answer that may be a stream of events.

    Attributes:
        status: the HTTP status.
        headers: those that are end to end.
        body: the whole body where the answer is no stream of events, else None: then iterate.
    """

    def __init__(self, upstream: aiohttp.ClientResponse, body: bytes | None) -> None:
        self.status = upstream.status
        self.headers = received_headers(upstream)
        self.body = body
        self._upstream = upstream

    async def __aiter__(self) -> AsyncIterator[Received]:
        """Give the events as they come, to the stream's end; heartbeats give none.

        Raises:
            AgentAway: the stream was cut off, or an event is too large.
        """
        if self.body is not None:
            return
        parser = Parser(EVENT_BYTES_MAX)
        try:
            async for piece in self._upstream.content.iter_any():
                for received in parser.feed(piece):
                    yield received
        except EventTooLarge as error:
            raise AgentAway("broken", str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise AgentAway("broken", f"the agent's stream was cut off: {error}"[:200]) from error
