"""What passes to the agent: A2A operations that are not the broker's, in the client's form or translated.

Must not know streams of tasks.
"""

from __future__ import annotations

from functools import partial

import msgspec
from aiohttp import hdrs, web
from msgspec import Raw

from sidecast_broker.agent import Agent
from sidecast_broker.agent_calls import AgentCalls
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.agent_headers import refuse_upgrade
from sidecast_broker.agent_lists import AgentLists
from sidecast_broker.answering import answer_with
from sidecast_broker.asked import Asked, decode_object, fields_of, v1_message
from sidecast_broker.auth.access import Access
from sidecast_broker.capture import Capture, CapturedAnswer
from sidecast_broker.core.a2a.card import Interface, InvalidCard
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.operations import (
    CANCEL_TASK,
    GET_EXTENDED_CARD,
    GET_TASK,
    LIST_TASKS,
    SEND_MESSAGE,
    Operation,
)
from sidecast_broker.core.a2a.query import read_query
from sidecast_broker.core.a2a.translate import requests
from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.a2a.wire import VERSION_HEADER
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.cursor import format_cursor
from sidecast_broker.core.views.a2a import marked
from sidecast_broker.hubs import Hubs
from sidecast_broker.opening import open_hub
from sidecast_broker.refused import Code, Refused, unknown
from sidecast_broker.unary_sends import Hearing, UnarySends
from sidecast_schemas.codec import InvalidEvent, decode_event

_TELLING = (GET_TASK, CANCEL_TASK)
"""Operations, beside sending a message, whose answers say something of a task."""


