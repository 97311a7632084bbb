from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from issuer import (
    AUDIENCE,
    ISSUER,
    NOW_S,
    SECRET,
    WORKERS,
    Clock,
    auth_settings,
    claims,
    jwk,
    jwks,
    private_key,
    raw_token,
    token,
)

from sidecast_broker.auth import tokens as tokens_module
from sidecast_broker.auth.key_set import KeySet, parse_key_set
from sidecast_broker.auth.keys import FileKeys
from sidecast_broker.auth.tokens import TOKEN_BYTES_MAX, Tokens
from sidecast_broker.core.auth.claims import InvalidCredential
from sidecast_broker.core.auth.principal import Grant
from sidecast_broker.settings import ALGORITHMS


class FixedKeys:
    """Keys that a test exchanges; what is asked for is kept."""

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys
        self.asked: list[tuple[str | None, str]] = []
        self.changes = 0

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def generation(self) -> int:
        return self.changes

    async def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        self.asked.append((key_id, algorithm))
        return self.keys.find(key_id, algorithm)


KEYS = ("rsa", "p256", "p384", "p521", "ed", jwk("rsa-ps", alg="PS256"))


def fixed(*keys: str | dict[str, Any]) -> FixedKeys:
    return FixedKeys(parse_key_set(jwks(*(keys or KEYS)), ALGORITHMS))


def verifier(keys: FixedKeys | None = None, clock: Clock | None = None, **settings: Any) -> Tokens:
    given = auth_settings(**{"jwt_jwks_file": "/unused", **settings})
    return Tokens(given, keys=keys or fixed(), clock=clock or Clock())


async def refusal(tokens: Tokens, text: str) -> InvalidCredential:
    """Give why a token is refused, the same at the second sight as at the first."""
    reasons = []
    for _ in range(2):
        with pytest.raises(InvalidCredential) as refused:
            await tokens.principal(text)
        reasons.append(refused.value)
    assert str(reasons[0]) == str(reasons[1])
    return reasons[0]


