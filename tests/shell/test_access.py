from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from askers import EVERYTHING, Askers

from sidecast_broker.answers import Away
from sidecast_broker.auth import access as module
from sidecast_broker.auth import visibility
from sidecast_broker.auth.access import Access, Verdict
from sidecast_broker.auth.credentials import Credentials
from sidecast_broker.auth.webhook import Action
from sidecast_broker.configuration import load
from sidecast_broker.core.auth.principal import ANYBODY, Grant, Principal
from sidecast_broker.core.log import Stored
from sidecast_broker.refused import Refused
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import InvalidId, TaskKey, encode_token, events_subject

OWN = TaskKey("", "agent", "own")
FOREIGN = TaskKey("", "agent", "foreign")
OWNERLESS = TaskKey("", "agent", "ownerless")
MISSING = TaskKey("", "agent", "missing")
ELSEWHERE = TaskKey("acme", "agent", "own")

ALICE = Principal("alice", "jwt")
BOB = Principal("bob", "jwt")


def first(sequence: int, owner: str | None) -> Stored:
    headers = {names.OWNER: encode_token(owner)} if owner else {}
    return Stored(sequence, 0, "2026-01-01T00:00:00Z", headers, b"")


class Leader:
    """What the stream's leader knows of tasks' first records.

    Attributes:
        away: whether it can't be asked.
        asked: the tasks it was asked for.
    """

    def __init__(self) -> None:
        self.away = False
        self.asked: list[TaskKey] = []
        self.under_way = self.most_under_way = 0
        self.records: dict[TaskKey, Stored] = {
            OWN: first(7, "alice"),
            FOREIGN: first(8, "bob"),
            OWNERLESS: first(9, None),
            ELSEWHERE: first(10, "alice"),
        }

    async def first(self, key: TaskKey) -> Stored | None:
        events_subject(key)
        self.asked.append(key)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if self.away:
            raise Away("no leader")
        return self.records.get(key)


class Allows:
    """A webhook that allows what the test says."""

    def __init__(self, *allowed: TaskKey) -> None:
        self.allowed = allowed
        self.asked: list[tuple[str, TaskKey, Action]] = []

    async def allows(self, principal: Principal, key: TaskKey, action: Action) -> bool:
        self.asked.append((principal.name, key, action))
        return key in self.allowed


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def access(leader: Leader, webhook: Allows | None = None, **settings: object) -> Access:
    environ = {f"SIDECAST_{name.replace('__', '_').upper()}": str(value) for name, value in settings.items()}
    loaded = load(
        None, {"SIDECAST_AUTH_REQUIRED": "true", "SIDECAST_AUTH_REFUSAL_FLOOR_MS": "0"} | environ, {}
    )
    return Access(loaded, Askers(ALICE, BOB), leader, webhook)


# --- one task


@pytest.mark.parametrize(
    ("principal", "key", "wanted", "asks"),
    [
        (ANYBODY, MISSING, Verdict(True), 0),
        (ALICE, OWN, Verdict(True, 7, "alice"), 1),
        (ALICE, FOREIGN, Verdict(False, 8, "bob"), 1),
        (ALICE, OWNERLESS, Verdict(False, 9, None), 1),
        (ALICE, MISSING, Verdict(False), 1),
        (Principal("alice", "jwt", grants=(EVERYTHING,)), FOREIGN, Verdict(True), 0),
        (Principal("alice", "jwt", grants=(EVERYTHING,)), MISSING, Verdict(True), 0),
        (
            Principal("alice", "jwt", grants=(Grant("", "agent", "own"),)),
            FOREIGN,
            Verdict(False, 8, "bob"),
            1,
        ),
        (Principal("alice", "jwt", tenant="acme"), OWN, Verdict(False), 0),
        (Principal("alice", "jwt", tenant="acme", grants=(EVERYTHING,)), OWN, Verdict(False), 0),
        (Principal("alice", "jwt", tenant="acme"), ELSEWHERE, Verdict(True, 10, "alice"), 1),
        (Principal("bob", "ticket", tasks=frozenset({OWN})), OWN, Verdict(True), 0),
        (Principal("bob", "ticket", tasks=frozenset({OWN})), FOREIGN, Verdict(False), 0),
        (Principal("alice", "ticket", tasks=frozenset({FOREIGN})), OWN, Verdict(False), 0),
        (Principal("ALICE", "jwt"), OWN, Verdict(False, 7, "alice"), 1),
        (Principal("", "jwt"), OWNERLESS, Verdict(False, 9, None), 1),
    ],
)
async def test_who_may_watch_what_and_what_that_costs(
    principal: Principal, key: TaskKey, wanted: Verdict, asks: int
) -> None:
    leader = Leader()
    assert await access(leader).judge(principal, key) == wanted
    assert leader.asked == [key] * asks


