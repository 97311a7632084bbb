"""One client's response with several tasks: begins with all of them at one position, and follows their board.

Must not know how a request was routed or who is allowed what.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal

from sidecast_broker.answers import Away
from sidecast_broker.board import Board
from sidecast_broker.board_past import read_past
from sidecast_broker.board_view import BoardView
from sidecast_broker.boards import Boards, Found
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.frame import HEARTBEAT, with_id
from sidecast_broker.core.log import Record
from sidecast_broker.core.pace import Pace, Slow
from sidecast_broker.core.resume import Opening
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.entry import Entry
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.metrics import Metrics
from sidecast_broker.outset import Outset
from sidecast_broker.refused import Refused
from sidecast_broker.settings import Stream as StreamSettings
from sidecast_broker.stream import Ending, Stream
from sidecast_schemas.subjects import TaskKey

PAUSE_S = 0.05
PAUSE_S_MAX = 2.0


class BoardStream(Stream):
    """Serves several tasks to one client.

    Args:
        board: the tasks; the stream's place in it is a cursor into all of them.
        boards: where their past is read.
        view: the client's format.
        others: as of `Stream`.
    """

    __slots__ = (
        "_ahead",
        "_ahead_to",
        "_begun",
        "_boards",
        "_given_up",
        "_resumed",
        "_told_revoked",
        "board",
        "board_view",
    )

    def __init__(
        self,
        board: Board,
        boards: Boards,
        hubs: Hubs,
        view: BoardView,
        settings: StreamSettings,
        metrics: Metrics,
        *,
        principal: Principal,
        pace: Pace | None = None,
        slow: Slow = "disconnect",
        late_s_max: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            board.key,
            board,
            hubs,
            view,
            settings,
            metrics,
            principal=principal,
            pace=pace,
            slow=slow,
            late_s_max=late_s_max,
            clock=clock,
        )
        self.board = board
        self.board_view = view
        self._boards = boards
        self._ahead: dict[str, int] = {}
        self._ahead_to = 0
        self._told_revoked = set(board.revoked)
        self._given_up = False
        self._begun = False
        self._resumed = False

    @property
    def served(self) -> Literal["waiting", "live", "paced", "behind", "ending"]:
        """How it is served at the moment; it waits until its tasks are read."""
        return super().served if self._begun or self._ending is not None else "waiting"

    @property
    def watched(self) -> dict[str, object]:
        """Say what it is a stream of: how many tasks of a list, which context, or the whole agent."""
        selection = self.board.selection
        if selection.tasks is not None:
            return {"task": "", "tasks": len(selection.tasks)}
        whole: dict[str, object] = {"task": "", "tasks": "all"}
        if selection.context is not None:
            whole["context"] = selection.context
        return whole

    # ------------------------------------------------------------------ beginning

    async def wait_for(self, reading: asyncio.Task[Outset]) -> bool:
        """Keep the stream open and beating until its tasks are read; False: it is to end before that.

        Raises:
            ConnectionResetError: the client left.
        """
        await self.peer.write(HEARTBEAT)
        waiter = self._bell.next_ring()
        reading.add_done_callback(lambda _done: self._bell.ring())
        if self._ending is None:
            await waiter
        return self._ending is None

    def first_frames(self, opening: Opening, found: Found, requested: str) -> tuple[bytes, int]:
        """Give what the stream begins with, and the sequence it leads up to.

        Args:
            opening: how to begin.
            found: the tasks there are.
            requested: the cursor the client sent, empty for none.
        """
        board, view = self.board, self.board_view
        snapshots = opening.mode == "snapshot"
        after = board.position if opening.mode != "replay" else opening.after
        self._begun = True
        self._resumed = opening.mode == "replay" and bool(requested)
        hubs = self._standing(found)
        # Without a task there is no snapshot whose id a client could continue from.
        mode = "live" if snapshots and not hubs else opening.mode
        head = view.opened(board, mode, after, found.left_out) + self._tell_revoked()
        if opening.gap is not None:
            head += view.gap(board, opening.gap.reason, requested, opening.gap.oldest)
        return (head + self._snapshots(hubs) if snapshots else head), after

    def _standing(self, found: Found) -> list[Hub]:
        """Give the hubs of the tasks that were found, and of those that have become the board's since."""
        board = self.board
        members = {member.hub.key.task: member for member in found.members} | dict(board.members)
        return [
            member.hub
            for task, member in members.items()
            if task not in board.revoked and member.hub.first is not None
        ]

    def _snapshots(self, hubs: list[Hub]) -> bytes:
        """Give the tasks as they stand.

        A hub may be ahead of the board, whose next records wait for their place. What its snapshot tells
        already must not come once more, so until the board has come as far this client is sent to apart.
        """
        position = self.board.position
        self._ahead = {hub.key.task: hub.end for hub in hubs if hub.end > position}
        self._ahead_to = max(self._ahead.values(), default=0)
        return self.board_view.snapshots(self.board, hubs, None if self._ahead else position)

    def wait_for_missing(self, wait_s: float) -> None:
        """Wait so long for listed tasks that have not begun; then each is told of as not found."""
        self._hub.pacer.sleep(self._clock() + wait_s, self._give_up)

    def _give_up(self) -> None:
        if self._ending is not None or self._given_up or self._subscriber is None:
            return
        self._given_up = True
        frames = b"".join(self.board_view.gone(task, "not-found") for task in self.board.give_up())
        if frames and not self.subscriber.transport.is_closing():
            self.tell(frames)
        self.look_again()

    # ------------------------------------------------------------------ its rights

    def recheck(self, covers: Callable[[TaskKey], bool]) -> None:
        """Take off the tasks that are revoked, and tell the client which."""
        self.board.revoke(covers)
        self._forget_rest()  # may hold frames of them
        # Before its first frame there is nothing that this could follow.
        open_ = self._begun and self._subscriber is not None and not self.subscriber.transport.is_closing()
        if open_ and (frames := self._tell_revoked()):
            self.tell(frames)
            self.look_again()

    def _tell_revoked(self) -> bytes:
        """Give the ends of revoked tasks that the client was not told of."""
        told = sorted(self.board.revoked - self._told_revoked)
        self._told_revoked |= self.board.revoked
        return b"".join(self.board_view.gone(task, "revoked") for task in told)

    # ------------------------------------------------------------------ following

    async def _catch_up(self) -> bool:
        while self._ahead and self._ending is None:
            board, subscriber = self.board, self.subscriber
            if board.failed or subscriber.gap is not None or board.epoch != self._epoch:
                break
            if subscriber.cursor < board.gap_below or subscriber.cursor < board.log.floor:
                subscriber.gap = "expired"  # begins anew: what was sent apart can't be read from the stream
                break
            if not await self._send_apart():
                await self._moved()
        return await super()._catch_up()

    async def _send_apart(self) -> bool:
        """Send what the snapshots don't tell yet, without ids; False: the board has not come further."""
        board, subscriber = self.board, self.subscriber
        position = min(board.position, self._ahead_to)
        if position <= subscriber.cursor:
            return False
        if (due_s := self.replay.due_s()) > self._clock():
            await self._bell.sleep(board, due_s)
            return True
        untold = [
            record for record in board.log.after(subscriber.cursor) if self._is_untold(record, position)
        ]
        data = self.replay.spend(board, board.pieces(self.view, untold), position, "memory")
        if subscriber.cursor == self._ahead_to:
            self._ahead = {}
        await self.peer.write(b"".join(with_id(block + b"\n\n", None) for block in data.split(b"\n\n")[:-1]))
        return True

    def _is_untold(self, record: Record, position: int) -> bool:
        """Tell whether a record up to a position is not in its task's snapshot."""
        assert isinstance(record, Entry)
        return self._ahead.get(record.hub.key.task, 0) < record.sequence <= position

    async def _moved(self) -> None:
        """Wait until the board has come further, or the stream is to end."""
        waiter = self._bell.next_ring()
        self.board.listen(self._bell.ring)
        try:
            await waiter
        finally:
            self.board.stop_listening(self._bell.ring)

    async def _read_from_stream(self) -> bytes:
        """Give the next page of what the board's log doesn't hold any more, or never did, to be sent."""
        board, subscriber, epoch = self.board, self.subscriber, self._epoch
        cursor, until = subscriber.cursor, board.log.floor
        pause_s = PAUSE_S
        while self._ending is None and board.epoch == epoch and not board.failed:
            try:
                sure = board.selection.listed and not self.replay.anchored and board.oldest_cursor <= cursor
                reached, entries = await read_past(
                    self._boards, board, cursor, until, sure=sure, resumed=self._resumed
                )
                break
            except (Away, Refused):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
        else:
            return b""
        if self._ending is not None or board.epoch != epoch or board.failed or cursor < board.gap_below:
            return b""
        if reached is None:
            subscriber.gap = "expired"
            return b""
        return self.replay.take(board, list(entries), "stream", reached)

    async def _tell_gap(self) -> None:
        """Tell of the hole, then send the tasks as they stand, once that is known."""
        board, subscriber = self.board, self.subscriber
        pause_s = PAUSE_S
        while self._ending is None and not board.failed:
            try:
                found = await self._boards.find(board, self.principal)
                if not board.reloading:
                    break
            except (Away, Refused):
                pass
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)
        else:
            return
        reason: StreamGapReason = "epoch" if board.epoch != self._epoch else subscriber.gap or "expired"
        self.slowness.skip(slow=reason == "slow")
        requested = f"{self._epoch}-{subscriber.cursor}"
        data = self.board_view.gap(board, reason, requested, board.oldest_cursor)
        self._epoch = board.epoch
        subscriber.gap = None
        data += self._snapshots(self._standing(found))
        subscriber.cursor = max(board.position, board.gap_below)
        self.replay.anchored = True
        await self.peer.write(data)

    async def follow(self) -> None:
        """Serve the tasks until one side ends it, then send the end.

        Raises:
            ConnectionResetError: the client left.
        """
        try:
            await super().follow()
        finally:
            self._given_up = True
            self._ending = self._ending or Ending(self.closed_because)
