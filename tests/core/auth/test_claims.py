from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecast_broker.core.auth.claims import Accepted, InvalidCredential, principal_of
from sidecast_broker.core.auth.principal import Grant, Principal

NOW_S = 1_800_000_000
ACCEPTED = Accepted("issuer", frozenset({"us", "them"}), leeway_s=30)
VALID = {"iss": "issuer", "aud": "us", "sub": "alice", "exp": NOW_S + 60}


def named(leeway_s: float = 30, **claims: Any) -> Principal:
    return principal_of({**VALID, **claims}, replace(ACCEPTED, leeway_s=leeway_s), NOW_S)


def test_all_claims() -> None:
    principal = named(
        tenant="acme",
        sidecast_grants=["acme/planner/*"],
        sidecast_rights=["publish", "fly"],
        jti="id-1",
        iat=NOW_S - 60.5,
        nbf=NOW_S,
        scope="admin",
    )
    assert principal == Principal(
        "alice",
        "jwt",
        "acme",
        (Grant("acme", "planner", None),),
        frozenset({"publish"}),
        ends_at_s=NOW_S + 90,
        credential_id="id-1",
        issued_at_s=NOW_S - 60.5,
    )


@pytest.mark.parametrize(("iat", "issued_at_s"), [(0, 0), (NOW_S + 30, NOW_S + 30), (NOW_S + 31, None)])
def test_a_token_was_not_issued_in_the_future(iat: float, issued_at_s: float | None) -> None:
    assert named(iat=iat).issued_at_s == issued_at_s


def test_the_least_claims() -> None:
    assert named() == Principal("alice", "jwt", ends_at_s=NOW_S + 90, credential_id="")
    assert named(tenant=None, sidecast_grants=None, sidecast_rights=None, jti=None, nbf=None) == named()


def test_other_names() -> None:
    accepted = Accepted("issuer", frozenset({"us"}), 0, "https://example/user", "org", "watch", "scope")
    claims = {
        "sub": "x",
        "https://example/user": "bob",
        "org": "acme",
        "watch": ["*/*/*"],
        "scope": ["admin"],
    }
    principal = principal_of({**VALID, **claims}, accepted, NOW_S)
    assert (principal.name, principal.tenant, principal.rights) == ("bob", "acme", frozenset({"admin"}))
    assert principal.grants == (Grant(None, None, None),)


@pytest.mark.parametrize("audience", ["us", ["us"], ["others", "them"], ["us", "them"]])
def test_one_audience_is_enough(audience: Any) -> None:
    assert named(aud=audience).name == "alice"


@pytest.mark.parametrize("claims", [None, [], "alice", 7, {}, [VALID]])
def test_what_is_no_object_of_claims(claims: Any) -> None:
    with pytest.raises(InvalidCredential):
        principal_of(claims, ACCEPTED, NOW_S)


@pytest.mark.parametrize("tenant", ["", "_"])
def test_the_tenant_without_a_name_bounds_too(tenant: str) -> None:
    assert named(tenant=tenant).tenant == ""


@pytest.mark.parametrize(
    ("leeway_s", "exp", "nbf", "valid"),
    [
        (0, 1, 0, True),
        (0, 0.001, None, True),
        (0, 0, None, False),
        (0, -1, None, False),
        (0, 10, 0.001, False),
        (30, -29.9, None, True),
        (30, -30, None, False),
        (30, 10, 30, True),
        (30, 10, 30.1, False),
        (120, -119, 120, True),
    ],
)
def test_times_and_how_far_clocks_may_differ(
    leeway_s: float, exp: float, nbf: float | None, valid: bool
) -> None:
    claims = {"exp": NOW_S + exp} | ({} if nbf is None else {"nbf": NOW_S + nbf})
    if valid:
        assert named(leeway_s, **claims).ends_at_s == NOW_S + exp + leeway_s
        return
    with pytest.raises(InvalidCredential) as refused:
        named(leeway_s, **claims)
    assert refused.value.expired is (nbf is None)


@pytest.mark.parametrize(
    "claims",
    [
        *({"iss": value} for value in (None, "", "Issuer", "issuer ", ["issuer"], {"issuer": 1}, 7, True)),
        *(
            {"aud": value}
            for value in (None, "", "u", "us ", [], ["u", "s"], [["us"]], ["us", 7], {"us": 1}, 7)
        ),
        *({"exp": value} for value in (None, True, "1800000060", [], {}, -1, 1e300, 2**4000)),
        *({"exp": float(value)} for value in ("inf", "nan", "-inf")),
        *({"nbf": value} for value in (False, "0", [], -1, float("nan"))),
        *({"sub": value} for value in (None, "", 7, ["alice"], {"a": 1}, "x" * 257, "\u00fc" * 129, "a\nb")),
        *({"sub": f"a{control}"} for control in ("\0", "\x1f", "\x7f", "\x85", "\r\n", "\ud800")),
        *({"tenant": value} for value in (7, [], ["acme"], False, {}, "x" * 257, "a\0", "\udfff")),
        *({"sidecast_grants": value} for value in ("*/*/*", {}, 7, [7], [None], ["*/*/*", []], ["*"], [""])),
        *({"sidecast_rights": value} for value in ("admin", {"admin": True}, True, [["admin"]], [None])),
        *({"jti": value} for value in (7, [], "", "x" * 257, "a\x00b")),
    ],
    ids=repr,
)
def test_claims_of_the_wrong_type_name_nobody(claims: dict[str, Any]) -> None:
    with pytest.raises(InvalidCredential):
        named(**claims)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
claim_names = st.sampled_from(["sub", "exp", "nbf", "jti", "tenant", "sidecast_grants", "sidecast_rights"])


@given(st.dictionaries(claim_names, json_values))
def test_any_claims_name_somebody_well_or_nobody(claims: dict[str, Any]) -> None:
    try:
        principal = named(**claims)
    except InvalidCredential:
        return
    assert 0 < len(principal.name.encode()) <= 256
    assert principal.ends_at_s is not None
    assert principal.ends_at_s > NOW_S
    assert principal.tenant is None or principal.tenant == "" or principal.tenant == claims["tenant"]
    assert (principal.tenant is None) is (claims.get("tenant") is None)