@pytest.mark.parametrize("key", [FOREIGN, OWNERLESS, MISSING])
@pytest.mark.parametrize("allowed", [True, False])
async def test_the_webhook_is_asked_last_and_also_for_what_is_not_there(key: TaskKey, allowed: bool) -> None:
    webhook = Allows(*[key] * allowed)
    verdict = await access(Leader(), webhook).judge(ALICE, key, "cancel")
    assert verdict.allowed is allowed
    assert webhook.asked == [("alice", key, "cancel")]


BOUND = Principal("carol", "jwt", tenant="", grants=(EVERYTHING,))
TENANT_GRANT = Principal("carol", "jwt", grants=(Grant("", None, None),))
ANY_GRANT = Principal("carol", "jwt", grants=(EVERYTHING,))


@pytest.mark.parametrize(
    ("principal", "key", "wanted"),
    [
        (BOUND, FOREIGN, Verdict(True, 8, "bob")),
        (BOUND, MISSING, Verdict(False)),
        (TENANT_GRANT, FOREIGN, Verdict(True, 8, "bob")),
        (TENANT_GRANT, MISSING, Verdict(False)),
        (ANY_GRANT, MISSING, Verdict(True)),
        (ALICE, OWN, Verdict(True, 7, "alice")),
        (ALICE, MISSING, Verdict(False)),
    ],
)
async def test_at_the_agent_a_grant_within_a_tenant_needs_a_task_in_the_log(
    principal: Principal, key: TaskKey, wanted: Verdict
) -> None:
    assert await access(Leader(), Allows(MISSING)).judge(principal, key, at_agent=True) == wanted


@pytest.mark.parametrize("principal", [BOUND, TENANT_GRANT])
async def test_what_an_agent_lists_must_be_in_the_log_for_who_has_a_grant_within_a_tenant(
    principal: Principal,
) -> None:
    keys = [OWN, FOREIGN, OWNERLESS, MISSING]
    assert (await access(Leader()).visible(principal, keys, at_agent=True)).keys == {OWN, FOREIGN, OWNERLESS}
    assert (await access(Leader()).visible(principal, keys)).keys == set(keys)
    assert (await access(Leader()).visible(ANY_GRANT, keys, at_agent=True)).keys == set(keys)


async def test_the_webhook_is_not_asked_for_what_is_decided() -> None:
    webhook = Allows()
    checked = access(Leader(), webhook)
    assert await checked.may_watch(ALICE, OWN)
    assert not await checked.may_watch(Principal("alice", "jwt", tenant="acme"), OWN)
    assert await checked.may_watch(Principal("bob", "jwt", grants=(EVERYTHING,)), OWN)
    assert webhook.asked == []


@pytest.mark.parametrize("key", [OWN, FOREIGN, MISSING])
async def test_where_owners_cannot_be_looked_up_all_tasks_are_alike(key: TaskKey) -> None:
    leader = Leader()
    leader.away = True
    with pytest.raises(Refused, match="owners can't be looked up") as refused:
        await access(leader, Allows(key)).judge(ALICE, key)
    assert refused.value.code == "unavailable"


@pytest.mark.parametrize(
    "token", ["", "_", "=", "a.b", "=YQ", "=!!!", "alice ", "x" * 129, "\u00e9", "=" + "Y" * 1000]
)
def test_an_owner_that_is_no_name_is_nobody(token: str) -> None:
    assert Stored(1, 0, "", {names.OWNER: token}, b"").owner is None


