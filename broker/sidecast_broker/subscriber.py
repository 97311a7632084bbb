"""One client's place in a task, and what it needs to be written to.

Must not know who writes, or when.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from math import inf
from typing import TYPE_CHECKING, Literal, Protocol

from sidecast_broker.core.log import Record
from sidecast_broker.core.pace import Bucket, Pace
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.timers import Timer

if TYPE_CHECKING:
    from sidecast_broker.hub import Hub

Wake = Literal["behind", "ended", "gap"]

NEVER = inf
"""Of a subscriber for which no time is set."""


class Transport(Protocol):
    """The part of an asyncio transport that a hub uses."""

    def write(self, data: bytes) -> None:
        """Send, or buffer what the socket doesn't take."""

    def get_write_buffer_size(self) -> int:
        """Tell how many bytes the socket has not taken yet."""

    def is_closing(self) -> bool:
        """Tell whether the connection is gone or going."""

    def abort(self) -> None:
        """Break the connection at once."""


class View(Protocol):
    """How one client format shows a task; equal views share every encoded byte."""

    @property
    def key(self) -> Hashable:
        """Equal for views that encode and filter alike."""

    @property
    def format(self) -> str:
        """The format's name in metrics and logs."""

    def record(self, hub: Hub, record: Record) -> bytes:
        """Give the frame of a record, empty where this view leaves it out."""

    def pieces(self, hub: Hub, records: list[Record]) -> list[tuple[int, bytes]] | None:
        """Give frames and the positions they lead up to; None: each record is a frame of its own.

        A position of 0: a client that has this frame continues from where the next one leads to.
        """

    def joined(self, hub: Hub, pieces: list[tuple[int, bytes]]) -> bytes:
        """Give those frames as the bytes of one write."""

    def ended(self, hub: Hub, cursor: int) -> bool:
        """Tell whether nothing this view would show follows a cursor, ever."""

    def end(self, hub: Hub) -> bytes:
        """Give what is sent after the last event."""


class Subscriber:
    """One client of one task: a cursor into its log, and where its bytes go.

    Attributes:
        cursor: sequence of the newest record it has been sent.
        insert: what replaces each NUL in the bytes that all clients of its view share; None: there are none.
        fd: the transport's socket where bytes may go there directly; -1 where it encrypts them.
        events: frames of records sent.
        bytes_sent: bytes of frames sent.
        written_at_s: when it was last sent something on its own (monotonic).
        joined: whether the hub writes to it.
        pace: its own pace; None: it is sent everything as it comes.
        bucket: where its rate is bounded.
        due_s: when it is written to next, where that is set (monotonic); `NEVER`: not before something comes.
        timer: what waits for that time, which a client that leaves must not be held by.
        gap: why what follows its cursor can't be had, until its stream has told it.
    """

    __slots__ = (
        "bucket",
        "buffer_bytes_max",
        "bytes_sent",
        "chunked",
        "cursor",
        "due_s",
        "events",
        "fd",
        "gap",
        "insert",
        "joined",
        "pace",
        "timer",
        "transport",
        "view",
        "wake",
        "written_at_s",
    )

    def __init__(
        self,
        view: View,
        transport: Transport,
        *,
        chunked: bool,
        buffer_bytes_max: int,
        wake: Callable[[Wake], None],
        insert: bytes | None = None,
        fd: int = -1,
        pace: Pace | None = None,
    ) -> None:
        self.view = view
        self.transport = transport
        self.chunked = chunked
        self.buffer_bytes_max = buffer_bytes_max
        self.wake = wake
        self.cursor = 0
        self.insert = insert
        self.fd = fd
        self.events = 0
        self.bytes_sent = 0
        self.written_at_s = 0.0
        self.gap: StreamGapReason | None = None
        self.joined = False
        self.pace = pace
        self.bucket = Bucket(pace.rate, pace.burst) if pace is not None and pace.rate else None
        self.due_s = NEVER
        self.timer: Timer | None = None

    def send(self, data: bytes) -> int:
        """Send bytes past the transport's queue; give how many the socket didn't take, which go through it.

        What the system call says of an error the transport finds for itself. Not for a closing one.
        """
        unsent = len(data)
        self.bytes_sent += unsent
        if self.fd >= 0 and not self.transport.get_write_buffer_size():
            try:
                unsent -= os.write(self.fd, data)
            except OSError:
                pass
        if unsent:
            self.transport.write(data[-unsent:])
        return unsent