# --- what is valid


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        *(("rsa", name) for name in ALGORITHMS if name[0] in "RP"),
        *((kind, WORKERS[kind]) for kind in ("p256", "p384", "p521", "ed")),
        ("rsa-ps", "PS256"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
async def test_every_algorithm(kind: str, algorithm: str, named: bool) -> None:
    text = token(kind, algorithm, headers=None if named else {})
    principal = await verifier().principal(text)
    assert (principal.name, principal.scheme, principal.ends_at_s) == ("alice", "jwt", NOW_S + 630)
    assert await verifier().principal(text) == principal


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_shared_secret(algorithm: str) -> None:
    tokens = Tokens(auth_settings(jwt_secret=SECRET), clock=Clock())
    text = jwt.encode(claims(), SECRET, algorithm, headers={"kid": "any"})
    assert (await tokens.principal(text)).name == "alice"
    other = jwt.encode(claims(), SECRET[::-1], algorithm)
    assert "no key" in str(await refusal(tokens, other))
    assert "no key" in str(await refusal(tokens, token("rsa")))


async def test_claims_say_who_it_is() -> None:
    text = token(
        tenant="acme",
        sidecast_grants=["acme/*/*"],
        sidecast_rights=["admin"],
        jti="id-1",
        aud=["x", AUDIENCE],
    )
    principal = await verifier().principal(text)
    assert (principal.tenant, principal.grants) == ("acme", (Grant("acme", None, None),))
    assert (principal.rights, principal.credential_id) == (frozenset({"admin"}), "id-1")


async def test_a_token_without_an_id_is_named_by_what_is_signed() -> None:
    """Not by its signature, which whoever holds an ECDSA token can write in a second way."""
    text = token("p256")
    signed, _dot, signature = text.rpartition(".")
    raw = jwt.utils.base64url_decode(signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    s = order - int.from_bytes(raw[32:], "big")
    other = f"{signed}.{jwt.utils.base64url_encode(raw[:32] + s.to_bytes(32, 'big')).decode()}"
    assert other != text
    first, second = await verifier().principal(text), await verifier().principal(other)
    assert first.credential_id == second.credential_id == hashlib.sha256(signed.encode()).hexdigest()


async def test_the_first_of_several_audiences_is_not_the_only_one() -> None:
    tokens = verifier(jwt_audience="one, two")
    assert (await tokens.principal(token(aud="two"))).name == "alice"
    await refusal(tokens, token(aud="one, two"))


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+jwt", ""])
async def test_any_type_is_taken(typ: str) -> None:
    assert (await verifier().principal(token(headers={"kid": "rsa", "typ": typ}))).name == "alice"


# --- attacks


def hmac_token(secret: bytes, name: str = "HS256") -> str:
    unsigned = raw_token({"alg": name, "kid": "rsa"}, claims()).rpartition(".")[0]
    digest = hmac.new(secret, unsigned.encode(), name.replace("HS", "sha")).digest()
    return f"{unsigned}.{jwt.utils.base64url_encode(digest).decode()}"


def public_bytes(encoding: Encoding, form: PublicFormat) -> bytes:
    content: bytes = private_key("rsa").public_key().public_bytes(encoding, form)
    return content


PEM = public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PUBLIC_FORMS = {
    "pem": PEM,
    "pem without newline": PEM.strip(),
    "pkcs1": public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "der": public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "jwk": json.dumps(jwk("rsa")).encode(),
    "n": jwk("rsa")["n"].encode(),
    "nothing": b"",
}


@pytest.mark.parametrize("form", PUBLIC_FORMS)
@pytest.mark.parametrize("name", ["HS256", "HS512"])
async def test_a_public_key_is_no_secret(form: str, name: str) -> None:
    assert "no key" in str(await refusal(verifier(), hmac_token(PUBLIC_FORMS[form], name)))


def unsigned_variants() -> dict[str, str]:
    header, payload = {"alg": "none", "kid": "rsa"}, claims()
    valid = token()
    first, second, third = valid.split(".")
    return {
        **{
            f"alg {name}": raw_token({**header, "alg": name}, payload)
            for name in ("none", "None", "nOnE", "", "NONE")
        },
        "none, empty signature": raw_token(header, payload, b""),
        "none, two parts": raw_token(header, payload).rpartition(".")[0],
        "none over a valid signature": f"{raw_token(header, payload).partition('.')[0]}.{second}.{third}",
        "no alg": raw_token({"kid": "rsa"}, payload),
        "alg is a list": raw_token({"alg": ["RS256"], "kid": "rsa"}, payload),
        "alg is null": raw_token({"alg": None, "kid": "rsa"}, payload),
        "alg in lower case": raw_token({"alg": "rs256", "kid": "rsa"}, payload),
        "the signature taken off": f"{first}.{second}.",
        "the signature of another": f"{first}.{second}.{token(sub='bob').split('.')[2]}",
        "the payload of another": f"{first}.{token(sub='bob').split('.')[1]}.{third}",
        "the header of another": f"{token('rsa', 'RS384').split('.')[0]}.{second}.{third}",
        "a changed bit": valid[:-5] + ("A" if valid[-5] != "A" else "B") + valid[-4:],
        "a signature of nothing": raw_token({"alg": "ES256", "kid": "p256"}, payload, b"\0" * 64),
        "a signature in DER": raw_token(
            {"alg": "ES256", "kid": "p256"}, payload, bytes.fromhex("3006020100020100")
        ),
    }


@pytest.mark.parametrize("variant", unsigned_variants())
async def test_what_nobody_signed(variant: str) -> None:
    await refusal(verifier(), unsigned_variants()[variant])


SIGNED_BY_OTHERS: dict[str, Callable[[], str]] = {
    "another key of that id": lambda: token("rsa-other", headers={"kid": "rsa"}),
    "another key of that id, curve": lambda: token("p256-other", headers={"kid": "p256"}),
    "another key of no id": lambda: token("rsa-other", headers={}),
    "a known key under the id of another": lambda: token("rsa", headers={"kid": "rsa-ps"}),
    "ES256 under the id of an RSA key": lambda: token("p256", headers={"kid": "rsa"}),
    "RS256 under the id of a curve's key": lambda: token("rsa", headers={"kid": "p256"}),
    "ES384 under the id of an ES256 key": lambda: token("p384", headers={"kid": "p256"}),
    "EdDSA under the id of a curve's key": lambda: token("ed", headers={"kid": "p256"}),
    "RS256 with a key for PS256": lambda: token("rsa-ps", "RS256"),
    "PS384 with a key for PS256": lambda: token("rsa-ps", "PS384"),
    "an unknown id": lambda: token("rsa", headers={"kid": "nobody"}),
    "the id in capitals": lambda: token("rsa", headers={"kid": "RSA"}),
}


@pytest.mark.parametrize("case", SIGNED_BY_OTHERS)
async def test_keys_are_not_taken_for_one_another(case: str) -> None:
    assert "no key" in str(await refusal(verifier(), SIGNED_BY_OTHERS[case]()))


async def test_two_keys_of_one_id_keep_their_algorithms() -> None:
    keys = fixed(jwk("rsa", kid="k", alg="RS256"), jwk("p256", kid="k"))
    for kind, algorithm in (("rsa", "RS256"), ("p256", "ES256")):
        assert (await verifier(keys).principal(token(kind, algorithm, headers={"kid": "k"}))).name == "alice"
    for kind, algorithm in (("rsa", "PS256"), ("rsa-other", "RS256"), ("p256-other", "ES256")):
        await refusal(verifier(keys), token(kind, algorithm, headers={"kid": "k"}))
    await refusal(verifier(keys), hmac_token(PEM))


@pytest.mark.parametrize(
    "headers",
    [
        {"jku": "https://evil.example/keys"},
        {"jwk": jwk("rsa-other")},
        {"x5u": "https://evil.example/cert"},
        {"x5c": [base64.b64encode(PEM).decode()]},
        {"x5t": "AAAA", "x5t#S256": "AAAA"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_keys_that_a_token_brings_are_ignored(headers: dict[str, Any]) -> None:
    keys = fixed()
    tokens = verifier(keys)
    await refusal(tokens, token("rsa-other", headers={**headers, "kid": "rsa"}))
    await refusal(tokens, token("rsa-other", headers={**headers, "kid": "rsa-other"}))
    await refusal(tokens, token("rsa-other", headers=headers))
    assert (await tokens.principal(token("rsa", headers={**headers, "kid": "rsa"}))).name == "alice"
    assert {algorithm for _kid, algorithm in keys.asked} == {"RS256"}


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], "exp", None, [7], {}, ["b64", "exp"]], ids=repr)
async def test_crit_is_refused(crit: Any) -> None:
    text = token(headers={"kid": "rsa", "crit": crit, "exp": 1})
    assert "crit" in str(await refusal(verifier(), text))


async def test_a_payload_that_is_not_in_the_token_is_refused() -> None:
    signed = jwt.PyJWS().encode(
        json.dumps(claims()).encode(), private_key("rsa"), "RS256", {"b64": False, "kid": "rsa"}
    )
    await refusal(verifier(), signed)
    first, _empty, third = signed.split(".")
    await refusal(verifier(), f"{first}.{token().split('.')[1]}.{third}")


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/etc/passwd",
        "rsa/../rsa",
        "rsa\0",
        "rsa\n",
        " rsa",
        "\x1b[31m",
        "' OR '1'='1",
        "file:///dev/null",
        "rsa\u202e",
        "",
        "x" * 257,
    ],
    ids=repr,
)
async def test_ids_of_keys_are_looked_up_and_nothing_else(kid: str) -> None:
    await refusal(verifier(), token(headers={"kid": kid}))
    await refusal(verifier(), token("rsa-other", headers={"kid": kid}))


