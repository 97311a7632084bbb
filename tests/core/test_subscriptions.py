"""Identity, position and holder of a named subscription, as a consumer's own data say them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.subscriptions import (
    DISPLACED_MAX,
    SETTLE_S,
    Holding,
    State,
    Subscription,
    check_client,
    check_name,
    described,
    metadata_of,
    owned_prefix,
    state_of,
)
from sidecast_schemas.subjects import TaskKey, events_subject

ONE = Subscription(None, "alice", "", "agent", "task", "task-1", "inbox")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SUBSCRIPTIONS = st.builds(
    Subscription,
    st.none() | TEXTS,
    TEXTS,
    TEXTS,
    TEXTS,
    st.sampled_from(["task", "context"]),
    TEXTS,
    TEXTS,
)


def state(**changes: object) -> State:
    found = State(ONE, "e", start=10, begun=False, floor=9, acknowledged=0, pending=3, holding=Holding())
    return found._replace(**changes)  # type: ignore[arg-type]


# --- identity


@given(SUBSCRIPTIONS, SUBSCRIPTIONS)
def test_two_subscriptions_never_share_a_consumer(one: Subscription, other: Subscription) -> None:
    assert (one.consumer == other.consumer) == (one == other)


@given(SUBSCRIPTIONS)
def test_a_consumer_s_name_is_plain_whatever_it_is_for(one: Subscription) -> None:
    assert re.fullmatch(r"sidecast-[0-9a-f]{16}-[0-9a-f]{32}", one.consumer)
    assert one.consumer.startswith(owned_prefix(one.principal_tenant, one.principal))
    assert one.taken_subject.startswith("sidecast.v1.subscriptions.")
    assert one.taken_subject.count(".") == 5


@pytest.mark.parametrize(
    "change",
    [
        {"principal": "bob"},
        {"principal_tenant": ""},
        {"principal_tenant": "acme"},
        {"tenant": "acme"},
        {"agent": "other"},
        {"kind": "context"},
        {"target": "task-2"},
        {"name": "Inbox"},
        {"target": 'task-1","inbox', "name": ""},
    ],
)
def test_whatever_differs_makes_another(change: dict[str, str]) -> None:
    assert ONE._replace(**change).consumer != ONE.consumer  # type: ignore[arg-type]


def test_a_task_s_consumer_sees_that_task_a_context_s_all_of_the_agent() -> None:
    assert ONE.subject == events_subject(TaskKey("", "agent", "task-1"))
    assert ONE._replace(kind="context").subject == "sidecast.v1.events._.agent.*"
    assert Subscription.to_task((None, "alice"), TaskKey("", "agent", "task-1"), "inbox") == ONE
    of_context = Subscription.to_context((None, "alice"), "", "agent", "ctx", "inbox")
    assert of_context == ONE._replace(kind="context", target="ctx")


@pytest.mark.parametrize("name", ["a", "a b", "*", ">", "ü" * 128, "🦊", "a" * 256, "../.."])
def test_any_text_can_be_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "a" * 257, "ü" * 129, "\0", "a\nb", "\x7f", "a\x85", "\ud800"])
def test_except_what_is_empty_too_long_or_controls_something(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        check_name(name)


@pytest.mark.parametrize("client", ["c" * 129, "ü", "\n", "a\0"])
def test_a_client_s_name_is_short_and_printable(client: str) -> None:
    assert check_client("tab 1") == "tab 1"
    with pytest.raises(ValueError, match="client"):
        check_client(client)


# --- position


@pytest.mark.parametrize(
    ("found", "position", "certain"),
    [
        (state(), None, True),  # begun with a snapshot that nobody has confirmed
        (state(floor=500), None, True),  # what expiry did to the floor is no confirmation
        (state(begun=True), 9, True),  # begun behind the client's own cursor
        (state(begun=True, floor=500), 9, True),
        (state(acknowledged=1, floor=12), 12, False),
        (state(acknowledged=7, floor=30, begun=True), 30, False),
    ],
)
def test_a_position_is_what_was_confirmed(found: State, position: int | None, certain: bool) -> None:
    assert (found.position, found.is_certain) == (position, certain)
    assert found.cursor == (None if position is None else f"e-{position}")


@given(
    SUBSCRIPTIONS,
    st.booleans(),
    st.lists(st.tuples(TEXTS, st.floats(0, 2e9, allow_nan=False)), max_size=DISPLACED_MAX),
    TEXTS,
)
def test_what_a_consumer_is_given_to_remember_is_read_back(
    one: Subscription, begun: bool, displaced: list[tuple[str, float]], client: str
) -> None:
    holding = Holding("token", client, tuple(displaced))
    metadata = {**metadata_of(one, "e", begun=begun, holding=holding), "_nats.ver": "2.15.1"}
    found = state_of(metadata, start=3, floor=8, acknowledged=2, pending=4)
    assert found == State(one, "e", 3, begun, 8, 2, 4, holding)


@pytest.mark.parametrize(
    "spoil",
    [
        {"sidecast-identity": "[]"},
        {"sidecast-identity": "nonsense"},
        {"sidecast-identity": '[null,"a","","b","folder","c","d"]'},
        {"sidecast-displaced": "{}"},
        {"sidecast-displaced": '[["a"]]'},
    ],
)
def test_a_consumer_that_says_something_else_is_none_of_ours(spoil: dict[str, str]) -> None:
    metadata = metadata_of(ONE, "e", begun=False, holding=Holding())
    assert state_of(metadata | spoil, start=1, floor=0, acknowledged=0, pending=0) is None
    for missing in metadata:
        rest = {key: value for key, value in metadata.items() if key != missing}
        assert state_of(rest, start=1, floor=0, acknowledged=0, pending=0) is None


def test_its_owner_is_told_no_token() -> None:
    told = described(state(holding=Holding("secret", "tab")), held=True)
    assert told == {
        "name": "inbox",
        "task": "task-1",
        "acknowledged": None,
        "pending_events": 3,
        "client": "tab",
        "active_here": True,
    }


# --- who holds it


def test_of_two_tabs_the_displaced_one_stays_away() -> None:
    holding = Holding().taken("1", "a", 0.0).taken("2", "b", 100.0)
    assert holding.turns_away("a", 101.0, automatic=False)  # that soon, nobody has clicked
    assert not holding.turns_away("a", 100.0 + SETTLE_S, automatic=False)
    assert holding.turns_away("a", 9e9, automatic=True)
    assert not holding.turns_away("b", 101.0, automatic=True)
    assert not holding.turns_away("", 101.0, automatic=True)
    assert not holding.turns_away("c", 101.0, automatic=True)


def test_who_takes_it_back_on_purpose_is_not_turned_away_any_more() -> None:
    holding = Holding().taken("1", "a", 0.0).taken("2", "b", 1.0).taken("3", "a", 100.0)
    assert not holding.turns_away("a", 101.0, automatic=True)
    assert holding.turns_away("b", 101.0, automatic=True)


def test_a_client_that_comes_again_displaces_nobody() -> None:
    assert Holding().taken("1", "a", 0.0).taken("2", "a", 1.0) == Holding("2", "a", ())
    assert Holding().taken("1", "", 0.0).taken("2", "b", 1.0) == Holding("2", "b", ())


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), st.floats(0, 1e6)), max_size=80))
def test_however_often_it_changes_hands(takers: list[tuple[str, float]]) -> None:
    holding = Holding()
    for index, (client, now_s) in enumerate(takers):
        before, holding = holding, holding.taken(str(index), client, now_s)
        names = [name for name, _at_s in holding.displaced]
        assert holding.client == client
        assert client not in names
        assert len(set(names)) == len(names) <= DISPLACED_MAX
        if before.client not in ("", client):
            assert names[0] == before.client
