from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.auth.principal import ANYBODY, Principal
from sidecast_broker.core.auth.revocation import (
    FORGET_S,
    Kind,
    Revocation,
    Revoked,
    Unreadable,
    decode_revocation,
    encode_revocation,
)
from sidecast_schemas.subjects import TaskKey

NOW_S = 1_800_000_000.0
DAY_S = 86400

ALICE = Principal("alice", "jwt", credential_id="t-1")
IN_ACME = Principal("alice", "jwt", "acme", credential_id="t-1")
IN_NONE = Principal("alice", "jwt", "", credential_id="t-1")
TASK = TaskKey("acme", "planner", "task-1")


def revoked(kind: Kind, value: str, tenant: str | None = None, agent: str = "") -> Revoked:
    found = Revoked(DAY_S)
    found.add(Revocation(kind, value, NOW_S, tenant, agent))
    return found


@pytest.mark.parametrize(
    ("principal", "kind", "value", "tenant", "wanted"),
    [
        (ALICE, "token_id", "t-1", None, True),
        (ALICE, "token_id", "t-2", None, False),
        (ALICE, "token_id", "alice", None, False),
        (ALICE, "token_id", "t-1", "acme", False),
        (IN_ACME, "token_id", "t-1", None, True),
        (IN_ACME, "token_id", "t-1", "acme", True),
        (IN_ACME, "token_id", "t-1", "other", False),
        (ALICE, "principal", "alice", None, True),
        (ALICE, "principal", "Alice", None, False),
        (ALICE, "principal", "t-1", None, False),
        (ALICE, "principal", "alice", "acme", False),
        (IN_ACME, "principal", "alice", None, True),
        (IN_ACME, "principal", "alice", "acme", True),
        (IN_ACME, "principal", "alice", "other", False),
        (IN_ACME, "principal", "alice", "", False),
        (IN_NONE, "principal", "alice", "", True),
        (IN_NONE, "principal", "alice", "acme", False),
        (ALICE, "task", "alice", "acme", False),
    ],
)
def test_which_credentials_are_revoked(
    principal: Principal, kind: Kind, value: str, tenant: str | None, wanted: bool
) -> None:
    assert revoked(kind, value, tenant).covers_credential(principal) is wanted


@pytest.mark.parametrize(
    ("issued_at_s", "wanted"), [(None, True), (NOW_S - 1, True), (NOW_S, True), (NOW_S + 1, False)]
)
def test_a_credential_that_was_issued_later_is_another_matter(
    issued_at_s: float | None, wanted: bool
) -> None:
    principal = Principal("alice", "jwt", credential_id="t-1", issued_at_s=issued_at_s)
    assert revoked("principal", "alice").covers_credential(principal) is wanted
    assert revoked("principal", "alice", "acme").covers_task(principal, TASK) is wanted
    assert revoked("token_id", "t-1").covers_credential(principal)


@pytest.mark.parametrize(
    ("principal", "kind", "value", "tenant", "agent", "wanted"),
    [
        (ALICE, "task", "task-1", "acme", "planner", True),
        (ANYBODY, "task", "task-1", "acme", "planner", True),
        (ALICE, "task", "task-1", "", "planner", False),
        (ALICE, "task", "task-1", "acme", "agent", False),
        (ALICE, "task", "task-2", "acme", "planner", False),
        # Who isn't bound to a tenant is nobody in the one they were revoked in.
        (ALICE, "principal", "alice", "acme", "", True),
        (ALICE, "principal", "alice", "other", "", False),
        (ALICE, "token_id", "t-1", "acme", "", True),
        (IN_ACME, "principal", "alice", "acme", "", False),
        (ANYBODY, "principal", "", "acme", "", False),
    ],
)
def test_which_tasks_are_revoked(
    principal: Principal, kind: Kind, value: str, tenant: str, agent: str, wanted: bool
) -> None:
    assert revoked(kind, value, tenant, agent).covers_task(principal, TASK) is wanted


def test_nothing_is_revoked_at_first() -> None:
    nothing = Revoked(DAY_S)
    assert (len(nothing), nothing.generation) == (0, 0)
    assert not nothing.covers_credential(Principal("", "jwt"))
    assert not nothing.covers_task(ALICE, TASK)


def test_a_credential_without_an_id_is_not_revoked_by_another() -> None:
    assert not revoked("token_id", "t-1").covers_credential(Principal("alice", "jwt"))


def test_the_newest_of_the_same_name_counts() -> None:
    found = Revoked(DAY_S)
    for at_s, generation in ((NOW_S, 1), (NOW_S + 9, 2), (NOW_S + 5, 2), (NOW_S + 9, 2)):
        found.add(Revocation("principal", "alice", at_s, reason=str(at_s)))
        assert (len(found), found.generation) == (1, generation)
    assert found.covers_credential(Principal("alice", "jwt", issued_at_s=NOW_S + 7))


def test_one_is_lifted_by_its_key() -> None:
    found = revoked("principal", "alice")
    found.lift("unknown")
    assert len(found) == 1
    found.lift(Revocation("principal", "alice", 0).key)
    assert (len(found), found.covers_credential(ALICE)) == (0, False)


def test_what_is_too_old_is_forgotten() -> None:
    found = revoked("principal", "alice")
    found.add(Revocation("principal", "bob", NOW_S + 100))
    found.forget(NOW_S + DAY_S - 1)
    assert len(found) == 2
    found.forget(NOW_S + DAY_S + FORGET_S)
    assert [found.covers_credential(Principal(name, "jwt")) for name in ("alice", "bob")] == [False, True]


@given(
    st.lists(
        st.builds(
            Revocation,
            st.sampled_from(["token_id", "principal", "task"]),
            st.text(max_size=3),
            st.floats(0, 2**40),
            st.none() | st.text(max_size=3),
            st.text(max_size=3),
            st.text(max_size=3),
        ),
        max_size=8,
    )
)
def test_keys_are_names_and_nothing_is_lost_on_the_way(revocations: list[Revocation]) -> None:
    assert len({each.key for each in revocations}) == len({each.name for each in revocations})
    for each in revocations:
        assert decode_revocation(encode_revocation(each)) == each
        assert each.key.isalnum()
        assert len(each.key) == 40


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"kind":"principal","value":"alice"}',
        b'{"kind":"everything","value":"x","at_s":1}',
        b'{"kind":"principal","value":7,"at_s":1}',
        b'{"kind":"principal","value":"alice","at_s":"1"}',
        b'{"kind":"principal","value":"alice","at_s":NaN}',
        b'{"kind":"principal","value":"alice","at_s":1,"tenant":0}',
        b"[" * 100_000,
    ],
    ids=lambda value: repr(value[:40]),
)
def test_what_is_no_revocation(value: bytes) -> None:
    with pytest.raises(Unreadable):
        decode_revocation(value)


def test_what_later_versions_add_is_no_hindrance() -> None:
    assert decode_revocation(b'{"kind":"task","value":"x","at_s":1,"more":[]}') == Revocation("task", "x", 1)
