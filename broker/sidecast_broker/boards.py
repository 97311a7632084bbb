"""The boards of one broker and the feeds behind them: opened when first watched, shared by equal watchers.

Must not know HTTP, nor what a stream sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import NamedTuple

from sidecast_broker.answers import Away, StreamInfo
from sidecast_broker.auth.access import Access
from sidecast_broker.board import Board
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.log import Stored
from sidecast_broker.current import Current
from sidecast_broker.entry import Member, Selection
from sidecast_broker.errands import Unnamed
from sidecast_broker.feed import Arrival
from sidecast_broker.feeds import Feeds, Followed
from sidecast_broker.hub import ignore_growth
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.positioner import Positioner
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Settings
from sidecast_broker.survey import Survey
from sidecast_schemas.subjects import TaskKey


class Found(NamedTuple):
    """The tasks a stream begins with.

    Attributes:
        members: those, in use.
        left_out: how many there are beside.
    """

    members: list[Member]
    left_out: int


class Boards:
    """Opens, shares and closes boards.

    Args:
        settings: the bounds.
        stream: the connection to JetStream.
        positioner: watches over the feeds.
        hubs: the tasks.
        access: who may watch which of them.
        survey: finds the tasks of an agent or a context.
        metrics: where to count.
    """

    def __init__(
        self,
        settings: Settings,
        stream: JetStream,
        positioner: Positioner,
        hubs: Hubs,
        access: Access,
        survey: Survey,
        metrics: Metrics,
    ) -> None:
        self._tasks_max = settings.stream.tasks_per_stream_max
        self._log_bytes_max = settings.log.task_bytes_max
        self._bytes_max = settings.log.bytes_max // 4
        self._size_bytes = 0
        self._shrinking = False
        self._stream = stream
        self._positioner = positioner
        self._hubs = hubs
        self._access = access
        self._survey = survey
        self._current = Current(stream, hubs)
        self._feeds = Feeds(stream, positioner, metrics)
        self._boards: dict[Hashable, Board] = {}
        self._keys: dict[Board, Hashable] = {}
        self._users: dict[Board, int] = {}
        self._agent_of: dict[Board, Followed] = {}

    def __len__(self) -> int:
        return len(self._users)

    async def close(self) -> None:
        """Close all feeds."""
        for board in list(self._users):
            self._close_board(board)
        await self._feeds.close()

    async def acquire(
        self,
        tenant: str,
        agent: str,
        selection: Selection,
        principal: Principal,
        *,
        barred: frozenset[str] = frozenset(),
        waits: bool = False,
    ) -> Board:
        """Give a board, which `fill` gives the listed tasks that have begun; `release` it after use.

        Args:
            tenant: of the tasks.
            agent: whose they are.
            selection: which.
            principal: who watches; of a list, may watch all but the barred ones.
            barred: listed tasks that this principal may not see, as far as is known.
            waits: whether listed tasks may begin later; such a board is nobody else's.

        Raises:
            Away: NATS can't answer.
        """
        key = None if waits else (tenant, agent, selection, _bounds_of(principal))
        board = self._boards.get(key) if key is not None else None
        if board is None or board.failed:
            agent_of = await self._feeds.follow(tenant, agent)
            board = self._board(agent_of, tenant, agent, selection, principal)
            board.barred |= barred
            if key is not None:
                self._boards[key] = board
            self._keys[board] = key
            self._users[board] = 0
            self._agent_of[board] = agent_of
            agent_of.routing.join(board)
        self._users[board] += 1
        return board

    async def fill(self, board: Board, principal: Principal) -> None:
        """Have a board in use hold the listed tasks that have begun, each with all records up to now.

        Args:
            board: the board.
            principal: who watches, and may watch these as far as is known.

        Raises:
            Away: NATS can't answer.
        """
        tenant, agent, _task = board.key
        lacking = (board.selection.tasks or frozenset()) - board.members.keys() - board.barred
        for member in await self._current.take(
            [TaskKey(tenant, agent, task) for task in lacking], begun=True
        ):
            if self._is_still_of(principal, member):
                board.admit(member)

    def release(self, board: Board) -> None:
        """Stop using a board."""
        self._users[board] -= 1
        if not self._users[board]:
            self._close_board(board)

    def _close_board(self, board: Board) -> None:
        del self._users[board]
        key = self._keys.pop(board)
        if self._boards.get(key) is board:
            del self._boards[key]
        agent = self._agent_of.pop(board)
        agent.routing.leave(board)
        board.on_growth(-board.size_bytes)
        board.on_growth = ignore_growth
        board.close()
        self._feeds.leave(agent)

    def _board(
        self, agent_of: Followed, tenant: str, agent: str, selection: Selection, principal: Principal
    ) -> Board:
        key = TaskKey(tenant, agent, "")
        return Board(
            selection,
            agent_of.feed.position,
            decide=partial(self._decide, tenant, agent, selection, principal, agent_of.routing.learn),
            may_begin=lambda arrival: self._access.may_watch_new(
                principal, TaskKey(tenant, agent, arrival.task), arrival.stored.owner
            ),
            release=lambda member: self._hubs.release(member.hub),
            members_max=self._tasks_max,
            **self._hubs.parts(key, agent_of.feed.epoch, self._log_bytes_max, self._grow),
        )

    # ------------------------------------------------------------------ tasks

    async def find(self, board: Board, principal: Principal) -> Found:
        """Give the tasks that a stream of a board begins with; they become members, and stay in use.

        Raises:
            Away: NATS can't answer.
            Refused: owners can't be looked up.
        """
        if board.selection.listed:
            return Found([member for member in board.members.values() if member.hub.first is not None], 0)
        tenant, agent, _task = board.key
        keys, left_out = await self._survey.tasks(tenant, agent, board.selection, principal, self._tasks_max)
        keys = [key for key in keys if key.task not in board.revoked]
        routing = self._agent_of[board].routing
        for member in await self._current.take(
            [key for key in keys if key.task not in board.members], begun=True
        ):
            if self._is_still_of(principal, member):
                routing.learn(member.hub.key.task, member.hub.fold.context_id)
                board.admit(member)
        return Found([board.members[key.task] for key in keys if key.task in board.members], left_out)

    async def _decide(
        self,
        tenant: str,
        agent: str,
        selection: Selection,
        principal: Principal,
        learn: Callable[[str, str], None],
        arrival: Arrival,
    ) -> Member | None:
        """Give the member that a task is to become; None: it isn't one of these, or not this principal's.

        Raises:
            Away: that can't be told at the moment.
            Unnamed: a later record has to say it.
        """
        key = TaskKey(tenant, agent, arrival.task)
        try:
            first = arrival.stored if arrival.is_first else None
            if not await self._survey.may_watch(principal, key, first):
                return None
        except Refused as refused:
            raise Away(str(refused)) from refused
        member = await self._current.member(key, arrival.sequence)
        if not self._is_still_of(principal, member):
            return None
        if selection.context is not None:
            named = member.hub.fold.context_id
            learn(key.task, named)
            if named != selection.context:
                self._hubs.release(member.hub)
                if not named:
                    raise Unnamed
                return None
        return member

    def _is_still_of(self, principal: Principal, member: Member) -> bool:
        """Tell whether what was read is still a task that may be watched; else it is let go.

        Its id may have become another owner's since it was looked up. A webhook was asked about the id.
        """
        hub = member.hub
        if self._access.asks_elsewhere or self._access.is_of(principal, hub.key, hub.owner):
            return True
        self._hubs.release(hub)
        return False

    async def begun(self, keys: Iterable[TaskKey]) -> frozenset[TaskKey]:
        """Give those tasks of which the stream holds a record.

        Raises:
            Away: NATS can't answer.
        """
        return await self._current.begun(keys)

    async def read(self, board: Board, start: int) -> list[Stored]:
        """Read stored records of all tasks of a board's agent, from a sequence on.

        Raises:
            Away: no complete answer.
        """
        return (await self._stream.read(self.pattern(board), start)).records

    async def following(self, board: Board, sequence: int) -> Stored | None:
        """Ask the leader for the first record of a board's agent at or above a sequence.

        Raises:
            Away: no answer.
        """
        return await self._stream.next(self.pattern(board), sequence)

    async def info(self) -> StreamInfo:
        """Ask the leader how the stream stands.

        Raises:
            Away: no answer.
        """
        return await self._stream.info()

    def pattern(self, board: Board) -> str:
        """Give the events subjects of a board's agent."""
        return self._agent_of[board].feed.pattern

    # ------------------------------------------------------------------ memory

    def _grow(self, grown: int) -> None:
        self._size_bytes += grown
        if grown > 0 and self._size_bytes > self._bytes_max and not self._shrinking:
            # Not at once: this is called from inside of a board, which is no place to cut it.
            self._shrinking = True
            asyncio.get_running_loop().call_soon(self._shrink)

    def _shrink(self) -> None:
        """Let old records go, of the largest first, until all together are within their bound."""
        self._shrinking = False
        before = 0
        while self._size_bytes != before:
            before = self._size_bytes
            for board in sorted(self._users, key=lambda board: -board.log.size_bytes):
                if self._size_bytes <= self._bytes_max * 0.9:
                    return
                board.trim(board.log.size_bytes // 2)


def _bounds_of(principal: Principal) -> Hashable:
    """Give all that decides what a principal may watch: equal ones share boards."""
    return principal.scheme == "none" or (
        principal.tenant,
        principal.name,
        principal.grants,
        principal.tasks,
        principal.credential_id,
    )
