"""The A2A door: which request subscribes, sends, or passes to the agent, on four wires.

Must not know NATS, nor how frames are written.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec
import structlog
from aiohttp import hdrs, web
from msgspec import Raw

from sidecast_broker.a2a_view import A2AView
from sidecast_broker.agent import Agent
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.answers import Away
from sidecast_broker.core.a2a.card import RESUME
from sidecast_broker.core.a2a.envelope import Params, parse, parse_params
from sidecast_broker.core.a2a.errors import EVENT_STREAM, A2AError, ErrorKind, Violation, refusal
from sidecast_broker.core.a2a.named import references_of, task_of, tenant_of
from sidecast_broker.core.a2a.operations import (
    CANCEL_TASK,
    GET_TASK,
    SEND_STREAMING_MESSAGE,
    SUBSCRIBE_TO_TASK,
    Operation,
    operation_of,
)
from sidecast_broker.core.a2a.target import Call, WrongMethod, match, refusal_wire
from sidecast_broker.core.a2a.translate import events as translate
from sidecast_broker.core.a2a.translate import requests
from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.a2a.wire import (
    EXTENSIONS_HEADERS,
    VERSION_HEADER,
    Version,
    Wire,
    negotiate,
    read_extensions,
    require_extensions,
)
from sidecast_broker.core.cursor import MalformedCursor, format_cursor, parse_cursor
from sidecast_broker.core.resume import Opening
from sidecast_broker.core.views.a2a import event_frame, marked
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.metrics import Metrics
from sidecast_broker.opening import open_hub, opening_of
from sidecast_broker.past import folded_at
from sidecast_broker.refused import Code, Refused
from sidecast_broker.settings import Settings
from sidecast_broker.stream import Stream
from sidecast_broker.streams import Streams
from sidecast_broker.turns import Begun, Sent, Turns
from sidecast_schemas.subjects import TaskKey

logger = structlog.get_logger(__name__)

LOG_S_MAX = 4.0
"""How long the first event may take from the agent's answer to the log: Python clients give up after 5 s."""

_KINDS = {
    "limit": ErrorKind.RESOURCE_EXHAUSTED,
    "draining": ErrorKind.UNAVAILABLE,
    "unavailable": ErrorKind.UNAVAILABLE,
    "unauthenticated": ErrorKind.UNAUTHENTICATED,
    "forbidden": ErrorKind.PERMISSION_DENIED,
    "not-found": ErrorKind.TASK_NOT_FOUND,
    "body-too-large": ErrorKind.BODY_TOO_LARGE,
}


class Asked(NamedTuple):
    """One A2A request, read.

    Attributes:
        call: what its path says.
        operation: what is asked for.
        rpc_id: raw JSON; empty on REST.
        params: what it is called with.
        raw_params: the same as one JSON object.
        body: as it was received.
        key: the task it names; its task is empty where it names none.
    """

    call: Call
    operation: Operation
    rpc_id: bytes
    params: Params
    body: bytes
    key: TaskKey

    @property
    def wire(self) -> Wire:
        """The client's."""
        return self.call.wire