@pytest.mark.parametrize("kid", [None, 7, ["rsa"], {"kid": "rsa"}, True, 1.5], ids=repr)
async def test_ids_of_keys_of_the_wrong_type(kid: Any) -> None:
    unsigned = raw_token({"alg": "RS256", "kid": kid}, claims()).rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("RS256").sign(unsigned.encode(), private_key("rsa"))
    await refusal(verifier(), f"{unsigned}.{jwt.utils.base64url_encode(signature).decode()}")


async def test_an_id_of_a_key_of_ten_kilobytes_asks_for_no_key() -> None:
    keys = fixed()
    assert "too long" in str(await refusal(verifier(keys), token(headers={"kid": "x" * 10_240})))
    assert keys.asked == []


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://evil.example"},
        {"iss": ISSUER + "/"},
        {"iss": ISSUER.upper()},
        {"iss": None},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": None},
        {"aud": []},
        {"aud": ""},
        {"aud": {"sidecast": 1}},
        {"aud": [AUDIENCE, 7]},
        {"aud": AUDIENCE + " "},
        {"aud": AUDIENCE[:-1]},
        {"exp": None},
        {"exp": "1800000600"},
        {"exp": NOW_S - 30},
        {"exp": True},
        {"exp": [NOW_S + 600]},
        {"nbf": NOW_S + 31},
        {"nbf": "0"},
        {"sub": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a\r\nX-Admin: 1"},
        {"sub": "x" * 257},
        {"tenant": ["acme"]},
        {"tenant": 7},
        {"sidecast_grants": "*/*/*"},
        {"sidecast_grants": ["*"]},
        {"sidecast_rights": "admin"},
        {"jti": 7},
    ],
    ids=repr,
)
async def test_signed_and_yet_not_valid(changed: dict[str, Any]) -> None:
    await refusal(verifier(), token(**changed))


