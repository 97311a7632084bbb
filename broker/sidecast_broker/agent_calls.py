"""The agent's operations in A2A v1.0, whatever generation and binding it speaks itself.

Must not know clients' wires, streams or the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec
from msgspec import Raw, Struct

from sidecast_broker.agent import Agent, Answer
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.core.a2a.card import Interface
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.operations import (
    SEND_MESSAGE,
    SEND_STREAMING_MESSAGE,
    Operation,
    rest_call,
    rpc_method,
)
from sidecast_broker.core.a2a.translate import events as translate
from sidecast_broker.core.a2a.translate import requests
from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.a2a.wire import VERSION_HEADER

Headers = Iterable[tuple[str, str]]

_KINDS = {kind.value.code: kind for kind in reversed(ErrorKind) if not kind.value.of_transport}
_BY_STATUS = {404: ErrorKind.TASK_NOT_FOUND, 400: ErrorKind.INVALID_PARAMS, 503: ErrorKind.UNAVAILABLE}
_DEFAULT = Interface("jsonrpc", "1.0", "/", "", "")


class _RpcError(Struct):
    code: int = -32603
    message: str = ""


class _RpcAnswer(Struct):
    result: Raw | None = None
    error: _RpcError | None = None


class _RestStatus(Struct):
    error: _RpcError | None = None
    code: int | None = None
    message: str | None = None


_decode_rpc = msgspec.json.Decoder(_RpcAnswer).decode
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

    @asynccontextmanager
    async def send(
        self, params: bytes, headers: Headers, principal: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a message; the block iterates over what the agent says, as v1.0 StreamResponses.

        An agent without streaming answers with one.

        Args:
            params: v1.0 SendMessageRequest.
            headers: of the client's request.
            principal: whom the client is.

        Raises:
            AgentAway: no usable answer, also while iterating.
            A2AError: the agent's own error, also while iterating.
        """
        card = await self._cards.card()
        interface = _preferred(card.interfaces)
        operation = SEND_STREAMING_MESSAGE if card.streaming else SEND_MESSAGE
        target, body = self._request(interface, operation, params)
        async with self._agent.stream(
            body, target=target, headers=_headers(interface, headers), principal=principal
        ) as answer:
            yield _payloads(interface, answer)

    def _request(self, interface: Interface, operation: Operation, params: bytes) -> tuple[str, bytes]:
        if interface.version == "0.3":
            to_v03 = (
                requests.send_params_to_v03_rest
                if interface.binding == "rest"
                else requests.send_params_to_v03
            )
            params = to_v03(params)
        if interface.binding == "rest":
            path = rest_call(operation, interface.version, tenant=interface.tenant).path
            return self._agent.target(interface, path), params
        method = rpc_method(operation, interface.version)
        assert method is not None
        body = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}' % (method.encode(), params)
        return self._agent.target(interface), body


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
        if interface.binding == "jsonrpc":
            rpc = _decode_rpc(body)
            if rpc.error is not None:
                raise A2AError(_KINDS.get(rpc.error.code, ErrorKind.INTERNAL_ERROR), rpc.error.message)
            if rpc.result is None:
                raise AgentAway(
                    "broken", f"the agent's answer has neither result nor error (status {status})"
                )
            result = bytes(rpc.result)
        else:
            _raise_rest_error(body, status)
            result = body
        if interface.version == "1.0":
            return result
        if interface.binding == "rest":
            return translate.response_from_v03_rest(result)
        return translate.response_from_v03(result)
    except (msgspec.DecodeError, Untranslatable) as error:
        raise AgentAway("broken", f"the agent's answer can't be read (status {status})") from error


def _raise_rest_error(body: bytes, status: int) -> None:
    found = _decode_rest(body)
    if status < 400 and found.error is None:
        return
    message = (found.error.message if found.error else found.message) or f"The agent answered with {status}"
    kind = _KINDS.get(found.code or 0) or _BY_STATUS.get(status, ErrorKind.INTERNAL_ERROR)
    raise A2AError(kind, message)
