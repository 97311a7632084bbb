"""Who watches one task, for the live page: the same as `/streams` says, to the same people.

Must not know how streams are served, in how many processes, nor the page's files.
"""

from __future__ import annotations

from aiohttp import hdrs, web

from sidecast_broker.auth.access import Access
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.onlookers import Onlookers
from sidecast_broker.operators import Operators
from sidecast_broker.paths import query_value
from sidecast_broker.router import Route, get
from sidecast_broker.settings import Settings
from sidecast_schemas.subjects import TaskKey


class Watchers:
    """Serves the list.

    Args:
        settings: all settings.
        onlookers: who watches.
        access: who asks.
    """

    def __init__(self, settings: Settings, onlookers: Onlookers, access: Access) -> None:
        self._agent = settings.agent.name
        self._onlookers = onlookers
        self._access = access
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
        found = await self._onlookers.of_task(key)
        body = {
            "task": key.task,
            "watching": found.watching,
            "streams": found.streams,
            "worker": found.alone,
            "silent": found.silent,
        }
        return web.json_response(body, headers={hdrs.CACHE_CONTROL: "no-store"})
