"""An agent's card: what it says of the agent, and the card the broker serves in its place.

Must not know how a card is fetched or cached. What is not looked at stays the bytes the agent wrote.
Source: A2A v1.0, sections 4.4 and 8; v0.3, section 5; what a2a-sdk 1.3.0 merges into one card (C56 to C59).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from sidecast_broker.core.a2a.security import (
    Schemes,
    both_requirements,
    both_schemes,
    drop_security,
    replace_security,
)
from sidecast_broker.core.a2a.wire import Binding, Version
from sidecast_schemas.codec import RawObject

RESUME = "urn:sidecast:resume:v1"
"""The extension by which a stream goes on where a client left it; also its key in v0.3 `params.metadata`."""

JSONRPC_PATH = "/a2a"
"""Where the card says JSON-RPC is: unlike `/`, it can stand behind any prefix."""

_RESUME_EXTENSION = {
    "uri": RESUME,
    "description": "Streams are durable. Events carry ids; a client that comes back with the last one it has "
    "seen gets every event after it, once, or a Task as of now where they are no longer stored.",
    "required": False,
    "params": {
        "cursor": "the `id` of the last event received",
        "header": "Last-Event-ID",
        "query": "last_event_id",
        "metadata": {RESUME: {"lastEventId": "<cursor>"}},
        "methods": ["SubscribeToTask", "SendStreamingMessage", "tasks/resubscribe", "message/stream"],
    },
}

_BINDINGS: dict[str, Binding] = {"JSONRPC": "jsonrpc", "HTTP+JSON": "rest"}
_NAMES = {binding: name for name, binding in _BINDINGS.items()}
_WIRES: tuple[tuple[Binding, Version], ...] = (
    ("jsonrpc", "1.0"),
    ("rest", "1.0"),
    ("jsonrpc", "0.3"),
    ("rest", "0.3"),
)
_DOTS = re.compile(r"(?i)(?:^|/|%2f)(?:\.|%2e){1,2}(?:/|%2f|$)")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")

T = TypeVar("T")


class InvalidCard(ValueError):  # noqa: N818 - named as the log line reads: the card is invalid
    """What an agent gave as its card is none, or says something in a form that can't be understood."""


class Interface(NamedTuple):
    """One way the agent itself can be asked.

    Attributes:
        binding: `jsonrpc` or `rest`.
        version: the generation it speaks; 0.2 is asked as 0.3.
        path: of its URL, as it stands there; empty for the root of `rest`, whose paths begin with a slash.
            The URL's host is not followed: where the agent is, is a setting.
        query: of its URL, without the question mark.
        tenant: what requests must carry as `tenant`, or empty.
    """

    binding: Binding
    version: Version
    path: str
    query: str
    tenant: str


class Card(NamedTuple):
    """What the broker wants to know of an agent.

    Attributes:
        interfaces: those of the bindings and versions the broker speaks, the agent's preferred first.
        streaming: the agent answers the streaming methods itself.
        extended: the agent has an extended card.
        required: extensions a client must ask for (C55).
    """

    interfaces: tuple[Interface, ...]
    streaming: bool
    extended: bool
    required: frozenset[str]

    def interface(self, binding: Binding, version: Version) -> Interface | None:
        """Give the way to ask the agent in a client's own form, its preferred one where there are several."""
        for interface in self.interfaces:
            if (interface.binding, interface.version) == (binding, version):
                return interface
        return None


class _Interface(Struct):
    url: str | None = None
    protocolBinding: str | None = None  # noqa: N815 - the wire's name
    protocolVersion: str | None = None  # noqa: N815
    tenant: str | None = None
    transport: str | None = None


class _Extension(Struct):
    uri: str | None = None
    required: bool | None = None


class _Fields(Struct):
    supportedInterfaces: list[_Interface] | None = None  # noqa: N815
    url: str | None = None
    preferredTransport: str | None = None  # noqa: N815
    protocolVersion: str | None = None  # noqa: N815
    additionalInterfaces: list[_Interface] | None = None  # noqa: N815
    supportsAuthenticatedExtendedCard: bool | None = None  # noqa: N815


