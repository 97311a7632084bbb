"""A task's recent records in memory: bounded by bytes, addressed by stream sequence.

Must not know subscribers, frames' formats or where records come from.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Mapping
from operator import attrgetter

from msgspec import Struct

from sidecast_schemas import headers as names
from sidecast_schemas.codec import Event, TurnBody, decode_event
from sidecast_schemas.subjects import InvalidId, decode_token

RECORD_BYTES = 320
"""Memory of one record beside its payload and frames: object, list slots and bytes headers."""


_sequence = attrgetter("sequence")


class Stored(Struct, frozen=True, gc=False):
    """One stored message of a task.

    Attributes:
        sequence: its JetStream sequence.
        previous: the sequence of the message before it on its subject; in a page, of the one before it there.
        at: RFC 3339 UTC, as the server wrote it.
        headers: the publisher's headers with the server's, which stand last, on top.
        payload: as it was published.
    """

    sequence: int
    previous: int
    at: str
    headers: Mapping[str, str]
    payload: bytes

    @property
    def owner(self) -> str | None:
        """The principal its publisher names as the task's owner; None: nobody, or what is no name."""
        token = self.headers.get(names.OWNER)
        if token is None:
            return None
        try:
            return decode_token(token)
        except InvalidId:
            return None


def at_milliseconds(at: str) -> str:
    """Give an RFC 3339 time in `Z` with three digits of fraction; servers leave trailing zeros out."""
    if len(at) == 30:  # nanoseconds in full
        return at[:23] + "Z"
    seconds, _dot, fraction = at.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction[:3]:0<3}Z"


class Record:
    """One stored event of a task, at its position.

    Attributes:
        sequence: JetStream sequence; ascending within a task, with holes where other tasks wrote.
        at: when it was stored, RFC 3339 UTC with milliseconds and `Z`.
        payload: the event as one line of JSON.
        deliverable: whether a client receives it (not a control record, not after the terminal state).
        frame_bytes: size of the frames kept.
    """

    __slots__ = (
        "_event",
        "_frame",
        "_others",
        "_view",
        "at",
        "deliverable",
        "frame_bytes",
        "payload",
        "sequence",
    )

    def __init__(self, sequence: int, at: str, event: Event) -> None:
        self.sequence = sequence
        self.at = at
        self.payload = event.payload
        self.deliverable = True
        self.frame_bytes = 0
        # Nearly all tasks are watched in one format: a dict for one frame takes as much as the frame.
        self._view: Hashable = None
        self._frame: object = None
        self._others: dict[Hashable, object] | None = None
        self._event: Event | None = event

    @classmethod
    def undeliverable(cls, sequence: int) -> Record:
        """Give a record that only holds a place: what is stored there can't be decoded."""
        record = cls(sequence, "", Event("turn", b"", TurnBody("", "end")))
        record.deliverable = False
        return record

    @property
    def event(self) -> Event:
        """The decoded payload; decoded again once it was forgotten."""
        if self._event is None:
            self._event = decode_event(self.payload)
        return self._event

    def frame(self, view: Hashable) -> object | None:
        """Give the frame kept for a view, shared by every client of it; None: it has not been encoded yet."""
        if self._view == view:
            return self._frame
        return None if self._others is None else self._others.get(view)

    def keep(self, view: Hashable, frame: object) -> None:
        """Keep a view's frame; the log is told of its size by `grow`."""
        if self._frame is None:
            self._view, self._frame = view, frame
        elif self._others is None:
            self._others = {view: frame}
        else:
            self._others[view] = frame

    def forget_event(self) -> None:
        """Free the decoded form, three times as large as the payload, which holds the same."""
        self._event = None


class Log:
    """Holds every record of the task with `floor < sequence <= end`, newest last.

    Args:
        bytes_max: what it may hold; the oldest records leave first, the newest always stays.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.floor = 0
        self.end = 0
        self.size_bytes = 0
        self._records: list[Record] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._records) - self._head

    def __iter__(self) -> Iterator[Record]:
        for index in range(self._head, len(self._records)):
            yield self._records[index]

    def append(self, record: Record) -> None:
        """Add the newest record, and let the oldest go while over the bound.

        Raises:
            ValueError: its sequence is not above the end; the log is unchanged.
        """
        if record.sequence <= self.end:
            raise ValueError(f"sequence {record.sequence} is not above the log's end {self.end}")
        self._records.append(record)
        self.end = record.sequence
        self.size_bytes += RECORD_BYTES + len(record.payload)
        if self.size_bytes > self.bytes_max:
            self.trim(self.bytes_max)

    def skip(self, sequence: int) -> None:
        """Move the end past a record that is not kept because nothing of it is ever delivered."""
        self.end = max(self.end, sequence)

    def grow(self, record: Record, frame_bytes: int) -> None:
        """Count a frame that was encoded for a record the log still holds."""
        if record.sequence > self.floor:
            record.frame_bytes += frame_bytes
            self.size_bytes += frame_bytes

    def trim(self, bytes_max: int) -> None:
        """Let the oldest records go until at most `bytes_max` bytes are held; the newest stays."""
        last = len(self._records) - 1
        while self.size_bytes > bytes_max and self._head < last:
            self._drop_oldest()
        self._compact()

    def drop_below(self, sequence: int) -> None:
        """Forget the records below a sequence: the stream doesn't hold them any more either."""
        while self._head < len(self._records) and self._records[self._head].sequence < sequence:
            self._drop_oldest()
        self.floor = max(self.floor, min(sequence - 1, self.end))
        self._compact()

    def _drop_oldest(self) -> None:
        record = self._records[self._head]
        self.size_bytes -= RECORD_BYTES + len(record.payload) + record.frame_bytes
        self.floor = record.sequence
        self._head += 1

    def _compact(self) -> None:
        if self._head > 64 and self._head * 2 > len(self._records):
            del self._records[: self._head]
            self._head = 0

    def jump(self, sequence: int) -> None:
        """Forget all records and continue after `sequence`: what lies before is lost or of another epoch."""
        self._records.clear()
        self._head = 0
        self.size_bytes = 0
        self.floor = self.end = sequence

    def after(self, sequence: int, count_max: int | None = None) -> list[Record]:
        """Give the records above a sequence, oldest first.

        Args:
            sequence: a cursor, at or above `floor`.
            count_max: at most so many.

        Raises:
            ValueError: the cursor lies below `floor`, so the log can't tell what follows it.
        """
        if sequence < self.floor:
            raise ValueError(f"cursor {sequence} is below the log's floor {self.floor}")
        start = bisect_right(self._records, sequence, self._head, key=_sequence)
        stop = len(self._records) if count_max is None else start + count_max
        return self._records[start:stop]

    def find(self, sequence: int) -> Record | None:
        """Give the record at exactly this sequence, or None."""
        index = bisect_right(self._records, sequence, self._head, key=_sequence) - 1
        if index >= self._head and (record := self._records[index]).sequence == sequence:
            return record
        return None
