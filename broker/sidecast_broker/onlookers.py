"""Who watches, at all processes of a broker: what this one knows, and what it hears of the others.

Must not know who may learn it: whoever asks has been let in, or is a process of this broker.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import structlog
from aiohttp import web

from sidecast_broker.gathered import GATHER_S_MAX, Gathered
from sidecast_broker.hubs import Hubs
from sidecast_broker.paths import query_value
from sidecast_broker.router import Route, get
from sidecast_broker.streams import Streams
from sidecast_schemas.subjects import InvalidId, TaskKey, encode_token

logger = structlog.get_logger(__name__)

ASK_S_MAX = GATHER_S_MAX + 1.0
OF_TASK, OF_AGENT = "/watching/task", "/watching/agent"
STREAMS_MAX = 100
"""Streams of one answer, those furthest behind: about 40 KB, asked for every few seconds."""


class Watching(msgspec.Struct, frozen=True):
    """Who watches one task.

    Attributes:
        watching: how many streams there are.
        streams: what is known of those furthest behind.
        silent: the numbers of the workers whose streams are missing.
        alone: this process could ask nobody, and tells of its own streams only.
    """

    watching: int
    streams: list[dict[str, Any]]
    silent: list[int] = []
    alone: bool = False


class Counts(msgspec.Struct, frozen=True):
    """How many watch each task of an agent; tasks that nobody watches are not among them.

    Attributes:
        of: the number by the task's id.
        silent: the numbers of the workers whose watchers are missing.
    """

    of: dict[str, int]
    silent: list[int] = []


class Onlookers:
    """Tells who watches.

    Args:
        streams: the open ones of this process.
        hubs: the tasks in memory of this process.
        overview_path: of a worker, where the process above the workers can be asked for what all of them
            know; empty: there is one process only.
    """

    def __init__(self, streams: Streams, hubs: Hubs, overview_path: str = "") -> None:
        self._streams = streams
        self._hubs = hubs
        self._overview_path = overview_path

    def routes(self) -> list[Route]:
        """Give the routes of what this process knows, for a socket that only this broker's reach."""
        return [get(OF_TASK, self._tell_of_task), get(OF_AGENT, self._tell_of_agent)]

    async def _tell_of_task(self, request: web.BaseRequest) -> web.Response:
        key = TaskKey(*(query_value(request, name) for name in TaskKey._fields))
        return _json(Watching(*self._streams.watching(key, STREAMS_MAX)))

    async def _tell_of_agent(self, request: web.BaseRequest) -> web.Response:
        return _json(self._hubs.watched(query_value(request, "tenant"), query_value(request, "agent")))

    async def of_task(self, key: TaskKey) -> Watching:
        """Tell who watches a task; streams of several tasks are not among them."""
        if not _can_be(key.task):
            return Watching(0, [])
        gathered = await self._gather(OF_TASK, key._asdict())
        if gathered is None:
            return Watching(*self._streams.watching(key, STREAMS_MAX), alone=bool(self._overview_path))
        count = 0
        streams: list[dict[str, Any]] = []
        for said in gathered.said:
            told = msgspec.json.decode(said.body, type=Watching)
            count += told.watching
            streams += [{"worker": said.worker, **stream} for stream in told.streams]
        return Watching(count, heapq.nsmallest(STREAMS_MAX, streams, key=_position), gathered.silent)

    async def of_agent(self, tenant: str, agent: str) -> Counts:
        """Tell how many watch each task of an agent."""
        gathered = await self._gather(OF_AGENT, {"tenant": tenant, "agent": agent})
        if gathered is None:
            return Counts(self._hubs.watched(tenant, agent))
        counts: Counter[str] = Counter()
        for said in gathered.said:
            counts.update(msgspec.json.decode(said.body, type=dict[str, int]))
        return Counts(counts, gathered.silent)

    async def _gather(self, path: str, named: dict[str, str]) -> Gathered | None:
        """Ask all processes; None: there is no other, or the one that asks them doesn't answer."""
        if not self._overview_path:
            return None
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(self._overview_path, force_close=True),
                    timeout=aiohttp.ClientTimeout(total=ASK_S_MAX),
                ) as session,
                session.get(f"http://overview{path}?{urlencode(named)}") as answer,
            ):
                answer.raise_for_status()
                return msgspec.json.decode(await answer.read(), type=Gathered)
        except (aiohttp.ClientError, OSError) as error:
            logger.debug("overview_silent", detail=str(error)[:200] or type(error).__name__)
            return None


def _can_be(task: str) -> bool:
    """Tell whether there can be a task of this name."""
    try:
        encode_token(task)
    except InvalidId:
        return False
    return True


def _position(stream: dict[str, Any]) -> int:
    return int(stream["cursor"].rpartition("-")[2])


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