class _Capabilities(Struct):
    streaming: bool | None = None
    extendedAgentCard: bool | None = None  # noqa: N815
    extensions: list[_Extension] | None = None


def read(card: bytes) -> Card:
    """Read what the broker wants to know.

    Args:
        card: the agent's card, v1.0, v0.3 or both in one.

    Raises:
        InvalidCard: it is no card.
    """
    fields = _decode(card, _Fields)
    capabilities = _decode(_member(_object(card), "capabilities", b"{}"), _Capabilities)
    extensions = capabilities.extensions or []
    return Card(
        interfaces=tuple(dict.fromkeys(_interfaces(fields))),
        streaming=bool(capabilities.streaming),
        extended=bool(capabilities.extendedAgentCard or fields.supportsAuthenticatedExtendedCard),
        required=frozenset(extension.uri or "" for extension in extensions if extension.required),
    )


def rewrite(card: bytes, base_url: str, schemes: Schemes | None = None) -> bytes:
    """Give the card the broker serves: its own endpoints, both generations' fields, streaming, resuming.

    Signatures are left out: they were made over what is not there any more (v1.0, section 8.4). gRPC
    interfaces are left out, and so is every URL of the agent's own under which it could be asked.

    Args:
        card: the agent's own, also an extended one.
        base_url: where this broker's A2A paths begin for the card's reader, without a slash at its end.
        schemes: how clients say who they are here, any one of them; None: the agent's own requirements stand.

    Returns:
        JSON that clients of v1.0 and of v0.3 both read.

    Raises:
        InvalidCard: it is no card.
    """
    known = read(card)
    fields = _object(card)
    for gone in ("signatures", "supportedInterfaces", "url", "preferredTransport", "additionalInterfaces"):
        fields.pop(gone, None)
    tenants = tuple(dict.fromkeys(each.tenant for each in known.interfaces if each.tenant)) or ("",)
    ours = list(_our_interfaces(known, base_url.rstrip("/")))
    older = [(binding, url) for binding, version, url in ours if version == "0.3"]
    fields |= {
        "supportedInterfaces": _encode(
            [
                {"url": url, "protocolBinding": _NAMES[binding], "protocolVersion": version}
                | ({"tenant": tenant} if tenant else {})
                for binding, version, url in ours
                for tenant in (tenants if version == "1.0" else ("",))
            ]
        ),
        "protocolVersion": _encode("0.3.0"),
        "preferredTransport": _encode(_NAMES[older[0][0]]),
        "url": _encode(older[0][1]),
        "additionalInterfaces": _encode(
            [{"url": url, "transport": _NAMES[binding]} for binding, url in older]
        ),
        "capabilities": _capabilities(fields, known),
    }
    if known.extended:
        fields["supportsAuthenticatedExtendedCard"] = _encode(True)
    _complete_for_v03(fields)
    if schemes is not None:
        # What the agent asks for is between it and the broker: here only these are taken (C54).
        replace_security(fields, schemes)
    both_requirements(fields, _convert)
    both_schemes(fields, _convert)
    if skills := _convert(fields["skills"], list[RawObject], "skills"):
        fields["skills"] = _encode([_skill(skill, own=schemes is None) for skill in skills])
    return msgspec.json.encode(fields)


def watch_only(name: str, version: str) -> bytes:
    """Give the card of an agent that can be watched and not asked, as if the agent had written it.

    It names no interface: `rewrite` adds the broker's. Lists that v1.0 calls required are not empty.

    Args:
        name: the agent's.
        version: the broker's, for want of the agent's.
    """
    watch = {
        "id": "watch",
        "name": "Watch",
        "description": "Subscribe to a task by its id, and get it as it stands.",
        "tags": ["tasks"],
    }
    return msgspec.json.encode(
        {
            "name": name,
            "description": "The tasks of this agent can be watched here; messages can't be sent to it.",
            "version": version,
            "capabilities": {},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [watch],
        }
    )


