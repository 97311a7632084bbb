"""The headers of requests to the agent, and of its answers.

Must not know how a request is made, nor what it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from sidecast_broker.core.a2a.forwarding import request_headers, response_headers
from sidecast_broker.refused import Refused
from sidecast_schemas.subjects import encode_token

_OF_THE_BODY = frozenset({"content-length", "content-type", "content-encoding", "accept", "accept-encoding"})

Told = tuple[str | None, str | None]
NOTHING: Told = (None, None)


def refuse_upgrade(headers: Mapping[str, str]) -> None:
    """Let pass a request that leaves its connection as it is.

    Raises:
        Refused: the connection is to be upgraded, and what it then carries nobody here would see.
    """
    if hdrs.UPGRADE in headers:
        raise Refused("bad-request", "a connection can't be upgraded here")


def told_of(principal: str | None, tenant: str | None) -> Told:
    """Write whom the client is, and which tenant a request is about, as the agent is told of them."""
    # As in `Sidecast-Owner`, so that an agent can compare the two, and no name can break a header.
    return (
        None if principal is None else encode_token(principal),
        None if tenant is None else encode_token(tenant),
    )


def own_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    told: Told,
    accept: str,
    body: bytes | None,
) -> CIMultiDict[str]:
    """Give the headers of a request of the broker's own.

    Args:
        headers: what a client sent, or what is to be sent; what belongs to one connection or to another body
            is left out.
        told: what the agent is told of the client.
        accept: which answers can be read.
        body: JSON, or None.

    Raises:
        Refused: a client's header can't be sent.
    """
    given = headers.items() if isinstance(headers, Mapping) else headers
    kept = [pair for pair in request_headers(given, *told) if pair[0].lower() not in _OF_THE_BODY]
    ours = CIMultiDict(_sendable(kept))
    ours[hdrs.ACCEPT] = accept
    # What is read here is read as it comes: a compressed answer would have to be bounded twice.
    ours[hdrs.ACCEPT_ENCODING] = "identity"
    if body is not None:
        ours[hdrs.CONTENT_TYPE] = "application/json"
    return ours


def passed_headers(given: Iterable[tuple[str, str]], told: Told, body: bytes | None) -> CIMultiDict[str]:
    """Give the headers of a client's request that is passed on; `body` is what it sent, where that was read.

    Raises:
        Refused: one of them can't be sent.
    """
    passed = CIMultiDict(_sendable(request_headers(given, *told)))
    if body is not None:
        # It was unpacked when it was read.
        for name in (hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING):
            passed.popall(name, None)
    return passed


def _sendable(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for name, value in headers:
        if not _encodable(value):
            raise Refused("bad-request", f"the header {name} is not valid UTF-8")
    return headers


def received_headers(upstream: aiohttp.ClientResponse) -> CIMultiDict[str]:
    """Give the headers of an answer that are end to end."""
    # What isn't UTF-8 can't be written again as it came.
    pairs = response_headers(upstream.headers.items())
    return CIMultiDict((name, value) for name, value in pairs if _encodable(value))


def reason(upstream: aiohttp.ClientResponse) -> str | None:
    """Give the reason phrase of an answer, where it can be written again."""
    return upstream.reason if upstream.reason is None or _encodable(upstream.reason) else None


def _encodable(value: str) -> bool:
    # Bytes that are no UTF-8 stand in headers as lone surrogates.
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