async def test_an_id_no_task_can_have_is_unknown() -> None:
    for task in ("", "x" * 257, "\ud800"):
        with pytest.raises(InvalidId):
            events_subject(OWN._replace(task=task))
        assert not await access(Leader()).may_watch(ALICE, OWN._replace(task=task))


# --- refusals


@pytest.mark.parametrize("key", [FOREIGN, MISSING, OWNERLESS])
async def test_unknown_and_forbidden_are_one_answer(key: TaskKey) -> None:
    with pytest.raises(Refused) as refused:
        await access(Leader()).require(ALICE, key, 0.0)
    assert (refused.value.code, refused.value.detail, refused.value.extra) == (
        "not-found",
        "there is no such task, or it is not yours",
        {},
    )


async def test_who_may_passes_at_once() -> None:
    checked = access(Leader(), auth__refusal_floor_ms=10_000)
    async with asyncio.timeout(1):
        assert (await checked.require(ALICE, OWN, checked.now())).first == 7


@pytest.mark.parametrize(("late_ms", "floors"), [(0, 1), (10, 1), (70, 2), (130, 3)])
async def test_a_refusal_leaves_after_whole_floors(late_ms: int, floors: int) -> None:
    checked = access(Leader(), auth__refusal_floor_ms=60)
    arrived_s = checked.now() - late_ms / 1000
    await checked.hold(arrived_s)
    waited_ms = (checked.now() - arrived_s) * 1000
    assert waited_ms >= 60 * floors
    assert waited_ms < 60 * floors + 50


async def test_without_credentials_nothing_is_held_back() -> None:
    checked = access(Leader(), auth__required="false", auth__refusal_floor_ms=10_000)
    assert not checked.on
    async with asyncio.timeout(1):
        await checked.hold(checked.now())


# --- who asks


async def test_without_credentials_everybody_is_anybody() -> None:
    checked = access(Leader(), auth__required="false")
    assert await checked.who(make_mocked_request("GET", "/")) is ANYBODY
    assert checked.schemes is None
    checked.require_right(ANYBODY, "admin")


async def test_without_a_scheme_nobody_is_anybody() -> None:
    loaded = load(None, {"SIDECAST_AUTH_REQUIRED": "true"}, {})
    checked = Access(loaded, Credentials(loaded.auth), Leader())
    with pytest.raises(Refused) as refused:
        await checked.who(make_mocked_request("GET", "/"))
    assert refused.value.code == "unauthenticated"
    assert checked.schemes == ()


@pytest.mark.parametrize(
    ("rights", "needed", "passes"),
    [
        ((), ("admin",), False),
        (("publish",), ("admin",), False),
        (("admin",), ("admin",), True),
        (("publish",), ("publish", "admin"), True),
        (("admin",), ("publish", "admin"), True),
        ((), ("publish", "admin"), False),
    ],
)
def test_rights(rights: tuple[Any, ...], needed: tuple[Any, ...], passes: bool) -> None:
    checked = access(Leader())
    principal = Principal("alice", "jwt", rights=frozenset(rights))
    if passes:
        checked.require_right(principal, *needed)
        return
    with pytest.raises(Refused, match="this needs the right") as refused:
        checked.require_right(principal, *needed)
    assert refused.value.code == "forbidden"


# --- what the agent has answered with


async def test_who_has_begun_a_task_follows_it_once_the_log_has_it() -> None:
    leader = Leader()
    key = TaskKey("", "agent", "new")
    following = asyncio.create_task(access(leader).follows(ALICE, key))
    while len(leader.asked) < 2:
        await asyncio.sleep(0)
    assert not following.done()
    leader.records[key] = first(20, "alice")
    assert await following


@pytest.mark.parametrize(
    ("key", "wanted"), [(OWN, True), (OWNERLESS, True), (FOREIGN, False)], ids=["own", "ownerless", "foreign"]
)
async def test_what_the_agent_answers_with_is_theirs_unless_the_log_says_whose_else(
    key: TaskKey, wanted: bool
) -> None:
    assert await access(Leader()).follows(ALICE, key) is wanted


