"""The agent's operations in A2A v1.0, whatever generation and binding it speaks itself.

Must not know clients' wires, streams or the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec
from msgspec import Raw, Struct

from sidecast_broker.agent import Agent
from sidecast_broker.agent_answers import Answer, Reply
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.core.a2a.card import Interface
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.operations import (
    SEND_MESSAGE,
    SEND_STREAMING_MESSAGE,
    SUBSCRIBE_TO_TASK,
    Operation,
    rest_call,
    rpc_method,
)
from sidecast_broker.core.a2a.query import write_query
from sidecast_broker.core.a2a.translate import events, requests, results
from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.a2a.wire import VERSION_HEADER, Version

Headers = Iterable[tuple[str, str]]

_KINDS = {kind.value.code: kind for kind in reversed(ErrorKind) if not kind.value.of_transport}
_BY_STATUS = {404: ErrorKind.TASK_NOT_FOUND, 400: ErrorKind.INVALID_PARAMS, 503: ErrorKind.UNAVAILABLE}
_DEFAULT = Interface("jsonrpc", "1.0", "/", "", "")


class _RpcError(Struct):
    code: int = -32603
    message: str = ""


class _RpcAnswer(Struct):
    result: Raw = Raw()
    error: _RpcError | None = None


class _RestAnswer(Struct):
    error: _RpcError | None = None


class _RestStatus(_RestAnswer):
    code: int | None = None
    message: str | None = None


_decode_rpc = msgspec.json.Decoder(_RpcAnswer).decode
_decode_rest_answer = msgspec.json.Decoder(_RestAnswer).decode
_decode_rest = msgspec.json.Decoder(_RestStatus).decode


class AgentCalls:
    """Calls the agent.

    Args:
        agent: the connection to it.
        cards: say what it speaks.
    """

    def __init__(self, agent: Agent, cards: AgentCards) -> None:
        self._agent = agent
        self._cards = cards

    @property
    def version(self) -> Version | None:
        """The generation that the agent is spoken to in; None before its card is known."""
        card = self._cards.known
        return None if card is None else _preferred(card.interfaces).version

    async def interface(self) -> Interface:
        """Give the interface by which the agent is asked.

        Raises:
            AgentAway: it has given no card.
        """
        return _preferred((await self._cards.card()).interfaces)

    @asynccontextmanager
    async def send(
        self, params: bytes, headers: Headers, principal: str | None = None, tenant: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a message; the block iterates over what the agent says, as v1.0 StreamResponses.

        An agent without streaming answers with one.

        Args:
            params: v1.0 SendMessageRequest.
            headers: of the client's request.
            principal: whom the client is.
            tenant: the one the message is for.

        Raises:
            AgentAway: no usable answer, also while iterating.
            A2AError: the agent's own error, also while iterating.
        """
        card = await self._cards.card()
        interface = _preferred(card.interfaces)
        operation = SEND_STREAMING_MESSAGE if card.streaming else SEND_MESSAGE
        target, body = self._request(interface, operation, params)
        async with self._agent.stream(
            body, target=target, headers=_headers(interface, headers), principal=principal, tenant=tenant
        ) as answer:
            yield _payloads(interface, answer)

    async def subscribe(self, task_id: str) -> AsyncIterator[bytes]:
        """Subscribe to a task; give what the agent says of it, as v1.0 StreamResponses, until it ends.

        Raises:
            AgentAway: it can't be reached, or the stream broke off.
            A2AError: it refuses.
        """
        interface = await self.interface()
        params = msgspec.json.encode({"id": task_id, **_tenant(interface)})
        if interface.binding == "rest":
            form = rest_call(SUBSCRIBE_TO_TASK, interface.version, task=task_id, tenant=interface.tenant)
            target, body, method = self._agent.target(interface, form.path), None, form.methods[0]
        else:
            target, body = self._rpc(interface, SUBSCRIBE_TO_TASK, params)
            method = "POST"
        headers = _headers(interface, ())
        async with self._agent.stream(body, target=target, method=method, headers=headers) as answer:
            async for payload in _payloads(interface, answer):
                yield payload

    async def call(
        self,
        operation: Operation,
        params: bytes,
        headers: Headers = (),
        *,
        task: str = "",
        config: str = "",
        principal: str | None = None,
        tenant: str | None = None,
    ) -> bytes:
        """Call an operation that is answered at once; give its v1.0 result.

        Args:
            operation: which.
            params: of v1.0.
            headers: of the client's request.
            task: the task it names, for REST.
            config: the push notification configuration it names, for REST.
            principal: whom the client is.
            tenant: the one the request is about.

        Raises:
            AgentAway: no usable answer.
            A2AError: the agent's own error, or the agent has no such operation.
        """
        interface = await self.interface()
        name = operation.name
        if interface.binding == "rest":
            form = rest_call(operation, interface.version, task=task, config=config, tenant=interface.tenant)
            method = form.methods[0]
            if interface.version == "0.3":
                params = requests.params_to_v03(name, params, rest=True)
            body = None if method in ("GET", "DELETE") else params
            path = form.path if body is not None else form.path + write_query(operation, params)
            target = self._agent.target(interface, path)
        else:
            if interface.version == "0.3":
                params = requests.params_to_v03(name, params, rest=False)
            target, body = self._rpc(interface, operation, params)
            method = "POST"
        reply = await self._agent.call(
            body,
            target=target,
            method=method,
            headers=_headers(interface, headers),
            principal=principal,
            tenant=tenant,
        )
        return self.result(interface, operation, reply)

    def result(self, interface: Interface, operation: Operation, reply: Reply) -> bytes:
        """Give the v1.0 result in an answer of the agent.

        Args:
            interface: it was asked by.
            operation: what it was asked for.
            reply: the whole answer.

        Raises:
            AgentAway: it can't be read.
            A2AError: it says why there is none.
        """
        try:
            result = _result(interface, reply.body, reply.status)
            if interface.version == "1.0":
                return result
            return results.result_from_v03(operation.name, result, rest=interface.binding == "rest")
        except (msgspec.DecodeError, Untranslatable) as error:
            raise _unreadable(reply.status) from error

    def _rpc(self, interface: Interface, operation: Operation, params: bytes) -> tuple[str, bytes]:
        method = rpc_method(operation, interface.version)
        if method is None:
            raise A2AError(
                ErrorKind.UNSUPPORTED_OPERATION, f"The agent speaks A2A {interface.version}, without this"
            )
        body = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}' % (method.encode(), params)
        return self._agent.target(interface), body

    def _request(self, interface: Interface, operation: Operation, params: bytes) -> tuple[str, bytes]:
        if interface.version == "0.3":
            try:
                params = requests.params_to_v03(operation.name, params, rest=interface.binding == "rest")
            except Untranslatable as error:
                raise A2AError(ErrorKind.INVALID_PARAMS, str(error)) from error
        if interface.binding == "rest":
            path = rest_call(operation, interface.version, tenant=interface.tenant).path
            return self._agent.target(interface, path), params
        return self._rpc(interface, operation, params)


