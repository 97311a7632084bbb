"""The browser format for several tasks on one stream: the same bytes of each as on a stream of its own.

Must not know requests or transports.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import groupby

from msgspec import Struct

from sidecast_broker.board import Board
from sidecast_broker.browser import BrowserView
from sidecast_broker.core.auth.life import End
from sidecast_broker.core.cursor import format_cursor
from sidecast_broker.core.frame import with_id
from sidecast_broker.core.log import Record
from sidecast_broker.core.pace import Slow
from sidecast_broker.core.resume import Mode
from sidecast_broker.core.views import events
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.entry import Entry
from sidecast_broker.hub import Hub


class BoardView(Struct, frozen=True):
    """One shape of the `events` format for a board.

    Attributes:
        one: the same shape for one task.
    """

    one: BrowserView

    @property
    def key(self) -> Hashable:
        """Equal for views whose records become the same bytes."""
        return self.one.key

    @property
    def insert(self) -> None:
        """Nothing differs between clients."""
        return

    @property
    def format(self) -> str:
        """The format's name in metrics and logs."""
        return self.one.format

    @property
    def heartbeat_s(self) -> float:
        """Silence after which a heartbeat is sent."""
        return self.one.heartbeat_s

    @property
    def thins(self) -> bool:
        """Whether several records may become one frame."""
        return self.one.thins

    def record(self, hub: Hub, record: Record) -> bytes:
        """Give the frame of a record, and the end of its task after the one that ends it."""
        entry = _visible(hub, record)
        if entry is None:
            return b""
        data = self.one.record(entry.hub, entry.record)
        return data + self.one.end(entry.hub) if entry.ends else data

    def pieces(self, hub: Hub, records: list[Record]) -> list[tuple[int, bytes]] | None:
        """Give frames and the positions they lead up to: only frames of one task in a row become fewer."""
        if not self.one.coalesce and not self.one.array:
            return None
        pieces: list[tuple[int, bytes]] = []
        entries = [entry for record in records if (entry := _visible(hub, record)) is not None]
        for _task, run in groupby(entries, lambda entry: entry.hub):
            of_task = list(run)
            pieces += self.one.pieces(of_task[0].hub, [entry.record for entry in of_task]) or []
            if of_task[-1].ends and pieces:
                # In one piece, so that no client's rate comes between the two.
                sequence, data = pieces[-1]
                pieces[-1] = sequence, data + self._end_after(of_task[-1].hub)
        return pieces

    def _end_after(self, hub: Hub) -> bytes:
        if not self.one.array:
            return self.one.end(hub)
        frame = events.end_frame(hub.fold.state, "task-ended", named=self.one.named, task_id=hub.key.task)
        return b"," + frame.json

    def joined(self, hub: Hub, pieces: list[tuple[int, bytes]]) -> bytes:
        """Give frames as the bytes of one write; where asked for, as one frame with the last one's id."""
        found = [data for _sequence, data in pieces]
        if not self.one.array or not found:
            return b"".join(found)
        return events.batch_frame(None, found, pieces[-1][0], hub.epoch, named=self.one.named).data

    def opened(self, board: Board, mode: Mode, cursor: int, left_out: int) -> bytes:
        """Give the first frame."""
        one, at = self.one, format_cursor(board.epoch, cursor)
        return events.open_frame(
            mode, at, one.heartbeat_s, one.retry_ms, named=one.named, left_out=left_out
        ).data

    def snapshots(self, board: Board, hubs: Iterable[Hub], position: int | None) -> bytes:
        """Give the tasks as they stand, with the end of those that are over.

        Args:
            board: which they are of.
            hubs: theirs.
            position: what a client that has all of them continues from; None: there is no such position.
        """
        hubs = list(hubs)
        data = b""
        for number, hub in enumerate(hubs, 1):
            whole = number == len(hubs) and position is not None
            data += with_id(
                self.one.snapshot(hub), format_cursor(board.epoch, position or 0) if whole else None
            )
            if hub.ended:
                data += self.one.end(hub)
        return data

    def gap(self, hub: Hub, reason: StreamGapReason, requested: str, oldest: int) -> bytes:
        """Give what tells of a hole; the tasks as they stand are to follow."""
        at = format_cursor(hub.epoch, oldest)
        return events.gap_frame(reason, requested or None, at, named=self.one.named).data

    def gone(self, task: str, reason: str) -> bytes:
        """Give the end of one task that may not be seen any more, or has not come."""
        return events.end_frame(None, reason, named=self.one.named, task_id=task).data

    def lag(self, behind_events: int, policy: Slow) -> bytes:
        """Give the frame that tells a client it is slow."""
        return self.one.lag(behind_events, policy)

    def drain(self, reconnect_in_ms: int) -> bytes:
        """Give the frame that sends a client to another broker."""
        return self.one.drain(reconnect_in_ms)

    def expiring(self, expires_in_s: float) -> bytes:
        """Give the frame that tells of the credential's end."""
        return self.one.expiring(expires_in_s)

    def cut_short(self, hub: Hub, end: End) -> bytes:
        """Give the end of a stream that may not go on."""
        return events.end_frame(None, end, named=self.one.named).data

    def lost(self, reason: str) -> bytes:
        """Give the end of a stream whose named subscription is another's."""
        return events.end_frame(None, reason, named=self.one.named).data

    def ended(self, hub: Hub, cursor: int) -> bool:
        """Tell whether all listed tasks are over and a cursor beyond the last one's end."""
        return hub.ends_at(cursor)

    def end(self, hub: Hub) -> bytes:
        """Give what is sent after the ends of all tasks."""
        return events.end_frame(None, "tasks-ended", named=self.one.named).data

    def not_found(self) -> bytes:
        """Give the end of a stream none of whose tasks came."""
        return self.one.not_found()

    def unavailable(self) -> bytes:
        """Say nothing: an EventSource that was not sent the end comes again with its cursor."""
        return b""

    def heartbeat(self) -> bytes:
        """Give what is sent in silence."""
        return self.one.heartbeat()


def _visible(hub: Hub, record: Record) -> Entry | None:
    assert isinstance(hub, Board)
    assert isinstance(record, Entry)
    return None if record.hub.key.task in hub.revoked else record
