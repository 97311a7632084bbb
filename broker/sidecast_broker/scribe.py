"""Writes what the agent says of one task into its log: what the log lacks of it, and the marks of turns.

Must not know where it was heard, nor who else writes beside what it is told of them.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.answers import PublishRefused
from sidecast_broker.core.a2a.capture import (
    Admitted,
    admit,
    bare_task,
    difference,
    turn_begin,
    turn_end,
)
from sidecast_broker.core.a2a.heard import Reading
from sidecast_broker.core.fold import Fold
from sidecast_broker.metrics import Metrics
from sidecast_broker.voices import AgentTasks, Said, Subscription, Turn, Voice
from sidecast_broker.writer import Writer
from sidecast_schemas.codec import Event, InvalidEvent, decode_event

logger = structlog.get_logger(__name__)


class Scribe:
    """Writes events of the source, in the order in which they are given.

    Args:
        writer: of the task's log.
        agent: asked for the whole Task before the end of one that was resynchronised is written.
        metrics: where to count.
        is_source: tells whether a voice is the source: of another one only the turns are written.
        mind_others: called after each record, for what others have written meanwhile.
        fresh_s: what a subscription repeats of its leading Task comes within so long.
        settle_s: an agent that can't be asked before the end is waited for so long.
        clock: seconds, monotonic.

    Attributes:
        verifies: whether the whole Task is asked for before the task's end is written.
    """

    def __init__(
        self,
        writer: Writer,
        agent: AgentTasks,
        metrics: Metrics,
        *,
        is_source: Callable[[Voice], bool],
        mind_others: Callable[[], None],
        fresh_s: float,
        settle_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.verifies = False
        self._writer = writer
        self._agent = agent
        self._metrics = metrics
        self._is_source = is_source
        self._mind_others = mind_others
        self._fresh_s = fresh_s
        self._settle_s = settle_s
        self._clock = clock
        self._fresh = False

    @property
    def _fold(self) -> Fold:
        return self._writer.hub.fold

    def count(self, outcome: str, count: int = 1) -> None:
        """Count events heard, by what became of them."""
        self._metrics.captured_events.labels(outcome).inc(count)

    async def write(self, said: Said) -> None:
        """Write what the log lacks of an event, and the turns that begin before it.

        After each record that is another's, it is worked out again what the log still lacks. Turns that don't
        begin yet are left in `said.turns`.

        Raises:
            AgentAway: the agent can't be asked before the end is written; to be tried again.
        """
        left: list[bytes] | None = None
        while True:
            if said.event is not None and not self._is_source(said.voice):
                self.count("followed")
                said.event = None
            begin = self._next_begin(said)
            if begin is not None:
                if await self._put(begin) is None:
                    said.turns.pop(0)
            elif said.event is None:
                return
            else:
                if left is None:
                    left = await self._admitted(said, said.event)
                if not left:
                    return
                left = await self._put_first(left, said.event)
            self._mind_others()

    async def _put_first(self, left: list[bytes], event: Event) -> list[bytes] | None:
        """Write the first of what is left; give what is left then, None: that is to be worked out again."""
        stored = await self._put(left[0])
        if stored is not None:
            return left[1:] if stored else None
        opens = event.kind == "task" and not self._fold.started
        if opens and left[0] == event.payload and await self._put(bare_task(event)) is not None:
            return None
        return left[1:]

    def _next_begin(self, said: Said) -> bytes | None:
        """Give the record of the next turn that begins.

        It stands behind the Task in a log that has none yet; and before what a subscription says only where
        that is new: it may have been made before the agent knew of the turn.
        """
        turns, event = said.turns, said.event
        while turns and self._fold.started:
            begin = turn_begin(self._fold, turns[0].id, turns[0].message)
            if begin is None:
                turns.pop(0)
                continue
            if event is not None and isinstance(said.voice, Subscription):
                return begin if self._admit(said, event).payloads else None
            return begin
        return None

    async def end_turn(self, turn: Turn, reason: str) -> None:
        """Write the end of a turn, where its begin is written and its end is not."""
        while (payload := turn_end(self._fold, turn.id, reason)) is not None:
            if await self._put(payload) is not False:
                return
            self._mind_others()

    async def _put(self, payload: bytes) -> bool | None:
        """Write a record; False: another's stands there and was read, None: the server refuses this one."""
        try:
            stored = await self._writer.put(payload)
        except PublishRefused as refused:
            self.count("refused")
            logger.warning("capture_refused", task=self._writer.key.task, error=str(refused))
            return None
        if stored:
            self.count("stored")
        return stored

    def _is_fresh(self, said: Said) -> bool:
        voice = said.voice
        if not isinstance(voice, Subscription) or not self._fresh or not voice.led_at_s:
            return False
        return 0 <= said.at_s - voice.led_at_s < self._fresh_s

    def _admit(self, said: Said, event: Event) -> Admitted:
        return admit(
            self._fold,
            event,
            fresh=self._is_fresh(said),
            resynchronised=said.resynchronised,
            reading=Reading(self._agent.doubles, said.heard),
        )

    async def _admitted(self, said: Said, event: Event) -> list[bytes]:
        fresh = self._is_fresh(said)
        if self.verifies and event.terminal and event.kind != "task":
            verified = await self._verified(event, self._clock() - said.at_s < self._settle_s)
            if verified is not None:
                return verified
        admitted = self._admit(said, event)
        if admitted.left_out is not None:
            self.count(admitted.left_out)
        elif said.resynchronised and self._fold.started:
            self.count("resynchronised", len(admitted.payloads))
        self._fresh = event.kind == "task" or (fresh and not admitted.payloads)
        return admitted.payloads

    async def _verified(self, event: Event, patient: bool) -> list[bytes] | None:
        """Compare with the whole Task before the end is written, after which nothing can be set right.

        It stays to be compared until the end is written: a record of another may come between.

        Returns:
            What leads there, or None where the event says it all or the agent doesn't have it yet.

        Raises:
            AgentAway: it can't be asked, and there is time to try again.
        """
        try:
            task = await self._agent.get(self._writer.key.task)
            reading = Reading(self._agent.doubles)
            payloads = (
                difference(self._fold, task, resynchronised=True, reading=reading) if task is not None else []
            )
        except AgentAway:
            if patient:
                raise
            return None
        except InvalidEvent:
            return None
        if len(payloads) < 2 or decode_event(payloads[-1]).state != event.state:
            return None
        return payloads
