"""Captures one task: hears what the agent says of it, from one source at a time, and has that written.

Must not know HTTP or A2A requests. Who captures, and what happens where two do, is ADR 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.answers import Away
from sidecast_broker.core.fold import Fold
from sidecast_broker.hearing import Hearing
from sidecast_broker.inquiry import Inquiry
from sidecast_broker.jetstream import JetStream
from sidecast_broker.lead import Lead
from sidecast_broker.metrics import Metrics
from sidecast_broker.open_turns import OpenTurns
from sidecast_broker.scribe import Scribe
from sidecast_broker.voices import AgentTasks, How, Look, Over, Room, Said, Subscription, Voice
from sidecast_broker.writer import Writer
from sidecast_schemas.codec import InvalidEvent, TurnBody
from sidecast_schemas.events import TERMINAL_STATES
from sidecast_schemas.subjects import captor_subject

logger = structlog.get_logger(__name__)

PAUSE_S_MAX = 2.0
"""Longest pause while NATS or the agent is away, before the same step is tried again."""


class Periods(NamedTuple):
    """How long things may take, in seconds.

    Attributes:
        check_s: a task captured by another broker, or watched while nobody captures it, is looked at again.
        fresh_s: what a subscription repeats of its leading Task comes within so long.
        late_s: what a subscription says comes so much later than the same in the answer to who asks.
        settle_s: the events of an answer come by the source that is published within so long; and an agent
            that can't be asked before a task's end is written is waited for so long.
        retry_s: first pause before the agent is subscribed to again; doubles.
        retry_s_max: longest such pause.
        pursue_s: a task nobody watches, of which the agent says nothing new, is asked after for so long.
    """

    check_s: float = 2.0
    fresh_s: float = 1.0
    late_s: float = 0.1
    settle_s: float = 2.0
    retry_s: float = 0.25
    retry_s_max: float = 15.0
    pursue_s: float = 600.0


class Captor:
    """Captures one task, as long as there is a reason to.

    Events of one voice, the source, are written in order; other voices say the same, and are only listened to
    for where they end. Where the source ends, breaks off or said more than could wait, the broker subscribes
    itself, and what the leading Task says beyond the log is written, marked.

    Args:
        writer: of the task's log.
        stream: where other brokers are asked whether they capture the task.
        agent: the agent.
        room: for events that wait.
        metrics: where to count.
        periods: how long things may take.
        clock: seconds, monotonic.

    Attributes:
        key: the task.
        task_id: its id.
        hearing: takes in what is said of it.
    """

    def __init__(
        self,
        writer: Writer,
        stream: JetStream,
        agent: AgentTasks,
        room: Room,
        metrics: Metrics,
        periods: Periods,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = writer.key
        self.task_id = writer.key.task
        self._writer = writer
        self._agent = agent
        self._room = room
        self._lead = Lead(stream, captor_subject(writer.key))
        self._scribe = Scribe(
            writer,
            agent,
            metrics,
            is_source=lambda voice: voice is self.hearing.source,
            mind_others=self._mind_others,
            fresh_s=periods.fresh_s,
            settle_s=periods.settle_s,
            clock=clock,
        )
        self._turns = OpenTurns(self._scribe, periods.settle_s, clock)
        self.hearing = Hearing(self._lead, self._turns, room, self._scribe.count, clock)
        self._inquiry = Inquiry(
            writer,
            agent,
            self._scribe,
            self.hearing,
            self._lead,
            on_news=self._note_news,
            late_s=periods.late_s,
            clock=clock,
        )
        self._periods = periods
        self._clock = clock
        self._pursued = False
        self._pursued_since_s = 0.0
        self._next_try_s = 0.0
        self._recheck_at_s: float | None = None
        self._tries = 0
        self._reported = ""
        self._subscriptions: set[Subscription] = set()
        writer.on_records(self.hearing.wake.set)

    def pursue(self) -> None:
        """Find out what has become of the task: its captor is gone."""
        self._pursued = True
        self._pursued_since_s = self._clock()
        self.hearing.wake.set()

    def report(self, error: Exception) -> None:
        """Log what keeps from capturing, once as long as it stays the same."""
        if isinstance(error, InvalidEvent):
            self._scribe.count("invalid")
        if self._reported != str(error):
            self._reported = str(error)
            logger.info("capture_hindered", task=self.task_id, error=str(error))

    def _note_news(self) -> None:
        self._tries = 0
        self._pursued_since_s = self._clock()

    # ------------------------------------------------------------------ one thing after the other

    async def run(self, done: Callable[[], None]) -> None:
        """Capture until there is no reason to any more; `done` is called when that is so, and at once."""
        pause_s = self._periods.retry_s
        while True:
            try:
                if self._has_reason():
                    await self._step()
                    pause_s = self._periods.retry_s
                    continue
                await self._lead.leave()
            except (Away, AgentAway) as away:
                self.report(away)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
                continue
            if not self._has_reason():
                done()
                return

    async def close(self) -> None:
        """Let go of everything; what waits is lost, and counted."""
        self.hearing.closed = True
        for subscription in list(self._subscriptions):
            subscription.close()
        await asyncio.gather(*(each.task for each in self._subscriptions), return_exceptions=True)
        if lost := self.hearing.drain():
            self._scribe.count("dropped", lost)
            logger.error("capture_lost", task=self.task_id, events=lost)
        await self._lead.close()
        self._writer.close()

    @property
    def _fold(self) -> Fold:
        return self._writer.hub.fold

    @property
    def _watched(self) -> bool:
        return self._writer.watchers > 0

    def _has_reason(self) -> bool:
        heard = self.hearing
        if heard.queue or heard.voices or self._turns.ends_s or heard.hinted is not None:
            return True
        if self._writer.opened and self._fold.terminal:
            return self._turns.owed
        return self._pursued or heard.source is not None or self._watched

    async def _step(self) -> None:
        """Do the next thing there is to do, or wait for one."""
        if not self._writer.opened:
            await self._writer.open()
        if self._writer.epoch != self._writer.hub.epoch:
            await self._writer.open()
            if self.hearing.source is not None:
                self._leave_source()  # what was written is gone
        self._mind_others()
        if self.hearing.queue:
            await self._work_off()
        elif self._fold.terminal:
            await self._finish()
        elif self.hearing.dropped and self.hearing.source is not None:
            self._leave_source()
        elif self.hearing.hinted is not None:
            await self._follow_hint(self.hearing.hinted)
        elif self._recheck_at_s is not None and self._clock() >= self._recheck_at_s:
            self._recheck_at_s = None
            self._leave_source()
        elif not await self._end_turns():
            if self._wants_source() and self._clock() >= self._next_try_s:
                await self._subscribe()
            else:
                self._rest_of_interest()
                await self._rest()

    async def _rest(self) -> None:
        next_try_s = self._next_try_s if self._wants_source() else None
        times = [next_try_s, self._recheck_at_s, *self._turns.ends_s]
        now = self._clock()
        waits = [at_s - now for at_s in times if at_s is not None and at_s > now]
        try:
            async with asyncio.timeout(max(0.001, min([self._periods.check_s, *waits]))):
                await self.hearing.wake.wait()
        except TimeoutError:
            pass
        self.hearing.wake.clear()

    def _rest_of_interest(self) -> None:
        """Give up what nobody waits for: a task that awaits input, or that stays as it is."""
        if self.hearing.voices or self._turns.owed or self._watched:
            return
        silent_s = self._clock() - self._pursued_since_s
        if self._fold.interrupted or (
            self._pursued and self.hearing.source is None and silent_s > self._periods.pursue_s
        ):
            self._pursued = False
            if isinstance(self.hearing.source, Subscription):
                self.hearing.drop_source()

    # ------------------------------------------------------------------ who captures

    async def _take_lead(self) -> bool:
        """Capture the task, unless another broker does; tell whether this one does.

        Raises:
            Away: that can't be found out.
        """
        if await self._lead.take():
            return True
        self._next_try_s = self._clock() + self._periods.check_s
        return False

    def _mind_others(self) -> None:
        """See what others have written: an event means that another broker captures the task."""
        if any(record.event.kind != "turn" for record in self._writer.others()) and self._lead.held is True:
            logger.info("capture_yields", task=self.task_id)
            self.hearing.drop_source()
            self._lead.held = False
            self._pursued = True
            self._pursued_since_s = self._clock()
            self._next_try_s = self._clock() + self._periods.check_s

    def _is_clean(self) -> bool:
        """Whether whoever captured the task before has written all there was."""
        newest = self._writer.hub.log.find(self._writer.hub.end)
        body = newest.event.body if newest is not None else None
        return self._fold.interrupted or (isinstance(body, TurnBody) and body.phase == "end")

    # ------------------------------------------------------------------ the source

    def _wants_source(self) -> bool:
        if self.hearing.source is not None or self._fold.terminal:
            return False
        voices, missed = self.hearing.voices, self.hearing.missed
        if any(voice.streams for voice in voices) and self._lead.held is not False and not missed:
            return self._pursued  # an answer that streams is about to speak
        return self._pursued or missed or bool(voices) or self._watched

    def _leave_source(self) -> None:
        """Ask the agent anew: something was lost, so what is said until then doesn't follow on the log."""
        self.hearing.drop_source()
        self.pursue()
        self.hearing.missed = True

    async def _subscribe(self) -> None:
        if not await self._take_lead():
            return
        # Read up to the leader's word first: then what the agent says next can't be older than the log.
        await self._writer.open()
        self._mind_others()
        if self._lead.held is not True or self.hearing.source is not None:
            return
        self._tries += 1
        self._scribe.verifies = True
        hear, over = self.hearing.hear, self.hearing.over
        subscription = Subscription(self.task_id, self._agent, hear, over, self.report)
        self.hearing.source = subscription
        self._subscriptions.add(subscription)
        subscription.task.add_done_callback(lambda _task: self._subscriptions.discard(subscription))

    def _try_again(self) -> None:
        pause_s = min(self._periods.retry_s * 2**self._tries, self._periods.retry_s_max)
        self._next_try_s = self._clock() + pause_s

    async def _source_is_over(self, how: How) -> None:
        """Decide what follows the end of the source."""
        source, self.hearing.source = self.hearing.source, None
        lossy, self.hearing.dropped = how == "broke" or self.hearing.dropped, False
        if not isinstance(source, Subscription):
            self.hearing.voices.discard(source)
            at_rest = self._fold.interrupted or self._fold.terminal
            if how == "ended" and not at_rest and source is not None and source.streams:
                # An agent may end a task without a word in its streams: a cancel that nothing reports (C63).
                with contextlib.suppress(AgentAway):
                    await self._inquiry.look(source)
                at_rest = self._fold.interrupted or self._fold.terminal
            if lossy or not at_rest or any(voice.streams for voice in self.hearing.voices):
                # What is said next may be lost, or have been written already.
                self._leave_source()
                self._next_try_s = 0.0
            return
        if source.updates:
            self._tries = 0
        if how == "refused":
            known = await self._inquiry.look(source)
            if not known:
                self._scribe.count("unknown-task")
                logger.warning("capture_unknown", task=self.task_id)
                await self._turns.end_owed("lost")
                self._pursued = False
            elif self._fold.interrupted:
                await self._turns.end_owed("returned")
            self.hearing.missed = False
        elif how == "ended" and not source.updates:
            self._pursued = False
            await self._turns.end_owed("returned")
        elif lossy or not self._fold.interrupted:
            self._leave_source()
        self._try_again()

    async def _follow_hint(self, state: str) -> None:
        if self.hearing.source is None:
            if (state != self._fold.state or not self._fold.started) and await self._take_lead():
                await self._writer.open()
                await self._inquiry.look(Voice())
                if not self._fold.interrupted:
                    self.pursue()
        elif state in TERMINAL_STATES and self._recheck_at_s is None:
            self._recheck_at_s = self._clock() + self._periods.settle_s
        self.hearing.hinted = None

    # ------------------------------------------------------------------ what is written

    async def _work_off(self) -> None:
        item = self.hearing.queue[0]
        if isinstance(item, Said):
            await self._prepare(item)
            size = len(item.event.payload) if item.event is not None else 0
            await self._scribe.write(item)
            self._turns.give_back(item.turns)
            self._room.give(size)
        elif isinstance(item, Look):
            if item.voice is self.hearing.source and not await self._inquiry.lead(item.voice):
                self._scribe.count("unknown-task")
        elif isinstance(item, Over):
            await self._end(item)
        elif not item.done():
            item.set_result(None)
        self.hearing.queue.popleft()

    async def _prepare(self, item: Said) -> None:
        """Find out whether this broker captures the task, where an answer begins to."""
        if self._lead.held is not None or item.event is None or item.voice is not self.hearing.source:
            return
        empty = not self._writer.hub.end
        if not await self._take_lead():
            self.hearing.source = None
            return
        # What the agent may have said while nobody listened is asked for before the end.
        self._scribe.verifies = not empty
        if not empty and not self._is_clean():
            # Something may be missing between the log's end and this answer's beginning.
            if item.event.kind == "task":
                item.resynchronised = True
            else:
                self._leave_source()

    async def _end(self, item: Over) -> None:
        voice, how = item
        if voice is self.hearing.source:
            await self._source_is_over(how)
        elif isinstance(voice, Subscription):
            return
        else:
            self._turns.settle(voice)
            if self.hearing.source is None:
                self._next_try_s = 0.0
        if not isinstance(voice, Subscription):
            self.hearing.voices.discard(voice)
            await self._turns.answer_is_over(voice, how)

    async def _end_turns(self) -> bool:
        """End the turns whose end has come by now; tell whether there were any."""
        source = self.hearing.source
        led = isinstance(source, Subscription) and bool(source.led_at_s)
        return await self._turns.end_due(self._fold, self._agent, led or self._lead.held is False)

    async def _finish(self) -> None:
        """Know that the task is over: nothing is written behind its end but that its turns are."""
        self.hearing.drop_source()
        self._pursued = self.hearing.missed = False
        self.hearing.hinted = self._recheck_at_s = None
        if not await self._end_turns():
            await self._turns.end_owed("returned")
            if self._has_reason():
                await self._rest()
