"""Several tasks on one stream: `GET /events` by list, by context, or all of the agent, for who may.

Must not know NATS, nor how a stream begins.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from sidecast_broker.adoption import Adoption
from sidecast_broker.answers import Away
from sidecast_broker.auth.access import Access
from sidecast_broker.board import Board
from sidecast_broker.board_stream import BoardStream
from sidecast_broker.boards import Boards, Found
from sidecast_broker.core.auth.principal import ANYBODY, Principal
from sidecast_broker.core.views import events
from sidecast_broker.entry import Selection
from sidecast_broker.hubs import Hubs
from sidecast_broker.launch import Asked, Launch, Requests, unavailable
from sidecast_broker.limits import asker_of
from sidecast_broker.metrics import Metrics
from sidecast_broker.paths import query_values
from sidecast_broker.refused import TEMPORARY, Refused, unknown
from sidecast_broker.router import Route, get
from sidecast_broker.settings import Settings
from sidecast_broker.streams import Streams
from sidecast_schemas.subjects import ID_BYTES_MAX, InvalidId, TaskKey, encode_token

AT_ONCE = 32
"""Listed tasks whose owners are asked for together."""


class Several:
    """Serves streams of several tasks.

    Args:
        public: reads what a request asks of its stream.
        settings: all settings.
        boards: the tasks, together.
        hubs: the tasks, each.
        streams: the open streams.
        access: who may watch what.
        adoption: finds listed tasks that the log lacks.
        metrics: where to count.
    """

    def __init__(
        self,
        public: Requests,
        settings: Settings,
        boards: Boards,
        hubs: Hubs,
        streams: Streams,
        access: Access,
        adoption: Adoption,
        metrics: Metrics,
    ) -> None:
        self._public = public
        self._settings = settings
        self._boards = boards
        self._streams = streams
        self._access = access
        self._adoption = adoption
        self._launch = Launch(public, settings, boards, hubs, streams, metrics)

    def routes(self) -> list[Route]:
        """Give the route."""
        return [get("/events", self._events)]

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._open(request)
        except Refused as refused:
            if refused.code in TEMPORARY and (busy := self._public.busy(request, refused)) is not None:
                return busy
            raise
        if not isinstance(answer, BoardStream):
            return answer
        try:
            await answer.follow()
        except ConnectionResetError:
            pass  # the client left: not an error
        finally:
            self._streams.remove(answer)
            self._boards.release(answer.board)
        return answer.response

    async def _open(self, request: web.BaseRequest) -> BoardStream | web.StreamResponse:
        access = self._access
        arrived_s = access.now()
        self._streams.arrive(request)
        principal = await access.who(request) if access.on else ANYBODY
        tenant = access.tenant(principal)
        assert tenant is not None, "the path names no tenant that could be out of reach"
        selection = read_selection(request, self._settings.stream.tasks_per_stream_max)
        wanted = self._public.wanted(request, principal)
        if wanted.wish is not None:
            raise Refused("bad-request", "a named subscription follows one task")
        asker = asker_of(request, principal)
        self._streams.enter(asker)
        waits = wanted.wait_s > 0 and not wanted.json
        agent = self._settings.agent.name
        try:
            missing: frozenset[str] = frozenset()
            barred: frozenset[str] = frozenset()
            if selection.tasks is not None:
                barred, missing = await self._look(principal, tenant, selection.tasks)
                if missing:
                    await access.hold(arrived_s)
                if not waits:
                    if missing == selection.tasks:
                        raise unknown()
                    selection = Selection(selection.tasks - missing)
            waits = waits and bool(missing)
            board = await self._boards.acquire(
                tenant, agent, selection, principal, barred=barred, waits=waits
            )
        except Away as away:
            raise unavailable(away) from away
        answer: BoardStream | web.StreamResponse | None = None
        try:
            if wanted.json:
                await self._boards.fill(board)
                answer = self._answer(board, await self._boards.find(board, principal))
            else:
                answer = await self._launch.serve(
                    Asked(request, board, missing, waits, wanted, asker, principal)
                )
        except Away as away:
            raise unavailable(away) from away
        finally:
            if not isinstance(answer, BoardStream):
                self._boards.release(board)
        return answer

    async def _look(
        self, principal: Principal, tenant: str, tasks: frozenset[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Give the listed tasks that may not be seen, and those of all that are as good as not there.

        The same is asked about each, whoever's it is and whether there is one.
        """
        keys = [TaskKey(tenant, self._settings.agent.name, task) for task in sorted(tasks)]
        allowed = keys
        if self._access.on:
            allowed = []
            for start in range(0, len(keys), AT_ONCE):
                some = keys[start : start + AT_ONCE]
                verdicts = await asyncio.gather(*(self._access.judge(principal, key) for key in some))
                allowed += [key for key, verdict in zip(some, verdicts, strict=True) if verdict.allowed]
        may = {key.task for key in allowed}
        begun = await self._boards.begun(keys)
        # Who may watch a task that the log lacks has a grant for it.
        begun |= await self._adoption.find(key for key in allowed if key not in begun)
        return frozenset(tasks - may), tasks - {key.task for key in begun if key.task in may}

    def _answer(self, board: Board, found: Found) -> web.Response:
        hubs = [member.hub for member in found.members]
        tasks = [events.answer(hub.fold, hub.end, hub.epoch, partial=not hub.complete) for hub in hubs]
        body = events.answers(tasks, board.position, board.epoch, found.left_out)
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def read_selection(request: web.BaseRequest, tasks_max: int) -> Selection:
    """Read which tasks a request asks for.

    Raises:
        Refused: not exactly one of `task`, `context` and `agent`, or what it says is no id.
    """
    tasks = frozenset(query_values(request, "task"))
    contexts = query_values(request, "context")
    agents = query_values(request, "agent")
    if bool(tasks) + bool(contexts) + bool(agents) != 1:
        raise Refused("bad-request", "the query needs one of task (once or more), context and agent")
    if len(tasks) > tasks_max:
        raise Refused("bad-request", f"a stream has at most {tasks_max} tasks")
    for task in tasks:
        try:
            encode_token(task)
        except InvalidId as error:
            raise Refused("bad-request", f"task id: {error}") from error
    if tasks:
        return Selection(tasks)
    if contexts:
        (context, *more) = contexts
        if more or not context or len(context.encode()) > ID_BYTES_MAX:
            raise Refused("bad-request", f"context must stand once, with 1 to {ID_BYTES_MAX} bytes")
        return Selection(context=context)
    if agents != ["1"]:
        raise Refused("bad-request", "agent must be 1")
    return Selection(agent=True)
