"""The A2A wires for streams and hubs: encodes with `core.views.a2a`, shares what it encoded.

Must not know requests or transports.
"""

from __future__ import annotations

from collections.abc import Hashable

from msgspec import Struct

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind, error_frame
from sidecast_broker.core.a2a.translate.raw import Untranslatable
from sidecast_broker.core.a2a.wire import Wire
from sidecast_broker.core.auth.life import End
from sidecast_broker.core.cursor import format_cursor
from sidecast_broker.core.frame import HEARTBEAT
from sidecast_broker.core.log import Record
from sidecast_broker.core.pace import Slow
from sidecast_broker.core.views.a2a import EVENT_BYTES_MAX, RPC_ID, TOO_LARGE, event_frame, marked, task_frame
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.hub import Hub
from sidecast_schemas.events import INTERRUPTED_STATES, TERMINAL_STATES

DISPLACED = "Another stream has this named subscription, or it was deleted"

_ID_HERE = b'"urn:sidecast:id"'


_ENDS: dict[End, tuple[ErrorKind, str]] = {
    "expired": (ErrorKind.UNAUTHENTICATED, "The credential has expired; subscribe again with another"),
    "revoked": (ErrorKind.PERMISSION_DENIED, "Access was revoked"),
}


class AgentTurn:
    """What a send stream follows: the turn that one message began.

    Attributes:
        message_id: names the turn in its control records.
        answered: the agent's own answer has ended; where no control records say so, that ends the turn.
    """

    __slots__ = ("answered", "message_id")

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.answered = False

    def end(self, hub: Hub) -> int | None:
        """Give the sequence the turn ends at, as far as the log says; None: it goes on."""
        span = hub.fold.turn_span(self.message_id)
        if span is not None:
            return span.end
        # Without records, a turn is over with the answer, once the log has come as far as that.
        return hub.end if self.answered and hub.fold.interrupted else None


