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
from sidecast_broker.busy import Busy
from sidecast_broker.core.auth.principal import ANYBODY, Principal
from sidecast_broker.core.subscriptions import Subscription
from sidecast_broker.core.views import events
from sidecast_broker.entry import Selection
from sidecast_broker.launch import Asked, Launch, unavailable
from sidecast_broker.limits import asker_of
from sidecast_broker.opening import nothing
from sidecast_broker.paths import check_id, query_values
from sidecast_broker.refused import TEMPORARY, Refused, unknown
from sidecast_broker.router import Route, get
from sidecast_broker.settings import Settings
from sidecast_broker.streams import Streams
from sidecast_broker.subscriptions import Subscriptions
from sidecast_broker.takeover import Takeover, who_of
from sidecast_broker.wanted import Wanted
from sidecast_schemas.subjects import TaskKey

AT_ONCE = 32
"""Listed tasks whose owners are asked for together."""


class Several:
    """Serves streams of several tasks.

    Args:
        busy: turns clients away for a moment.
        settings: all settings.
        boards: the tasks, together.
        launch: begins their streams.
        streams: the open streams.
        access: who may watch what.
        adoption: finds listed tasks that the log lacks.
        subscriptions: the named ones.
    """

    def __init__(
        self,
        busy: Busy,
        settings: Settings,
        boards: Boards,
        launch: Launch,
        streams: Streams,
        access: Access,
        adoption: Adoption,
        subscriptions: Subscriptions,
    ) -> None:
        self._busy = busy
        self._settings = settings
        self._boards = boards
        self._streams = streams
        self._access = access
        self._adoption = adoption
        self._subscriptions = subscriptions
        self._launch = launch

    def routes(self) -> list[Route]:
        """Give the route."""
        return [get("/events", self._events)]

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._open(request)
        except Refused as refused:
            if refused.code in TEMPORARY and (busy := self._busy.answer(request, refused)) is not None:
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
            if answer.held is not None:
                await self._subscriptions.release(answer.held)
        return answer.response

    async def _open(self, request: web.BaseRequest) -> BoardStream | web.StreamResponse:
        access = self._access
        arrived_s = access.now()
        self._streams.arrive(request)
        principal = await access.who(request) if access.on else ANYBODY
        tenant = access.tenant(principal)
        assert tenant is not None, "the path names no tenant that could be out of reach"
        selection = read_selection(request, self._settings.stream.tasks_per_stream_max)
        wanted = Wanted(request, named=True, settings=self._settings, principal=principal)
        takeover = None if wanted.json else self._takeover(wanted, principal, tenant, selection)
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
                await self._boards.fill(board, principal)
                answer = self._answer(board, await self._boards.find(board, principal))
            elif takeover is not None and not await takeover.find(board.epoch):
                answer = nothing()
            else:
                if takeover is not None:
                    wanted.cursor = takeover.cursor
                answer = await self._launch.serve(
                    Asked(request, board, missing, waits, wanted, asker, principal, takeover)
                )
        except Away as away:
            raise unavailable(away) from away
        finally:
            if not isinstance(answer, BoardStream):
                self._boards.release(board)
        return answer

    def _takeover(
        self, wanted: Wanted, principal: Principal, tenant: str, selection: Selection
    ) -> Takeover | None:
        """Give the way to the named subscription a request asks for; None: it asks for none.

        Raises:
            Refused: `bad-request`: it is for what none can be to.
        """
        wish, context = wanted.wish, selection.context
        if wish is None:
            return None
        if context is None:
            raise Refused("bad-request", "a named subscription follows one task, or the tasks of one context")
        agent = self._settings.agent.name
        subscription = Subscription.to_context(who_of(principal), tenant, agent, context, wish.name)
        return Takeover(wish, subscription, wanted.cursor, self._subscriptions)

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
        check_id("task id", task)
    if tasks:
        return Selection(tasks)
    if contexts:
        (context, *more) = contexts
        if more:
            raise Refused("bad-request", "context must stand once")
        return Selection(context=check_id("context", context))
    if agents != ["1"]:
        raise Refused("bad-request", "agent must be 1")
    return Selection(agent=True)
