"""The turns of one task that answers have begun: which are still to be written, and when each ends.

Must not know whose word is written, nor who captures the task.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecast_broker.core.a2a.capture import contains
from sidecast_broker.core.a2a.heard import Reading
from sidecast_broker.core.fold import Fold
from sidecast_broker.scribe import Scribe
from sidecast_broker.voices import AgentTasks, How, Said, Turn, Voice


class OpenTurns:
    """Has the ends of turns written, each when what its answer said is in the log.

    Args:
        scribe: writes them.
        settle_s: the events of an answer come by the source that is published within so long.
        clock: seconds, monotonic.
    """

    def __init__(self, scribe: Scribe, settle_s: float, clock: Callable[[], float]) -> None:
        self._scribe = scribe
        self._settle_s = settle_s
        self._clock = clock
        self._begins: list[Turn] = []
        self._owed: list[Turn] = []
        self._ending: dict[Voice, float] = {}

    @property
    def owed(self) -> bool:
        """Whether there are turns whose answer broke off: only the agent's word ends them."""
        return bool(self._owed)

    @property
    def ends_s(self) -> tuple[float, ...]:
        """When the turns whose answer has ended are over at the latest; none where no answer has."""
        return tuple(self._ending.values())

    def begin(self, turn: Turn) -> None:
        """Know of a turn; it begins with what is heard next."""
        self._begins.append(turn)

    def take(self) -> list[Turn]:
        """Give the turns that begin, to be written."""
        turns, self._begins = self._begins, []
        return turns

    def give_back(self, turns: list[Turn]) -> None:
        """Have turns begin with what is heard next: they could not be written."""
        self._begins[:0] = turns

    def settle(self, voice: Voice) -> None:
        """Leave time for what an answer that has ended said to come by the source."""
        self._ending[voice] = self._clock() + self._settle_s

    async def answer_is_over(self, voice: Voice, how: How) -> None:
        """Know that an answer has ended, and how; a turn that it began without a further word is written."""
        if voice.turn in self._begins:
            self._begins.remove(voice.turn)
            if voice.last is not None:
                await self._scribe.write(Said(voice, None, [voice.turn], 0.0))
        if how == "broke":
            self._ending.pop(voice, None)
            if voice.turn is not None:
                self._owed.append(voice.turn)
        elif voice not in self._ending and voice.turn is not None:
            await self._scribe.end_turn(voice.turn, "returned")

    async def end_due(self, fold: Fold, agent: AgentTasks, settled: bool) -> bool:
        """End the turns whose end has come by now; tell whether there were any.

        Args:
            fold: of the task's log.
            agent: whose Tasks may hold pieces twice.
            settled: whether the log holds what the agent last said.
        """
        now = self._clock()
        for voice, until_s in list(self._ending.items()):
            if voice.last is None or contains(fold, voice.last, Reading(agent.doubles)) or now >= until_s:
                del self._ending[voice]
                if voice.turn is not None:
                    await self._scribe.end_turn(voice.turn, "returned")
                return True
        # A turn whose answer broke off is over when the agent says that it waits, or has ended.
        if self._owed and fold.interrupted and settled:
            await self.end_owed("returned")
            return True
        return False

    async def end_owed(self, reason: str) -> None:
        """End all turns whose answer broke off."""
        while self._owed:
            await self._scribe.end_turn(self._owed.pop(0), reason)