class Gateway:
    """Serves the A2A operations.

    Args:
        settings: all settings.
        hubs: the tasks.
        streams: the open streams.
        agent: what is not ours passes to it.
        cards: say what the agent speaks.
        turns: messages under way.
        metrics: where to count.
    """

    def __init__(
        self,
        settings: Settings,
        hubs: Hubs,
        streams: Streams,
        agent: Agent,
        cards: AgentCards,
        turns: Turns,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._auth_on = settings.auth_on
        self._hubs = hubs
        self._streams = streams
        self._agent = agent
        self._cards = cards
        self._turns = turns
        self._metrics = metrics

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request at a path that is not of the browser format.

        Raises:
            Refused: nothing is there.
        """
        target = request.raw_path
        version: Version | None = None
        wire = refusal_wire(target, None)
        streams = False
        try:
            version = negotiate(request.headers.get(VERSION_HEADER), request.query.get(VERSION_HEADER))
            wire = refusal_wire(target, version)
            call = match(request.method, target, version)
            if call is None:
                return await self._pass_through(request)
            wire = call.wire
            if self._auth_on:
                raise A2AError(ErrorKind.UNAUTHENTICATED)
            asked = await self._read(request, call)
            streams = asked.operation.streams
            return await self._serve(request, asked)
        except WrongMethod as wrong:
            raise Refused("method-not-allowed", "not with this method", allow=wrong.allow) from wrong
        except A2AError as error:
            return self._refuse(error, wire, streams=streams)
        except Refused as refused:
            kind = _KINDS.get(refused.code, ErrorKind.INVALID_REQUEST)
            message = None if kind is ErrorKind.TASK_NOT_FOUND else refused.detail
            return self._refuse(
                A2AError(kind, message), wire, streams=streams, retry_after_s=refused.retry_after_s
            )
        except AgentAway as away:
            kind = ErrorKind.INVALID_AGENT_RESPONSE if away.reason == "broken" else ErrorKind.UNAVAILABLE
            if away.reason == "none":
                kind = ErrorKind.UNSUPPORTED_OPERATION
            return self._refuse(A2AError(kind, str(away)), wire, streams=streams, retry_after_s=1)

    def _refuse(
        self, error: A2AError, wire: Wire, *, streams: bool, retry_after_s: float | None = None
    ) -> web.Response:
        self._metrics.rejected.labels(error.kind.name.lower().replace("_", "-")).inc()
        status, content_type, body = refusal(error, wire, streams=streams)
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store"}
        if status in (429, 503):
            headers[hdrs.RETRY_AFTER] = str(max(1, round(retry_after_s or 1)))
        if status == 401:
            headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="sidecast"'
        return web.Response(status=status, body=body, headers=headers)

    # ------------------------------------------------------------------ reading

    async def _read(self, request: web.BaseRequest, call: Call) -> Asked:
        """Read what is asked for, of which task."""
        if call.agent not in ("", self._settings.agent.name):
            raise A2AError(ErrorKind.TASK_NOT_FOUND)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise A2AError(ErrorKind.BODY_TOO_LARGE) from error
        version, binding = call.wire
        if binding == "jsonrpc":
            envelope = parse(body)
            try:
                return self._asked(
                    call, operation_of(envelope.method, version), envelope.id, envelope.params, body
                )
            except A2AError as error:
                error.rpc_id = envelope.id
                raise
        assert call.operation is not None
        params = parse_params(body if request.method == "POST" else b"", v03=version == "0.3")
        return self._asked(call, call.operation, b"", params, body)

    def _asked(self, call: Call, operation: Operation, rpc_id: bytes, params: Params, body: bytes) -> Asked:
        version = call.wire.version
        tenant = tenant_of(version, params, call.tenant) or self._settings.agent.tenant
        task = task_of(operation, version, params, call.task) or ""
        references_of(params)
        return Asked(call, operation, rpc_id, params, body, TaskKey(tenant, self._settings.agent.name, task))

    async def _serve(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        try:
            if asked.wire.version == "1.0" and self._agent.configured:
                await self._require_extensions(request)
            if asked.operation is SUBSCRIBE_TO_TASK:
                return await self._subscribe(request, asked)
            if asked.operation is SEND_STREAMING_MESSAGE:
                return await self._send(request, asked)
            return await self._pass_on(request, asked)
        except A2AError as error:
            error.rpc_id = asked.rpc_id or None
            raise
        except Refused as refused:
            kind = _KINDS.get(refused.code, ErrorKind.INVALID_REQUEST)
            message = None if kind is ErrorKind.TASK_NOT_FOUND else refused.detail
            raise A2AError(kind, message, rpc_id=asked.rpc_id or None) from refused
        except AgentAway as away:
            raise _agent_error(away, asked.rpc_id) from away

    async def _require_extensions(self, request: web.BaseRequest) -> None:
        """Refuse who doesn't name what the agent's card requires (C55)."""
        try:
            card = await self._cards.card()
        except AgentAway:
            return  # streams go on without the agent
        values = [value for name in EXTENSIONS_HEADERS for value in request.headers.getall(name, ())]
        require_extensions(card.required, read_extensions(values))

    # ------------------------------------------------------------------ subscribe

    async def _subscribe(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        """Serve a task from the log: a Task first, then what follows it (C01 to C05, C29 to C32)."""
        self._streams.admit()
        hub = await open_hub(self._hubs, asked.key)
        try:
            head, after, opening = await self._resumed(hub, asked, _cursor(request, asked.params))
            if opening is None or (hub.ends_at(after) and opening.mode == "snapshot"):
                raise A2AError(ErrorKind.UNSUPPORTED_OPERATION, "The task has ended")
            view = self._view(asked)
            return await self._stream(
                request,
                Stream(asked.key, hub, self._hubs, view, self._settings.stream, self._metrics),
                opening,
                head or view.snapshot(hub),
                after,
            )
        finally:
            self._hubs.release(hub)

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
                fold, at = await folded_at(hub, self._hubs.tail(hub.key), opening.after)
            except Away as away:
                raise A2AError(ErrorKind.UNAVAILABLE, str(away)) from away
            return view.task(hub, fold.task(), at), at, opening
        if cursor is not None and opening.gap is not None:
            return view.anew(hub, opening.gap.reason, cursor), hub.end, opening
        return b"", hub.end, opening

    async def _stream(
        self, request: web.BaseRequest, stream: Stream, opening: Opening | None, head: bytes, after: int
    ) -> web.StreamResponse:
        """Run a stream to its end."""
        self._streams.admit()
        await stream.start(request)
        self._streams.add(stream, opening)
        try:
            await stream.begin(head, after)
            await stream.follow()
        except ConnectionResetError:
            pass  # the client left: not an error, and no word to the agent (C17)
        finally:
            self._streams.remove(stream)
        return stream.response

    # ------------------------------------------------------------------ send

    async def _send(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        """Start a turn at the agent, or attach to the one this message has begun, and serve the log of it."""
        self._streams.admit()
        message_id = _message_id(asked.params)
        cursor = _cursor(request, asked.params)
        sent = self._turns.find(asked.key.tenant, "", message_id)
        key = asked.key
        if sent is None and not key.task and cursor is not None:
            key = await self._task_at(cursor, key) or key
        if sent is None and key.task:
            hub = await open_hub(self._hubs, key, wait=True)
            try:
                if hub.fold.turn_span(message_id) is not None:
                    sent = _Past(message_id)
                elif cursor is not None and hub.first is not None:
                    raise A2AError(ErrorKind.INVALID_PARAMS, "No turn of this message is known to resume")
                elif hub.ended:
                    raise A2AError(ErrorKind.UNSUPPORTED_OPERATION, "The task has ended")
            finally:
                self._hubs.release(hub)
        if sent is None:
            if not self._agent.configured:
                raise AgentAway("none", "no agent is configured to send this to")
            params = _v1_params(asked)
            sent = self._turns.send(
                asked.key.tenant, "", message_id, params, list(request.headers.items()), self._end_of(key)
            )
        begun = Begun(key.task, b"") if isinstance(sent, _Past) else await asyncio.shield(sent.begun)
        if begun.task is None:
            return await self._message(request, asked, begun.message)
        return await self._follow_turn(request, asked, key._replace(task=begun.task), sent, cursor)

    def _end_of(self, key: TaskKey) -> int:
        hub = self._hubs.peek(key) if key.task else None
        return hub.end if hub is not None else 0

    async def _task_at(self, cursor: str, key: TaskKey) -> TaskKey | None:
        """Give the task a cursor was handed out for, where it is of this tenant and agent."""
        try:
            sequence = parse_cursor(cursor).sequence
        except MalformedCursor:
            return None
        found = await self._hubs.task_at(sequence)
        return found if found is not None and found[:2] == key[:2] else None

    async def _message(self, request: web.BaseRequest, asked: Asked, payload: bytes) -> web.Response:
        """Answer with a message alone: one frame, then the end (C12)."""
        frame = event_frame(asked.wire, payload, None).replace(b"\0", asked.rpc_id)
        return web.Response(
            body=frame,
            headers={hdrs.CONTENT_TYPE: f"{EVENT_STREAM}; charset=utf-8", hdrs.CACHE_CONTROL: "no-store"},
        )

    async def _follow_turn(
        self, request: web.BaseRequest, asked: Asked, key: TaskKey, sent: Sent, cursor: str | None
    ) -> web.StreamResponse:
        """Serve a turn from the log, from its first byte or from a cursor."""
        hub = await open_hub(self._hubs, key, wait=True)
        try:
            await self._until_logged(hub, sent)
            view = self._view(asked, sent)
            head, after, opening = b"", 0, None
            if cursor is not None:
                head, after, opening = await self._resumed(hub, asked, cursor)
            if not head:
                span = hub.fold.turn_span(sent.message_id)
                fold, after = await folded_at(
                    hub, self._hubs.tail(key), span.begin if span is not None else sent.after
                )
                head = view.task(hub, fold.task(), after)
                opening = Opening("snapshot", after, None)
            stream = Stream(key, hub, self._hubs, view, self._settings.stream, self._metrics)
            sent.listen(stream.look_again)
            try:
                return await self._stream(request, stream, opening, head, after)
            finally:
                sent.forget(stream.look_again)
        finally:
            self._hubs.release(hub)

    async def _until_logged(self, hub: Hub, sent: Sent) -> None:
        """Wait until the log has the task and this turn: the agent's answer may be faster than the log."""
        deadline_s = asyncio.get_running_loop().time() + LOG_S_MAX
        arrived = asyncio.Event()
        while not hub.fold.started or (hub.fold.turn_span(sent.message_id) is None and hub.end <= sent.after):
            hub.listen(arrived.set)
            try:
                async with asyncio.timeout_at(deadline_s):
                    await arrived.wait()
            except TimeoutError:
                raise A2AError(ErrorKind.UNAVAILABLE, "The agent's events have not reached the log") from None
            finally:
                hub.stop_listening(arrived.set)
            arrived.clear()

    # ------------------------------------------------------------------ everything else

    async def _pass_on(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        """Pass an operation to the agent in the client's own form (C71)."""
        if asked.operation in (GET_TASK, CANCEL_TASK) and not self._agent.configured:
            return await self._from_log(asked, AgentAway("none", "no agent is configured"))
        try:
            return await self._agent.pass_on(request, asked.body, target=await self._target(asked))
        except AgentAway as away:
            if asked.operation is GET_TASK and away.reason != "broken":
                return await self._from_log(asked, away)
            raise

    async def _target(self, asked: Asked) -> str:
        card = await self._cards.card()
        wire = asked.wire
        interface = card.interface(wire.binding, wire.version)
        if interface is None:
            raise A2AError(
                ErrorKind.UNSUPPORTED_OPERATION,
                f"The agent takes {asked.operation.name} in another version or binding only",
            )
        if wire.binding == "jsonrpc":
            return self._agent.target(interface)
        return self._agent.target(interface, asked.call.target)

    async def _from_log(self, asked: Asked, away: AgentAway) -> web.StreamResponse:
        """Answer GetTask without the agent, saying so in the Task's metadata."""
        if asked.operation is not GET_TASK:
            raise away
        hub = await open_hub(self._hubs, asked.key)
        try:
            task = marked(hub.fold.task(), cursor=format_cursor(hub.epoch, hub.end))
        finally:
            self._hubs.release(hub)
        if asked.wire.version == "0.3":
            task = (
                translate.task_to_v03_rest(task)
                if asked.wire.binding == "rest"
                else translate.task_to_v03(task)
            )
        if asked.wire.binding == "jsonrpc":
            task = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (asked.rpc_id, task)
        return web.Response(
            body=task, content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"}
        )

    async def _pass_through(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass what `agent.passthrough` names, as it is."""
        if not self._agent.passes(request.raw_path):
            raise Refused("not-found", "there is nothing at this path")
        if self._auth_on:
            raise Refused("unauthenticated", "a credential is required")
        try:
            return await self._agent.pass_on(request)
        except AgentAway as away:
            code: Code = "bad-gateway" if away.reason == "broken" else "unavailable"
            raise Refused(code, str(away), retry_after_s=1) from away


class _Past(Sent):
    """A turn the log knows, whoever has sent its message."""

    __slots__ = ()

    def __init__(self, message_id: str) -> None:
        super().__init__(message_id, 0)


def _agent_error(away: AgentAway, rpc_id: bytes) -> A2AError:
    kinds = {"none": ErrorKind.UNSUPPORTED_OPERATION, "broken": ErrorKind.INVALID_AGENT_RESPONSE}
    return A2AError(kinds.get(away.reason, ErrorKind.UNAVAILABLE), str(away), rpc_id=rpc_id or None)


_decode_text = msgspec.json.Decoder(str).decode
_decode_metadata = msgspec.json.Decoder(dict[str, Raw]).decode


class _Resume(msgspec.Struct):
    lastEventId: str | None = None  # noqa: N815 - the wire's name


_decode_resume = msgspec.json.Decoder(_Resume).decode


def _cursor(request: web.BaseRequest, params: Params) -> str | None:
    """Give the cursor a client sent: header, query, or `params.metadata` (C32)."""
    given = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    if given:
        return given
    raw = params.fields.get("metadata")
    if raw is None:
        return None
    try:
        resume = _decode_metadata(raw).get(RESUME)
        return (_decode_resume(resume).lastEventId or None) if resume is not None else None
    except msgspec.DecodeError:
        return None


def _message_id(params: Params) -> str:
    raw = (params.message or {}).get("messageId")
    try:
        text = _decode_text(raw) if raw is not None else ""
    except msgspec.DecodeError:
        text = ""
    if not text or len(text) > 256:
        place = "message.messageId"
        raise A2AError(
            ErrorKind.INVALID_PARAMS,
            f"{place} must be a text of at most 256 characters",
            violations=[Violation(place, "must be a text of at most 256 characters")],
        )
    return text


def _v1_params(asked: Asked) -> bytes:
    """Give the parameters of a send in v1.0."""
    fields: dict[str, object] = dict(asked.params.fields)
    if asked.params.message is not None:
        fields["message"] = asked.params.message
    raw = msgspec.json.encode(fields)
    if asked.wire.version == "1.0":
        return raw
    try:
        if asked.wire.binding == "rest":
            return requests.send_params_from_v03_rest(raw)
        return requests.send_params_from_v03(raw)
    except Untranslatable as error:
        raise A2AError(ErrorKind.INVALID_PARAMS, str(error)) from error