@pytest.mark.parametrize("issuer", [7, [ISSUER], {"a": ISSUER}, True], ids=repr)
async def test_issuers_of_the_wrong_type(issuer: Any) -> None:
    unsigned = raw_token({"alg": "RS256", "kid": "rsa"}, {**claims(), "iss": issuer}).rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("RS256").sign(unsigned.encode(), private_key("rsa"))
    await refusal(verifier(), f"{unsigned}.{jwt.utils.base64url_encode(signature).decode()}")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"7",
        b'"alice"',
        b"{",
        b"\xff",
        b"[" * 10_000,
        b'{"exp":' + b"9" * 5000 + b"}",
        json.dumps({**claims(), "exp": float("inf")}).encode(),
        json.dumps({**claims(), "exp": float("nan")}).encode(),
    ],
    ids=lambda payload: repr(payload[:20]),
)
async def test_signed_payloads_that_are_no_claims(payload: bytes) -> None:
    await refusal(verifier(), jwt.PyJWS().encode(payload, private_key("rsa"), "RS256", {"kid": "rsa"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "e30.e30.e30",
        "....",
        "\ud800.a.b",
        "\0.\0.\0",
        "x" * (TOKEN_BYTES_MAX + 1),
        "W1tb" * 2000 + ".e30.e30",
        raw_token(b"[" * 8000, {}),
        raw_token([], {}),
        raw_token(b"\xff", {}),
        raw_token(b"null", {}),
        raw_token({"alg": "RS256", "kid": "rsa"}, {}, b""),
    ],
    ids=lambda text: repr(text[:20]),
)
async def test_what_is_no_token(text: str) -> None:
    await refusal(verifier(), text)


@pytest.mark.parametrize(
    "respell", [lambda t: t + "=", lambda t: t + "\n", lambda t: " " + t, lambda t: t + ".", str.lower]
)
async def test_a_token_has_one_spelling(respell: Callable[[str], str]) -> None:
    tokens = verifier()
    await tokens.principal(token())
    await refusal(tokens, respell(token()))


async def test_only_allowed_algorithms() -> None:
    tokens = verifier(jwt_algorithms="ES256")
    assert (await tokens.principal(token("p256"))).name == "alice"
    assert "algorithm" in str(await refusal(tokens, token("rsa")))


@given(st.text(), st.integers(0, 400))
async def test_any_change_of_a_token_is_noticed(replacement: str, position: int) -> None:
    text = VALID
    changed = text[:position] + replacement + text[position + 1 :]
    if changed != text:
        with pytest.raises(InvalidCredential):
            await TOKENS.principal(changed)


VALID = token("p256")
TOKENS = verifier()


async def test_no_reason_shows_a_part_of_the_token() -> None:
    for text in (token("rsa-other"), token(sub="a\0hunter2"), token(headers={"kid": "hunter2"}), VALID[:-3]):
        with pytest.raises(InvalidCredential) as refused:
            await verifier().principal(text)
        assert "hunter2" not in str(refused.value)
        assert not any(part in str(refused.value) for part in text.split("."))


# --- what is remembered


@pytest.mark.parametrize(
    ("leeway_s", "before_s"), [(0, 600), (30, 630), (120, 720)], ids=["no leeway", "default", "largest"]
)
async def test_a_token_is_valid_to_the_end_of_the_leeway(leeway_s: float, before_s: float) -> None:
    clock = Clock()
    tokens, fresh = (verifier(clock=clock, jwt_leeway_s=leeway_s) for _ in range(2))
    text = token()
    assert await tokens.principal(text)
    clock.now_s = NOW_S + before_s - 0.001
    assert await tokens.principal(text) == await verifier(clock=clock, jwt_leeway_s=leeway_s).principal(text)
    clock.now_s = NOW_S + before_s
    for each in (tokens, tokens, fresh):
        with pytest.raises(InvalidCredential) as refused:
            await each.principal(text)
        assert refused.value.expired


@pytest.mark.parametrize(("ahead_s", "valid"), [(0, True), (30, True), (30.5, False), (600, False)])
async def test_a_token_becomes_valid(ahead_s: float, valid: bool) -> None:
    clock = Clock()
    tokens, text = verifier(clock=clock), token(nbf=NOW_S + ahead_s, exp=NOW_S + 3600)
    if not valid:
        assert not (await refusal(tokens, text)).expired
        clock.now_s += ahead_s - 30
    assert (await tokens.principal(text)).name == "alice"


async def test_a_token_is_verified_once() -> None:
    keys = fixed()
    tokens, text = verifier(keys), token()
    for _ in range(3):
        assert (await tokens.principal(text)).name == "alice"
    assert len(keys.asked) == 1


async def test_a_token_whose_key_is_taken_out_is_refused(tmp_path: Path) -> None:
    path, monotonic = tmp_path / "jwks.json", Clock(0)
    path.write_bytes(jwks("rsa", "p256"))
    tokens = Tokens(
        auth_settings(jwt_jwks_file=str(path)),
        keys=FileKeys(str(path), ALGORITHMS, clock=monotonic),
        clock=Clock(),
    )
    await tokens.start()
    old, new = token("rsa"), token("p256")
    for text in (old, new):
        assert await tokens.principal(text)
    path.write_bytes(jwks("p256"))
    monotonic.now_s += 1
    await refusal(tokens, old)
    assert (await tokens.principal(new)).name == "alice"


async def test_what_is_remembered_is_bounded_and_the_longest_unused_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens_module, "VERIFIED_MAX", 2)
    keys = fixed()
    tokens = verifier(keys)
    first, second, third = (token("ed", sub=name) for name in "abc")
    for text in (first, second, first, third):
        await tokens.principal(text)
    assert len(keys.asked) == 3
    await tokens.principal(first)
    assert len(keys.asked) == 3
    await tokens.principal(second)
    assert len(keys.asked) == 4


