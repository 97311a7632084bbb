"""Request targets: which agent, tenant, operation and task a path names.

Must not know who may ask, nor what is answered. What names an action is found before anything is decoded;
then each id is decoded once, strictly. So `%2F` and `%3A` in an id never change what is asked for.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.operations import (
    GET_CARD,
    PROTOCOL_OPERATIONS,
    Operation,
    is_one_segment,
    rest_form,
)
from sidecast_broker.core.a2a.wire import VERSION_HEADER, VERSIONS, Binding, Version, Wire
from sidecast_schemas.subjects import InvalidId, encode_token

RESERVED = frozenset(
    {
        "stream",
        "api",
        "a2a",
        "tasks",
        "events",
        "ui",
        "v1",
        "agents",
        "tickets",
        "subscriptions",
        "message",
        "extendedAgentCard",
        ".well-known",
    }
)
"""First segments that are no tenant (contract, section 4; and RFC 8615)."""

# RFC 3986, section 3.3, and what WHATWG URL leaves as it is besides. No backslash: some servers take it for a
# slash. No `#`: a fragment is never sent.
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/|\[\]]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"[!\"$-~]*")
_DOTS = re.compile(r"/(?:\.|%2[eE]){1,2}(?=/|\Z)")
_ACTIONS = ("cancel", "subscribe")
_TASK, _CONFIG = "{task}", "{config}"


class WrongMethod(Exception):  # noqa: N818 - named as it reads: the wrong method was used
    """There is something at this path, but not for this HTTP method.

    Attributes:
        allow: the methods it is there for.
    """

    def __init__(self, allow: tuple[str, ...]) -> None:
        super().__init__(", ".join(allow))
        self.allow = allow


class Call(NamedTuple):
    """What a request target asks for; ids are decoded.

    Attributes:
        wire: how the client speaks.
        operation: None on JSON-RPC, where the envelope names it.
        agent: from `/agents/{agent}`; empty: the path names none.
        tenant: from the path; empty: it names none.
        task: from the path; empty: it names none.
        config: id of the push notification configuration; empty: the path names none.
        target: the raw path and query without `/agents/{agent}`: what passes to the agent.
    """

    wire: Wire
    operation: Operation | None
    agent: str = ""
    tenant: str = ""
    task: str = ""
    config: str = ""
    target: str = "/"


class _Found(NamedTuple):
    path: str
    task: str = ""
    config: str = ""


def _table(version: Version) -> dict[str, dict[str, Operation]]:
    table: dict[str, dict[str, Operation]] = {}
    for operation in PROTOCOL_OPERATIONS:
        form = rest_form(operation, version)
        for method in form.methods:
            table.setdefault(form.path.removeprefix("/v1"), {})[method] = operation
    return table


_REST: dict[Version, dict[str, dict[str, Operation]]] = {version: _table(version) for version in VERSIONS}
_CARDS = {rest_form(GET_CARD, version).path for version in VERSIONS}


def match(method: str, target: str, version: Version) -> Call | None:
    """Find what a request asks for; None: nothing of A2A is at this path.

    Args:
        method: of HTTP.
        target: the request target as it was sent, with its query.
        version: what the client negotiated.

    Raises:
        A2AError: INVALID_REQUEST: no plain path, an empty or dot segment, an id that can't be decoded or is
            none. VERSION_NOT_SUPPORTED: the path is of the other generation: `/v1` is of 0.3, and there is no
            other of it.
        WrongMethod: the path is for other HTTP methods.

    Source: contract, section 4; A2A 1.0, section 5.3; v0.3, section 3.5.6; C44.
    """
    path, query = _split(target)
    agent, segments = _agent_of(path)
    own = path if not agent else "/" + "/".join(segments)
    rest = own + query
    if _is_rpc(segments):
        if method != "POST":
            raise WrongMethod(("POST",))
        return Call(Wire(version, "jsonrpc"), None, _id(agent), target=rest)
    if own in _CARDS:
        if method not in GET_CARD.rest.methods:
            raise WrongMethod(GET_CARD.rest.methods)
        return Call(Wire(version, "rest"), GET_CARD, _id(agent), target=rest)
    generation: Version = "0.3" if segments[0] == "v1" else "1.0"
    tenant = ""
    found = _find(segments[1:] if generation == "0.3" else segments, generation)
    if found is None and generation == "1.0" and len(segments) > 1:
        tenant = segments[0]
        found = _find(segments[1:], generation)
        if found is not None and _decode(tenant) in RESERVED:
            return None
    if found is None:
        return None
    operations = _REST[generation][found.path]
    operation = operations.get(method)
    if operation is None:
        raise WrongMethod(tuple(operations))
    if generation != version:
        raise _other_generation(generation)
    call = Call(
        Wire(version, "rest"),
        operation,
        _id(agent),
        _id(tenant),
        _id(found.task),
        _id(found.config),
        rest,
    )
    if not operation.ours:
        _refuse_ambiguous(call, own)
    return call


def refusal_wire(target: str, version: Version | None) -> Wire:
    """Give the wire on which to say that a request is refused, before or because `match` found nothing.

    Args:
        target: the request target as it was sent, of any content.
        version: what was negotiated; None: nothing could be.
    """
    binding: Binding = "rest"
    generation: Version = version or "1.0"
    try:
        agent, segments = _agent_of(_split(target)[0])
        _id(agent)
    except A2AError:
        # Not even the path is right: the error must show in the HTTP status.
        return Wire(generation, "rest")
    if _is_rpc(segments):
        binding = "jsonrpc"
    elif segments[0] != "v1":
        generation = "1.0"
    return Wire(generation, binding)


def _split(target: str) -> tuple[str, str]:
    """Divide a target into its path and the rest that begins with `?`.

    Raises:
        A2AError: INVALID_REQUEST: it is no path that means the same to everybody.
    """
    path, mark, query = target.partition("?")
    if _PATH.fullmatch(path) is None or _QUERY.fullmatch(query) is None:
        raise _bad("The request target must be a plain path")
    if "//" in path:
        raise _bad("The path has an empty segment")
    if _DOTS.search(path) is not None:
        raise _bad("The path has a dot segment")
    return path, mark + query


def _agent_of(path: str) -> tuple[str, list[str]]:
    """Give the agent a path begins with, raw or empty, and the segments after it; at least one."""
    segments = path.split("/")[1:]
    if segments[0] == "agents" and len(segments) > 1 and segments[1]:
        return segments[1], segments[2:] or [""]
    return "", segments


def _is_rpc(segments: list[str]) -> bool:
    return len(segments) == 1 and segments[0] in ("", "a2a")


def _find(segments: list[str], version: Version) -> _Found | None:
    """Find the path of an operation that segments without agent, tenant and `v1` spell; ids stay raw."""
    count = len(segments)
    if count == 1:
        found = _Found("/" + segments[0])
    elif not 2 <= count <= 4 or segments[0] != "tasks":
        return None
    elif count == 2:
        task, colon, action = segments[1].rpartition(":")
        if colon and action in _ACTIONS:
            if not task:
                raise _bad("The path names no task")
            found = _Found(f"/tasks/{_TASK}:{action}", task)
        else:
            found = _Found(f"/tasks/{_TASK}", segments[1])
    elif count == 3:
        found = _Found(f"/tasks/{_TASK}/{segments[2]}", segments[1])
    else:
        found = _Found(f"/tasks/{_TASK}/{segments[2]}/{_CONFIG}", segments[1], segments[3])
    known = found.path in _REST[version] and (count == 1 or segments[-1] != "")
    return found if known else None


def _decode(raw: str) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise _bad("The path is not valid UTF-8") from error


def _id(raw: str) -> str:
    if not raw:
        return ""
    text = _decode(raw)
    try:
        encode_token(text)
    except InvalidId as error:
        raise _bad(f"The path names no id: {error}") from error
    return text


def _refuse_ambiguous(call: Call, path: str) -> None:
    """Refuse ids that an agent may read as something else.

    Agents get the raw path, and many servers decode it before they look for the action: to them
    `tasks/a%3Acancel` cancels `a`, while the owner of `a:cancel` was checked. Others cut off what follows a
    semicolon, which clients encode.
    """
    if ";" in path:
        raise _bad("The path holds a semicolon that is not encoded")
    for text in (call.tenant, call.task, call.config):
        if text and not is_one_segment(text):
            raise _bad("An id on the path holds what an agent may take for a part of the path")


def _other_generation(generation: Version) -> A2AError:
    known = ", ".join(VERSIONS)
    return A2AError(
        ErrorKind.VERSION_NOT_SUPPORTED,
        f"This path is of A2A {generation}: {VERSION_HEADER}, a header or query parameter, must say so",
        metadata={"supportedVersions": known},
    )


def _bad(message: str) -> A2AError:
    return A2AError(ErrorKind.INVALID_REQUEST, message)
