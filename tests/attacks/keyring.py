"""Credentials that are the same bytes in every run, so that an input that holds one can be kept as a file.

Must not know what is asked with them. All of them end in the year 2100; the keys guard nothing but tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
from access_rig import ACME, ALICES, BOBS, OPEN
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from issuer import AUDIENCE, ISSUER

from sidecast_broker.auth.api_keys import hash_key
from sidecast_broker.auth.derived import derived_keys
from sidecast_broker.auth.tickets import PURPOSE
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.auth.tickets import make_ticket
from sidecast_schemas.subjects import TaskKey

END_S = 4_102_444_800
TICKET_SECRET = "a secret of tickets that is long enough for them"

ED = ed25519.Ed25519PrivateKey.from_private_bytes(b"a key that guards nothing at all")
STRANGERS = ed25519.Ed25519PrivateKey.from_private_bytes(b"a key that nobody trusts, either")
P256 = ec.derive_private_key(0x51DECA57, ec.SECP256R1())


def sign(payload: dict[str, Any], header: dict[str, Any] | None = None, key: Any = ED) -> str:
    """Sign claims; always the same bytes, because Ed25519 has no randomness (RFC 8032)."""
    return jwt.encode(payload, key, "EdDSA", headers={"kid": "ed", **(header or {})})


def claims(**changed: Any) -> dict[str, Any]:
    """Give claims of alice's, with changes."""
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": END_S, **changed}


def _ticket(*tasks: str, tenant: str | None = None, expires_at_s: float = END_S) -> str:
    key = derived_keys(PURPOSE, TICKET_SECRET)[0]
    keys = [TaskKey(tenant or "", "agent", task) for task in tasks]
    return make_ticket(Principal("alice", "jwt", tenant, ends_at_s=END_S), keys, expires_at_s, key)


TOKENS = {
    "alice": sign(claims()),
    "bob": sign(claims(sub="bob")),
    "carol": sign(claims(sub="carol", sidecast_grants=["_/agent/task-of-b*"])),
    "publisher": sign(claims(sub="publisher", tenant=ACME, sidecast_rights=["publish"])),
    "operator": sign(claims(sub="operator", tenant=ACME, sidecast_rights=["admin", "publish"])),
    "stranger": sign(claims(), key=STRANGERS),
    "expired": sign(claims(exp=1)),
}
"""Who has a right has it in the tenant acme only: nothing that is asked with it concerns any other."""

API_KEYS = {"alice": "sidecast_" + "k3y" * 14, "bob": "sidecast_" + "b0b" * 14}
TICKETS = {
    "alices": _ticket(ALICES),
    "two": _ticket(ALICES, OPEN),
    "another": _ticket(BOBS),
    "acme": _ticket(ALICES, tenant=ACME),
    "expired": _ticket(ALICES, expires_at_s=1),
}

OPEN_ALICES = (TOKENS["alice"], API_KEYS["alice"], *TICKETS.values())
"""What may show a task of alice's; nothing else does."""

WATCHER = sign(claims(sub="watcher"))
ROOT = sign(claims(sub="root", sidecast_rights=["admin"]))
"""Of those who look on; no input holds either."""


def settings(folder: Path) -> dict[str, object]:
    """Write the files of keys; give the settings of a broker that takes all of these credentials."""
    algorithms = {"ed": ("EdDSA", ED), "p256": ("ES256", P256)}
    keys = []
    for kid, (name, key) in algorithms.items():
        keys.append({**jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True), "kid": kid})
    (folder / "keys.json").write_text(json.dumps({"keys": keys}))
    (folder / "keys.toml").write_text(
        "".join(
            f'[[key]]\nid = "{name}"\nsha256 = "{hash_key(text)}"\nprincipal = "{name}"\n'
            for name, text in API_KEYS.items()
        )
    )
    return {
        "auth__jwt_issuer": ISSUER,
        "auth__jwt_audience": AUDIENCE,
        "auth__jwt_jwks_file": folder / "keys.json",
        "auth__api_keys_file": folder / "keys.toml",
        "auth__ticket_secret": TICKET_SECRET,
    }
