"""The security fields of a card, in the forms of both generations at once.

Must not know the rest of a card. Source: A2A v1.0, section 4.5; v0.3, sections 5.5.3 and 5.5.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Raw

from sidecast_broker.core.auth.principal import Scheme
from sidecast_schemas.codec import RawObject

T = TypeVar("T")

_WRAPPERS = {
    "apiKey": "apiKeySecurityScheme",
    "http": "httpAuthSecurityScheme",
    "oauth2": "oauth2SecurityScheme",
    "openIdConnect": "openIdConnectSecurityScheme",
    "mutualTLS": "mtlsSecurityScheme",
}
"""By the `type` of v0.3: the member that holds the same scheme in v1.0."""

_FLOWS = ("authorizationCode", "clientCredentials", "implicit", "password")
"""OAuth flows of v0.3, which can name several; v1.0 holds one, and a2a-sdk 1.3.0 refuses a whole card over a
second one even in the v0.3 form. The first of these that is there stays."""


Schemes = Mapping[str, Mapping[str, object]]
"""Security schemes by name, each as OpenAPI and v0.3 write it: `{"type": "http", "scheme": "bearer"}`."""

_DECLARED: dict[Scheme, tuple[str, dict[str, object]]] = {
    "jwt": ("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
    "api_key": ("apiKey", {"type": "apiKey", "in": "header", "name": "X-API-Key"}),
    "mtls": ("mtls", {"type": "mutualTLS"}),
}
"""What a card says of each kind of credential. Tickets are left out: they open streams, and what a card names
works for everything (C54)."""

_SECURITY = ("security", "securityRequirements")


class Convert(Protocol):
    """Decodes a member as a type, or says which one is wrong."""

    def __call__(self, value: bytes | Raw, kind: type[T], name: str) -> T: ...


def declared(kinds: Iterable[Scheme]) -> Schemes:
    """Give the security schemes that a card declares for kinds of credential."""
    return dict(_DECLARED[kind] for kind in kinds if kind in _DECLARED)


def replace_security(fields: RawObject, schemes: Schemes) -> None:
    """Have a card ask for any one of some schemes, and nothing else.

    Args:
        fields: the members, changed in place.
        schemes: by the names they get in the card; none: the card asks for nothing.
    """
    drop_security(fields)
    fields.pop("securitySchemes", None)
    if schemes:
        fields["securitySchemes"] = _encode(schemes)
        fields["security"] = _encode([{name: []} for name in schemes])


def drop_security(fields: RawObject) -> None:
    """Have a card or a skill ask for nothing of its own."""
    for name in _SECURITY:
        fields.pop(name, None)


def both_requirements(fields: RawObject, convert: Convert) -> None:
    """Give a card or a skill both `security` (v0.3) and `securityRequirements` (v1.0), where it has one.

    Args:
        fields: the members, changed in place.
        convert: decodes, and raises what the caller raises.
    """
    older, newer = _given(fields, "security"), _given(fields, "securityRequirements")
    if older is not None and newer is None:
        requirements = convert(older, list[dict[str, Raw]], "security")
        fields["securityRequirements"] = _encode(
            [{"schemes": {name: {"list": scopes} for name, scopes in each.items()}} for each in requirements]
        )
    elif newer is not None and older is None:
        wrapped = convert(newer, list[RawObject], "securityRequirements")
        fields["security"] = _encode([_scopes_by_scheme(each, convert) for each in wrapped])


def both_schemes(fields: RawObject, convert: Convert) -> None:
    """Give each of `securitySchemes` the members of both generations: they are read under different names.

    Args:
        fields: the card's members, changed in place.
        convert: decodes, and raises what the caller raises.
    """
    given = _given(fields, "securitySchemes")
    if given is not None:
        schemes = convert(given, dict[str, RawObject], "securitySchemes")
        fields["securitySchemes"] = _encode({name: _both(each, convert) for name, each in schemes.items()})


def _scopes_by_scheme(requirement: RawObject, convert: Convert) -> dict[str, Any]:
    schemes = convert(requirement.get("schemes", b"{}"), dict[str, RawObject], "schemes")
    # ProtoJSON leaves an empty list out.
    return {name: scopes.get("list", []) for name, scopes in schemes.items()}


def _both(scheme: RawObject, convert: Convert) -> RawObject:
    wrapper = next((name for name in _WRAPPERS.values() if name in scheme), None)
    if "type" not in scheme and wrapper is not None:
        inner = convert(scheme[wrapper], RawObject, wrapper)
        older = next(kind for kind, name in _WRAPPERS.items() if name == wrapper)
        return scheme | _renamed(inner, "location", "in") | {"type": _encode(older)}
    if "type" in scheme and wrapper is None:
        wrapper = _WRAPPERS.get(convert(scheme["type"], str, "type"))
        if wrapper is None:
            return scheme
        if "flows" in scheme:
            scheme = scheme | {"flows": _one_flow(scheme["flows"], convert)}
        inner = _renamed({name: value for name, value in scheme.items() if name != "type"}, "in", "location")
        return scheme | {wrapper: _encode(inner)}
    return scheme


def _renamed(fields: RawObject, old: str, new: str) -> RawObject:
    return {new if name == old else name: value for name, value in fields.items()}


def _one_flow(flows: Raw, convert: Convert) -> Raw:
    members = convert(flows, RawObject, "flows")
    present = [name for name in _FLOWS if _given(members, name) is not None]
    return _encode({name: members[name] for name in present[:1]})


def _given(fields: RawObject, name: str) -> Raw | None:
    found = fields.get(name)
    return None if found is None or bytes(found) == b"null" else found


def _encode(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))
