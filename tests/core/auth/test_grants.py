from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.auth.grants import GRANT_CHARS_MAX, InvalidGrant, format_grant, parse_grant
from sidecast_broker.core.auth.principal import Grant
from sidecast_schemas.subjects import TaskKey

ids = st.one_of(
    st.text(st.sampled_from("ab_*/%-"), min_size=1, max_size=6),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64),
)
tenants = st.one_of(st.just(""), ids)
grants = st.builds(
    lambda tenant, agent, task, prefix: Grant(tenant, agent, task, prefix and task is not None),
    st.none() | tenants,
    st.none() | ids,
    st.none() | ids,
    st.booleans(),
)
keys = st.builds(TaskKey, tenants, ids, ids)


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        ("acme/planner/task-1", Grant("acme", "planner", "task-1")),
        ("acme/planner/report-*", Grant("acme", "planner", "report-", is_prefix=True)),
        ("*/*/*", Grant(None, None, None)),
        ("_/planner/*", Grant("", "planner", None)),
        ("%5F/planner/*", Grant("_", "planner", None)),
        ("a/_/_", Grant("a", "_", "_")),
        ("a%2Fb/c%2fd/%2A", Grant("a/b", "c/d", "*")),
        ("a/b/%2A*", Grant("a", "b", "*", is_prefix=True)),
        ("a/b/%25", Grant("a", "b", "%")),
        ("\u00fc/%C3%BC/\U0001f6df*", Grant("\u00fc", "\u00fc", "\U0001f6df", is_prefix=True)),
        ("../../etc", Grant("..", "..", "etc")),
        ("a+b/c d/e", Grant("a+b", "c d", "e")),
        ("x" * 256 + "/b/c", Grant("x" * 256, "b", "c")),
    ],
)
def test_grants(text: str, grant: Grant) -> None:
    assert parse_grant(text) == grant


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "tenant/agent/task"),
        ("*", "tenant/agent/task"),
        ("a/b", "tenant/agent/task"),
        ("a/b/c/d", "tenant/agent/task"),
        ("a/b/c/", "tenant/agent/task"),
        ("/b/c", "tenant"),
        ("a//c", "agent"),
        ("a/b/", "task"),
        ("a*/b/c", "tenant"),
        ("a/b*/c", "agent"),
        ("a/**/c", "agent"),
        ("a/b/*c", "task"),
        ("a/b/c*d*", "task"),
        ("a/b/**", "task"),
        ("a/b/%", "%25"),
        ("a/b/%zz", "%25"),
        ("a/b/c%2*", "%25"),
        ("a/b/%FF", "UTF-8"),
        ("a/b/%C3*", "UTF-8"),
        ("a/b/\ud800", "UTF-8"),
        ("x" * 257 + "/b/c", "257 bytes"),
        ("a/b/" + "%41" * 257, "257 bytes"),
        ("a/b/" + "x" * GRANT_CHARS_MAX, "long"),
        ("/" * 1_000_000, "long"),
    ],
)
def test_what_is_no_grant(text: str, reason: str) -> None:
    with pytest.raises(InvalidGrant, match=reason):
        parse_grant(text)


@given(grants)
def test_what_is_written_is_read_again(grant: Grant) -> None:
    assert parse_grant(format_grant(grant)) == grant


@given(st.text(st.sampled_from("a_*/%2AF"), max_size=20))
def test_text_is_refused_or_means_what_it_is_written_as(text: str) -> None:
    try:
        grant = parse_grant(text)
    except InvalidGrant:
        return
    assert parse_grant(format_grant(grant)) == grant


@given(keys)
def test_the_grant_of_one_task_covers_it(key: TaskKey) -> None:
    assert parse_grant(format_grant(Grant(*key))).covers(key)


@given(keys, keys)
def test_the_grant_of_one_task_covers_no_other(key: TaskKey, other: TaskKey) -> None:
    assert parse_grant(format_grant(Grant(*key))).covers(other) is (key == other)


@given(grants, keys)
def test_a_grant_covers_what_its_pattern_says(grant: Grant, key: TaskKey) -> None:
    pattern = [
        *("*" if part is None else _glob(part) for part in (grant.tenant, grant.agent)),
        "*" if grant.task is None else _glob(grant.task) + "*" * grant.is_prefix,
    ]
    expected = all(fnmatch.fnmatchcase(value, each) for value, each in zip(key, pattern, strict=True))
    assert parse_grant(format_grant(grant)).covers(key) is expected


def _glob(literal: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in literal)


@given(grants, keys)
def test_no_grant_of_a_tenant_covers_a_task_of_another(grant: Grant, key: TaskKey) -> None:
    if grant.tenant is not None and grant.tenant != key.tenant:
        assert not parse_grant(format_grant(grant)).covers(key)
