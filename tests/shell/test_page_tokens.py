from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.auth.page_tokens import InvalidPageToken, PageTokens

TOKENS = PageTokens()


@given(st.text(max_size=300), st.text(max_size=20))
def test_a_token_comes_back_and_shows_nothing(token: str, principal: str) -> None:
    sealed = TOKENS.seal(principal, token)
    assert TOKENS.open(principal, sealed) == token
    if len(token) > 3:
        assert token not in sealed


def test_two_sealed_tokens_never_look_alike() -> None:
    assert TOKENS.seal("alice", "task-9") != TOKENS.seal("alice", "task-9")


def test_nobody_opens_the_token_of_another() -> None:
    with pytest.raises(InvalidPageToken):
        TOKENS.open("bob", TOKENS.seal("alice", "t"))


def test_replicas_share_tokens_by_their_secret() -> None:
    sealed = PageTokens("one secret").seal("alice", "t")
    assert PageTokens("one secret").open("alice", sealed) == "t"
    with pytest.raises(InvalidPageToken):
        PageTokens("another").open("alice", sealed)
    with pytest.raises(InvalidPageToken):
        PageTokens().open("alice", sealed)


@pytest.mark.parametrize(
    "sealed", ["x", "dGFzay0x", "A" * 100, "é", "\ud800", "=", "A" * 100_000, "a b", "\0"]
)
def test_what_was_not_sealed_is_refused(sealed: str) -> None:
    with pytest.raises(InvalidPageToken):
        TOKENS.open("alice", sealed)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_token_is_refused(place: int, change: int) -> None:
    sealed = bytearray(TOKENS.seal("alice", "a token of some length"), "ascii")
    place %= len(sealed)
    before = sealed[place]
    sealed[place] = b"ABCDEFGH"[change % 8]
    if sealed[place] != before and place < len(sealed) - 1:  # the last character's low bits say nothing
        with pytest.raises(InvalidPageToken):
            TOKENS.open("alice", sealed.decode())