class A2AView(Struct, frozen=True):
    """One A2A client's form of a task; what it shares with others of its wire is encoded once.

    Attributes:
        wire: generation and binding.
        rpc_id: raw JSON id of its JSON-RPC request; empty on REST.
        heartbeat_s: silence after which a heartbeat is sent.
        turn: a send stream ends with its turn; None: a subscriber's ends with the task.
    """

    wire: Wire
    rpc_id: bytes
    heartbeat_s: float
    turn: AgentTurn | None = None

    @property
    def key(self) -> Hashable:
        """Equal for those written to together: what differs is the id."""
        return (self.wire, self.turn)

    @property
    def format(self) -> str:
        """The format's name in metrics and logs."""
        return self.wire.format

    @property
    def insert(self) -> bytes | None:
        """The id, where the wire has one in each frame."""
        return self.rpc_id if self.wire.binding == "jsonrpc" else None

    def record(self, hub: Hub, record: Record) -> bytes:
        """Give the frame of a record; empty beyond the turn."""
        if self.turn is not None and (end := self.turn.end(hub)) is not None and record.sequence > end:
            return b""
        # Only on send streams an interrupted state is the last one (C35); only v0.3 says so.
        closing = self.turn is not None and self.wire.version == "0.3"
        key = (self.wire, closing)
        data = record.frame(key)
        if data is None:
            final = None
            if closing and (state := record.event.state) is not None:
                final = state in TERMINAL_STATES or state in INTERRUPTED_STATES
            event_id = format_cursor(hub.epoch, record.sequence)
            data = self._frame(record.event.payload, event_id, final)
            record.keep(key, data)
            hub.log.grow(record, len(data))
        assert isinstance(data, bytes)
        return data

    def pieces(self, hub: Hub, records: list[Record]) -> None:
        """Say that each record is a frame: these formats are never thinned (C23)."""

    def joined(self, hub: Hub, pieces: list[tuple[int, bytes]]) -> bytes:
        """Give frames as the bytes of one write."""
        return b"".join(data for _sequence, data in pieces)

    def _frame(self, payload: bytes, event_id: str, final: bool | None) -> bytes:
        try:
            data = event_frame(self.wire, payload, event_id, final=final)
        except Untranslatable as error:
            return self._fault(str(error))
        return data if len(data) <= EVENT_BYTES_MAX else self._fault(TOO_LARGE)

    def _fault(self, detail: str) -> bytes:
        """Give an error in the place of an event, to be shared like it."""
        error = A2AError(ErrorKind.INTERNAL_ERROR, detail)
        return error_frame(error, self.wire, _ID_HERE).replace(_ID_HERE, RPC_ID)

    def snapshot(self, hub: Hub) -> bytes:
        """Give the frame with the task as it stands; encoded once per position."""
        key = ("task", self.wire)
        data = hub.snapshots.get(key)
        if data is None:
            data = hub.snapshots[key] = self.task(hub, hub.fold.task(), hub.end)
        return data

    def task(self, hub: Hub, task: bytes, sequence: int) -> bytes:
        """Give the frame with a Task folded at a position.

        Args:
            hub: the task's.
            task: v1.0 JSON.
            sequence: the position.

        Raises:
            A2AError: this generation has no words for what the task holds.
        """
        try:
            return task_frame(self.wire, task, format_cursor(hub.epoch, sequence))
        except Untranslatable as error:
            raise A2AError(ErrorKind.INTERNAL_ERROR, str(error)) from error

    def anew(self, hub: Hub, reason: StreamGapReason, requested: str) -> bytes:
        """Give the Task as it stands, its metadata saying what can't be had after `requested` (C30)."""
        cursor = format_cursor(hub.epoch, hub.end)
        gap = {"reason": reason, "requested": requested[:128].encode(errors="replace").decode()}
        return self.task(hub, marked(hub.fold.task(), cursor=cursor, gap=gap), hub.end)

    def gap(self, hub: Hub, reason: StreamGapReason, requested: str, oldest: int) -> bytes | None:
        """Give a Task in the middle of a stream; clients of v0.3 fail on one (C33), and must come again."""
        if self.wire.version == "0.3" or hub.first is None:
            return None
        return self.anew(hub, reason, requested)

    @property
    def thins(self) -> bool:
        """Say that each record is a frame (C23)."""
        return False

    def lag(self, behind_events: int, policy: Slow) -> bytes:
        """Say nothing: there is no frame for it."""
        return b""

    def drain(self, reconnect_in_ms: int) -> bytes:
        """Give an error, so that nobody takes the end of the stream for that of the task (C70)."""
        error = A2AError(ErrorKind.UNAVAILABLE, "The broker ends this stream; subscribe again to go on")
        return error_frame(error, self.wire, self.rpc_id or None)

    def expiring(self, expires_in_s: float) -> bytes:
        """Say nothing: there is no frame for it."""
        return b""

    def cut_short(self, hub: Hub, end: End) -> bytes:
        """Give an error, so that nobody takes the end of the stream for that of the task (C70)."""
        error = A2AError(*_ENDS[end])
        return error_frame(error, self.wire, self.rpc_id or None)

    def lost(self) -> bytes:
        """Give an error, so that nobody takes the end of the stream for that of the task (C70)."""
        error = A2AError(ErrorKind.UNSUPPORTED_OPERATION, DISPLACED)
        return error_frame(error, self.wire, self.rpc_id or None)

    def not_found(self) -> bytes:
        """Give the end of a stream whose task never came."""
        error = A2AError(ErrorKind.UNAVAILABLE, "The agent's events have not reached the log")
        return error_frame(error, self.wire, self.rpc_id or None)

    def unavailable(self) -> bytes:
        """Give an error, so that nobody takes the end of the stream for that of the task (C50)."""
        error = A2AError(ErrorKind.UNAVAILABLE, "What follows can't be read; subscribe again to go on")
        return error_frame(error, self.wire, self.rpc_id or None)

    def ended(self, hub: Hub, cursor: int) -> bool:
        """Tell whether the task, or the turn, is over and a cursor beyond its last event."""
        if hub.ends_at(cursor):
            return True
        return self.turn is not None and (end := self.turn.end(hub)) is not None and cursor >= end

    def end(self, hub: Hub) -> bytes:
        """Say nothing: the stream ends right after its last event (C03)."""
        return b""

    def heartbeat(self) -> bytes:
        """Give what every A2A client survives (C25)."""
        return HEARTBEAT
