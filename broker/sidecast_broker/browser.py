"""The browser format for streams and hubs: encodes with `core.views.events`, shares what it encoded.

Must not know requests or transports.
"""

from __future__ import annotations

from collections.abc import Hashable

from msgspec import Struct

from sidecast_broker.core.auth.life import End
from sidecast_broker.core.cursor import format_cursor
from sidecast_broker.core.frame import HEARTBEAT
from sidecast_broker.core.log import Record
from sidecast_broker.core.pace import Slow
from sidecast_broker.core.resume import Mode, Opening
from sidecast_broker.core.views import events
from sidecast_broker.core.views.coalesced import Piece, coalesce
from sidecast_broker.core.views.events import EncodedFrame, Filter
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.hub import Hub


class BrowserView(Struct, frozen=True):
    """One shape of the `events` format; equal shapes share their frames.

    Attributes:
        named: whether frames carry an `event:` line.
        filter: which frames the client wants.
        heartbeat_event: whether it wants heartbeats it can see.
        heartbeat_s: told in `stream.open`.
        retry_ms: told in `stream.open`.
        coalesce: whether it takes fewer frames that say the same.
        array: whether it wants what goes out together as one `task.batch`.
    """

    named: bool
    filter: Filter
    heartbeat_event: bool
    heartbeat_s: float
    retry_ms: int
    coalesce: bool = False
    array: bool = False

    @property
    def key(self) -> Hashable:
        """Equal for views whose records become the same bytes."""
        return (self.named, self.filter, self.coalesce, self.array)

    @property
    def insert(self) -> None:
        """Nothing differs between clients."""
        return

    @property
    def format(self) -> str:
        """The format's name in metrics and logs."""
        return "events"

    def record(self, hub: Hub, record: Record) -> bytes:
        """Give the frame of a record, empty where the filter leaves it out."""
        frame = self._frame(hub, record)
        return frame.data if frame is not None and self.filter.admits(frame.kind) else b""

    def _frame(self, hub: Hub, record: Record) -> EncodedFrame | None:
        frame = record.frame(self.named)
        if frame is None:
            frame = events.encode(record, hub.fold, hub.epoch, named=self.named)
            if frame is None:
                return None
            record.keep(self.named, frame)
            hub.log.grow(record, len(frame.data))
        assert isinstance(frame, EncodedFrame)
        return frame

    @property
    def thins(self) -> bool:
        """Whether several records may become one frame."""
        return self.coalesce

    def pieces(self, hub: Hub, records: list[Record]) -> list[tuple[int, bytes]] | None:
        """Give frames and the positions they lead up to, fewer where asked for; None: each record is one."""
        if not self.coalesce and not self.array:
            return None
        found = [
            Piece(record.sequence, frame)
            for record in records
            if record.deliverable
            and (frame := self._frame(hub, record)) is not None
            and self.filter.admits(frame.kind)
        ]
        if self.coalesce:
            found = coalesce(found, hub.fold, hub.epoch, named=self.named)
        # What goes into an array needs no lines of its own.
        return [(piece.sequence, piece.frame.json if self.array else piece.frame.data) for piece in found]

    def joined(self, hub: Hub, pieces: list[tuple[int, bytes]]) -> bytes:
        """Give frames as the bytes of one write; where asked for, as one frame with the last one's id."""
        found = [data for _sequence, data in pieces]
        if not self.array or not found:
            return b"".join(found)
        return events.batch_frame(hub.key.task, found, pieces[-1][0], hub.epoch, named=self.named).data

    def snapshot(self, hub: Hub) -> bytes:
        """Give the frame with the task as it stands; encoded once per position."""
        key = ("snapshot", self.named)
        data = hub.snapshots.get(key)
        if data is None:
            partial = not hub.complete
            at = hub.newest_at
            frame = events.snapshot(hub.fold, hub.end, at, hub.epoch, partial=partial, named=self.named)
            data = hub.snapshots[key] = frame.data
        return data

    def begin(self, hub: Hub, opening: Opening, requested: str) -> tuple[bytes, int]:
        """Give what a stream begins with, and the sequence it leads up to.

        Args:
            hub: the task's.
            opening: how to begin.
            requested: the cursor the client sent, empty for none.
        """
        head = self._open(hub, opening.mode, opening.after)
        if opening.gap is not None:
            head += self._gap(hub, opening.gap.reason, requested, opening.gap.oldest)
        if opening.mode != "snapshot":
            return head, opening.after
        return head + self.snapshot(hub), hub.end

    def _open(self, hub: Hub, mode: Mode, cursor: int) -> bytes:
        return events.open_frame(
            mode,
            format_cursor(hub.epoch, cursor),
            self.heartbeat_s,
            self.retry_ms,
            named=self.named,
            task_id=hub.key.task,
        ).data

    def gap(self, hub: Hub, reason: StreamGapReason, requested: str, oldest: int) -> bytes:
        """Give the frame that tells of a hole, and the task as it stands where there is one."""
        told = self._gap(hub, reason, requested, oldest)
        return told + self.snapshot(hub) if hub.first is not None else told

    def _gap(self, hub: Hub, reason: StreamGapReason, requested: str, oldest: int) -> bytes:
        return events.gap_frame(
            reason,
            requested or None,
            format_cursor(hub.epoch, oldest),
            named=self.named,
            task_id=hub.key.task,
        ).data

    def lag(self, behind_events: int, policy: Slow) -> bytes:
        """Give the frame that tells a client it is slow, and what becomes of it."""
        return events.lag_frame(behind_events, policy, named=self.named).data

    def drain(self, reconnect_in_ms: int) -> bytes:
        """Give the frame that sends a client to another broker."""
        return events.drain_frame(reconnect_in_ms, named=self.named).data

    def expiring(self, expires_in_s: float) -> bytes:
        """Give the frame that tells of the credential's end."""
        return events.expiring_frame(round(expires_in_s, 1), named=self.named).data

    def cut_short(self, hub: Hub, end: End) -> bytes:
        """Give the end of a stream that may not go on; the task's state only where it might be seen."""
        state = hub.fold.state if end == "expired" else None
        return events.end_frame(state, end, named=self.named, task_id=hub.key.task).data

    def lost(self, hub: Hub, reason: str) -> bytes:
        """Give the end of a stream that doesn't hold its named subscription any more."""
        return events.end_frame(hub.fold.state, reason, named=self.named, task_id=hub.key.task).data

    def ended(self, hub: Hub, cursor: int) -> bool:
        """Tell whether the task is over and a cursor beyond its last event."""
        return hub.ends_at(cursor)

    def end(self, hub: Hub) -> bytes:
        """Give what is sent after the task's terminal event."""
        reason = "task-ended"
        return events.end_frame(hub.fold.state, reason, named=self.named, task_id=hub.key.task).data

    def not_found(self) -> bytes:
        """Give the end of a stream whose task never came."""
        return events.end_frame(None, "not-found", named=self.named).data

    def unavailable(self) -> bytes:
        """Say nothing: an EventSource that was not sent `stream.end` comes again with its cursor."""
        return b""

    def heartbeat(self) -> bytes:
        """Give what is sent in silence."""
        return events.heartbeat_frame(named=self.named).data if self.heartbeat_event else HEARTBEAT
