"""What a JWK set (RFC 7517) is good for: which of its keys verify which algorithm.

Must not know where a set comes from, nor what a token says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import jwt
import msgspec
from msgspec import Struct

from sidecast_broker.settings import ALGORITHMS

KEYS_MAX = 256
CANDIDATES_MAX = 8
"""Keys that are tried for a token which names none: each costs as much as a valid token."""
KEY_ID_BYTES_MAX = 256

_RSA = tuple(name for name in ALGORITHMS if name[:2] in ("RS", "PS"))
_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_CURVE_TYPES = {"P-256": "EC", "P-384": "EC", "P-521": "EC", "Ed25519": "OKP"}
_PUBLIC_MEMBERS = ("kty", "crv", "n", "e", "x", "y")


class UnusableKeys(ValueError):  # noqa: N818 - named as the message reads
    """A JWK set without any key that can be used."""


class _Jwk(Struct):
    """The members that decide what a key may be used for; RFC 7517, section 4."""

    kty: str
    crv: str | None = None
    alg: str | None = None
    kid: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None


class _Set(Struct):
    keys: list[msgspec.Raw]


class KeySet:
    """Keys that are trusted, by the algorithms they may be used with.

    An algorithm is bound to the key by what the key is, never by what a token says of itself: RFC 8725,
    sections 2.1 and 3.1.

    Attributes:
        identity: equal for sets of the same keys.
    """

    def __init__(self, keys: Iterable[tuple[str | None, jwt.PyJWK]]) -> None:
        self._named: dict[tuple[str, str], list[jwt.PyJWK]] = {}
        self._all: dict[str, list[jwt.PyJWK]] = {}
        self._ids: set[str] = set()
        identity = set()
        for key_id, key in keys:
            algorithm = key.algorithm_name
            self._all.setdefault(algorithm, []).append(key)
            if key_id is not None:
                self._ids.add(key_id)
                self._named.setdefault((key_id, algorithm), []).append(key)
            identity.add((key_id, algorithm, _digest(key)))
        self.identity = frozenset(identity)

    def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """Give the keys that may have signed a token: those it names, or a few where it names none.

        Args:
            key_id: the token's `kid`; None where it has none.
            algorithm: the token's `alg`.
        """
        if key_id is not None:
            # An id names one key; RFC 7517, section 4.5, allows the same for keys of different types.
            return self._named.get((key_id, algorithm), [])[:CANDIDATES_MAX]
        candidates = self._all.get(algorithm, [])
        return candidates if len(candidates) <= CANDIDATES_MAX else []

    def knows(self, key_id: str | None) -> bool:
        """Tell whether a key of that id is there, whatever it can be used for; None is no id."""
        return key_id is None or key_id in self._ids


def secret_key_set(secret: bytes, algorithms: Iterable[str]) -> KeySet:
    """Give the set of one shared secret, for those HMAC algorithms it is long enough for (RFC 7518, 3.2)."""
    encoded = jwt.utils.base64url_encode(secret).decode()
    return KeySet(
        (None, jwt.PyJWK({"kty": "oct", "k": encoded}, algorithm=name))
        for name in algorithms
        if name.startswith("HS") and len(secret) * 8 >= int(name[2:])
    )


def parse_key_set(content: bytes, algorithms: Iterable[str]) -> KeySet:
    """Read a JWK set; keys that are of no use here are left out (RFC 7517, section 5).

    Secrets (`oct`) are never taken: who publishes one has none. Private members are not looked at.

    Args:
        content: JSON, of any content.
        algorithms: those that are allowed at all.

    Raises:
        UnusableKeys: it is no JWK set, or none of its keys can be used.
    """
    try:
        raws = msgspec.json.decode(content, type=_Set).keys
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnusableKeys("not a JWK set") from error
    if len(raws) > KEYS_MAX:
        raise UnusableKeys(f"a JWK set of {len(raws)} keys; at most {KEYS_MAX} are taken")
    allowed = frozenset(algorithms)
    found = [pair for raw in raws for pair in _usable(raw, allowed)]
    if not found:
        raise UnusableKeys("none of the keys of the JWK set can be used with auth.jwt_algorithms")
    return KeySet(found)


def _usable(raw: msgspec.Raw, allowed: frozenset[str]) -> list[tuple[str | None, jwt.PyJWK]]:
    """Give a key once for each algorithm it may be used with."""
    try:
        jwk = msgspec.json.decode(raw, type=_Jwk)
        members: dict[str, Any] = msgspec.json.decode(raw)
        public = {name: members[name] for name in _PUBLIC_MEMBERS if name in members}
        keys = [jwt.PyJWK(public, algorithm=name) for name in _algorithms(jwk) if name in allowed]
    except (msgspec.MsgspecError, jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return []
    if any(key.Algorithm.check_key_length(key.key) for key in keys):
        return []
    return [(jwk.kid, key) for key in keys]


def _algorithms(jwk: _Jwk) -> tuple[str, ...]:
    if jwk.use not in (None, "sig") or (jwk.key_ops is not None and "verify" not in jwk.key_ops):
        return ()
    if jwk.kty == "RSA":
        fitting: tuple[str, ...] = _RSA
    elif jwk.crv is not None and _CURVE_TYPES.get(jwk.crv) == jwk.kty:
        fitting = (_BY_CURVE[jwk.crv],)
    else:
        return ()
    # RFC 9864 calls EdDSA by its curve.
    named = "EdDSA" if jwk.alg == "Ed25519" else jwk.alg
    return fitting if named is None else tuple(name for name in fitting if name == named)


def _digest(key: jwt.PyJWK) -> bytes:
    public = key.Algorithm.to_jwk(key.key, as_dict=True)
    return hashlib.sha256(msgspec.json.encode(public, order="sorted")).digest()
