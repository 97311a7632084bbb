"""Boards shared by equal watchers, filled, found, let go, and bounded in memory together."""

from __future__ import annotations

import pytest
from access_rig import PRINCIPALS
from board_rig import Rig, key_of, rig
from brokers import FakeBackend, artifact, encode, task_record, until

from sidecast_broker.answers import Away
from sidecast_broker.board import Board
from sidecast_broker.core.auth.principal import ANYBODY, Principal
from sidecast_broker.entry import Member, Selection

AB = Selection(frozenset("ab"))
AGENT = Selection(agent=True)
ALICE, BOB = PRINCIPALS[:2]
SILENT = encode({"statusUpdate": {"taskId": "a", "status": {"state": "TASK_STATE_WORKING"}}})
"""Says no context: whose it is, only the task's first record tells."""


@pytest.fixture
async def stock(fake: FakeBackend) -> FakeBackend:
    for task in ("a", "b", "c"):
        await fake.publish(task_record(task), task=task)
    return fake


async def acquire(
    there: Rig,
    selection: Selection = AB,
    who: Principal = ANYBODY,
    *,
    barred: frozenset[str] = frozenset(),
    waits: bool = False,
) -> Board:
    board = await there.boards.acquire("", "agent", selection, who, barred=barred, waits=waits)
    await there.boards.fill(board, who)
    return board


async def test_equal_watchers_share_a_board_and_others_don_t(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        board = await acquire(there)
        assert await acquire(there) is board
        others = [await acquire(there, selection) for selection in (AGENT, Selection(context="x"))]
        others.append(await acquire(there, who=ALICE))
        others.append(await acquire(there, who=BOB))
        # Whose tasks begin later each finds out alone: what is told of them is told of at that time.
        others += [await acquire(there, waits=True), await acquire(there, waits=True)]
        assert len({id(each) for each in (board, *others)}) == 1 + len(others)
        assert await acquire(there, who=ALICE) is others[2]
        assert len(there.boards) == 1 + len(others)
        assert len(there.positioner._feeds) == 1


async def test_the_last_who_leaves_closes_it_and_the_feed(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        board = await acquire(there)
        assert await acquire(there) is board
        there.boards.release(board)
        assert there.users("a", "b") == [1, 1]
        there.boards.release(board)
        assert (len(there.boards), there.users("a", "b")) == (0, [0, 0])
        await until(lambda: not there.positioner._feeds)
        assert await acquire(there) is not board


async def test_a_task_that_comes_when_all_have_left_is_let_go(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        board = await there.boards.acquire("", "agent", AB, ANYBODY)
        late = await there.current.member(key_of("a"), 0)
        there.boards.release(board)
        board.admit(late)
        assert (there.users("a"), list(board.members)) == ([0], [])


async def test_what_a_record_waits_for_is_not_sent_for_when_all_have_left(
    stock: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(stock) as there:
        board = await there.boards.acquire("", "agent", AGENT, ANYBODY)

        left: list[None] = []

        def admit_and_leave(member: Member) -> None:
            Board.admit(board, member)
            there.boards.release(board)  # the errand has come back, and nobody was told of it yet
            left.append(None)

        monkeypatch.setattr(board, "admit", admit_and_leave)
        await stock.publish(task_record("d"), task="d")
        await until(lambda: left)
        await until(lambda: not board._errands._under_way)
        assert (there.users("d"), list(board.members)) == ([0], [])


async def test_a_list_holds_those_that_have_begun_and_may_be_seen(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        wanted = Selection(frozenset(("a", "b", "never")))
        board = await acquire(there, wanted, barred=frozenset("b"))
        assert set(board.members) == {"a"}
        assert board.missing == {"b", "never"}
        found = await there.boards.find(board, ANYBODY)
        assert ([each.hub.key.task for each in found.members], found.left_out) == (["a"], 0)
        await there.boards.fill(board, ANYBODY)
        assert there.users("a") == [1]


async def test_an_agents_board_holds_what_was_found_once(stock: FakeBackend) -> None:
    async with rig(stock, stream__tasks_per_stream_max=2) as there:
        board = await acquire(there, AGENT)
        assert not board.members
        for _ in range(2):
            found = await there.boards.find(board, ANYBODY)
            assert [each.hub.key.task for each in found.members] == ["c", "b"]
            assert found.left_out == 1
        assert there.users("a", "b", "c") == [0, 1, 1]


async def test_a_task_of_another_context_is_let_go(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        board = await acquire(there, Selection(context="x"))
        await stock.publish(task_record("d", contextId="x"), task="d")
        await stock.publish(SILENT, task="a")
        await until(lambda: board.position == 5)
        assert set(board.members) == {"d"}
        assert there.users("a", "d") == [0, 1]


async def test_one_whose_fault_has_stopped_it_is_not_shared(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        board = await acquire(there)
        board.fail()
        anew = await acquire(there)
        assert anew is not board
        there.boards.release(board)
        assert await acquire(there) is anew


async def test_without_nats_there_is_none_and_nothing_stays_open(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        await stock.go_away()
        with pytest.raises(Away):
            await acquire(there)
        assert len(there.boards) == 0
        await until(lambda: not there.positioner._feeds)
        await stock.come_back()
        assert set((await acquire(there)).members) == {"a", "b"}


async def test_a_feed_that_failed_is_opened_anew(stock: FakeBackend) -> None:
    async with rig(stock) as there:
        await acquire(there)
        (feed,) = there.positioner._feeds
        feed.failed = True
        await acquire(there, AGENT)
        assert len(there.positioner._feeds) == 2


async def test_their_logs_are_bounded_together(stock: FakeBackend) -> None:
    async with rig(stock, log__bytes_max=1 << 20, log__task_bytes_max=1 << 20) as there:
        boards = [await acquire(there), await acquire(there, AGENT)]
        for _ in range(400):
            await stock.publish(artifact("x" * 2000, "a", append=True), task="a")
        await until(lambda: all(board.position == 403 for board in boards))
        await until(lambda: sum(board.log.size_bytes for board in boards) <= 1 << 18)
        assert all(board.log.floor > 3 for board in boards)
        for board in boards:
            there.boards.release(board)
        assert there.boards._size_bytes == 0
