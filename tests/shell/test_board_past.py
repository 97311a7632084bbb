"""What is read from the stream for who is behind their board's log: whole, or told to have expired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from board_rig import Rig, rig
from brokers import FakeBackend, status, task_record

from sidecast_broker.board import Board
from sidecast_broker.board_past import read_past
from sidecast_broker.core.auth.principal import ANYBODY
from sidecast_broker.entry import Selection

NEIGHBOUR = "sidecast.v1.events._.neighbour.t"


class There(NamedTuple):
    """A board of tasks a and b behind ten records: one each, then eight in turn; c's lie between."""

    rig: Rig
    board: Board

    async def read(self, cursor: int, until: int = 15, *, sure: bool = False) -> tuple[int | None, list[int]]:
        reached, entries = await read_past(self.rig.boards, self.board, cursor, until, sure=sure)
        assert all(entry.hub.key.task in "ab" for entry in entries)
        return reached, [entry.sequence for entry in entries]


@pytest.fixture
async def there(fake: FakeBackend) -> AsyncIterator[There]:
    for task in "abc" * 5:
        await fake.publish(status("x", task) if fake.server.last > 2 else task_record(task), task=task)
    async with rig(fake, nats__page_events=5) as made:
        board = await made.boards.acquire("", "agent", Selection(frozenset("ab")), ANYBODY)
        await made.boards.fill(board, ANYBODY)
        yield There(made, board)


async def test_it_comes_page_by_page_without_what_is_not_the_boards(there: There) -> None:
    found, cursor = [], 0
    while cursor < 15:
        reached, sequences = await there.read(cursor)
        assert reached is not None
        assert reached > cursor
        found += sequences
        cursor = reached
    assert found == [1, 2, 4, 5, 7, 8, 10, 11, 13, 14]


async def test_it_ends_where_the_log_begins(there: There) -> None:
    assert await there.read(1, until=4) == (4, [2, 4])
    assert await there.read(4, until=4) == (4, [])


async def test_a_cursor_between_the_agents_records_is_as_good(fake: FakeBackend, there: There) -> None:
    await fake.publish_on(NEIGHBOUR, status("x", "t"))
    await fake.publish(status("x", "a"), task="a")
    assert await there.read(16, until=17) == (17, [17])


async def test_where_the_cursors_record_has_expired_nobody_knows_what_else_has(
    fake: FakeBackend, there: There
) -> None:
    await fake.expire(6)
    assert await there.read(4) == (None, [])
    assert await there.read(4, sure=True) == (11, [7, 8, 10, 11])
    assert await there.read(6) == (11, [7, 8, 10, 11])


async def test_a_replica_that_is_behind_hides_nothing(fake: FakeBackend, there: There) -> None:
    fake.faults.answer_stale(1, 3)
    assert await there.read(3) == (4, [4])
    fake.faults.answer_stale(1, 3)
    assert await there.read(14) == (15, [])


async def test_what_is_no_tasks_subject_is_passed_over(fake: FakeBackend, there: There) -> None:
    await fake.publish_on("sidecast.v1.events._.agent.=!!", status("x", "y"))
    await fake.publish(status("x", "b"), task="b")
    assert await there.read(15, until=17) == (17, [17])
