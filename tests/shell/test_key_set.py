from __future__ import annotations

import json
from typing import Any

import pytest
from issuer import SECRET, jwk, jwks, private_key

from sidecast_broker.auth.key_set import KEYS_MAX, UnusableKeys, parse_key_set, secret_key_set
from sidecast_broker.settings import ALGORITHMS


def usable(*keys: str | dict[str, Any], allowed: tuple[str, ...] = ALGORITHMS) -> set[str]:
    """Give the algorithms that keys which are all called `k` can be used with."""
    named = [jwk(key, kid="k") if isinstance(key, str) else key for key in keys]
    try:
        found = parse_key_set(jwks(*named), allowed)
    except UnusableKeys:
        return set()
    return {name for name in ("none", *ALGORITHMS) if found.find("k", name)}


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        ("rsa", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("p256", {"ES256"}),
        ("p384", {"ES384"}),
        ("p521", {"ES512"}),
        ("ed", {"EdDSA"}),
    ],
)
def test_what_a_key_is_decides_what_it_verifies(key: str, algorithms: set[str]) -> None:
    assert usable(key) == algorithms


@pytest.mark.parametrize(
    ("key", "members", "algorithms"),
    [
        ("rsa", {"alg": "RS256"}, {"RS256"}),
        ("rsa", {"alg": "PS384"}, {"PS384"}),
        ("ed", {"alg": "Ed25519"}, {"EdDSA"}),
        ("p256", {"alg": "ES256", "use": "sig", "key_ops": ["verify"]}, {"ES256"}),
        ("rsa", {"alg": "HS256"}, set()),
        ("rsa", {"alg": "none"}, set()),
        ("rsa", {"alg": "ES256"}, set()),
        ("rsa", {"alg": ""}, set()),
        ("rsa", {"alg": ["RS256"]}, set()),
        ("rsa", {"alg": "RSA-OAEP"}, set()),
        ("p256", {"alg": "ES384"}, set()),
        ("p256", {"use": "enc"}, set()),
        ("p256", {"key_ops": ["sign"]}, set()),
        ("p256", {"kty": "RSA"}, set()),
        ("p256", {"kty": "OKP"}, set()),
        ("p256", {"crv": "P-384"}, set()),
        ("p256", {"crv": "secp256k1"}, set()),
        ("p256", {"x": "!"}, set()),
        ("p256", {"x": 7}, set()),
        ("p256", {"kid": 7}, set()),
        ("rsa", {"e": "AA"}, set()),
        ("weak", {}, set()),
    ],
    ids=repr,
)
def test_members_narrow_it_and_never_widen_it(
    key: str, members: dict[str, Any], algorithms: set[str]
) -> None:
    assert usable(jwk(key, **{"kid": "k", **members})) == algorithms


def test_only_what_is_allowed_is_used() -> None:
    assert usable("rsa", "p256", allowed=("PS256", "ES256")) == {"PS256", "ES256"}


def test_secrets_that_are_published_are_none() -> None:
    assert usable({"kty": "oct", "kid": "k", "k": "c2VjcmV0" * 20, "alg": "HS256"}) == set()


def test_a_private_key_is_used_for_its_public_part() -> None:
    import jwt

    private = jwt.get_algorithm_by_name("ES256").to_jwk(private_key("p256"), as_dict=True)
    assert "d" in private
    (key,) = parse_key_set(jwks({**private, "kid": "k"}), ALGORITHMS).find("k", "ES256")
    assert "d" not in key._jwk_data
    assert not hasattr(key.key, "private_numbers")


def test_unusable_keys_do_not_spoil_the_others() -> None:
    assert usable({"kty": "new"}, "p256", {}, {"kty": "EC"}) == {"ES256"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"keys": null}',
        b'{"keys": []}',
        b'{"keys": [7, null, "x", [], {}]}',
        b'{"keys": {}}',
        b"\xff",
        b"[" * 100_000,
        b'{"keys": [' + b'{"kty":' * 50_000,
        json.dumps({"keys": [{"kty": "EC"}] * (KEYS_MAX + 1)}).encode(),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_no_set_of_use(content: bytes) -> None:
    with pytest.raises(UnusableKeys):
        parse_key_set(content, ALGORITHMS)


def test_keys_are_found_by_id_and_algorithm() -> None:
    keys = parse_key_set(jwks("rsa", "p256", jwk("p256-other", kid="p256"), jwk("ed", kid=None)), ALGORITHMS)
    assert len(keys.find("p256", "ES256")) == 2
    assert keys.find("rsa", "ES256") == keys.find("p256", "RS256") == []
    assert keys.find("nobody", "ES256") == keys.find("ed", "EdDSA") == []
    assert len(keys.find(None, "EdDSA")) == 1
    assert len(keys.find(None, "RS256")) == 1
    assert keys.knows("rsa")
    assert keys.knows(None)
    assert not keys.knows("nobody")


def test_a_token_without_a_key_id_is_not_tried_with_many_keys() -> None:
    keys = parse_key_set(jwks(*(jwk("p256", kid=str(number)) for number in range(9))), ALGORITHMS)
    assert keys.find(None, "ES256") == []
    assert len(keys.find("8", "ES256")) == 1


def test_sets_of_the_same_keys_are_the_same() -> None:
    first, second = (
        parse_key_set(jwks("rsa", "p256"), ALGORITHMS),
        parse_key_set(jwks("p256", "rsa"), ALGORITHMS),
    )
    assert first.identity == second.identity
    changed = parse_key_set(jwks("p256", jwk("rsa-other", kid="rsa")), ALGORITHMS)
    assert changed.identity != first.identity


@pytest.mark.parametrize(
    ("length", "algorithms"),
    [(31, set()), (32, {"HS256"}), (48, {"HS256", "HS384"}), (64, {"HS256", "HS384", "HS512"})],
)
def test_a_secret_is_used_where_it_is_long_enough(length: int, algorithms: set[str]) -> None:
    keys = secret_key_set(SECRET[:length].encode(), ALGORITHMS)
    assert {name for name in ("none", *ALGORITHMS) if keys.find(None, name)} == algorithms
