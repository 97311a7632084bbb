"""Tokens and tickets of any form, signed and sealed as they should be, and what only looks like one.

Must not know how a request carries them. None has a right, and none opens a task of alice's, but those of the
key ring.
"""

from __future__ import annotations

import base64
import hmac
import json
import random
from typing import Any

import msgspec
from access_rig import BOBS
from attacks.keyring import API_KEYS, ED, END_S, P256, TICKET_SECRET, TICKETS, TOKENS, claims
from attacks.words import WORDS
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fuzzed_requests import Object, break_bytes, break_object, read, write
from jwt.utils import der_to_raw_signature

from sidecast_broker.auth.derived import derived_keys
from sidecast_broker.auth.tickets import PURPOSE

_TICKET_KEY = derived_keys(PURPOSE, TICKET_SECRET)[0]
GRANTS = ("_/agent/task-of-b*", "acme/*/*", "a/b", "%ff/x/y", "///", "_/agent/%2A", "*" * 3000, "\ud800/a/b")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: dict[str, Any], dice: random.Random) -> bytes:
    """Write an object with something wrong in it."""
    members = read(json.dumps(value).encode())
    for _ in range(dice.choice([0, 1, 1, 2])):
        break_object(members if isinstance(members, Object) else Object(), dice)
    return write(members).encode("utf-8", "surrogatepass")


def token(dice: random.Random) -> str:
    """Make a token that no library would: with claims and a header of any form, signed as it should be."""
    payload = claims(sub=dice.choice(["bob", "carol", "\u00e9", "x" * 300]))
    for name, values in (
        ("nbf", (0, END_S, -1, 1.5, 1e300)),
        ("iat", (0, END_S, 10**30, "0")),
        ("jti", ("one", "", 7)),
        ("tenant", ("acme", "_", "", "a.b", "\x01")),
        ("sidecast_grants", ([dice.choice(GRANTS)], [1], {}, [[]])),
        ("sidecast_rights", (["other"], [{}], 1, [""])),
        ("aud", ("sidecast", ["sidecast", 1], [], {}, ["x"] * 50)),
        ("exp", (END_S, 10**400, -1, "4102444800", 2**53, 0.5)),
    ):
        if dice.random() < 0.2:
            payload[name] = dice.choice(values)
    header: dict[str, Any] = {"alg": dice.choice(["EdDSA"] * 4 + ["ES256", "none", "HS256", "RS256", ""])}
    header |= {"kid": dice.choice(["ed"] * 4 + ["p256", "../keys", "x" * 3000, ""]), "typ": "JWT"}
    if dice.random() < 0.2:
        header[dice.choice(["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"])] = dice.choice(
            ["http://127.0.0.1:9/", {"kty": "oct"}, ["b64"], False, None]
        )
    signed = f"{_base64(_json(header, dice))}.{_base64(_json(payload, dice))}"
    with_ed = header["alg"] != "ES256"
    signature = ED.sign(signed.encode()) if with_ed else _es256(signed.encode())
    return f"{signed}.{_base64(signature)}"


def _es256(data: bytes) -> bytes:
    # RFC 6979: the same bytes every time.
    signature = P256.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return der_to_raw_signature(signature, P256.curve)


def ticket(dice: random.Random) -> str:
    """Make a ticket that is sealed as it should be, with a body of any form."""
    body: list[Any] = ["bob", None, [["", "agent", [BOBS]]], float(END_S), None, "", None]
    for _ in range(dice.choice([0, 1, 1, 2])):
        body[dice.randrange(7)] = dice.choice(
            [None, "", 0, -1.5, 2**63, [], [[]], {}, b"\xff", [["", "", [""]]]]
        )
    if dice.random() < 0.1:
        body = body[: dice.randrange(8)]
    packed = msgspec.msgpack.encode(body)
    if dice.random() < 0.2:
        packed = break_bytes(packed, dice)
    signed = dice.choice([b"\x01", b"\x01", b"\x01", b"\x02", b""]) + packed
    return _base64(signed + hmac.digest(_TICKET_KEY, signed, "sha256"))


def _spoiled(text: str, dice: random.Random) -> str:
    """Change something in the text of a credential."""
    at = dice.randrange(len(text))
    return dice.choice(
        [text[:at], text + "=", text[:at] + dice.choice("Aa.=-_ ,") + text[at + 1 :], text * 2]
    )


def some_credential(dice: random.Random) -> str:
    """Give a credential of any kind, or what only looks like one."""
    known = [*TOKENS.values(), *API_KEYS.values(), *TICKETS.values()]
    match dice.randrange(10):
        case 0 | 1 | 2:
            return token(dice)
        case 3 | 4:
            return ticket(dice)
        case 5:
            return _spoiled(dice.choice(known), dice)
        case 6:
            return dice.choice(WORDS)
        case _:
            return dice.choice(known)
