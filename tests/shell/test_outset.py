"""Where a stream of several tasks begins, and how much is read for that."""

from __future__ import annotations

import pytest
from board_rig import Rig, rig
from brokers import FakeBackend, done, status, task_record

from sidecast_broker.answers import Away
from sidecast_broker.core.auth.principal import ANYBODY
from sidecast_broker.core.resume import Start
from sidecast_broker.entry import Selection
from sidecast_broker.outset import Outset, outset_of

AB = Selection(frozenset("ab"))
AGENT = Selection(agent=True)


@pytest.fixture
async def stock(fake: FakeBackend) -> FakeBackend:
    for task in ("a", "b", "c"):
        await fake.publish(task_record(task), status("one", task), task=task)
    return fake


async def outset(
    there: Rig,
    selection: Selection,
    cursor: str | None = None,
    start: Start = "snapshot",
    waits: bool = False,
) -> Outset:
    board = await there.boards.acquire("", "agent", selection, ANYBODY, waits=waits)
    return await outset_of(there.boards, board, ANYBODY, cursor, start)


def tasks(found: Outset) -> list[str]:
    return sorted(member.hub.key.task for member in found.found.members)


@pytest.mark.parametrize(
    "selection", [AB, AGENT, Selection(context="context-1")], ids=["list", "agent", "context"]
)
@pytest.mark.parametrize(
    ("cursor", "start", "mode", "after"),
    [
        (None, "snapshot", "snapshot", 6),
        (None, "now", "live", 6),
        (None, "start", "replay", 0),
        ("epoch1-3", "snapshot", "replay", 3),
        ("epoch1-9", "snapshot", "snapshot", 6),
    ],
)
async def test_it_begins_as_one_of_a_single_task_does(
    stock: FakeBackend, selection: Selection, cursor: str | None, start: Start, mode: str, after: int
) -> None:
    async with rig(stock) as there:
        found = await outset(there, selection, cursor, start)
        assert found.opening is not None
        assert (found.opening.mode, found.opening.after) == (mode, after)
        assert (found.opening.gap is not None) == (cursor == "epoch1-9")


@pytest.mark.parametrize(("cursor", "wanted"), [("epoch1-3", []), (None, ["a", "b", "c"])])
async def test_an_agents_tasks_are_looked_for_only_where_their_snapshots_are_sent(
    stock: FakeBackend, cursor: str | None, wanted: list[str]
) -> None:
    async with rig(stock) as there:
        assert tasks(await outset(there, AGENT, cursor)) == wanted
        assert there.users("a", "b", "c") == [len(wanted) // 3] * 3


async def test_of_a_list_that_is_over_nothing_follows_its_end(stock: FakeBackend) -> None:
    for task in ("a", "b"):
        await stock.publish(done(task), task=task)
    async with rig(stock) as there:
        assert (await outset(there, AB, "epoch1-8")).opening is None
        assert (await outset(there, AB, start="now")).opening is None
        assert (await outset(there, AB, "epoch1-7")).opening is not None
        # As long as one may begin, something may follow.
        waiting = Selection(frozenset(("a", "b", "never")))
        assert (await outset(there, waiting, "epoch1-8", waits=True)).opening is not None


async def test_what_is_lost_before_one_of_the_tasks_is_a_gap_for_all(stock: FakeBackend) -> None:
    await stock.expire(3)
    async with rig(stock) as there:
        found = await outset(there, AB, "epoch1-1")
        assert found.opening is not None
        assert found.opening.gap is not None
        assert found.opening.gap.reason == "expired"
        assert tasks(found) == ["b"]


async def test_while_nats_is_away_it_can_t_be_told(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        board = await there.boards.acquire("", "agent", AB, ANYBODY)
        await stock.go_away()
        with pytest.raises(Away):
            await outset_of(there.boards, board, ANYBODY, None, "snapshot")
        assert there.users("a", "b") == [0, 0]
