"""Who watches one task, for the live page: the same as `/streams` says, to the same people, of this process.

Must not know how streams are served, nor the page's files.
"""

from __future__ import annotations

from aiohttp import hdrs, web

from sidecast_broker.auth.access import Access
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.operators import Operators
from sidecast_broker.paths import query_value
from sidecast_broker.router import Route, get
from sidecast_broker.settings import Settings
from sidecast_broker.streams import Streams
from sidecast_schemas.subjects import TaskKey

STREAMS_MAX = 100
"""Streams of one answer, those furthest behind: about 40 KB, asked for every few seconds."""


class Watchers:
    """Serves the list.

    Args:
        settings: all settings.
        streams: the open streams.
        access: who asks.
        worker: whether this is one of several processes on the port, which knows its own streams only.
    """

    def __init__(self, settings: Settings, streams: Streams, access: Access, *, worker: bool = False) -> None:
        self._agent = settings.agent.name
        self._streams = streams
        self._access = access
        self._worker = worker
        self._operators = Operators(settings, access, public=True)

    def routes(self) -> list[Route]:
        """Give the routes."""
        return [get("/ui/api/streams", self._list)]

    def shown_to(self, request: web.BaseRequest, principal: Principal) -> bool:
        """Tell whether who asks for something else may ask for this, too."""
        return self._operators.admits(request, principal, "admin")

    async def _list(self, request: web.BaseRequest) -> web.Response:
        principal = await self._operators.authorise(request, "admin")
        tenant = self._access.tenant(principal)
        assert tenant is not None, "the path names no tenant that could be out of reach"
        key = TaskKey(tenant, self._agent, query_value(request, "task"))
        watching, streams = self._streams.watching(key, STREAMS_MAX)
        body = {"task": key.task, "watching": watching, "streams": streams, "worker": self._worker}
        return web.json_response(body, headers={hdrs.CACHE_CONTROL: "no-store"})