async def test_a_task_that_never_comes_into_the_log_does_not_hold_the_answer_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FOLLOW_S", 0.05)
    assert await access(Leader()).follows(ALICE, MISSING)


async def test_another_tenants_task_is_not_followed() -> None:
    assert not await access(Leader()).follows(Principal("alice", "jwt", tenant="acme"), OWN)


# --- many tasks


def many(count: int, owner: str = "alice") -> dict[TaskKey, Stored]:
    return {TaskKey("", "agent", f"t{number}"): first(100 + number, owner) for number in range(count)}


async def test_of_many_tasks_those_are_visible_that_may_be_watched() -> None:
    webhook = Allows(OWNERLESS)
    leader = Leader()
    visible = await access(leader, webhook).visible(ALICE, [OWN, FOREIGN, OWNERLESS, MISSING, OWN])
    assert visible == (frozenset({OWN, OWNERLESS}), False, False)


async def test_what_is_decided_costs_no_look_up() -> None:
    leader = Leader()
    granted = Principal("carol", "jwt", grants=(Grant("", "agent", None),))
    visible = await access(leader).visible(granted, [OWN, FOREIGN, ELSEWHERE])
    assert visible.keys == {OWN, FOREIGN}
    assert leader.asked == [ELSEWHERE]


async def test_owners_are_looked_up_some_at_a_time_and_remembered() -> None:
    leader = Leader()
    leader.records |= many(200)
    checked = access(leader)
    visible = await checked.visible(ALICE, many(200))
    assert len(visible.keys) == 200
    assert leader.most_under_way == visibility.AT_ONCE
    assert (await checked.visible(BOB, many(200))).keys == frozenset()
    assert Counter(leader.asked).most_common(1)[0][1] == 1


async def test_a_remembered_owner_is_looked_up_again_in_time() -> None:
    leader, clock = Leader(), Clock()
    checked = access(leader)
    checked._visibility._clock = clock
    assert (await checked.visible(ALICE, [OWN])).keys == {OWN}
    leader.records[OWN] = first(30, "bob")
    clock.now += visibility.OWNER_S - 0.1
    assert (await checked.visible(ALICE, [OWN])).keys == {OWN}
    clock.now += 0.1
    assert (await checked.visible(ALICE, [OWN])).keys == frozenset()


async def test_opening_never_relies_on_what_is_remembered() -> None:
    leader = Leader()
    checked = access(leader)
    assert (await checked.visible(ALICE, [OWN])).keys == {OWN}
    leader.records[OWN] = first(30, "bob")
    assert not await checked.may_watch(ALICE, OWN)


async def test_lists_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "LOOKUPS_MAX", 50)
    monkeypatch.setattr(visibility, "WEBHOOK_MAX", 5)
    monkeypatch.setattr(visibility, "OWNERS_MAX", 10)
    leader, webhook = Leader(), Allows()
    leader.records |= many(60, "bob")
    checked = access(leader, webhook)
    assert await checked.visible(ALICE, many(60)) == (frozenset(), True, False)
    assert (len(leader.asked), len(webhook.asked)) == (50, 5)
    assert len(checked._visibility._owners) == 10


async def test_what_is_remembered_counts_for_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "LOOKUPS_MAX", 50)
    leader = Leader()
    leader.records |= many(120)
    checked = access(leader)
    seen = [await checked.visible(ALICE, many(120)) for _ in range(3)]
    assert [len(each.keys) for each in seen] == [50, 100, 120]
    assert [each.left_out for each in seen] == [True, True, False]


async def test_a_list_says_that_the_leader_was_away() -> None:
    leader = Leader()
    checked = access(leader)
    await checked.visible(ALICE, [OWN])
    leader.away = True
    assert await checked.visible(ALICE, [OWN, FOREIGN]) == (frozenset({OWN}), False, True)


async def test_what_no_task_can_be_called_is_not_visible() -> None:
    assert (await access(Leader()).visible(ALICE, [OWN._replace(task="\ud800"), OWN])).keys == {OWN}
