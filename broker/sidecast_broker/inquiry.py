"""Asks the agent for the whole Task of one task, and has written what the log lacks of it.

Must not know why it is asked, nor who captures beside what it is told of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecast_broker.core.a2a.capture import difference
from sidecast_broker.core.a2a.heard import Reading
from sidecast_broker.hearing import Hearing
from sidecast_broker.lead import Lead
from sidecast_broker.scribe import Scribe
from sidecast_broker.voices import AgentTasks, Said, Subscription, Voice
from sidecast_broker.writer import Writer
from sidecast_schemas.codec import Event, InvalidEvent, decode_event


class Inquiry:
    """Looks at the task as the agent has it.

    Args:
        writer: of the task's log.
        agent: the agent.
        scribe: writes.
        hearing: what was heard, and waits.
        lead: whether this broker captures the task.
        on_news: called when a look has written something.
        late_s: what a subscription says comes so much later than the same in the answer to who asks.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        writer: Writer,
        agent: AgentTasks,
        scribe: Scribe,
        hearing: Hearing,
        lead: Lead,
        *,
        on_news: Callable[[], None],
        late_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._writer = writer
        self._agent = agent
        self._scribe = scribe
        self._hearing = hearing
        self._lead = lead
        self._on_news = on_news
        self._late_s = late_s
        self._clock = clock

    async def look(self, voice: Voice) -> bool:
        """Write what the log lacks of the whole Task; tell whether the agent knows it.

        Raises:
            AgentAway: the agent can't be reached.
        """
        task = await self._agent.get(self._writer.key.task)
        if task is None:
            return False
        before = self._writer.hub.end
        event = self._decoded(task)
        if event is None:
            return True
        hearing = self._hearing
        if hearing.source is None and self._lead.held is True:
            hearing.source = voice
            try:
                await self._scribe.write(Said(voice, event, [], self._clock(), resynchronised=True))
            finally:
                if hearing.source is voice:
                    hearing.source = None
        elif hearing.source is voice:
            await self._scribe.write(Said(voice, event, [], self._clock(), resynchronised=True))
        if self._writer.hub.end != before:
            self._on_news()
        return True

    async def lead(self, voice: Subscription) -> bool:
        """Write the Task that a subscription has not begun with; tell whether the agent knows it.

        What the subscription has said meanwhile may be in there: what came before that is written, marked,
        and then what it said, as it said it. A Task that says more is looked at again a little later: the
        stream's words may have been slower than the answer.

        Raises:
            AgentAway: the agent can't be reached.
        """
        task = await self._agent.get(self._writer.key.task)
        if task is None:
            return False
        event = self._decoded(task)
        if event is None:
            return True
        fold, heard = self._writer.hub.fold, self._hearing.waiting(voice)
        if difference(fold, task, reading=Reading(self._agent.doubles, heard)):
            await asyncio.sleep(self._late_s)
        voice.led_at_s = self._clock()
        heard = self._hearing.waiting(voice)
        started = self._writer.hub.fold.started
        await self._scribe.write(Said(voice, event, [], voice.led_at_s, resynchronised=True, heard=heard))
        if not started:
            # What began the log was the Task without what may have been heard.
            await self._scribe.write(Said(voice, event, [], voice.led_at_s, resynchronised=True, heard=heard))
        return True

    def _decoded(self, task: bytes) -> Event | None:
        try:
            return decode_event(b'{"task":%b}' % task)
        except InvalidEvent:
            self._scribe.count("invalid")
            return None
