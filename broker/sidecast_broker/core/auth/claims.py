"""What a credential's holder is called and may do, from the claims of a verified token.

Must not know how a token is verified, nor what time it is: `now_s` comes in, seconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from sidecast_broker.core.auth.grants import InvalidGrant, parse_grant
from sidecast_broker.core.auth.principal import RIGHTS, Grant, Principal, Right
from sidecast_schemas.subjects import InvalidId, encode_token

TIME_S_MAX = 2**53
"""Latest time that is taken: JSON numbers are exact to there."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_NAMELESS = "_"


class InvalidCredential(ValueError):  # noqa: N818 - named as the answer reads: the credential is invalid
    """A credential that names nobody.

    Attributes:
        expired: it did until it ended.
    """

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired


class Accepted(Struct, frozen=True):
    """Which tokens are accepted, and which of their claims say what.

    All claims but these and the registered ones of RFC 7519 are ignored.

    Attributes:
        issuer: who must have issued them.
        audiences: for one of whom they must be meant.
        leeway_s: how far the issuer's clock may differ.
    """

    issuer: str
    audiences: frozenset[str]
    leeway_s: float = 0
    principal_claim: str = "sub"
    tenant_claim: str = "tenant"
    grants_claim: str = "sidecast_grants"
    rights_claim: str = "sidecast_rights"


def check_name(name: str, what: str) -> str:
    """Give a name back that can be a principal's, a tenant's or a credential's.

    It goes into headers, subjects and log lines: 1 to 256 bytes of UTF-8, without control characters.

    Raises:
        InvalidCredential: it is anything else.
    """
    try:
        encode_token(name)
    except InvalidId as error:
        raise InvalidCredential(f"{what}: {error}") from error
    if _CONTROLS.search(name):
        raise InvalidCredential(f"{what}: must not hold control characters")
    return name


def check_tenant(name: str) -> str:
    """Give the tenant of a name as credentials write it; `_` or nothing is the tenant without a name.

    Nothing at all must not mean any tenant: what is there bounds.

    Raises:
        InvalidCredential: it can't be a tenant's name.
    """
    return "" if name in ("", _NAMELESS) else check_name(name, "the tenant")


def principal_of(claims: Any, accepted: Accepted, now_s: float) -> Principal:
    """Give who holds a token whose signature is verified.

    It ends `leeway_s` after its `exp`: as long as it is taken, what was opened with it lives.

    Args:
        claims: the payload, of any type.
        accepted: which tokens are accepted.
        now_s: the time.

    Returns:
        The principal; without a credential's id where the token has no `jti`.

    Raises:
        InvalidCredential: it is another's, isn't valid at this time, or a claim isn't of its type.
    """
    if not isinstance(claims, dict):
        raise InvalidCredential("the claims are no object")
    if claims.get("iss") != accepted.issuer:
        raise InvalidCredential("iss is missing, or another")
    _check_audience(claims.get("aud"), accepted.audiences)
    expires_at_s = _time(claims, "exp")
    if expires_at_s is None:
        raise InvalidCredential("exp is missing")
    if now_s >= expires_at_s + accepted.leeway_s:
        raise InvalidCredential("the token has expired", expired=True)
    valid_from_s = _time(claims, "nbf")
    if valid_from_s is not None and now_s < valid_from_s - accepted.leeway_s:
        raise InvalidCredential("the token is not valid yet")
    issued_at_s = _time(claims, "iat")
    if issued_at_s is not None and issued_at_s > now_s + accepted.leeway_s:
        # As good as none: a revocation made meanwhile must not be older than what it revokes.
        issued_at_s = None
    name, tenant = claims.get(accepted.principal_claim), _string(claims, accepted.tenant_claim)
    token_id = _string(claims, "jti")
    if not isinstance(name, str):
        raise InvalidCredential("the principal's claim is missing, or no string")
    return Principal(
        check_name(name, "the principal"),
        "jwt",
        None if tenant is None else check_tenant(tenant),
        _grants(_strings(claims, accepted.grants_claim)),
        _rights(_strings(claims, accepted.rights_claim)),
        ends_at_s=expires_at_s + accepted.leeway_s,
        credential_id="" if token_id is None else check_name(token_id, "jti"),
        issued_at_s=issued_at_s,
    )


def _check_audience(given: Any, accepted: frozenset[str]) -> None:
    """Refuse a token that is meant for others only: `aud` is a string or a list of them."""
    audiences = given if isinstance(given, list) else [given]
    if not all(isinstance(audience, str) for audience in audiences) or accepted.isdisjoint(audiences):
        raise InvalidCredential("aud is missing, or of others")


def _string(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidCredential(f"{name} is no string")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Give a NumericDate (RFC 7519, section 2)."""
    value = claims.get(name)
    if value is None:
        return None
    # A bool is an int; a comparison with NaN is false, whichever way it is asked.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TIME_S_MAX:
        raise InvalidCredential(f"{name} is no time")
    return float(value)


def _strings(claims: Mapping[str, Any], name: str) -> list[str]:
    values = claims.get(name)
    if values is None:
        return []
    if not isinstance(values, list):
        raise InvalidCredential(f"{name} is no list")
    for value in values:
        if not isinstance(value, str):
            raise InvalidCredential(f"{name} is no list of strings")
    return values


def _grants(texts: list[str]) -> tuple[Grant, ...]:
    try:
        return tuple(map(parse_grant, texts))
    except InvalidGrant as error:
        raise InvalidCredential(str(error)) from error


def _rights(names: list[str]) -> frozenset[Right]:
    # An issuer may name rights of other programs, and of later versions of this one.
    return frozenset(right for right in RIGHTS if right in names) if names else frozenset()
