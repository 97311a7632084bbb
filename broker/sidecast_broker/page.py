"""The live page on the public listener: its files, and the list of tasks it shows.

Must not know how streams are served: the page watches a task like any other browser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import hdrs, web

from sidecast_broker.auth.access import Access
from sidecast_broker.core.log import at_milliseconds
from sidecast_broker.hubs import Hubs
from sidecast_broker.onlookers import Onlookers
from sidecast_broker.paths import path_segment
from sidecast_broker.refused import Refused
from sidecast_broker.router import Route, get, get_or_head
from sidecast_broker.settings import Settings
from sidecast_broker.task_list import Listed, TaskLists
from sidecast_broker.watchers import Watchers
from sidecast_schemas.events import kebab_state
from sidecast_schemas.subjects import TaskKey

FOLDER = Path(__file__).parent / "ui"
TASKS_MAX = 2000
"""Tasks of one answer: about 300 KB."""

# What an agent publishes is shown on this page, so nothing but our own files may run, and nothing may leave.
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class _File(NamedTuple):
    body: bytes
    media_type: str
    tag: str


class Page:
    """Serves the page.

    Args:
        settings: all settings.
        hubs: the tasks in memory.
        tasks: the tasks in the stream.
        access: who may watch which of them.
        onlookers: who watches them.
    """

    def __init__(
        self, settings: Settings, hubs: Hubs, tasks: TaskLists, access: Access, onlookers: Onlookers
    ) -> None:
        self._access = access
        self._onlookers = onlookers
        self._watchers = Watchers(settings, onlookers, access)
        self._settings = settings
        self._hubs = hubs
        self._tasks = tasks
        # A request only ever names a key of this table, never a path on the disk.
        self._files = {path.name: _read(path) for path in FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}

    def routes(self) -> list[Route]:
        """Give the routes."""
        return [
            *get_or_head("/ui", self._redirect),
            *get_or_head("/ui/", self._file),
            *get_or_head("/ui/*", self._file),
            get("/ui/api/tasks", self._list),
            *self._watchers.routes(),
        ]

    async def _redirect(self, request: web.BaseRequest) -> web.Response:
        # Relative: a proxy may serve the broker under a path of its own.
        _path, mark, query = request.raw_path.partition("?")
        return web.Response(status=308, headers={hdrs.LOCATION: f"ui/{mark}{query}"} | SECURITY)

    async def _file(self, request: web.BaseRequest) -> web.Response:
        file = self._files.get(path_segment(request, 1) or "index.html")
        if file is None:
            raise Refused("not-found", "the page has no such file")
        headers = {hdrs.ETAG: f'"{file.tag}"', hdrs.CACHE_CONTROL: "no-cache"} | SECURITY
        if any(tag.value in (file.tag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers=headers | {hdrs.CONTENT_TYPE: file.media_type})

    async def _list(self, request: web.BaseRequest) -> web.Response:
        principal = await self._access.who(request)
        tenant = self._access.tenant(principal)
        assert tenant is not None, "the path names no tenant that could be out of reach"
        listing = await self._tasks.of(tenant, self._settings.agent.name).read()
        tasks, truncated, partial = listing.tasks, listing.truncated, listing.partial
        if partial:
            tasks = tasks + self._in_memory(tenant, {listed.key for listed in tasks})
            tasks.sort(key=lambda listed: -listed.sequence)
        if self._access.on:
            # Whom the newest record names is most likely the owner, whom only the first one tells.
            likely = sorted(tasks, key=lambda listed: listed.owner != principal.name)
            visible = await self._access.visible(principal, [listed.key for listed in likely])
            tasks = [listed for listed in tasks if listed.key in visible.keys]
            truncated, partial = truncated or visible.left_out, partial or visible.away
        watching = await self._onlookers.of_agent(tenant, self._settings.agent.name)
        body = {
            "tenant": tenant,
            "agent": self._settings.agent.name,
            "now": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "tasks": [self._describe(listed, watching.of) for listed in tasks[:TASKS_MAX]],
            "truncated": truncated or len(tasks) > TASKS_MAX,
            "partial": partial,
            "watchers": self._watchers.shown_to(request, principal),
            "silent": watching.silent,
        }
        return web.json_response(body, headers={hdrs.CACHE_CONTROL: "no-store"} | SECURITY)

    def _in_memory(self, tenant: str, known: set[TaskKey]) -> list[Listed]:
        """Give the tasks in memory that are not known otherwise."""
        return [
            Listed(hub.key, hub.fold.state, hub.newest_at, hub.end, hub.owner)
            for hub in self._hubs.in_memory(self._settings.agent.name)
            if hub.key.tenant == tenant and hub.first is not None and hub.key not in known
        ]

    def _describe(self, listed: Listed, watching: Mapping[str, int]) -> dict[str, Any]:
        hub = self._hubs.peek(listed.key)
        # A task in memory knows its state even where its newest record doesn't say it.
        state = (hub.fold.state if hub is not None else None) or listed.state
        return {
            "task": listed.key.task,
            "state": kebab_state(state) if state else None,
            "updated_at": at_milliseconds(listed.at),
            "sequence": listed.sequence,
            "watchers": watching.get(listed.key.task, 0),
        }


def _read(path: Path) -> _File:
    body = path.read_bytes()
    return _File(body, _MEDIA_TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:32])