def etag(card: bytes) -> str:
    """Give the entity tag of a served card, without its quotes; equal bytes have equal tags (C57)."""
    return blake2b(card, digest_size=16).hexdigest()


def _interfaces(fields: _Fields) -> Iterator[Interface]:
    for each in fields.supportedInterfaces or ():
        if interface := _interface(each.url, each.protocolBinding, each.protocolVersion, each.tenant):
            yield interface
    # A merged card says 0.3 of its older fields; one that says nothing is older than the field.
    version = fields.protocolVersion or "0.3"
    if fields.url is not None:
        if interface := _interface(fields.url, fields.preferredTransport or "JSONRPC", version, None):
            yield interface
        for each in fields.additionalInterfaces or ():
            if interface := _interface(each.url, each.transport, version, None):
                yield interface


def _interface(
    url: str | None, binding: str | None, version: str | None, tenant: str | None
) -> Interface | None:
    """Give an interface the broker can use, or None: another binding, another version, no HTTP URL."""
    ours = _BINDINGS.get((binding or "").upper())
    major, _, minor = (version or "").partition(".")
    if ours is None or url is None or not (major == "1" or (major == "0" and minor[:1] in ("2", "3"))):
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return None
    # What stands in a card is written into requests: nothing but a plain path may get there.
    plain = _PATH.fullmatch(parts.path) and _QUERY.fullmatch(parts.query) and not _DOTS.search(parts.path)
    if parts.scheme not in ("http", "https") or not host or not plain:
        return None
    path = parts.path.rstrip("/") if ours == "rest" else parts.path or "/"
    return Interface(ours, "1.0" if major == "1" else "0.3", path, parts.query, tenant or "")


def _our_interfaces(known: Card, base_url: str) -> Iterator[tuple[Binding, Version, str]]:
    """Give the wires served here with their URLs: those the agent speaks itself first, in its own order."""
    native = [(interface.binding, interface.version) for interface in known.interfaces]
    for binding, version in dict.fromkeys([*native, *_WIRES]):
        # Clients of v0.3 append the /v1 of its REST paths themselves.
        yield binding, version, base_url + (JSONRPC_PATH if binding == "jsonrpc" else "")


def _capabilities(fields: RawObject, known: Card) -> Raw:
    """Add streaming, which the broker gives to every agent (C08), and the resume extension."""
    members = _convert(_member(fields, "capabilities", b"{}"), RawObject, "capabilities")
    extensions = _convert(_member(members, "extensions", b"[]"), list[RawObject], "extensions")
    resume = _encode(RESUME)
    kept: list[Any] = [each for each in extensions if each.get("uri") != resume]
    members |= {"streaming": _encode(True), "extensions": _encode([*kept, _RESUME_EXTENSION])}
    if known.extended:
        members["extendedAgentCard"] = _encode(True)
    return _encode(members)


def _complete_for_v03(fields: RawObject) -> None:
    """Write out what v0.3 demands and ProtoJSON leaves out where it is empty."""
    for name in ("name", "description", "version"):
        fields[name] = Raw(_member(fields, name, b'""'))
    for name in ("defaultInputModes", "defaultOutputModes", "skills"):
        fields[name] = Raw(_member(fields, name, b"[]"))


def _skill(skill: RawObject, *, own: bool) -> RawObject:
    if not own:
        drop_security(skill)
    for name, empty in (("id", b'""'), ("name", b'""'), ("description", b'""'), ("tags", b"[]")):
        skill[name] = Raw(_member(skill, name, empty))
    both_requirements(skill, _convert)
    return skill


def _object(card: bytes) -> RawObject:
    return _decode(card, RawObject)


def _member(fields: RawObject, name: str, default: bytes) -> bytes:
    """Give a member's JSON; null is as good as none."""
    found = bytes(fields.get(name, b"null"))
    return default if found == b"null" else found


def _convert(value: bytes | Raw, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidCard(f"{name}: {error}"[:200]) from error


def _decode(card: bytes, kind: type[T]) -> T:
    try:
        card.decode()
        return msgspec.json.decode(card, type=kind)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidCard(str(error)[:200]) from error


def _encode(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))
