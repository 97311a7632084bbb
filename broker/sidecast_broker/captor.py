"""Captures one task: hears what the agent says of it, from one source at a time, and has that written.

Must not know HTTP or A2A requests. Who captures, and what happens where two do, is ADR 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import structlog

from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.answers import Away
from sidecast_broker.core.a2a.capture import contains, difference
from sidecast_broker.core.a2a.heard import Reading
from sidecast_broker.core.fold import Fold
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.scribe import Scribe
from sidecast_broker.voices import AgentTasks, How, Look, Over, Room, Said, Subscription, Turn, Voice
from sidecast_broker.writer import Writer
from sidecast_schemas.codec import Event, InvalidEvent, TurnBody, decode_event
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
        self._stream = stream
        self._agent = agent
        self._room = room
        self._scribe = Scribe(
            writer,
            agent,
            metrics,
            is_source=lambda voice: voice is self._source,
            mind_others=self._mind_others,
            fresh_s=periods.fresh_s,
            settle_s=periods.settle_s,
            clock=clock,
        )
        self._periods = periods
        self._clock = clock
        self._subject = captor_subject(writer.key)
        self._queue: deque[Said | Over | Look | asyncio.Future[None]] = deque()
        self._wake = asyncio.Event()
        self._voices: set[Voice] = set()
        self._source: Voice | None = None
        self._leads: bool | None = None
        self._attends = False
        self._dropped = False
        self._missed = False
        self._pursued = False
        self._pursued_since_s = 0.0
        self._hinted: str | None = None
        self._begins: list[Turn] = []
        self._owed: list[Turn] = []
        self._ending: dict[Voice, float] = {}
        self._closed = False
        self._next_try_s = 0.0
        self._recheck_at_s: float | None = None
        self._tries = 0
        self._reported = ""
        self._subscriptions: set[Subscription] = set()
        writer.on_records(self._wake.set)

    # ------------------------------------------------------------------ what is heard; never waits

    def join(self, voice: Voice) -> None:
        """Listen to an answer that begins; what is said from now on is its turn's."""
        if self._leads is False and self._source is None and not self._voices:
            self._leads, self._missed = None, False  # who captured may have let go since
        self._voices.add(voice)
        if voice.turn is not None:
            self._begins.append(voice.turn)
        self._wake.set()

    def hear(self, voice: Voice, event: Event) -> None:
        """Take in what a voice says: one StreamResponse."""
        if self._closed:
            self._count("dropped")
            return
        voice.last = event
        if self._source is None and self._leads is not False and not self._missed:
            self._source = voice
        if isinstance(voice, Subscription) and voice is self._source and not voice.begun:
            self._missed = False
        turns, self._begins = self._begins, []
        heard: Event | None = event
        if voice is not self._source:
            self._count("followed")
            heard = None
        elif self._dropped or not self._room.take(len(event.payload)):
            # What comes from now on can't be told without what was dropped: the agent is asked anew.
            self._count("dropped")
            self._dropped = True
            heard = None
        leads = isinstance(voice, Subscription) and self._begins_with_task(voice, event)
        if heard is not None or turns:
            self._queue.append(Said(voice, heard, turns, self._clock(), resynchronised=leads))
        self._wake.set()

    def _begins_with_task(self, voice: Subscription, event: Event) -> bool:
        """Tell whether this is the leading Task of a subscription; where another word is its first, look."""
        begins = not voice.begun
        voice.begun = True
        if begins and event.kind == "task":
            voice.led_at_s = self._clock()
            return True
        voice.updates = True
        if begins:
            self._queue.append(Look(voice))
        return False

    def over(self, voice: Voice, how: How) -> None:
        """Know that a voice has ended: in good order, by a break, or refused before it began."""
        if not self._closed:
            self._queue.append(Over(voice, how))
        self._wake.set()

    def hint(self, state: str) -> None:
        """Know that the agent has said elsewhere, at an unknown moment, that the task is in a state."""
        self._hinted = state
        self._wake.set()

    def pursue(self) -> None:
        """Find out what has become of the task: its captor is gone."""
        self._pursued = True
        self._pursued_since_s = self._clock()
        self._wake.set()

    def report(self, error: Exception) -> None:
        """Log what keeps from capturing, once as long as it stays the same."""
        if isinstance(error, InvalidEvent):
            self._count("invalid")
        if self._reported != str(error):
            self._reported = str(error)
            logger.info("capture_hindered", task=self.task_id, error=str(error))

    def _count(self, outcome: str) -> None:
        self._scribe.count(outcome)

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
                await self._attend(False)
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
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.close()
        await asyncio.gather(*(each.task for each in self._subscriptions), return_exceptions=True)
        waiting = [item for item in self._queue if isinstance(item, Said) and item.event is not None]
        for item in waiting:
            assert item.event is not None
            self._room.give(len(item.event.payload))
        if waiting:
            self._scribe.count("dropped", len(waiting))
            logger.error("capture_lost", task=self.task_id, events=len(waiting))
        self._queue.clear()
        await self._stream.unsubscribe(self)
        self._writer.close()

    async def written(self) -> None:
        """Wait until what was heard so far is written."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(written)
        self._wake.set()
        await written

    @property
    def _fold(self) -> Fold:
        return self._writer.hub.fold

    @property
    def _watched(self) -> bool:
        return self._writer.watchers > 0

    def _has_reason(self) -> bool:
        if self._queue or self._voices or self._ending or self._hinted is not None:
            return True
        if self._writer.opened and self._fold.terminal:
            return bool(self._owed)
        return self._pursued or self._source is not None or self._watched

    async def _step(self) -> None:
        """Do the next thing there is to do, or wait for one."""
        if not self._writer.opened:
            await self._writer.open()
        if self._writer.epoch != self._writer.hub.epoch:
            await self._writer.open()
            if self._source is not None:
                self._leave_source()  # what was written is gone
        self._mind_others()
        if self._queue:
            await self._work_off()
        elif self._fold.terminal:
            await self._finish()
        elif self._dropped and self._source is not None:
            self._leave_source()
        elif self._hinted is not None:
            await self._follow_hint(self._hinted)
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
        times = [
            self._next_try_s if self._wants_source() else None,
            self._recheck_at_s,
            *self._ending.values(),
        ]
        now = self._clock()
        waits = [at_s - now for at_s in times if at_s is not None and at_s > now]
        try:
            async with asyncio.timeout(max(0.001, min([self._periods.check_s, *waits]))):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _rest_of_interest(self) -> None:
        """Give up what nobody waits for: a task that awaits input, or that stays as it is."""
        if self._voices or self._owed or self._watched:
            return
        silent_s = self._clock() - self._pursued_since_s
        if self._fold.interrupted or (
            self._pursued and self._source is None and silent_s > self._periods.pursue_s
        ):
            self._pursued = False
            if isinstance(self._source, Subscription):
                self._drop_source()

    # ------------------------------------------------------------------ who captures

    async def _attend(self, attends: bool) -> None:
        if attends and not self._attends:
            await self._stream.attend(self, self._subject)
        elif self._attends and not attends:
            await self._stream.unsubscribe(self)
        self._attends = attends

    async def _take_lead(self) -> bool:
        """Capture the task, unless another broker does; tell whether this one does.

        Raises:
            Away: that can't be found out.
        """
        if self._leads is not True:
            await self._attend(False)
            if await self._stream.attended(self._subject):
                self._leads = False
                self._next_try_s = self._clock() + self._periods.check_s
                return False
            await self._attend(True)
            self._leads = True
        return True

    def _mind_others(self) -> None:
        """See what others have written: an event means that another broker captures the task."""
        if any(record.event.kind != "turn" for record in self._writer.others()) and self._leads is True:
            logger.info("capture_yields", task=self.task_id)
            self._drop_source()
            self._leads = False
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
        if self._source is not None or self._fold.terminal:
            return False
        if any(voice.streams for voice in self._voices) and self._leads is not False and not self._missed:
            return self._pursued  # an answer that streams is about to speak
        return self._pursued or self._missed or bool(self._voices) or self._watched

    def _drop_source(self) -> None:
        source, self._source = self._source, None
        self._dropped = False
        if isinstance(source, Subscription):
            source.close()

    def _leave_source(self) -> None:
        """Ask the agent anew: something was lost, so what is said until then doesn't follow on the log."""
        self._drop_source()
        self.pursue()
        self._missed = True

    async def _subscribe(self) -> None:
        if not await self._take_lead():
            return
        # Read up to the leader's word first: then what the agent says next can't be older than the log.
        await self._writer.open()
        self._mind_others()
        if self._leads is not True or self._source is not None:
            return
        self._tries += 1
        self._scribe.verifies = True
        subscription = Subscription(self.task_id, self._agent, self.hear, self.over, self.report)
        self._source = subscription
        self._subscriptions.add(subscription)
        subscription.task.add_done_callback(lambda _task: self._subscriptions.discard(subscription))

    def _try_again(self) -> None:
        pause_s = min(self._periods.retry_s * 2**self._tries, self._periods.retry_s_max)
        self._next_try_s = self._clock() + pause_s

    async def _source_is_over(self, how: How) -> None:
        """Decide what follows the end of the source."""
        source, self._source = self._source, None
        lossy, self._dropped = how == "broke" or self._dropped, False
        if not isinstance(source, Subscription):
            self._voices.discard(source)
            at_rest = self._fold.interrupted or self._fold.terminal
            if how == "ended" and not at_rest and source is not None and source.streams:
                # An agent may end a task without a word in its streams: a cancel that nothing reports (C63).
                with contextlib.suppress(AgentAway):
                    await self._look(source)
                at_rest = self._fold.interrupted or self._fold.terminal
            if lossy or not at_rest or any(voice.streams for voice in self._voices):
                # What is said next may be lost, or have been written already.
                self._leave_source()
                self._next_try_s = 0.0
            return
        if source.updates:
            self._tries = 0
        if how == "refused":
            known = await self._look(source)
            if not known:
                self._count("unknown-task")
                logger.warning("capture_unknown", task=self.task_id)
                await self._end_owed("lost")
                self._pursued = False
            elif self._fold.interrupted:
                await self._end_owed("returned")
            self._missed = False
        elif how == "ended" and not source.updates:
            self._pursued = False
            await self._end_owed("returned")
        elif lossy or not self._fold.interrupted:
            self._leave_source()
        self._try_again()

    async def _look(self, voice: Voice) -> bool:
        """Ask for the whole Task, and write what the log lacks of it; tell whether the agent knows it.

        Raises:
            AgentAway: the agent can't be reached.
        """
        task = await self._agent.get(self.task_id)
        if task is None:
            return False
        before = self._writer.hub.end
        try:
            event = decode_event(b'{"task":%b}' % task)
        except InvalidEvent:
            self._count("invalid")
            return True
        if self._source is None and self._leads is True:
            self._source = voice
            try:
                await self._scribe.write(Said(voice, event, [], self._clock(), resynchronised=True))
            finally:
                if self._source is voice:
                    self._source = None
        elif self._source is voice:
            await self._scribe.write(Said(voice, event, [], self._clock(), resynchronised=True))
        if self._writer.hub.end != before:
            self._tries = 0
            self._pursued_since_s = self._clock()
        return True

    async def _lead(self, voice: Subscription) -> bool:
        """Ask for the Task that a subscription has not begun with; tell whether the agent knows it.

        What the subscription has said meanwhile may be in there: what came before that is written, marked,
        and then what it said, as it said it. A Task that says more is looked at again a little later: the
        stream's words may have been slower than the answer.

        Raises:
            AgentAway: the agent can't be reached.
        """
        task = await self._agent.get(self.task_id)
        if task is None:
            return False
        try:
            event = decode_event(b'{"task":%b}' % task)
        except InvalidEvent:
            self._count("invalid")
            return True
        if difference(self._fold, task, reading=Reading(self._agent.doubles, self._held(voice))):
            await asyncio.sleep(self._periods.late_s)
        voice.led_at_s = self._clock()
        heard = self._held(voice)
        started = self._fold.started
        await self._scribe.write(Said(voice, event, [], voice.led_at_s, resynchronised=True, heard=heard))
        if not started:
            # What began the log was the Task without what may have been heard.
            await self._scribe.write(Said(voice, event, [], voice.led_at_s, resynchronised=True, heard=heard))
        return True

    def _held(self, voice: Voice) -> list[Event]:
        """Give what a voice has said that waits to be written."""
        said = [each for each in self._queue if isinstance(each, Said) and each.voice is voice]
        return [each.event for each in said if each.event is not None]

    async def _follow_hint(self, state: str) -> None:
        if self._source is None:
            if (state != self._fold.state or not self._fold.started) and await self._take_lead():
                await self._writer.open()
                await self._look(Voice())
                if not self._fold.interrupted:
                    self.pursue()
        elif state in TERMINAL_STATES and self._recheck_at_s is None:
            self._recheck_at_s = self._clock() + self._periods.settle_s
        self._hinted = None

    # ------------------------------------------------------------------ what is written

    async def _work_off(self) -> None:
        item = self._queue[0]
        if isinstance(item, Said):
            await self._prepare(item)
            size = len(item.event.payload) if item.event is not None else 0
            await self._scribe.write(item)
            self._begins[:0] = item.turns
            self._room.give(size)
        elif isinstance(item, Look):
            if item.voice is self._source and not await self._lead(item.voice):
                self._count("unknown-task")
        elif isinstance(item, Over):
            await self._end(item)
        elif not item.done():
            item.set_result(None)
        self._queue.popleft()

    async def _prepare(self, item: Said) -> None:
        """Find out whether this broker captures the task, where an answer begins to."""
        if self._leads is not None or item.event is None or item.voice is not self._source:
            return
        empty = not self._writer.hub.end
        if not await self._take_lead():
            self._source = None
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
        if voice is self._source:
            await self._source_is_over(how)
        elif isinstance(voice, Subscription):
            return
        else:
            self._ending[voice] = self._clock() + self._periods.settle_s
            if self._source is None:
                self._next_try_s = 0.0
        if not isinstance(voice, Subscription):
            self._voices.discard(voice)
            if voice.turn in self._begins:
                self._begins.remove(voice.turn)
                if voice.last is not None:
                    await self._scribe.write(Said(voice, None, [voice.turn], 0.0))
            if how == "broke":
                self._owe(voice)
            elif voice not in self._ending and voice.turn is not None:
                await self._scribe.end_turn(voice.turn, "returned")

    def _owe(self, voice: Voice) -> None:
        self._ending.pop(voice, None)
        if voice.turn is not None:
            self._owed.append(voice.turn)

    async def _end_turns(self) -> bool:
        """End the turns whose end has come by now; tell whether there were any."""
        now = self._clock()
        for voice, until_s in list(self._ending.items()):
            reading = Reading(self._agent.doubles)
            if voice.last is None or contains(self._fold, voice.last, reading) or now >= until_s:
                del self._ending[voice]
                if voice.turn is not None:
                    await self._scribe.end_turn(voice.turn, "returned")
                return True
        # A turn whose answer broke off is over when the agent says that it waits, or has ended.
        led = isinstance(self._source, Subscription) and self._source.led_at_s
        if self._owed and self._fold.interrupted and (led or self._leads is False):
            await self._end_owed("returned")
            return True
        return False

    async def _finish(self) -> None:
        """Know that the task is over: nothing is written behind its end but that its turns are."""
        self._drop_source()
        self._pursued = self._missed = False
        self._hinted = self._recheck_at_s = None
        if not await self._end_turns():
            await self._end_owed("returned")
            if self._has_reason():
                await self._rest()

    async def _end_owed(self, reason: str) -> None:
        while self._owed:
            await self._scribe.end_turn(self._owed.pop(0), reason)
