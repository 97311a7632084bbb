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
from sidecast_broker.core.a2a.envelope import parse, parse_params
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
    "body-too-large": ErrorKind.BODY_TOO_LARGE,
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
    ) -> None:
        self._settings = settings
        self._access = access
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
        streams = False
        try:
            version = negotiate(request.headers.get(VERSION_HEADER), request.query.get(VERSION_HEADER))
            wire = refusal_wire(target, version)
            call = match(request.method, target, version)
            if call is None:
                return await self._other(request)
            wire = call.wire
            principal = await self._who(request)
            asked = await self._read(request, call, principal)
            streams = asked.operation.streams
            return await self._serve(request, asked)
        except WrongMethod as wrong:
            raise Refused("method-not-allowed", "not with this method", allow=wrong.allow) from wrong
        except A2AError as error:
            return self._refuse(error, wire, streams=streams)

    async def _other(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer where nothing of A2A is: whoever is known may reach what passes to the agent."""
        principal = await self._access.who(request)
        _refuse_ticket(principal)
        return await self._relay.other(request, principal)

    async def _who(self, request: web.BaseRequest) -> Principal:
        try:
            return await self._access.who(request)
        except Refused as refused:
            raise _a2a_error(refused, b"") from refused

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

    async def _read(self, request: web.BaseRequest, call: Call, principal: Principal) -> Asked:
        """Read what is asked for, of which task."""
        if call.agent not in ("", self._settings.agent.name):
            await self._access.hold(self._access.now())
            raise A2AError(ErrorKind.TASK_NOT_FOUND)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise A2AError(ErrorKind.BODY_TOO_LARGE) from error
        # Counted from the whole request on: who sends its end late must not learn how long a look-up takes.
        arrived_s = self._access.now()
        version, binding = call.wire
        envelope = parse(body) if binding == "jsonrpc" else None
        try:
            if envelope is not None:
                operation, params = operation_of(envelope.method, version), envelope.params
            else:
                assert call.operation is not None
                operation = call.operation
                params = parse_params(body if request.method == "POST" else b"", v03=version == "0.3")
            named = _Named(
                tenant_of(version, params, call.tenant),
                task_of(operation, version, params, call.task) or "",
                references_of(params),
            )
            tenant = self._access.tenant(principal, named.tenant)
            if envelope is None and self._access.on:
                tenant = _unless_hidden(request, body, tenant, named.task, operation)
            if tenant is None:
                raise A2AError(ErrorKind.TASK_NOT_FOUND)
        except A2AError as error:
            if error.kind is ErrorKind.TASK_NOT_FOUND:
                await self._access.hold(arrived_s)
            error.rpc_id = envelope.id if envelope is not None else None
            raise
        key = TaskKey(tenant, self._settings.agent.name, named.task)
        rpc_id = envelope.id if envelope is not None else b""
        return Asked(call, operation, rpc_id, params, body, key, named.references, principal, arrived_s)

    async def _allow(self, asked: Asked) -> Asked:
        """Let pass who may do this with every task the request names; nothing of them is read before.

        Raises:
            A2AError, Refused: they may not.
        """
        principal = asked.principal
        if not self._access.on:
            return asked
        if asked.operation is not SUBSCRIBE_TO_TASK:
            _refuse_ticket(principal)
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
        except A2AError as error:
            error.rpc_id = asked.rpc_id or None
            raise
        except Refused as refused:
            raise _a2a_error(refused, asked.rpc_id) from refused
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


class _Named(NamedTuple):
    """What a request names, as it stands there."""

    tenant: str
    task: str
    references: list[str]


def _refuse_ticket(principal: Principal) -> None:
    """Refuse who only holds a ticket: it opens streams, and a browser sends its cookie along unasked."""
    if principal.scheme == "ticket":
        raise Refused("forbidden", "a ticket only opens streams")


def _unless_hidden(
    request: web.BaseRequest, body: bytes, tenant: str | None, task: str, operation: Operation
) -> str | None:
    """Give the tenant of a REST request; None: its query names another one to the agent.

    ProtoJSON binds a parameter of the query to any field, in either spelling, and the agent gets the query as
    it is; so it does a body where none belongs.

    Raises:
        A2AError: INVALID_REQUEST, INVALID_PARAMS: the query or such a body may name another task.
    """
    if body and request.method != "POST":
        raise A2AError(ErrorKind.INVALID_REQUEST, f"A {request.method} has no body")
    for name, value in request.query.items():
        field = name.casefold().replace("_", "")
        if field == "tenant" and value != tenant:
            return None
        if operation.task is not None and field in ("id", "taskid", "name") and value != task:
            raise A2AError(ErrorKind.INVALID_PARAMS, f"{field} is not the one of the path")
    return tenant


def _a2a_error(refused: Refused, rpc_id: bytes) -> A2AError:
    kind = _KINDS.get(refused.code, ErrorKind.INVALID_REQUEST)
    message = None if kind is ErrorKind.TASK_NOT_FOUND else refused.detail
    return A2AError(kind, message, rpc_id=rpc_id or None)


def _agent_error(away: AgentAway, rpc_id: bytes) -> A2AError:
    kinds = {"none": ErrorKind.UNSUPPORTED_OPERATION, "broken": ErrorKind.INVALID_AGENT_RESPONSE}
    return A2AError(kinds.get(away.reason, ErrorKind.UNAVAILABLE), str(away), rpc_id=rpc_id or None)
