"""The A2A operations that are answered by a stream: subscribing to a task, and sending a message.

Must not know how requests are read, nor the agent's wire.
"""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from sidecast_broker.a2a_view import DISPLACED, A2AView
from sidecast_broker.adoption import Adoption
from sidecast_broker.answers import Away
from sidecast_broker.asked import Asked, cursor_of, message_id_of, v1_params
from sidecast_broker.auth.access import Access
from sidecast_broker.core.a2a.errors import EVENT_STREAM, A2AError, ErrorKind
from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.cursor import MalformedCursor, parse_cursor
from sidecast_broker.core.pace import BadPace, Pace, parse_pace
from sidecast_broker.core.resume import Opening
from sidecast_broker.core.views.a2a import EVENT_BYTES_MAX, TOO_LARGE, event_frame
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.limits import asker_of
from sidecast_broker.messages import Begun
from sidecast_broker.metrics import Metrics
from sidecast_broker.opening import open_hub, opening_of, until
from sidecast_broker.past import folded_at
from sidecast_broker.refused import Refused, unknown
from sidecast_broker.settings import Settings
from sidecast_broker.stream import Stream
from sidecast_broker.streams import Streams
from sidecast_broker.subscriptions import Subscriptions
from sidecast_broker.takeover import takeover_of_task, wish_of
from sidecast_broker.turns import Past, Sent, Turns
from sidecast_schemas.subjects import TaskKey