def _preferred(interfaces: tuple[Interface, ...]) -> Interface:
    """Give the interface to ask by: one of v1.0, which is what is stored, before any of v0.3."""
    return next(
        (each for each in interfaces if each.version == "1.0"), interfaces[0] if interfaces else _DEFAULT
    )


def _headers(interface: Interface, headers: Headers) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in headers if name.lower() not in ("a2a-version", "last-event-id")]
    return [*kept, (VERSION_HEADER, interface.version)]


async def _payloads(interface: Interface, answer: Answer) -> AsyncIterator[bytes]:
    if answer.body is not None:
        yield _payload(interface, answer.body, answer.status)
        return
    async for received in answer:
        yield _payload(interface, received.data, answer.status)


def _payload(interface: Interface, body: bytes, status: int) -> bytes:
    """Give the StreamResponse in an answer or an event.

    Raises:
        AgentAway: it is none.
        A2AError: it says why there is none.
    """
    try:
        result = _result(interface, body, status)
        if interface.version == "1.0":
            return result
        return events.response_from_v03(result, rest=interface.binding == "rest")
    except (msgspec.DecodeError, Untranslatable) as error:
        raise _unreadable(status) from error


def _result(interface: Interface, body: bytes, status: int) -> bytes:
    if interface.binding == "rest":
        _raise_rest_error(body, status)
        return body
    rpc = _decode_rpc(body)
    if rpc.error is not None:
        raise A2AError(_KINDS.get(rpc.error.code, ErrorKind.INTERNAL_ERROR), rpc.error.message)
    if not rpc.result:
        raise AgentAway("broken", f"the agent's answer has neither result nor error (status {status})")
    return bytes(rpc.result)


def _unreadable(status: int) -> AgentAway:
    return AgentAway("broken", f"the agent's answer can't be read (status {status})")


def _tenant(interface: Interface) -> dict[str, str]:
    return {"tenant": interface.tenant} if interface.tenant and interface.version == "1.0" else {}


def _raise_rest_error(body: bytes, status: int) -> None:
    # The `message` of an answer that is none is a Message of the agent's, not a text.
    if status < 400 and _decode_rest_answer(body).error is None:
        return
    found = _decode_rest(body)
    message = (found.error.message if found.error else found.message) or f"The agent answered with {status}"
    kind = _KINDS.get(found.code or 0) or _BY_STATUS.get(status, ErrorKind.INTERNAL_ERROR)
    raise A2AError(kind, message)