class Relay:
    """Passes operations on, and answers for the agent what the log can say.

    Args:
        hubs: the tasks.
        agent: the connection to the agent.
        cards: say what it speaks.
        calls: reach it in another form than the client's.
        capture: publishes what the agent answers; None: the agent does.
        access: who may see what of an answer.
        lists: cut down the agent's lists of tasks.
        sends: know which messages were sent before.
    """

    def __init__(
        self,
        hubs: Hubs,
        agent: Agent,
        cards: AgentCards,
        calls: AgentCalls,
        capture: Capture | None,
        access: Access,
        lists: AgentLists,
        sends: UnarySends,
    ) -> None:
        self._sends = sends
        self._access = access
        self._lists = lists
        self._hubs = hubs
        self._agent = agent
        self._cards = cards
        self._calls = calls
        self._capture = capture

    async def operation(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        """Pass an operation to the agent: in the client's own form where the agent speaks it (C71)."""
        refuse_upgrade(request.headers)
        if asked.operation is SEND_MESSAGE and self._agent.configured:
            return await self._sends.answer(asked, partial(self._pass, request, asked))
        return await self._pass(request, asked, Hearing())

    async def _pass(self, request: web.BaseRequest, asked: Asked, hearing: Hearing) -> web.StreamResponse:
        try:
            if not self._agent.configured:
                raise AgentAway("none", "no agent is configured to ask")
            interface = (await self._cards.card()).interface(asked.wire.binding, asked.wire.version)
            if interface is None:
                return await self._translated(request, asked, hearing)
            rpc = asked.wire.binding == "jsonrpc"
            target = self._agent.target(interface, "" if rpc else asked.call.target)
            if (
                asked.operation in (SEND_MESSAGE, GET_EXTENDED_CARD)
                or (self._capture is not None and asked.operation in _TELLING)
                or (self._access.on and asked.operation is LIST_TASKS)
            ):
                return await self._listened_to(request, asked, hearing, interface, target)
            return await self._agent.pass_on(
                request, asked.body, target=target, headers=_headers(request, asked), **asked.told
            )
        except AgentAway as away:
            if asked.operation is GET_TASK and away.reason != "broken":
                return await self._from_log(asked)
            raise

    async def _listened_to(
        self, request: web.BaseRequest, asked: Asked, hearing: Hearing, interface: Interface, target: str
    ) -> web.Response:
        """Pass an operation on, and take in what the answer says before it is passed back."""
        heard = self._hear(asked)
        sent = asked.body or None
        if self._access.on and asked.operation is LIST_TASKS:
            sent, target = self._lists.to_agent(asked, target)
        try:
            reply = await self._agent.call(
                sent or None,
                target=target,
                method=request.method,
                headers=_headers(request, asked),
                **asked.told,
            )
        except Refused:  # before anything was sent
            self._take_in(asked, heard, None)
            raise
        except AgentAway:
            if heard is not None:
                heard.broke()
            raise
        try:
            result = hearing.result = self._calls.result(interface, asked.operation, reply)
        except (AgentAway, A2AError) as error:
            hearing.error = error
            if self._access.on and _may_hide(asked.operation, error):
                self._take_in(asked, heard, None)
                raise
            result = None  # what it says of itself is passed back as it is
        self._take_in(asked, heard, result)
        body = reply.body
        if result is not None:
            if asked.operation is GET_EXTENDED_CARD:
                body = self._own_card(request, asked, body)
                reply.headers.popall(hdrs.CONTENT_LENGTH, None)
            elif self._access.on and asked.operation is SEND_MESSAGE:
                await self._check_begun(asked, result)
            elif self._access.on and asked.operation is LIST_TASKS:
                try:
                    return answer_with(asked, await self._lists.to_client(asked, result))
                except Untranslatable as error:
                    raise AgentAway("broken", f"the agent's list of tasks can't be read: {error}") from error
        return web.Response(status=reply.status, headers=reply.headers, body=body)

    async def _check_begun(self, asked: Asked, result: bytes) -> None:
        """Answer a message once the log has the task it has begun, and only where that is the sender's.

        Raises:
            Refused: the agent took it for a task of somebody else.
        """
        try:
            event = decode_event(result)
        except InvalidEvent as error:
            raise AgentAway("broken", f"the agent's answer can't be read: {error}") from error
        if event.kind == "task" and event.task_id not in (None, asked.key.task):
            key = asked.key._replace(task=event.task_id or "")
            if not await self._access.follows(asked.principal, key):
                raise unknown()

    def _hear(self, asked: Asked) -> CapturedAnswer | None:
        """Begin to listen to the answer to a message, where the broker publishes what the agent says."""
        if self._capture is None or asked.operation is not SEND_MESSAGE or asked.params.message is None:
            return None
        return self._capture.answer(
            asked.key.tenant,
            message=v1_message(asked),
            task_id=asked.key.task or None,
            owner=asked.told["principal"],
            streams=False,
        )

    def _take_in(self, asked: Asked, heard: CapturedAnswer | None, result: bytes | None) -> None:
        """Take in what an answer says of a task: its v1.0 result, None for none."""
        if heard is not None:
            if result is not None:
                heard.take(result)
            heard.end()
        elif self._capture is not None and result is not None and asked.operation in (GET_TASK, CANCEL_TASK):
            self._capture.hint(asked.key.tenant, result)

    def _own_card(self, request: web.BaseRequest, asked: Asked, body: bytes) -> bytes:
        """Give an extended card with this broker's addresses, not the agent's."""
        prefixed = bool(asked.call.agent)
        if asked.wire.binding == "rest":
            return self._rewritten(request, body, prefixed=prefixed)
        envelope = decode_object(body)
        envelope["result"] = Raw(self._rewritten(request, bytes(envelope["result"]), prefixed=prefixed))
        return msgspec.json.encode(envelope)

    def _rewritten(self, request: web.BaseRequest, card: bytes, *, prefixed: bool) -> bytes:
        try:
            return self._cards.rewritten(request, card, prefixed=prefixed)
        except InvalidCard as error:
            raise AgentAway("broken", f"the agent's extended card can't be read: {error}") from error

    async def _translated(self, request: web.BaseRequest, asked: Asked, hearing: Hearing) -> web.Response:
        """Ask the agent in its own generation, and answer in the client's."""
        name, wire = asked.operation.name, asked.wire
        fields = fields_of(asked)
        if wire.binding == "rest" and request.method != "POST":
            fields |= read_query(asked.operation, asked.call.target.partition("?")[2])
        raw = msgspec.json.encode(fields)
        try:
            if wire.version == "0.3":
                raw = requests.params_from_v03(name, raw, rest=wire.binding == "rest")
            if asked.call.task:
                own = decode_object(raw)
                own[asked.operation.task or "id"] = Raw(msgspec.json.encode(asked.call.task))
                raw = msgspec.json.encode(own)
            if self._access.on and asked.operation is LIST_TASKS:
                raw = self._lists.params_to_agent(asked, raw)
            heard = self._hear(asked)
            result = None
            try:
                result = hearing.result = await self._calls.call(
                    asked.operation,
                    raw,
                    request.headers.items(),
                    task=asked.key.task,
                    config=asked.call.config,
                    **asked.told,
                )
            finally:
                self._take_in(asked, heard, result)
            if asked.operation is GET_EXTENDED_CARD:
                result = self._rewritten(request, result, prefixed=bool(asked.call.agent))
            if self._access.on and asked.operation is SEND_MESSAGE:
                await self._check_begun(asked, result)
            if self._access.on and asked.operation is LIST_TASKS:
                result = await self._lists.to_client(asked, result)
            return answer_with(asked, result)
        except Untranslatable as error:
            raise A2AError(ErrorKind.INVALID_PARAMS, str(error)) from error

    async def _from_log(self, asked: Asked) -> web.Response:
        """Answer GetTask without the agent, saying so in the Task's metadata."""
        try:
            hub = await open_hub(self._hubs, asked.key, first=asked.first)
        except Refused as refused:
            await self._access.hold_back(refused, asked.arrived_s)
            raise
        with self._hubs.using(hub):
            task = marked(hub.fold.task(), cursor=format_cursor(hub.epoch, hub.end))
        return answer_with(asked, task)

    async def other(self, request: web.BaseRequest, principal: Principal, target: str) -> web.StreamResponse:
        """Pass what `agent.passthrough` names, as it is.

        Args:
            request: the client's.
            principal: who asks.
            target: of the request, without what names the agent.
        """
        if not self._agent.passes(target):
            raise Refused("not-found", "there is nothing at this path")
        try:
            return await self._agent.pass_on(
                request,
                target=target,
                principal=None if principal.anybody else principal.name,
                tenant=principal.tenant or None,
            )
        except AgentAway as away:
            code: Code = "bad-gateway" if away.reason == "broken" else "unavailable"
            raise Refused(code, str(away), retry_after_s=1) from away


def _may_hide(operation: Operation, error: AgentAway | A2AError) -> bool:
    """Tell whether an answer that gave no result may name tasks all the same: then it isn't passed back."""
    return operation is LIST_TASKS or (operation is SEND_MESSAGE and isinstance(error, AgentAway))


def _headers(request: web.BaseRequest, asked: Asked) -> list[tuple[str, str]]:
    """Give the client's headers, with the one version by which its request was read.

    It may have stood in the query, which agents don't look at; without one v0.3 is meant everywhere.
    """
    version, sent = VERSION_HEADER.lower(), request.headers.items()
    others = [(name, value) for name, value in sent if name.lower() != version]
    if asked.wire.version == "0.3" and not request.headers.get(VERSION_HEADER):
        return others
    return [*others, (VERSION_HEADER, asked.wire.version)]
