"""What a board is made of: which tasks are selected, each with its hub, and their records.

Must not know the order records come in, nor who watches them.
"""

from __future__ import annotations

from typing import NamedTuple

from sidecast_broker.core.log import Record
from sidecast_broker.hub import Hub
from sidecast_broker.tail import Tail
from sidecast_schemas.codec import Event


class Selection(NamedTuple):
    """Which tasks of an agent are watched together; exactly one of these is given.

    Attributes:
        tasks: those, where they are listed.
        context: all of one context.
        agent: all there are.
    """

    tasks: frozenset[str] | None = None
    context: str | None = None
    agent: bool = False

    @property
    def listed(self) -> bool:
        """Whether no other task will come."""
        return self.tasks is not None


class Member(NamedTuple):
    """One task of a board.

    Attributes:
        hub: its hub, in use.
        tail: what feeds that.
    """

    hub: Hub
    tail: Tail


class Entry(Record):
    """A record of one of the tasks: shares payload and frames with the task's own watchers.

    Attributes:
        hub: the task's.
        record: the task's own.
        ends: whether it ends the task.
    """

    __slots__ = ("ends", "hub", "record")

    def __init__(self, record: Record, hub: Hub) -> None:
        # What the base class would hold of its own stays with the task's record.
        self.sequence = record.sequence
        self.at = record.at
        self.payload = record.payload
        self.deliverable = record.deliverable
        self.frame_bytes = 0
        self.record = record
        self.hub = hub
        self.ends = hub.fold.terminal_sequence == record.sequence

    @property
    def event(self) -> Event:
        """The decoded payload."""
        return self.record.event

    def forget_event(self) -> None:
        """Leave it to the task's hub when the decoded form goes."""