class A2AStreams:
    """Serves tasks and turns from the log.

    Args:
        settings: all settings.
        hubs: the tasks.
        streams: the open streams.
        turns: messages under way.
        adoption: finds tasks that the log lacks.
        access: who may watch what.
        subscriptions: the named ones.
        metrics: where to count.
    """

    def __init__(
        self,
        settings: Settings,
        hubs: Hubs,
        streams: Streams,
        turns: Turns,
        adoption: Adoption,
        access: Access,
        subscriptions: Subscriptions,
        metrics: Metrics,
    ) -> None:
        self._adoption = adoption
        self._subscriptions = subscriptions
        self._access = access
        self._settings = settings
        self._hubs = hubs
        self._streams = streams
        self._turns = turns
        self._metrics = metrics

    async def subscribe(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        """Serve a task from the log: a Task first, then what follows it (C01 to C05, C29 to C32)."""
        pace = self._pace(request, asked.principal)
        wish = wish_of(request)
        self._enter(request, asked)
        hub = await self._open(asked)
        with self._hubs.using(hub):
            cursor = cursor_of(request, asked.params)
            takeover = takeover_of_task(wish, asked.principal, hub.key, cursor, self._subscriptions)
            if takeover is not None:
                if not await takeover.find(hub.epoch):
                    raise A2AError(ErrorKind.UNSUPPORTED_OPERATION, DISPLACED)
                cursor = takeover.cursor
            head, after, opening = await self._resumed(hub, asked, cursor)
            if opening is None or (hub.ends_at(after) and opening.mode == "snapshot"):
                if takeover is not None and hub.fold.terminal_sequence is not None:
                    await takeover.confirm_end(hub.fold.terminal_sequence)
                raise A2AError(ErrorKind.UNSUPPORTED_OPERATION, "The task has ended")
            view = self._view(asked)
            stream = self._stream_of(asked, hub, view, pace)
            if takeover is not None:
                self._streams.admit(asker_of(request, asked.principal), stream.key)
                stream.held = await takeover.take(opening, hub.epoch, view.heartbeat_s)
            try:
                return await self._stream(request, asked, stream, opening, head or view.snapshot(hub), after)
            finally:
                if stream.held is not None:
                    await self._subscriptions.release(stream.held)

    def _stream_of(self, asked: Asked, hub: Hub, view: A2AView, pace: Pace | None) -> Stream:
        return Stream(
            hub.key,
            hub,
            self._hubs,
            view,
            self._settings.stream,
            self._metrics,
            principal=asked.principal,
            pace=pace,
            late_s_max=self._settings.pace.late_s_max,
        )

    def _pace(self, request: web.BaseRequest, principal: Principal) -> Pace | None:
        """Read how fast a client wants to be sent to; what would change its frames is not for this format."""
        for name in ("batch", "coalesce"):
            if name in request.query:
                raise A2AError(ErrorKind.INVALID_PARAMS, f"{name} is for the browser format only")
        if request.query.get("slow", "disconnect") != "disconnect":
            raise A2AError(ErrorKind.INVALID_PARAMS, "slow can be nothing but disconnect in this format")
        try:
            return parse_pace(request.query, self._settings.pace.bounds(principal))
        except BadPace as error:
            raise A2AError(ErrorKind.INVALID_PARAMS, str(error)) from error

    def _enter(self, request: web.BaseRequest, asked: Asked) -> None:
        self._streams.arrive(request)
        self._streams.enter(asker_of(request, asked.principal))

    async def _open(self, asked: Asked) -> Hub:
        """Give a task's hub, for who may watch it; what is refused leaves like what is not there."""
        try:
            return await self._adoption.open(asked.key, first=asked.first)
        except Refused as refused:
            await self._access.hold_back(refused, asked.arrived_s)
            raise

    def _view(self, asked: Asked, turn: Sent | None = None) -> A2AView:
        return A2AView(asked.wire, asked.rpc_id, self._settings.stream.a2a_heartbeat_s, turn)

    async def _resumed(self, hub: Hub, asked: Asked, cursor: str | None) -> tuple[bytes, int, Opening | None]:
        """Give what a subscriber begins with and from where; nothing to begin with: the task as it stands."""
        opening = await opening_of(self._hubs, self._metrics, hub, cursor, "snapshot")
        if opening is None:
            return b"", hub.end, None
        view = self._view(asked)
        if opening.mode == "replay":
            try:
                fold, at = await folded_at(hub, self._hubs.tail(hub), opening.after)
            except Away as away:
                raise A2AError(ErrorKind.UNAVAILABLE, str(away)) from away
            return view.task(hub, fold.task(), at), at, opening
        if cursor is not None and opening.gap is not None:
            return view.anew(hub, opening.gap.reason, cursor), hub.end, opening
        return b"", hub.end, opening

    async def _stream(
        self,
        request: web.BaseRequest,
        asked: Asked,
        stream: Stream,
        opening: Opening | None,
        head: bytes,
        after: int,
    ) -> web.StreamResponse:
        """Run a stream to its end."""
        if len(head) > EVENT_BYTES_MAX:
            raise A2AError(ErrorKind.INTERNAL_ERROR, TOO_LARGE)
        asker = asker_of(request, asked.principal)
        self._streams.admit(asker, stream.key)
        await stream.start(request)
        self._streams.add(stream, opening, asker, stream.key)
        if stream.held is not None:
            view = self._view(asked)
            stream.held.attach(lambda reason: stream.close(reason, view.lost()))
        try:
            await stream.begin(head, after)
            await stream.follow()
        except ConnectionResetError:
            pass  # the client left: not an error, and no word to the agent (C17)
        finally:
            self._streams.remove(stream)
        return stream.response

    # ------------------------------------------------------------------ send

    async def send(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        """Start a turn at the agent, or attach to the one this message has begun, and serve the log of it."""
        pace = self._pace(request, asked.principal)  # before the message is sent on
        self._enter(request, asked)
        message_id = message_id_of(asked.params)
        cursor = cursor_of(request, asked.params)
        principal = asked.principal.name
        sent = self._turns.find(asked.key.tenant, principal, message_id, asked.key.task)
        key = asked.key
        if sent is None and not key.task and cursor is not None:
            key = await self._task_at(cursor, asked) or key
        if sent is None and key.task:
            hub = await open_hub(self._hubs, key, wait=True)
            with self._hubs.using(hub):
                if hub.fold.turn_span(message_id) is not None:
                    sent = Past(message_id)
                elif cursor is None and hub.ended:
                    raise A2AError(ErrorKind.UNSUPPORTED_OPERATION, "The task has ended")
        if sent is None and cursor is not None:
            # Who resumes must never start a second turn; and must not learn whose record a cursor is of.
            await self._access.hold(asked.arrived_s)
            raise A2AError(ErrorKind.INVALID_PARAMS, "No turn of this message is known to resume")
        if sent is None:
            params = v1_params(asked)
            sent = self._turns.send(
                asked.key.tenant,
                principal,
                message_id,
                params,
                list(request.headers.items()),
                self._end_of(key),
            )
        begun = Begun(key.task, b"") if isinstance(sent, Past) else await asyncio.shield(sent.begun)
        if begun.task is None:
            return await self._message(request, asked, begun.message)
        begun_key = key._replace(task=begun.task)
        if begun_key != key and not await self._access.follows(asked.principal, begun_key):
            # The agent took the message for a task of somebody else.
            raise unknown()
        return await self._follow_turn(request, asked, begun_key, sent, cursor, pace)

    def _end_of(self, key: TaskKey) -> int:
        hub = self._hubs.peek(key) if key.task else None
        return hub.end if hub is not None else 0

    async def _task_at(self, cursor: str, asked: Asked) -> TaskKey | None:
        """Give the task a cursor was handed out for, where it is of this tenant and agent.

        A cursor is no credential: a task that who asks may not see is as none.
        """
        key = asked.key
        try:
            sequence = parse_cursor(cursor).sequence
        except MalformedCursor:
            return None
        try:
            found = await self._hubs.task_at(sequence)
        except Away as away:
            raise A2AError(ErrorKind.UNAVAILABLE, str(away)) from away
        if found is None or found[:2] != key[:2]:
            return None
        seen = not self._access.on or await self._access.may_watch(asked.principal, found)
        return found if seen else None

    async def _message(self, request: web.BaseRequest, asked: Asked, payload: bytes) -> web.Response:
        """Answer with a message alone: one frame, then the end (C12)."""
        try:
            frame = event_frame(asked.wire, payload, None).replace(b"\0", asked.rpc_id)
        except Untranslatable as error:
            raise A2AError(ErrorKind.INTERNAL_ERROR, str(error)) from error
        return web.Response(
            body=frame,
            headers={hdrs.CONTENT_TYPE: f"{EVENT_STREAM}; charset=utf-8", hdrs.CACHE_CONTROL: "no-store"},
        )

    async def _follow_turn(
        self,
        request: web.BaseRequest,
        asked: Asked,
        key: TaskKey,
        sent: Sent,
        cursor: str | None,
        pace: Pace | None,
    ) -> web.StreamResponse:
        """Serve a turn from the log, from its first byte or from a cursor."""
        hub = await open_hub(self._hubs, key, wait=True)
        with self._hubs.using(hub):
            await self._until_logged(hub, sent)
            view = self._view(asked, sent)
            head, after, opening = b"", 0, None
            if cursor is not None:
                head, after, opening = await self._resumed(hub, asked, cursor)
                if opening is None and (end := hub.fold.terminal_sequence) is not None:
                    # Who has come to the end of the task gets nothing of the turn a second time (C29).
                    head, after = view.task(hub, hub.fold.task(), end), end
                    opening = Opening("replay", end, None)
            if not head:
                span = hub.fold.turn_span(sent.message_id)
                fold, after = await folded_at(
                    hub, self._hubs.tail(hub), span.begin if span is not None else sent.after
                )
                head = view.task(hub, fold.task(), after)
                opening = Opening("snapshot", after, None)
            stream = self._stream_of(asked, hub, view, pace)
            sent.listen(stream.look_again)
            try:
                return await self._stream(request, asked, stream, opening, head, after)
            finally:
                sent.forget(stream.look_again)

    async def _until_logged(self, hub: Hub, sent: Sent) -> None:
        """Wait until the log has the task and this turn: the agent's answer may be faster than the log."""
        await until(
            hub,
            lambda: (
                hub.fold.started and (hub.fold.turn_span(sent.message_id) is not None or hub.end > sent.after)
            ),
        )
