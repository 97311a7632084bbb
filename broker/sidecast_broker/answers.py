"""What JetStream answers, as structs, and the ways it can fail to.

Must not know connections. Source: the JetStream API of nats-server 2.12 to 2.15.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from sidecast_broker.core.log import Stored
from sidecast_schemas import headers as names

STREAM_NOT_FOUND = 10059
NO_MESSAGE = 10037


class Away(Exception):  # noqa: N818 - a state of the world
    """NATS can't answer: not connected, no leader, no stream, or too slow."""


class Unusable(Away):
    """The stream exists in a form the broker can't work with."""


class PublishRefused(Exception):  # noqa: N818
    """The server took a publish for wrong, for example with an unexpected last sequence."""


class PublishConflict(PublishRefused):
    """The subject's last sequence is another than the publish expected: somebody else has written."""


class TooManyResults(Away):
    """More subjects match than one direct get answers for (nats-server 2.15: 1,024)."""


class Page(NamedTuple):
    """Records in a row.

    Attributes:
        records: oldest first.
        pending: how many more the answering server says there are; it may lag behind the leader.
    """

    records: list[Stored]
    pending: int


class StreamInfo(NamedTuple):
    """What the stream's leader says of it.

    Attributes:
        epoch: names this incarnation of the stream in event ids.
        created: when it was made, as the server writes it.
        first: sequence of the oldest retained message (of any task), 0 when there was none.
        last: sequence of the newest message ever stored.
        deleted: messages missing between the two (purged by subject or deleted singly).
    """

    epoch: str
    created: str
    first: int
    last: int
    deleted: int


class ApiError(msgspec.Struct):
    """The error member of an answer."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class StoredMessage(msgspec.Struct):
    """One message as the leader gives it."""

    subject: str
    seq: int
    time: str
    hdrs: bytes = b""
    data: bytes = b""


class MessageAnswer(msgspec.Struct):
    """Answer to `STREAM.MSG.GET`."""

    message: StoredMessage | None = None
    error: ApiError | None = None


class StreamState(msgspec.Struct):
    """What a stream holds."""

    first_seq: int = 0
    last_seq: int = 0
    num_deleted: int = 0


class InfoAnswer(msgspec.Struct):
    """Answer to `STREAM.INFO`, `CREATE` and `UPDATE`."""

    config: dict[str, Any] = {}
    created: str = ""
    ts: str = ""
    state: StreamState = msgspec.field(default_factory=StreamState)
    error: ApiError | None = None


class SubjectsState(msgspec.Struct):
    """How many messages each subject holds."""

    subjects: dict[str, int] = {}


class SubjectsAnswer(msgspec.Struct):
    """Answer to `STREAM.INFO` with a subjects filter."""

    state: SubjectsState = msgspec.field(default_factory=SubjectsState)
    error: ApiError | None = None


class PublishAnswer(msgspec.Struct):
    """The acknowledgement of a publish."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


decode_message = msgspec.json.Decoder(MessageAnswer).decode
decode_info = msgspec.json.Decoder(InfoAnswer).decode
decode_subjects = msgspec.json.Decoder(SubjectsAnswer).decode
decode_ack = msgspec.json.Decoder(PublishAnswer).decode


def parse_time(text: str) -> float:
    """Give the seconds since the epoch of a server's RFC 3339 time (nanoseconds and `Z`)."""
    return datetime.fromisoformat(text).timestamp()


@lru_cache(maxsize=64)
def _mark(name: str) -> bytes:
    return b"\r\n%b:" % name.encode()


class Headers(Mapping[str, str]):
    """The headers of a message, looked up in the block they came in: of eight the broker reads three.

    Names match in exact case. Of a name that stands twice the last value counts, which is the server's.

    Args:
        block: `NATS/1.0`, the lines, an empty line; or nothing.
    """

    __slots__ = ("block",)

    def __init__(self, block: bytes) -> None:
        self.block = block

    def __getitem__(self, name: str) -> str:
        mark = _mark(name)
        start = self.block.rfind(mark)
        if start < 0:
            raise KeyError(name)
        start += len(mark)
        return self.block[start : self.block.index(b"\r\n", start)].decode("utf-8", "replace").strip()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _mark(name) in self.block

    def __iter__(self) -> Iterator[str]:
        return iter(parse_headers(self.block.partition(b"\r\n")[2]))

    def __len__(self) -> int:
        return len(parse_headers(self.block.partition(b"\r\n")[2]))

    @property
    def status(self) -> str | None:
        """The status in the first line, of a message that is none but says how a request ended."""
        return self.block[9:12].decode("ascii", "replace") if self.block.startswith(b"NATS/1.0 ") else None


_POSITION = re.compile(
    rb"\r\nNats-Sequence: ?(\d+)\r\nNats-Time-Stamp: ?([^\r]+)\r\n(?:Nats-Num-Pending: ?\d+\r\n)?"
    rb"Nats-Last-Sequence: ?(\d+)\r\n"
)


def stored_from(headers: Headers, payload: bytes) -> Stored:
    """Make a `Stored` of a republished or directly read message.

    Raises:
        KeyError, ValueError: it has no position; then no server wrote it.
    """
    # The server writes its headers in this order, after all others: one match from the last sequence on finds
    # what three look-ups would, at a quarter of their price.
    block = headers.block
    if match := _POSITION.match(block, block.rfind(b"\r\nNats-Sequence:")):
        sequence, at, previous = match.groups()
        return Stored(int(sequence), int(previous), at.decode(), headers, payload)
    return Stored(
        int(headers[names.SEQUENCE]),
        int(headers[names.LAST_SEQUENCE]),
        headers[names.TIME_STAMP],
        headers,
        payload,
    )


def parse_headers(lines: bytes) -> dict[str, str]:
    """Parse NATS header lines; of a name that stands twice the last value counts, which is the server's.

    A name must match to the letter to be found, so one with a space in it shadows nothing.
    """
    found = {}
    for line in lines.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            found[name] = value.strip()
    return found
