"""An issuer of tokens: keys of every kind, the JWK set that verifies them, and tokens of any form."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecast_broker.configuration import load
from sidecast_broker.settings import Auth

ISSUER = "https://issuer.example"
AUDIENCE = "sidecast"
NOW_S = 1_800_000_000
SECRET = "a secret of at least sixty-four bytes, so that it is long enough for HS512"


@cache
def private_key(kind: str) -> Any:
    """Give a key; what stands behind a dash makes it another one of that kind."""
    name = kind.partition("-")[0]
    if name == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if name == "weak":
        return rsa.generate_private_key(65537, 1024)
    if name == "ed":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(
        {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}[name]
    )


WORKERS = {"rsa": "RS256", "weak": "RS256", "ed": "EdDSA", "p256": "ES256", "p384": "ES384", "p521": "ES512"}


def jwk(kind: str, **members: Any) -> dict[str, Any]:
    """Give the public JWK of a key; its id is its kind, unless members say otherwise."""
    worker = jwt.get_algorithm_by_name(WORKERS[kind.partition("-")[0]])
    public = worker.to_jwk(private_key(kind).public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {name: value for name, value in {**public, "kid": kind, **members}.items() if value is not None}


def jwks(*keys: str | dict[str, Any]) -> bytes:
    return json.dumps({"keys": [jwk(key) if isinstance(key, str) else key for key in keys]}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Give valid claims; a changed one that is None is left out."""
    valid = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW_S + 600, **changed}
    return {name: value for name, value in valid.items() if value is not None}


def token(
    kind: str = "rsa",
    algorithm: str | None = None,
    *,
    headers: dict[str, Any] | None = None,
    **changed: Any,
) -> str:
    """Sign claims; headers are those beside `alg`, and `kid` as the key is called by default."""
    name = kind.partition("-")[0]
    given = {"kid": kind} if headers is None else headers
    return jwt.encode(claims(**changed), private_key(kind), algorithm or WORKERS[name], headers=given)


def raw_token(header: Any, payload: Any, signature: bytes = b"\x01") -> str:
    """Write a token that no library would sign."""
    parts = [json.dumps(each).encode() if not isinstance(each, bytes) else each for each in (header, payload)]
    return ".".join(jwt.utils.base64url_encode(part).decode() for part in (*parts, signature))


TLS = {f"server.tls_{name}": f"/{name}.pem" for name in ("certificate", "key", "client_ca")}
"""What client certificates need; the files are not there."""


def auth_settings(**changed: Any) -> Auth:
    """Give settings that accept the issuer's tokens."""
    given = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, **changed}
    tls = TLS if "mtls_principal" in changed else {}
    return load(None, {}, {**tls, **{f"auth.{key}": value for key, value in given.items()}}).auth


class Clock:
    """A clock that is turned by hand."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
