"""Several tasks as one: their records in the order of the stream, out of their hubs, for one set of clients.

Must not know HTTP, NATS, nor who is allowed what: whether a task belongs here is decided outside.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice

from sidecast_broker.belonging import Belonging
from sidecast_broker.core.log import Stored
from sidecast_broker.entry import Entry, Member, Selection
from sidecast_broker.errands import Decide, Errands, Unnamed, fetch, patiently
from sidecast_broker.feed import Arrival
from sidecast_broker.hub import Hub
from sidecast_schemas.subjects import TaskKey

LOOK_AHEAD = 32
"""Records that wait whose tasks are looked at together: a service asked about each may take seconds."""


class Board(Hub):
    """Holds the records of several tasks, and feeds their subscribers as a hub does those of one.

    The feed says what comes when; the records come out of the tasks' hubs. A record goes out when every one
    before it has: one that is still to be decided about, or that its hub lacks, holds up those behind it.

    Args:
        selection: which tasks.
        position: everything up to this sequence lies before it.
        decide: asked once for each task that comes.
        may_begin: tells of the first record of a barred task whether it makes it one of the board's.
        release: takes a member back.
        hub: the arguments of `Hub`.

    Attributes:
        members: tasks with their hubs, the last one active last; of a list all that have begun.
        missing: listed tasks that have not begun.
        barred: those of them that may not be seen, unless their first record says otherwise.
        revoked: tasks that were taken off, of which nothing more may be sent.
    """

    def __init__(
        self,
        selection: Selection,
        position: int,
        *,
        decide: Decide,
        may_begin: Callable[[Arrival], bool],
        release: Callable[[Member], None],
        members_max: int,
        **hub: object,
    ) -> None:
        super().__init__(**hub)  # type: ignore[arg-type]
        self.selection = selection
        self.members: OrderedDict[str, Member] = OrderedDict()
        self.missing: set[str] = set(selection.tasks or ())
        self.barred: set[str] = set()
        self.revoked: set[str] = set()
        self.first = position
        self.log.jump(position)
        self._interrupt("expired")  # nobody is there yet: what lies before is not written to anybody
        self._feed_position = position
        self._decide = decide
        self._may_begin = may_begin
        self._release = release
        self._members_max = members_max
        self._belonging = Belonging()
        self._open: set[str] = set()
        self._last_end = 0
        self._queue: deque[Arrival] = deque()
        self._gaps: dict[str, int] = {}
        self._gone: set[int] = set()
        self._closed = False
        self._errands = Errands(self._drain, self.fail)

    # ------------------------------------------------------------------ its tasks

    @property
    def position(self) -> int:
        """All there is of its tasks up to this sequence is in the log, or was."""
        return self._queue[0].sequence - 1 if self._queue else self._feed_position

    def admit(self, member: Member) -> None:
        """Take a task in; what comes of it from now on goes out."""
        hub, task = member.hub, member.hub.key.task
        # What reads tasks for a board may outlast it: a wait that ends just then can swallow its cancellation
        # (`asyncio.wait_for` before Python 3.12).
        if self._closed or task in self.members or task in self.revoked:
            self._release(member)
            return
        self.members[task] = member
        self._gaps[task] = hub.gap_below
        self._belonging.admit(task)
        self.missing.discard(task)
        hub.listen(self._drain)
        end = hub.fold.terminal_sequence
        if end is None or end > self.position:
            self._open.add(task)
        else:
            self._last_end = max(self._last_end, end)
        if not self.selection.listed and len(self.members) > self._members_max:
            self._drop(next(iter(self.members)))

    def _drop(self, task: str) -> None:
        member = self.members.pop(task)
        del self._gaps[task]
        member.hub.stop_listening(self._drain)
        self._open.discard(task)
        self._release(member)

    def forbids(self, task: str) -> bool:
        """Tell whether a task doesn't belong here, as far as was decided."""
        if self.selection.tasks is not None and task not in self.selection.tasks:
            return True
        return self._belonging.refuses(task) or task in self.revoked

    def heed(self, task: str) -> None:
        """Know that a record names this board's context as its task's."""
        self._belonging.heed(task)

    def revoke(self, covers: Callable[[TaskKey], bool]) -> None:
        """Take off the tasks that may not be watched any more."""
        for task, member in list(self.members.items()):
            if covers(member.hub.key):
                self.revoked.add(task)
                self._drop(task)
        self._drain()

    def give_up(self) -> list[str]:
        """Wait no more for tasks that have not begun; give them."""
        missing = sorted(self.missing)
        for task in missing:
            self._belonging.refuse(task)
        self.missing.clear()
        return missing

    def close(self) -> None:
        """Let all its tasks go; those that still come are let go at once."""
        self._closed = True
        self._queue.clear()
        self._errands.close()
        for task in list(self.members):
            self._drop(task)
        self._soon(self.let_go)  # behind what it has under way

    # ------------------------------------------------------------------ the feed's follower

    def hear(self, task: str, stored: Stored) -> None:
        """Hand a live message to its task's hub: so it is there when its place in the order is known."""
        member = self.members.get(task)
        if member is not None and stored.sequence > member.hub.end:
            # Encoded here before the hub's own turn to write, which frees the decoded event at its end.
            self._schedule()
            member.tail.hear(stored)

    def arrive(self, arrival: Arrival) -> None:
        """Take the next record of the agent."""
        if not self.forbids(arrival.task) and not self._bars(arrival):
            self._queue.append(arrival)
        self._feed_position = arrival.sequence
        self._drain()

    def _bars(self, arrival: Arrival) -> bool:
        """Tell whether a record is of a task that may not be seen; looks nothing up, or it would show."""
        if arrival.task not in self.barred or arrival.is_first is None:
            return False
        if arrival.is_first and self._may_begin(arrival):
            self.barred.discard(arrival.task)
            return False
        return True

    def advance(self, position: int) -> None:
        """Know that nothing of the agent lies between what came last and a sequence."""
        self._feed_position = position
        self._tell_listeners()

    def lose(self) -> None:
        """Know that records of the agent have expired unread."""
        self.gap_below = self.position
        self._interrupt("expired")

    def renew(self, epoch: str) -> None:
        """Forget everything: the stream has begun anew."""
        self._queue.clear()
        self._feed_position = 0
        self._belonging.clear()
        self._last_end = 0
        self._open = set(self.members)
        self._gaps = dict.fromkeys(self.members, 0)
        self.reset(epoch)
        self._reloading = False
        self.first = 0
        self._tell_listeners()

    @property
    def reloading(self) -> bool:
        """Whether the stream has begun anew and what it holds is still being read."""
        return self._reloading or any(member.hub.reloading for member in self.members.values())

    def _drain(self) -> None:
        """Put into the log what can go there."""
        queue = self._queue
        before = self.position
        while queue and self._place(queue[0]):
            queue.popleft()
        for arrival in islice(queue, 1, LOOK_AHEAD):
            if not (self.forbids(arrival.task) or arrival.task in self.members):
                self._send_for(arrival)
        if self.position != before:
            self._tell_listeners()

    def _place(self, arrival: Arrival) -> bool:
        """Put a record in its place; False: it, and what comes after it, has to wait."""
        sequence, task = arrival.sequence, arrival.task
        if self.forbids(task):
            return True
        member = self.members.get(task)
        if member is None:
            self._send_for(arrival)
            return False
        hub = member.hub
        if hub.failed:
            self.fail()
            return True
        if (hub.end < sequence and sequence not in self._gone) or hub.reloading:
            if task not in self._errands:
                self._errands.begin(task, self._fetch(member, sequence))
            return False
        self.members.move_to_end(task)
        if sequence in self._gone or hub.gap_below != self._gaps[task]:
            self._gone.discard(sequence)
            self._gaps[task] = hub.gap_below
            self.log.jump(sequence - 1)
            self.gap_below = sequence - 1
            self._account()
            self._interrupt("expired")
        record = hub.log.find(sequence)
        if record is None:
            if sequence <= hub.log.floor:
                self.log.jump(sequence)  # its hub has let it go: who needs it reads on from the stream
                self._schedule()
            return True
        if record.deliverable:
            self.put(Entry(record, hub))
        return True

    def put(self, entry: Entry) -> None:
        """Append a record, to be written to the subscribers in this turn of the event loop."""
        self.newest_at = entry.at
        self.log.append(entry)
        if entry.ends:
            self._open.discard(entry.hub.key.task)
            self._last_end = max(self._last_end, entry.sequence)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._soon(self._flush)

    async def _fetch(self, member: Member, sequence: int) -> None:
        """Have a hub read a record that did not reach it."""
        if not await fetch(member, sequence):
            self._gone.add(sequence)  # purged before anybody had it

    def _send_for(self, arrival: Arrival) -> None:
        """Have it decided about a task, where that is not under way."""
        if arrival.task not in self._errands:
            self._errands.begin(arrival.task, self._take_in(arrival))

    async def _take_in(self, arrival: Arrival) -> None:
        try:
            member = await patiently(self._decide, arrival)
        except Unnamed:
            self._put_off(arrival)
            return
        if member is not None:
            late = self._belonging.is_late(arrival.task)
            self.admit(member)
            if late and any(each.deliverable for each in member.hub.log if each.sequence < arrival.sequence):
                self._gaps[arrival.task] = -1  # as where records are lost, all are shown it as it stands
        elif arrival.task in self.barred:
            self._queue = deque(waiting for waiting in self._queue if waiting.task != arrival.task)
        else:
            self._belonging.refuse(arrival.task)

    def _put_off(self, arrival: Arrival) -> None:
        """Leave a record out whose task may turn out to belong here."""
        self._belonging.put_off(arrival.task)
        if any(each.task == arrival.task and each is not arrival for each in self._queue):
            self._belonging.heed(arrival.task)  # the next one says more
            self._queue.remove(arrival)
            self._tell_listeners()

    # ------------------------------------------------------------------ what streams ask

    @property
    def complete(self) -> bool:
        """Whether nothing of its tasks is missing."""
        return not self.gap_below and all(member.hub.complete for member in self.members.values())

    @property
    def oldest_cursor(self) -> int:
        """The lowest cursor after which nothing of its tasks is known to be missing."""
        return max([self.gap_below, *(member.hub.oldest_cursor for member in self.members.values())])

    def ends_at(self, cursor: int) -> bool:
        """Tell whether nothing deliverable follows a cursor, ever."""
        over = not (self._open or self.missing or self._queue)
        return self.selection.listed and over and cursor >= self._last_end

    async def entry(self, stored: Stored, task: str) -> Entry | None:
        """Give one of the records that the log doesn't hold any more; None: it is not one of this board's."""
        if self.forbids(task):
            return None
        member = self.members.get(task)
        if member is None or member.hub.end < stored.sequence:
            try:
                found = await self._decide(Arrival(stored.sequence, task, stored, is_first=None))
            except Unnamed:
                found = None
            if found is None:
                return None
            self.admit(found)
            member = self.members.get(task)
            if member is None:
                return None
        hub = member.hub
        if hub.failed:
            self.fail()
            return None
        record = hub.log.find(stored.sequence) or hub.past_record(stored)
        return Entry(record, hub)

    def _tell_listeners(self) -> None:
        for tell in list(self._listeners):
            tell()