# --- what it costs


def least_us(calls: list[Callable[[], object]], rounds: int, repeat: int) -> list[float]:
    """Measure calls in turn, so that they share the machine's moods, and give what each costs undisturbed."""
    costs: list[list[float]] = [[] for _ in calls]
    for _ in range(repeat):
        for call, spent in zip(calls, costs, strict=True):
            start = time.thread_time_ns()
            for _ in range(rounds):
                call()
            spent.append((time.thread_time_ns() - start) / rounds / 1000)
    return list(map(min, costs))


def step(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it waits")


def test_first_sight_costs_little_more_than_the_library_and_the_second_nearly_nothing() -> None:
    keys = fixed()
    text = token("rsa", exp=int(time.time()) + 3600, sidecast_grants=["acme/*/*"], tenant="acme")
    (key,) = keys.keys.find("rsa", "RS256")
    tokens = verifier(keys, jwt_leeway_s=0)
    tokens._clock = time.time

    def first_sight() -> None:
        tokens._verified.clear()
        assert step(tokens.principal(text)).name == "alice"

    def library() -> None:
        jwt.decode(text, key, algorithms=["RS256"], issuer=ISSUER, audience=[AUDIENCE])

    def again() -> None:
        step(tokens.principal(text))

    first_us, library_us = least_us([first_sight, library], rounds=5, repeat=200)
    (again_us,) = least_us([again], rounds=100, repeat=50)
    print(f"first {first_us:.1f} us, library {library_us:.1f} us, remembered {again_us:.1f} us")
    assert first_us <= 1.3 * library_us
    assert again_us <= 20
