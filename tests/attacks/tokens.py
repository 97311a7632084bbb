"""Tokens and API keys that are forged, foreign, stale or guessed.

Must not know how they are checked.
"""

from __future__ import annotations

import hmac
import json
import time
from typing import Any

import jwt
from attacks.scene import API_KEY, bearer, in_ten_minutes, token
from attacks.table import EXPIRED, INVALID, NONE, Group, Row, Served, alice, watch
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import claims, jwk, jwks, private_key, raw_token


def _claims(**changed: Any) -> dict[str, Any]:
    return claims(**{"exp": in_ten_minutes(), **changed})


def _signed(header: dict[str, Any], secret: bytes) -> str:
    unsigned = raw_token(header, _claims()).rpartition(".")[0]
    digest = hmac.digest(secret, unsigned.encode(), "sha256")
    return f"{unsigned}.{jwt.utils.base64url_encode(digest).decode()}"


def _public(encoding: Encoding, form: PublicFormat) -> bytes:
    content: bytes = private_key("rsa").public_key().public_bytes(encoding, form)
    return content


def _by_public_key() -> dict[str, str]:
    """Give tokens whose secret is what everybody knows of the issuer's key, in each of its spellings."""
    info, plain = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1
    secrets = {
        "PEM": _public(Encoding.PEM, info),
        "PEM without its last line end": _public(Encoding.PEM, info).rstrip(b"\n"),
        "PEM of PKCS 1": _public(Encoding.PEM, plain),
        "DER": _public(Encoding.DER, info),
        "JWKS": jwks("rsa", "p256", "ed"),
        "modulus": jwk("rsa")["n"].encode(),
        "nothing": b"",
    }
    header = {"alg": "HS256", "kid": "rsa"}
    return {f"HS256 with the public key as {name}": _signed(header, each) for name, each in secrets.items()}


def _algorithms() -> dict[str, str]:
    header, _, signature = token().rpartition(".")
    return {
        **{
            f"alg {name!r}": raw_token({"alg": name, "kid": "rsa"}, _claims(), b"")
            for name in ("none", "None", "nOnE", "", "HS256")
        },
        **_by_public_key(),
        "HS256 without a kid": _signed({"alg": "HS256"}, b""),
        "the kid of another key": token("p256", headers={"kid": "rsa"}),
        "the kid of another kind of key": token("ed", headers={"kid": "p256"}),
        "a wrong key": token("rsa-other", headers={"kid": "rsa"}),
        "a wrong key without a kid": token("rsa-other", headers={}),
        "no signature": header + ".",
        "another's signature": f"{header}.{token(sub='bob').rpartition('.')[2]}",
        "a signature with padding": f"{header}.{signature}==",
        "crit": token(headers={"kid": "rsa", "crit": ["exp"], "exp": 1}),
        "an alg that is a list": raw_token({"alg": ["RS256"], "kid": "rsa"}, _claims()),
    }


def _brought() -> dict[str, str]:
    """Give tokens that bring the key they are signed with, or say where it is."""
    evil = "https://evil.example/keys"
    brought: dict[str, Any] = {
        "jku": evil,
        "x5u": evil,
        "jwk": jwk("rsa-other", kid="rsa"),
        "x5c": ["MIIB"],
        "x5t": "AAAA",
    }
    ids = ("rsa", "evil")
    return {
        f"{name} under {kid}": token("rsa-other", headers={"kid": kid, name: value})
        for name, value in brought.items()
        for kid in ids
    }


def _ids() -> dict[str, str]:
    """Give tokens whose `kid` is made for who uses it as a path, an address or a query."""
    return {
        f"kid {name}": token(headers={"kid": kid})
        for name, kid in {
            "that climbs": "../../../../../../dev/null",
            "that is a path": "/dev/null",
            "that is a URL": "https://evil.example/key",
            "with NUL": "rsa\0",
            "with SQL": "x' UNION SELECT 'secret",
            "with a command": "rsa;id",
            "in capitals": "RSA",
            "that is empty": "",
            "that is long": "k" * 4000,
        }.items()
    }


def _claimed() -> dict[str, str]:
    now_s = int(time.time())
    return {
        "another issuer": token(iss="https://evil.example"),
        "an issuer and more": token(iss="https://issuer.example/evil"),
        "no issuer": token(iss=None),
        "another audience": token(aud="other"),
        "an audience and more": token(aud="sidecast-evil"),
        "no audience": token(aud=None),
        "no end": token(exp=None),
        "an end that is a text": _text(exp="never"),
        "no subject": token(sub=None),
        "a subject that is empty": token(sub=""),
        "a subject that is a list": _text(sub=["alice"]),
        "not yet valid": token(nbf=now_s + 3600),
        "a grant that is none": token(sidecast_grants=["*"]),
        "a tenant that is a list": token(tenant=["acme"]),
    }


def _text(**changed: Any) -> str:
    """Sign claims that a library would refuse to write."""
    payload = json.dumps(_claims(**changed)).encode()
    return jwt.PyJWS().encode(payload, private_key("rsa"), "RS256", headers={"kid": "rsa"})


def tokens() -> Group:
    """Give tokens that are forged, foreign or stale."""
    invalid = {**_algorithms(), **_brought(), **_ids(), **_claimed()}
    rows = [Row(name, watch(bearer(text)), INVALID) for name, text in invalid.items()]
    rows += [
        Row("no credential", watch(), NONE),
        Row("expired", watch(alice(exp=int(time.time()) - 3600)), EXPIRED),
        Row("basic", watch("Authorization: Basic YWxpY2U6eA=="), INVALID),
        Row("a scheme of nobody", watch(alice().replace("Bearer", "Token")), INVALID),
        Row("no scheme", watch(f"Authorization: {token()}"), INVALID),
    ]
    return Group(rows, Served(watch(alice())))


def keys() -> Group:
    """Give guesses at an API key, from what may be known of it."""
    guesses = {
        "what all keys begin with": "sidecast_",
        "half of it": API_KEY[: len(API_KEY) // 2],
        "all but its end": API_KEY[:-1],
        "another end": API_KEY[:-1] + ("a" if API_KEY[-1] != "a" else "b"),
        "another beginning": "x" + API_KEY[1:],
        "it and more": API_KEY + "a",
        "it in capitals": API_KEY.upper(),
        "it without what all begin with": API_KEY.removeprefix("sidecast_"),
        "it twice": API_KEY * 2,
        "a pattern": "sidecast_*",
        "its id": "one",
        "too long": "k" * 4000,
    }
    rows = [
        Row(f"{name}, {where}", watch(line + guess), INVALID)
        for name, guess in guesses.items()
        for where, line in (("in its header", "X-API-Key: "), ("as a bearer", "Authorization: Bearer "))
    ]
    rows += [
        Row("an expired one", watch("X-API-Key: old-key"), EXPIRED),
        Row("a token as one", watch(f"X-API-Key: {token()}"), INVALID),
        Row("nothing", watch("X-API-Key:"), INVALID),
        Row("in the query", watch(target=f"/tasks/task-of-alice/events?api_key={API_KEY}"), NONE),
        Row("in a cookie", watch(f"Cookie: X-API-Key={API_KEY}"), NONE),
        Row("in another spelling", watch(f"X_API_Key: {API_KEY}"), NONE),
    ]
    return Group(rows, Served(watch(f"X-API-Key: {API_KEY}")))
