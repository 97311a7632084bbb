from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from issuer import Clock

from sidecast_broker.auth.api_keys import KEY_CHARS_MAX, ApiKeys, hash_key, make_key, parse_keys
from sidecast_broker.core.auth.claims import InvalidCredential
from sidecast_broker.core.auth.principal import Grant, Principal

KEY = "sidecast_" + "k3y" * 14
ENTRY = f'[[key]]\nid = "one"\nsha256 = "{hash_key(KEY)}"\nprincipal = "alice"\n'


def keys(path: Path, content: str, clock: Clock | None = None, monotonic: Clock | None = None) -> ApiKeys:
    path.write_text(content)
    found = ApiKeys(str(path), clock=clock or Clock(), monotonic=monotonic or Clock())
    found.start()
    return found


def test_a_key_names_its_holder(tmp_path: Path) -> None:
    content = ENTRY + 'tenant = "acme"\ngrants = ["acme/*/*"]\nrights = ["publish"]\n'
    content += "issued = 2026-06-01T00:00:00Z\nexpires = 2027-06-01T00:00:00+02:00\n"
    assert keys(tmp_path / "keys", content).principal(KEY) == Principal(
        "alice",
        "api_key",
        "acme",
        (Grant("acme", None, None),),
        frozenset({"publish"}),
        ends_at_s=1811800800,
        credential_id="one",
        issued_at_s=1780272000,
    )


def test_the_least_entry(tmp_path: Path) -> None:
    assert keys(tmp_path / "keys", ENTRY).principal(KEY) == Principal("alice", "api_key", credential_id="one")


@pytest.mark.parametrize(
    "guess",
    [
        "",
        KEY[:-1],
        KEY[:20],
        KEY + "x",
        KEY.upper(),
        KEY + " ",
        KEY + "\n",
        hash_key(KEY),
        "sidecast_",
        "\ud800",
        "x" * (KEY_CHARS_MAX + 1),
        "x" * 10_000,
        "\0",
    ],
    ids=lambda guess: repr(guess[:20]),
)
def test_no_other_text_is_the_key(tmp_path: Path, guess: str) -> None:
    with pytest.raises(InvalidCredential):
        keys(tmp_path / "keys", ENTRY).principal(guess)


def test_an_empty_key_is_none_even_where_its_hash_is_known(tmp_path: Path) -> None:
    empty = ENTRY.replace(hash_key(KEY), hashlib.sha256(b"").hexdigest())
    with pytest.raises(InvalidCredential):
        keys(tmp_path / "keys", empty).principal("")


def test_a_key_ends(tmp_path: Path) -> None:
    clock = Clock(1811800800 - 0.001)
    found = keys(tmp_path / "keys", ENTRY + "expires = 2027-05-31T22:00:00Z\n", clock)
    assert found.principal(KEY).ends_at_s == 1811800800
    clock.now_s = 1811800800
    with pytest.raises(InvalidCredential) as refused:
        found.principal(KEY)
    assert refused.value.expired


def test_a_key_that_is_taken_out_is_refused_and_a_new_one_is_known(tmp_path: Path) -> None:
    monotonic = Clock(0)
    path = tmp_path / "keys"
    found = keys(path, ENTRY, monotonic=monotonic)
    other = make_key()
    path.write_text(ENTRY.replace(hash_key(KEY), hash_key(other)).replace("alice", "bob"))
    assert found.principal(KEY).name == "alice"
    monotonic.now_s += 1
    assert found.principal(other).name == "bob"
    with pytest.raises(InvalidCredential):
        found.principal(KEY)
    path.write_text("[[key]")
    monotonic.now_s += 1
    assert found.principal(other).name == "bob"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[[key]", "TOML|line"),
        ("\xff", "not a file of API keys"),
        ("key = 1", "key"),
        ("[[keys]]\nid = 'a'", "keys"),
        ("[[key]]\nid = 'a'", "sha256"),
        (ENTRY.replace(hash_key(KEY), hash_key(KEY).upper()), "sha256"),
        (ENTRY.replace(hash_key(KEY), hash_key(KEY)[:-1]), "sha256"),
        (ENTRY.replace(hash_key(KEY), KEY), "sha256"),
        (ENTRY + "right = ['admin']", "right"),
        (ENTRY + "rights = ['fly']", "rights"),
        (ENTRY + "rights = 'admin'", "rights"),
        (ENTRY + "grants = ['*']", "key 1: a grant is"),
        (ENTRY + "grants = '*/*/*'", "grants"),
        (ENTRY + "tenant = 7", "tenant"),
        (ENTRY + "expires = 2027-01-01", "expires"),
        (ENTRY + "expires = 2027-01-01T00:00:00", "expires"),
        (ENTRY + "expires = 'never'", "expires"),
        (ENTRY.replace("alice", ""), "key 1: the principal"),
        (ENTRY.replace("alice", "a\\u0000"), "key 1: the principal"),
        (ENTRY.replace('"one"', '""'), "key 1: the id"),
        (ENTRY + ENTRY, "key 2"),
        (ENTRY + ENTRY.replace("one", "two"), "key 2"),
        (ENTRY + ENTRY.replace(hash_key(KEY), "0" * 64), "key 2"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_and_no_key_shown(content: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        parse_keys(content.encode("latin-1"))
    assert KEY not in str(refused.value)


def test_a_file_may_hold_no_key() -> None:
    assert parse_keys(b"# none yet\n") == {}


def test_keys_that_are_made_differ_and_can_be_told_by_their_beginning() -> None:
    made = {make_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("sidecast_") and len(key) == 52 for key in made)
