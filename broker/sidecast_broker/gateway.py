"""The A2A door: which request subscribes, sends, or passes to the agent, on four wires.

Must not know NATS, nor how any of it is answered.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog
from aiohttp import hdrs, web

from sidecast_broker.a2a_streams import A2AStreams
from sidecast_broker.agent import Agent
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.asked import Asked
from sidecast_broker.auth.access import Access
from sidecast_broker.auth.webhook import Action
from sidecast_broker.core.a2a.envelope import Params, parse, parse_params, parse_query
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind, refusal
from sidecast_broker.core.a2a.named import references_of, task_of, tenant_of
from sidecast_broker.core.a2a.operations import (
    CANCEL_TASK,
    CREATE_PUSH_CONFIG,
    DELETE_PUSH_CONFIG,
    GET_PUSH_CONFIG,
    LIST_PUSH_CONFIGS,
    SEND_MESSAGE,
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
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.origins import Origins
from sidecast_broker.cors import refuse_forged
from sidecast_broker.metrics import Metrics
from sidecast_broker.paths import AGENTS, agent_segment, decode_segment
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

_ACTIONS: dict[Operation, Action] = {
    SEND_MESSAGE: "send",
    SEND_STREAMING_MESSAGE: "send",
    CANCEL_TASK: "cancel",
    CREATE_PUSH_CONFIG: "notify",
    GET_PUSH_CONFIG: "notify",
    LIST_PUSH_CONFIGS: "notify",
    DELETE_PUSH_CONFIG: "notify",
}
"""What the webhook is told of an operation; all others are to watch."""


class Gateway:
    """Serves the A2A operations.

    Args:
        settings: all settings.
        streams: answers what is answered by a stream.
        relay: passes everything else on.
        agent: the connection to the agent.
        cards: say what the agent requires.
        access: who may do what.
        metrics: where to count.
        origins: whose web pages may send what changes something.
    """

    def __init__(
        self,
        settings: Settings,
        streams: A2AStreams,
        relay: Relay,
        agent: Agent,
        cards: AgentCards,
        access: Access,
        metrics: Metrics,
        origins: Origins,
    ) -> None:
        self._settings = settings
        self._access = access
        self._streams = streams
        self._relay = relay
        self._agent = agent
        self._cards = cards
        self._metrics = metrics
        self._origins = origins

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
                return await self._other(request)
            wire = call.wire
            principal = await self._who(request, call)
            read = await self._read(request, call)
            rpc_id, streams = read.rpc_id, read.operation.streams
            return await self._serve(request, await self._asked(request, call, read, principal))
        except WrongMethod as wrong:
            raise Refused("method-not-allowed", "not with this method", allow=wrong.allow) from wrong
        except A2AError as error:
            if rpc_id:
                # Of two who wait for one turn each has an id of its own, and both are given the same error.
                error.rpc_id = rpc_id
            return self._refuse(error, wire, streams=streams)

    async def _other(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer where nothing of A2A is: whoever is known may reach what passes to the agent."""
        principal = await self._access.who(request)
        _refuse_ticket(principal)
        return await self._relay.other(request, principal, self._below(request.raw_path))

    def _below(self, target: str) -> str:
        """Give a target without what names this agent at its beginning."""
        segment = agent_segment(target)
        if not segment or decode_segment(segment) != self._settings.agent.name:
            return target
        own = target[len(AGENTS) + len(segment) :]
        return own if own.startswith("/") else "/" + own

    async def _who(self, request: web.BaseRequest, call: Call) -> Principal:
        try:
            if request.method == hdrs.METH_POST:
                refuse_forged(request, self._origins)
            principal = await self._access.who(request)
            if request.method != hdrs.METH_GET or call.operation is not SUBSCRIBE_TO_TASK:
                _refuse_ticket(principal)
            return principal
        except Refused as refused:
            raise _refusal(refused) from refused

    def _refuse(self, error: A2AError, wire: Wire, *, streams: bool) -> web.Response:
        refused = error.__cause__ if isinstance(error.__cause__, Refused) else None
        limit = refused is not None and refused.code == "limit"
        reason = refused.reason if refused and limit else error.kind.name.lower().replace("_", "-")
        self._metrics.rejected.labels(reason).inc()
        status, content_type, body = refusal(error, wire, streams=streams)
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store"}
        if status in (429, 503):
            headers[hdrs.RETRY_AFTER] = refused.retry_after if refused else "1"
        if status == 401:
            headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="sidecast"'
        return web.Response(status=status, body=body, headers=headers)

    # ------------------------------------------------------------------ reading

    async def _read(self, request: web.BaseRequest, call: Call) -> _Read:
        """Read which operation is asked for."""
        try:
            body = await request.read()
        except Refused as refused:
            raise _refusal(refused) from refused
        # Counted from the whole request on: who sends its end late must not learn how long a look-up takes.
        arrived_s = self._access.now()
        version, binding = call.wire
        if binding == "jsonrpc":
            envelope = parse(body)
            try:
                operation = operation_of(envelope.method, version)
            except A2AError as error:
                error.rpc_id = envelope.id
                raise
            return _Read(operation, envelope.id, envelope.params, body, arrived_s)
        assert call.operation is not None
        if request.method == "POST":
            params = parse_params(body, v03=version == "0.3")
            if body.isspace():
                body = b""  # read as no parameters, which blanks are to nobody else
        else:
            # A body means nothing here (RFC 9110, section 9.3.1), and must not mean anything to the agent.
            params, body = parse_query(request.raw_path.partition("?")[2]), b""
        return _Read(call.operation, b"", params, body, arrived_s)

    async def _asked(self, request: web.BaseRequest, call: Call, read: _Read, principal: Principal) -> Asked:
        """Find out which tasks, of which tenant, a request is about."""
        version, binding = call.wire
        operation, params = read.operation, read.params
        try:
            named = tenant_of(version, params, call.tenant)
            task = task_of(operation, version, params, call.task) or ""
            references = references_of(params)
            tenant = self._access.tenant(principal, named)
            if binding == "rest" and self._access.on:
                tenant = _unless_hidden(request, tenant, task, operation)
            if tenant is None or call.agent not in ("", self._settings.agent.name):
                raise A2AError(ErrorKind.TASK_NOT_FOUND)
        except A2AError as error:
            if error.kind is ErrorKind.TASK_NOT_FOUND:
                await self._access.hold(read.arrived_s)
            raise
        key = TaskKey(tenant, self._settings.agent.name, task)
        return Asked(
            call, operation, read.rpc_id, params, read.body, key, references, principal, read.arrived_s
        )

    async def _allow(self, asked: Asked) -> Asked:
        """Let pass who may do this with every task the request names; nothing of them is read before.

        Raises:
            A2AError, Refused: they may not.
        """
        principal = asked.principal
        if not self._access.on:
            return asked
        keys = [asked.key._replace(task=task) for task in (asked.key.task, *asked.references) if task]
        action = _ACTIONS.get(asked.operation, "watch")
        verdicts = [
            await self._access.require(
                principal, key, asked.arrived_s, action if key == asked.key else "watch", at_agent=True
            )
            for key in dict.fromkeys(keys)
        ]
        return asked._replace(first=verdicts[0].first) if asked.key.task else asked

    async def _serve(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        try:
            asked = await self._allow(asked)
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


class _Read(NamedTuple):
    """A request's operation, and what it is called with.

    Attributes:
        rpc_id: raw JSON; empty on REST.
        params: of the JSON-RPC request, or of the REST body or query.
        body: what passes on to the agent.
        arrived_s: when the whole request was there.
    """

    operation: Operation
    rpc_id: bytes
    params: Params
    body: bytes
    arrived_s: float


def _refuse_ticket(principal: Principal) -> None:
    """Refuse who only holds a ticket: it opens streams, and a browser sends its cookie along unasked."""
    if principal.scheme == "ticket":
        raise Refused("forbidden", "a ticket only opens streams")


def _unless_hidden(
    request: web.BaseRequest, tenant: str | None, task: str, operation: Operation
) -> str | None:
    """Give the tenant of a REST request; None: its query names another one to the agent.

    ProtoJSON binds a parameter of the query to any field, in either spelling, and the agent gets the query as
    it is.

    Raises:
        A2AError: INVALID_PARAMS: the query may name another task.
    """
    for name, value in request.query.items():
        field = name.casefold().replace("_", "")
        if field == "tenant" and value != tenant:
            return None
        if operation.task is not None and field in ("id", "taskid", "name") and value != task:
            raise A2AError(ErrorKind.INVALID_PARAMS, f"{field} is not the one of the path")
    return tenant


def _refusal(refused: Refused, rpc_id: bytes = b"") -> A2AError:
    kind = _KINDS.get(refused.code, ErrorKind.INVALID_REQUEST)
    message = None if kind is ErrorKind.TASK_NOT_FOUND else refused.detail
    return A2AError(kind, message, rpc_id=rpc_id or None)


def _agent_error(away: AgentAway, rpc_id: bytes) -> A2AError:
    kinds = {"none": ErrorKind.UNSUPPORTED_OPERATION, "broken": ErrorKind.INVALID_AGENT_RESPONSE}
    return A2AError(kinds.get(away.reason, ErrorKind.UNAVAILABLE), str(away), rpc_id=rpc_id or None)
