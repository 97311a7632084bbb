from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.auth.decision import decide, in_any_tenant, tenant_within
from sidecast_broker.core.auth.principal import ANYBODY, Grant, Principal
from sidecast_schemas.subjects import TaskKey

KEY = TaskKey("acme", "planner", "task-1")

EVERYTHING = Grant(None, None, None)


def alice(**fields: Any) -> Principal:
    return Principal("alice", "jwt", **fields)


@pytest.mark.parametrize(
    ("claim", "named", "wanted"),
    [
        (None, "", "default"),
        (None, "acme", "acme"),
        ("acme", "", "acme"),
        ("acme", "acme", "acme"),
        ("acme", "other", None),
        ("acme", "default", None),
        ("", "", ""),
        ("", "acme", None),
    ],
)
def test_the_claim_goes_before_the_path_and_that_before_the_default(
    claim: str | None, named: str, wanted: str | None
) -> None:
    assert tenant_within(alice(tenant=claim), named, "default") == wanted


@pytest.mark.parametrize(
    ("principal", "wanted"),
    [
        (ANYBODY, True),
        (alice(), None),
        (alice(tenant="acme"), None),
        (alice(tenant="other"), False),
        (alice(tenant=""), False),
        (alice(grants=(EVERYTHING,)), True),
        (alice(grants=(EVERYTHING,), tenant="other"), False),
        (alice(grants=(Grant("acme", "planner", "task-", is_prefix=True),)), True),
        (alice(grants=(Grant("acme", "planner", "task-"),)), None),
        (alice(grants=(Grant("other", None, None), Grant(None, "writer", None))), None),
        (alice(grants=(Grant("other", None, None), Grant("acme", None, None))), True),
        (alice(tasks=frozenset({KEY})), True),
        (alice(tasks=frozenset({KEY}), tenant="other"), False),
        (alice(tasks=frozenset()), False),
        (alice(tasks=frozenset({KEY._replace(tenant="")}), grants=(EVERYTHING,)), False),
        (alice(rights=frozenset({"admin", "publish"})), None),
    ],
)
def test_what_a_credential_decides(principal: Principal, wanted: bool | None) -> None:
    assert decide(principal, KEY) is wanted


@pytest.mark.parametrize(
    ("principal", "wanted"),
    [
        (ANYBODY, True),
        (alice(), False),
        (alice(grants=(EVERYTHING,)), True),
        (alice(grants=(EVERYTHING,), tenant="acme"), False),
        (alice(grants=(Grant("acme", None, None),)), False),
        (alice(grants=(Grant(None, "writer", None), Grant("acme", None, None))), False),
        (alice(grants=(Grant(None, "planner", "task-", is_prefix=True),)), True),
        (alice(tasks=frozenset({KEY})), False),
    ],
)
def test_who_reaches_a_task_in_any_tenant(principal: Principal, wanted: bool) -> None:
    assert in_any_tenant(principal, KEY) is wanted


NAMES = st.sampled_from(["", "a", "ab", "b"])
KEYS = st.builds(TaskKey, NAMES, NAMES, NAMES)
GRANTS = st.builds(Grant, NAMES | st.none(), NAMES | st.none(), NAMES | st.none(), st.booleans())
PRINCIPALS = st.builds(
    Principal,
    st.just("alice"),
    st.just("jwt"),
    NAMES | st.none(),
    st.lists(GRANTS, max_size=3).map(tuple),
    tasks=st.none() | st.frozensets(KEYS, max_size=3),
)


@given(PRINCIPALS, KEYS)
def test_nobody_leaves_their_tenant_and_a_ticket_names_all_it_opens(
    principal: Principal, key: TaskKey
) -> None:
    decided = decide(principal, key)
    if principal.tenant is not None and principal.tenant != key.tenant:
        assert decided is False
    elif principal.tasks is not None:
        assert decided is (key in principal.tasks)
    else:
        assert decided is (True if any(grant.covers(key) for grant in principal.grants) else None)
