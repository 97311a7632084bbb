"""The public listener: which request opens which stream.

Must not know NATS.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog
from aiohttp import web

from sidecast_broker.adoption import Adoption
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.auth.access import Access
from sidecast_broker.browser import BrowserView
from sidecast_broker.busy import Busy
from sidecast_broker.core.auth.principal import ANYBODY, Principal
from sidecast_broker.core.cursor import Gap
from sidecast_broker.core.resume import Opening, Start
from sidecast_broker.core.views import events
from sidecast_broker.holds import Held
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.limits import Asker, asker_of
from sidecast_broker.metrics import Metrics
from sidecast_broker.opening import nothing, open_hub, opening_of, unfed_hub
from sidecast_broker.paths import check_id, path_segment, query_value
from sidecast_broker.refused import TEMPORARY, Refused, unknown
from sidecast_broker.router import Handler, Route, get
from sidecast_broker.settings import Settings
from sidecast_broker.stream import Look, Stream
from sidecast_broker.streams import Streams
from sidecast_broker.subscriptions import Subscriptions
from sidecast_broker.takeover import Takeover, takeover_of_task
from sidecast_broker.wanted import Wanted
from sidecast_schemas.subjects import TaskKey

logger = structlog.get_logger(__name__)


class Public:
    """Serves the public listener.

    Args:
        busy: turns clients away for a moment.
        settings: all settings.
        hubs: the tasks.
        streams: the open streams.
        adoption: finds tasks that the log lacks.
        access: who may watch what.
        subscriptions: the named ones.
        metrics: where to count.
    """

    def __init__(
        self,
        busy: Busy,
        settings: Settings,
        hubs: Hubs,
        streams: Streams,
        adoption: Adoption,
        access: Access,
        subscriptions: Subscriptions,
        metrics: Metrics,
    ) -> None:
        self._busy = busy
        self._settings = settings
        self._access = access
        self._hubs = hubs
        self._streams = streams
        self._adoption = adoption
        self._subscriptions = subscriptions
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """Give the routes: the stream of a task under its name and its aliases."""
        return [
            get("/tasks/*/events", self._in_path(1, named=True)),
            get("/tasks/*/messages/stream", self._in_path(1, named=True)),
            get("/stream/tasks/*", self._in_path(2, named=False)),
            get("/api/stream/*", self._in_path(2, named=False)),
            get("/a2a/stream", partial(self._events, segment=None, named=False)),
        ]

    def _in_path(self, index: int, *, named: bool) -> Handler:
        # A partial, not a closure: each idle stream would hold one coroutine more.
        return partial(self._events, segment=index, named=named)

    # ------------------------------------------------------------------ one task

    async def _events(
        self, request: web.BaseRequest, *, segment: int | None, named: bool
    ) -> web.StreamResponse:
        """Answer a request for a task's events; the task's id stands in a path segment, or in the query."""
        try:
            answer = await self._open(request, segment, named)
        except Refused as refused:
            if refused.code in TEMPORARY:
                busy = self._busy.answer(request, refused, named=named)
                if busy is not None:
                    return busy
            raise
        if not isinstance(answer, Stream):
            return answer
        # What opened it is gone by here: an idle stream holds one coroutine of ours, and that of `follow`.
        try:
            await answer.follow()
        except ConnectionResetError:
            pass  # the client left: not an error
        finally:
            self._streams.remove(answer)
            self._hubs.release(answer.hub)
            if answer.held is not None:
                await self._subscriptions.release(answer.held)
        return answer.response

    async def _open(
        self, request: web.BaseRequest, segment: int | None, named: bool
    ) -> Stream | web.StreamResponse:
        """Open a stream, up to its first frames; or give the whole answer where nothing would follow."""
        access = self._access
        arrived_s = access.now()
        self._streams.arrive(request)
        principal = await access.who(request) if access.on else ANYBODY
        task = query_value(request, "taskId") if segment is None else path_segment(request, segment)
        key = self._key(access.tenant(principal), task)
        wanted = Wanted(request, named=named, settings=self._settings, principal=principal)
        asker = asker_of(request, principal)
        self._streams.enter(asker)
        waits = wanted.wait_s > 0 and not wanted.json
        try:
            first, look = None, None
            if access.on:
                verdict = await access.judge(principal, key)
                first = verdict.first
                if not verdict.allowed:
                    if not waits:
                        raise unknown()
                    look = partial(self._look, principal, key)
                    # A stream that opens when the look-up is done would tell how much there was to look up.
                    await access.hold(arrived_s)
            if wanted.json:
                return await self._answer(key, first)
            if look is not None:
                hub = unfed_hub(self._hubs, key)
            elif waits:
                hub = await self._adoption.open_waiting(key, first=first)
            else:
                hub = await self._existing(key, first)
        except Refused as refused:
            await access.hold_back(refused, arrived_s)
            raise
        return await self._serve(request, hub, wanted, look, asker, principal)

    async def _serve(
        self,
        request: web.BaseRequest,
        hub: Hub,
        wanted: Wanted,
        look: Look | None,
        asker: Asker,
        principal: Principal,
    ) -> Stream | web.StreamResponse:
        """Begin the stream of a hub in use; it is released where no stream comes of it."""
        with self._hubs.using(hub) as use:
            takeover = self._takeover(hub, wanted, principal)
            if takeover is not None and hub.first is not None:
                if not await takeover.find(hub.epoch):
                    return nothing()
                wanted.cursor = takeover.cursor
            opening = await self._open_at(hub, wanted) if hub.first is not None else None
            if hub.first is None or opening is not None:
                # Who may not look at a task yet is not told how many watch it, and keeps nobody from it.
                key = hub.key if look is None else None
                # Of those who came at once, some may have filled it meanwhile.
                self._streams.admit(asker, key, waits=opening is None)
                held = None
                if takeover is not None and opening is not None:
                    held = await takeover.take(opening, hub.epoch, wanted.view.heartbeat_s)
                    await self._admit_again(held, asker, key)
                settings, metrics = self._settings.stream, self._metrics
                stream = Stream(
                    hub.key,
                    hub,
                    self._hubs,
                    wanted.view,
                    settings,
                    metrics,
                    principal=principal,
                    pace=wanted.pace,
                    slow=wanted.slow,
                    late_s_max=self._settings.pace.late_s_max,
                )
                stream.unfed = look is not None
                try:
                    await stream.start(request)
                except BaseException:
                    if held is not None:
                        await self._subscriptions.release(held)
                    raise
                self._streams.add(stream, opening, asker, key)
                if held is not None:
                    _hold(stream, held, wanted.view)
                await self._begin(stream, wanted, opening, look)
                use.keep()
                return stream
            if takeover is not None and hub.fold.terminal_sequence is not None:
                await takeover.confirm_end(hub.fold.terminal_sequence)
        return nothing()

    async def _admit_again(self, held: Held, asker: Asker, key: TaskKey | None) -> None:
        """Look whether there is still room: while a subscription was taken, others have come."""
        try:
            self._streams.admit(asker, key)
        except Refused:
            await self._subscriptions.release(held)
            raise

    def _takeover(self, hub: Hub, wanted: Wanted, principal: Principal) -> Takeover | None:
        return takeover_of_task(wanted.wish, principal, hub.key, wanted.cursor, self._subscriptions)

    async def _look(self, principal: Principal, key: TaskKey, within_s: float) -> Hub | None:
        """Give the hub of a task that has begun and that a principal may watch; None: there is none yet."""
        try:
            async with asyncio.timeout(within_s):
                verdict = await self._access.judge(principal, key)
                if verdict.allowed and verdict.first is not None:
                    return await open_hub(self._hubs, key, first=verdict.first)
        except (Refused, TimeoutError):
            pass  # the leader can't be asked at the moment: looked for again
        return None

    def _key(self, tenant: str | None, task: str) -> TaskKey:
        check_id("task id", task)
        assert tenant is not None, "paths of this format name no tenant that could be out of reach"
        return TaskKey(tenant, self._settings.agent.name, task)

    async def _existing(self, key: TaskKey, first: int | None) -> Hub:
        try:
            return await self._adoption.open(key, first=first)
        except AgentAway as away:
            # An agent that won't say is no reason to keep a client coming back; one that is gone will return.
            if away.reason in ("unreachable", "timeout"):
                raise Refused("unavailable", str(away), retry_after_s=1) from away
            raise unknown() from away

    async def _answer(self, key: TaskKey, first: int | None) -> web.Response:
        hub = await self._existing(key, first)
        with self._hubs.using(hub):
            body = events.answer(hub.fold, hub.end, hub.epoch, partial=not hub.complete)
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _begin(
        self, stream: Stream, wanted: Wanted, opening: Opening | None, look: Look | None
    ) -> None:
        """Wait for a stream's task where there is none yet, and send what it begins with."""
        try:
            if opening is None and await stream.wait_for_task(wanted.wait_s, look):
                opening = await self._open_late(stream, wanted)
            if opening is not None:
                await stream.begin(*wanted.view.begin(stream.hub, opening, wanted.cursor or ""))
        except ConnectionResetError:
            stream.close("client-gone")
        except BaseException:
            self._streams.remove(stream)
            if stream.held is not None:
                await self._subscriptions.release(stream.held)
            raise

    async def _open_late(self, stream: Stream, wanted: Wanted) -> Opening | None:
        """Decide how a stream goes on whose task began after the client came: all of it is new to it.

        None: it ends instead, because the task has as many streams as it may.
        """
        try:
            self._streams.settle(stream)
            if (takeover := self._takeover(stream.hub, wanted, stream.principal)) is not None:
                return await self._take_late(stream, wanted, takeover)
        except Refused as refused:
            stream.close(
                "limit" if refused.code == "limit" else "unavailable",
                self._busy.frame(refused, named=wanted.view.named),
            )
            return None
        try:
            opening = await self._open_at(stream.hub, wanted, wanted.late_start)
        except Refused:  # the leader can't judge the cursor at the moment
            opening = Opening("snapshot", stream.hub.end, Gap("expired", stream.hub.oldest_cursor))
        return opening or Opening("snapshot", stream.hub.end, None)

    async def _take_late(self, stream: Stream, wanted: Wanted, takeover: Takeover) -> Opening | None:
        """Do so for a named subscription; None: another client's stream has it."""
        hub, view = stream.hub, wanted.view
        if not await takeover.find(hub.epoch):
            stream.close("displaced", view.lost(hub, "displaced"))
            return None
        wanted.cursor = takeover.cursor
        opening = await self._open_at(hub, wanted, wanted.late_start) or Opening("snapshot", hub.end, None)
        _hold(stream, await takeover.take(opening, hub.epoch, view.heartbeat_s), view)
        return opening

    async def _open_at(self, hub: Hub, wanted: Wanted, start: Start | None = None) -> Opening | None:
        return await opening_of(self._hubs, self._metrics, hub, wanted.cursor, start or wanted.start)


def _hold(stream: Stream, held: Held, view: BrowserView) -> None:
    """Have a stream end when its named subscription is another's."""
    stream.held = held
    held.attach(lambda reason: stream.close(reason, view.lost(stream.hub, reason)))
