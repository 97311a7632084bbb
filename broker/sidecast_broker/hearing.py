"""What is heard of one task, in order, as it waits to be written: from one source, and beside it from others.

Must not know how it is written, nor when the agent is asked. Nothing here waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sidecast_broker.lead import Lead
from sidecast_broker.open_turns import OpenTurns
from sidecast_broker.voices import How, Look, Over, Room, Said, Subscription, Voice
from sidecast_schemas.codec import Event


class Hearing:
    """Takes in what voices say; only what the source says is kept, the others say the same.

    Args:
        lead: whether this broker captures the task.
        turns: those that answers have begun.
        room: for events that wait.
        count: counts events by what became of them.
        clock: seconds, monotonic.

    Attributes:
        queue: what waits, oldest first.
        wake: set with whatever comes.
        voices: the answers that are listened to.
        source: the voice whose words are written; None: nobody's are.
        dropped: whether words of the source were dropped: what follows can't be told without them.
        missed: whether something was missed: only what begins with a whole Task can be the source.
        hinted: the state that the agent has said elsewhere the task is in.
        closed: whether nothing is taken in any more.
    """

    def __init__(
        self,
        lead: Lead,
        turns: OpenTurns,
        room: Room,
        count: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.queue: deque[Said | Over | Look | asyncio.Future[None]] = deque()
        self.wake = asyncio.Event()
        self.voices: set[Voice] = set()
        self.source: Voice | None = None
        self.dropped = False
        self.missed = False
        self.hinted: str | None = None
        self.closed = False
        self._lead = lead
        self._turns = turns
        self._room = room
        self._count = count
        self._clock = clock

    def join(self, voice: Voice) -> None:
        """Listen to an answer that begins; what is said from now on is its turn's."""
        if self._lead.held is False and self.source is None and not self.voices:
            self._lead.held, self.missed = None, False  # who captured may have let go since
        self.voices.add(voice)
        if voice.turn is not None:
            self._turns.begin(voice.turn)
        self.wake.set()

    def hear(self, voice: Voice, event: Event) -> None:
        """Take in what a voice says: one StreamResponse."""
        if self.closed:
            self._count("dropped")
            return
        voice.last = event
        if self.source is None and self._lead.held is not False and not self.missed:
            self.source = voice
        if isinstance(voice, Subscription) and voice is self.source and not voice.begun:
            self.missed = False
        turns = self._turns.take()
        heard: Event | None = event
        if voice is not self.source:
            self._count("followed")
            heard = None
        elif self.dropped or not self._room.take(len(event.payload)):
            # What comes from now on can't be told without what was dropped: the agent is asked anew.
            self._count("dropped")
            self.dropped = True
            heard = None
        leads = isinstance(voice, Subscription) and self._begins_with_task(voice, event)
        if heard is not None or turns:
            self.queue.append(Said(voice, heard, turns, self._clock(), resynchronised=leads))
        self.wake.set()

    def _begins_with_task(self, voice: Subscription, event: Event) -> bool:
        """Tell whether this is the leading Task of a subscription; where another word is its first, look."""
        begins = not voice.begun
        voice.begun = True
        if begins and event.kind == "task":
            voice.led_at_s = self._clock()
            return True
        voice.updates = True
        if begins:
            self.queue.append(Look(voice))
        return False

    def over(self, voice: Voice, how: How) -> None:
        """Know that a voice has ended: in good order, by a break, or refused before it began."""
        if not self.closed:
            self.queue.append(Over(voice, how))
        self.wake.set()

    def hint(self, state: str) -> None:
        """Know that the agent has said elsewhere, at an unknown moment, that the task is in a state."""
        self.hinted = state
        self.wake.set()

    async def written(self) -> None:
        """Wait until what was heard so far is written."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.append(written)
        self.wake.set()
        await written

    def waiting(self, voice: Voice) -> list[Event]:
        """Give what a voice has said that waits to be written."""
        said = [each for each in self.queue if isinstance(each, Said) and each.voice is voice]
        return [each.event for each in said if each.event is not None]

    def drop_source(self) -> None:
        """Believe nobody any more; a subscription of the broker's own is closed."""
        source, self.source = self.source, None
        self.dropped = False
        if isinstance(source, Subscription):
            source.close()

    def drain(self) -> int:
        """Give up what waits, and the room it takes; give how many events that were."""
        waiting = [each.event for each in self.queue if isinstance(each, Said) and each.event is not None]
        for event in waiting:
            self._room.give(len(event.payload))
        self.queue.clear()
        return len(waiting)
