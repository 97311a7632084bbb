"""The head of an event stream's response: what keeps proxies from holding back, or storing, what follows.

Must not know what is streamed, nor who writes it.
"""

from __future__ import annotations

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse


class Response(EventSourceResponse):
    """An event stream's head; its body is written by the hub and the stream's peer, not by the base class."""

    _send_headers_immediately = False  # they leave with the first frame: one system call, one packet less

    def __init__(self) -> None:
        # The listening socket brings the time-out of its connections along: set on each, it costs 25 µs.
        super().__init__(sep="\n", allow_all_methods=True, send_timeout=None)
        self.headers["Content-Type"] = "text/event-stream; charset=utf-8"
        self.headers["Cache-Control"] = "no-store, no-transform"

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Begin the response without the base class's ping: the beat belongs to the broker."""
        if request.version < HttpVersion11:
            # Without chunks only the end of the connection tells such a client that the stream has ended.
            self.force_close()
            self.headers["Connection"] = "close"
        return await web.StreamResponse.prepare(self, request)
