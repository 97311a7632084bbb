"""The A2A door: which request subscribes, sends, or passes to the agent, on four wires.

Must not know NATS, nor how any of it is answered.
"""

from __future__ import annotations

import structlog
from aiohttp import hdrs, web

from sidecast_broker.a2a_streams import A2AStreams
from sidecast_broker.agent import Agent
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.asked import Asked
from sidecast_broker.core.a2a.envelope import Params, parse, parse_params, parse_query
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind, refusal
from sidecast_broker.core.a2a.named import references_of, task_of, tenant_of
from sidecast_broker.core.a2a.operations import (
    SEND_STREAMING_MESSAGE,
    SUBSCRIBE_TO_TASK,
    Operation,
    operation_of,
)
from sidecast_broker.core.a2a.target import Call, WrongMethod, match, refusal_wire
from sidecast_broker.core.a2a.wire import (
    EXTENSIONS_HEADERS,
    VERSION_HEADER,
    Version,
    Wire,
    negotiate,
    read_extensions,
    require_extensions,
)
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused
from sidecast_broker.relay import Relay
from sidecast_broker.settings import Settings
from sidecast_schemas.subjects import TaskKey

logger = structlog.get_logger(__name__)


_KINDS = {
    "limit": ErrorKind.RESOURCE_EXHAUSTED,
    "draining": ErrorKind.UNAVAILABLE,
    "unavailable": ErrorKind.UNAVAILABLE,
    "unauthenticated": ErrorKind.UNAUTHENTICATED,
    "forbidden": ErrorKind.PERMISSION_DENIED,
    "not-found": ErrorKind.TASK_NOT_FOUND,
    "request-timeout": ErrorKind.REQUEST_TIMEOUT,
    "body-too-large": ErrorKind.BODY_TOO_LARGE,
    "unsupported-media-type": ErrorKind.UNSUPPORTED_ENCODING,
}


class Gateway:
    """Serves the A2A operations.

    Args:
        settings: all settings.
        streams: answers what is answered by a stream.
        relay: passes everything else on.
        agent: the connection to the agent.
        cards: say what the agent requires.
        metrics: where to count.
    """

    def __init__(
        self,
        settings: Settings,
        streams: A2AStreams,
        relay: Relay,
        agent: Agent,
        cards: AgentCards,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._auth_on = settings.auth_on
        self._streams = streams
        self._relay = relay
        self._agent = agent
        self._cards = cards
        self._metrics = metrics

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request at a path that is not of the browser format.

        Raises:
            Refused: nothing of A2A is there, and nothing that passes to the agent.
        """
        target = request.raw_path
        version: Version | None = None
        wire = refusal_wire(target, None)
        rpc_id, streams = b"", False
        try:
            version = negotiate(
                # Several that differ are one list to HTTP, and no version.
                ", ".join(dict.fromkeys(request.headers.getall(VERSION_HEADER, ()))),
                ", ".join(dict.fromkeys(request.query.getall(VERSION_HEADER, ()))),
            )
            wire = refusal_wire(target, version)
            call = match(request.method, target, version)
            if call is None:
                if self._auth_on:
                    raise A2AError(ErrorKind.UNAUTHENTICATED)
                return await self._relay.other(request)
            wire = call.wire
            if self._auth_on:
                raise A2AError(ErrorKind.UNAUTHENTICATED)
            operation, rpc_id, params, body = await self._read(request, call)
            streams = operation.streams
            return await self._serve(request, self._asked(call, operation, rpc_id, params, body))
        except WrongMethod as wrong:
            raise Refused("method-not-allowed", "not with this method", allow=wrong.allow) from wrong
        except A2AError as error:
            if rpc_id:
                # Of two who wait for one turn each has an id of its own, and both are given the same error.
                error.rpc_id = rpc_id
            return self._refuse(error, wire, streams=streams)

    def _refuse(self, error: A2AError, wire: Wire, *, streams: bool) -> web.Response:
        self._metrics.rejected.labels(error.kind.name.lower().replace("_", "-")).inc()
        status, content_type, body = refusal(error, wire, streams=streams)
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store"}
        if status in (429, 503):
            headers[hdrs.RETRY_AFTER] = "1"
        if status == 401:
            headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="sidecast"'
        return web.Response(status=status, body=body, headers=headers)

    # ------------------------------------------------------------------ reading

    async def _read(self, request: web.BaseRequest, call: Call) -> tuple[Operation, bytes, Params, bytes]:
        """Read which operation is asked for: with the id of the request, its parameters, and its body."""
        if call.agent not in ("", self._settings.agent.name):
            raise A2AError(ErrorKind.TASK_NOT_FOUND)
        try:
            body = await request.read()
        except Refused as refused:
            raise _refusal(refused) from refused
        version, binding = call.wire
        if binding == "jsonrpc":
            envelope = parse(body)
            try:
                return operation_of(envelope.method, version), envelope.id, envelope.params, body
            except A2AError as error:
                error.rpc_id = envelope.id
                raise
        assert call.operation is not None
        if request.method == "POST":
            params = parse_params(body, v03=version == "0.3")
            if body.isspace():
                body = b""  # read as no parameters, which blanks are to nobody else
        else:
            # A body means nothing here (RFC 9110, section 9.3.1), and must not mean anything to the agent.
            params, body = parse_query(request.raw_path.partition("?")[2]), b""
        return call.operation, b"", params, body

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
                return await self._streams.subscribe(request, asked)
            if asked.operation is SEND_STREAMING_MESSAGE:
                if not self._agent.configured:
                    raise AgentAway("none", "no agent is configured to send this to")
                return await self._streams.send(request, asked)
            return await self._relay.operation(request, asked)
        except Refused as refused:
            raise _refusal(refused, asked.rpc_id) from refused
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


def _refusal(refused: Refused, rpc_id: bytes = b"") -> A2AError:
    kind = _KINDS.get(refused.code, ErrorKind.INVALID_REQUEST)
    message = None if kind is ErrorKind.TASK_NOT_FOUND else refused.detail
    return A2AError(kind, message, rpc_id=rpc_id or None)


def _agent_error(away: AgentAway, rpc_id: bytes) -> A2AError:
    kinds = {"none": ErrorKind.UNSUPPORTED_OPERATION, "broken": ErrorKind.INVALID_AGENT_RESPONSE}
    return A2AError(kinds.get(away.reason, ErrorKind.UNAVAILABLE), str(away), rpc_id=rpc_id or None)
