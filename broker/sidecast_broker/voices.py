"""What says what an agent says of a task: the answers clients get, and subscriptions of the broker's own.

Must not know which of them is believed, nor what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Literal, NamedTuple, Protocol

import structlog

from sidecast_broker.agent_connections import AgentAway
from sidecast_schemas.codec import Event, InvalidEvent, decode_event

logger = structlog.get_logger(__name__)

How = Literal["ended", "broke", "refused"]


class NoStream(Exception):  # noqa: N818
    """The agent won't be subscribed to: the task is over or unknown to it, or it doesn't stream."""


class AgentTasks(Protocol):
    """What a captor asks of the agent."""

    @property
    def doubles(self) -> bool:
        """Whether its Tasks may hold a piece of an artifact once for each stream that was open."""

    def subscribe(self, task_id: str) -> AsyncIterator[bytes]:
        """Give the StreamResponses of a subscription, as v1.0 JSON, until the agent ends it.

        Raises:
            AgentAway: it can't be reached, or the stream broke off.
            NoStream: it refuses.
        """

    async def find(self, task_id: str) -> bytes | None:
        """Give a task by an id that no answer of the agent has named; None: the agent doesn't know it.

        Raises:
            AgentAway: it can't be reached.
        """

    async def get(self, task_id: str) -> bytes | None:
        """Give a task as v1.0 JSON of a Task; None: the agent doesn't know it.

        Raises:
            AgentAway: it can't be reached.
        """


class Turn(NamedTuple):
    """A user's message that the agent works on: its id, and itself as one line of JSON."""

    id: str
    message: bytes


class Voice:
    """Something that says what the agent says of the task: an answer to a client, or a subscription.

    Attributes:
        turn: of an answer to a message.
        streams: whether it says things as they happen.
        last: what it said last.
    """

    def __init__(self, turn: Turn | None = None, *, streams: bool = True) -> None:
        self.turn = turn
        self.streams = streams
        self.last: Event | None = None

    def close(self) -> None:
        """Stop listening, where that is the broker's to decide."""


class Subscription(Voice):
    """A subscription of the broker's own.

    Args:
        task_id: the task.
        agent: the agent.
        hear: takes each event.
        over: called at the end, unless it was closed.
        report: takes what went wrong: the agent is away, or what it said is no event.

    Attributes:
        begun: whether it has said anything.
        led_at_s: when the Task came that what it says later follows on: its first word, or the answer to who
            asked because that was none (a2a-sdk 0.3); 0 before.
        updates: whether it has said more than its leading Task.
    """

    def __init__(
        self,
        task_id: str,
        agent: AgentTasks,
        hear: Callable[[Subscription, Event], None],
        over: Callable[[Subscription, How], None],
        report: Callable[[Exception | InvalidEvent], None],
    ) -> None:
        super().__init__()
        self.begun = False
        self.led_at_s = 0.0
        self.updates = False
        self._hear = hear
        self._report = report
        self._over = over
        self.task = asyncio.get_running_loop().create_task(self._run(task_id, agent))

    async def _run(self, task_id: str, agent: AgentTasks) -> None:
        how: How = "ended"
        try:
            async for payload in agent.subscribe(task_id):
                try:
                    event = decode_event(payload)
                except InvalidEvent as invalid:
                    self._report(invalid)
                else:
                    self._hear(self, event)
        except NoStream:
            how = "refused"
        except AgentAway as away:
            how = "broke"
            self._report(away)
        except Exception:
            how = "broke"
            logger.exception("subscription_failed", task=task_id)
        self._over(self, how)

    def close(self) -> None:
        self.task.cancel()


class Said:
    """An event that waits to be written, with the turns that begin before it.

    Attributes:
        voice: who said it; what another one than the source said is not written.
        event: None where only the turns are written.
        at_s: when it was heard.
        resynchronised: it is a Task, and deltas may have been lost before it.
        heard: of a Task: what its voice has said before it came, and what is written behind it; None where
            it is a word of the voice itself.
    """

    __slots__ = ("at_s", "event", "heard", "resynchronised", "turns", "voice")

    def __init__(
        self,
        voice: Voice,
        event: Event | None,
        turns: list[Turn],
        at_s: float,
        *,
        resynchronised: bool = False,
        heard: list[Event] | None = None,
    ) -> None:
        self.voice = voice
        self.heard = heard
        self.event = event
        self.turns = turns
        self.at_s = at_s
        self.resynchronised = resynchronised


class Over(NamedTuple):
    """A voice has ended."""

    voice: Voice
    how: How


class Look(NamedTuple):
    """A subscription has not begun with the Task: the agent is asked for it."""

    voice: Subscription


class Room:
    """Bytes that may wait for NATS, over all tasks."""

    def __init__(self, bytes_max: int) -> None:
        self.left = bytes_max

    def take(self, count: int) -> bool:
        """Take room; False: there isn't so much."""
        if count > self.left:
            return False
        self.left -= count
        return True

    def give(self, count: int) -> None:
        """Give room back."""
        self.left += count
