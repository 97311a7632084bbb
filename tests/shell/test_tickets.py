from __future__ import annotations

import pytest

from sidecast_broker.auth.derived import derived_keys
from sidecast_broker.auth.page_tokens import PageTokens
from sidecast_broker.auth.tickets import PURPOSE, Tickets
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.settings import Auth
from sidecast_schemas.subjects import TaskKey

SECRET, NEXT = "s" * 32, "n" * 32
NOW_S = 1_800_000_000.0
TASK = TaskKey("", "agent", "task-1")
ALICE = Principal("alice", "jwt")


def tickets(secret: str = "", previous: str = "", ttl_s_max: int = 300) -> Tickets:
    return Tickets(Auth(ticket_secret=secret, ticket_secret_previous=previous, ticket_ttl_s_max=ttl_s_max))


def opens(reader: Tickets, text: str, now_s: float = NOW_S) -> bool:
    return reader.ticket(text, now_s) is not None


def test_replicas_share_tickets_by_their_secret() -> None:
    text = tickets(SECRET).make(ALICE, [TASK], NOW_S).text
    assert tickets(SECRET).ticket(text, NOW_S) == Principal("alice", "ticket", tasks=frozenset({TASK}))
    assert not opens(tickets(NEXT), text)


def test_without_a_secret_tickets_are_good_at_one_process() -> None:
    mine = tickets()
    text = mine.make(ALICE, [TASK], NOW_S).text
    assert opens(mine, text)
    assert not opens(tickets(), text)


def test_a_secret_is_rotated_without_a_ticket_lost() -> None:
    old, both, new = tickets(SECRET), tickets(NEXT, SECRET), tickets(NEXT)
    before, after = old.make(ALICE, [TASK], NOW_S).text, both.make(ALICE, [TASK], NOW_S).text
    assert [opens(each, before) for each in (old, both, new)] == [True, True, False]
    assert [opens(each, after) for each in (old, both, new)] == [False, True, True]


@pytest.mark.parametrize(
    ("ttl_s", "ends_in_s", "expires_in_s"),
    [(None, None, 300), (60, None, 60), (3600, None, 300), (1e300, None, 300), (1.9, None, 1),
     (None, 100.5, 100), (60, 100, 60), (200, 100, 100), (None, 0.2, 1)],
)  # fmt: skip
def test_a_ticket_opens_as_long_as_it_may(
    ttl_s: float | None, ends_in_s: float | None, expires_in_s: int
) -> None:
    holder = Principal("alice", "jwt", ends_at_s=None if ends_in_s is None else NOW_S + ends_in_s)
    it = tickets(SECRET)
    made = it.make(holder, [TASK], NOW_S, ttl_s)
    assert made.expires_in_s == expires_in_s
    last_s = min(expires_in_s, ends_in_s or expires_in_s)
    assert opens(it, made.text, NOW_S + last_s - 0.01)
    assert not opens(it, made.text, NOW_S + last_s)


def test_keys_of_different_purposes_have_nothing_in_common() -> None:
    assert derived_keys(PURPOSE, SECRET) == derived_keys(PURPOSE, SECRET)
    assert derived_keys(PURPOSE, SECRET) != derived_keys("sidecast page tokens", SECRET)
    assert derived_keys(PURPOSE) != derived_keys(PURPOSE)
    assert SECRET.encode() not in derived_keys(PURPOSE, SECRET)
    assert derived_keys(PURPOSE, NEXT, SECRET) == derived_keys(PURPOSE, NEXT) + derived_keys(PURPOSE, SECRET)


def test_page_tokens_are_opened_while_their_secret_is_rotated() -> None:
    sealed = PageTokens(SECRET).seal("alice", "t")
    assert PageTokens(NEXT, SECRET).open("alice", sealed) == "t"
    assert PageTokens(SECRET).open("alice", PageTokens(SECRET, NEXT).seal("alice", "t")) == "t"
    assert not opens(tickets(SECRET), sealed)
