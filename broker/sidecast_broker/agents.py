"""The agents of one broker: what serves each of them, and which one a request means.

Must not know how anything is answered. All of it is made at start, from the settings: no request makes
anything for an agent, least of all for one that isn't served here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web
from msgspec import structs

from sidecast_broker.a2a_streams import A2AStreams
from sidecast_broker.adoption import Adoption
from sidecast_broker.agent import Agent
from sidecast_broker.agent_calls import AgentCalls
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_lists import AgentLists
from sidecast_broker.agent_tasks import AgentTasks
from sidecast_broker.auth.access import Access
from sidecast_broker.auth.nowhere import Nowhere
from sidecast_broker.auth.tickets import Tickets
from sidecast_broker.boards import Boards
from sidecast_broker.bucket import Bucket
from sidecast_broker.busy import Busy
from sidecast_broker.capture import WAITING_BYTES_MAX, Capture
from sidecast_broker.core.origins import Origins
from sidecast_broker.gateway import Gateway
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_broker.launch import Launch
from sidecast_broker.limits import Limits
from sidecast_broker.messages import Messages
from sidecast_broker.metrics import Metrics
from sidecast_broker.paths import agent_segment, decode_segment
from sidecast_broker.refused import Refused, unknown
from sidecast_broker.relay import Relay
from sidecast_broker.router import Handler, Route, Router, behind_agent, get
from sidecast_broker.routes import Public
from sidecast_broker.settings import Settings
from sidecast_broker.several import Several
from sidecast_broker.streams import Streams
from sidecast_broker.subscription_desk import SubscriptionDesk
from sidecast_broker.subscriptions import Subscriptions
from sidecast_broker.ticket_desk import TicketDesk
from sidecast_broker.turns import Turns
from sidecast_broker.unary_sends import UnarySends
from sidecast_broker.voices import Room

NOBODY = "unknown"
"""Names agents that aren't served here, where operators see streams that wait for a task of one."""


class Shared(NamedTuple):
    """What all agents of a broker have in common."""

    stream: JetStream
    hubs: Hubs
    boards: Boards
    streams: Streams
    access: Access
    subscriptions: Subscriptions
    tickets: Tickets
    limits: Limits
    lists: AgentLists
    messages: Bucket | None
    origins: Origins
    metrics: Metrics


class Served:
    """What serves one agent.

    Args:
        settings: those of this agent.
        shared: what it has in common with the others.
        room: for what waits to be captured.

    Attributes:
        name: the agent's.
        routes: of the browser format and the card, also behind `/agents/{agent}`.
        gateway: answers on all other paths.
        cards: what it says of itself.
    """

    def __init__(self, settings: Settings, shared: Shared, room: Room) -> None:
        stream, hubs, boards, streams = shared[:4]
        metrics, about = shared.metrics, settings.agent
        access = shared.access.within(about.tenant)
        self.name = about.name
        self._agent = Agent(about)
        self.cards = AgentCards(self._agent, settings, schemes=access.schemes)
        calls = AgentCalls(self._agent, self.cards)
        self._capture = None
        if about.capture == "proxy" and self._agent.configured:
            self._capture = Capture(stream, hubs, AgentTasks(calls), self.name, metrics, room=room)
        self._adoption = Adoption(hubs, self._capture)
        self._messages = None
        if shared.messages is not None:
            patience_s = settings.nats.request_s
            self._messages = Messages(
                shared.messages, self.name, abandoned_s=about.timeout_s, patience_s=patience_s
            )
        self._turns = Turns(calls, self._messages, self._capture)
        busy = Busy(settings.stream, metrics)
        public = Public(busy, settings, hubs, streams, self._adoption, access, shared.subscriptions, metrics)
        launch = Launch(busy, settings, boards, hubs, streams, shared.subscriptions, metrics)
        several = Several(
            busy, settings, boards, launch, streams, access, self._adoption, shared.subscriptions
        )
        desks = _desks(settings, shared, access)
        own = [*public.routes(), *several.routes(), *desks]
        self.routes = [*own, *behind_agent(own), *self.cards.routes()]
        a2a_streams = A2AStreams(
            settings, hubs, streams, self._turns, self._adoption, access, shared.subscriptions, metrics
        )
        sends = UnarySends(hubs, self._turns, access)
        relay = Relay(hubs, self._agent, self.cards, calls, self._capture, access, shared.lists, sends)
        self.gateway = Gateway(
            settings, a2a_streams, relay, self._agent, self.cards, access, metrics, shared.origins
        )

    def start(self) -> None:
        """Be ready to talk to the agent, and begin to capture where the settings say so."""
        self._agent.start()
        if self._capture is not None:
            self._capture.start()

    async def close(self) -> None:
        """End what is under way with the agent; what is captured is written first."""
        await self._turns.close()
        if self._messages is not None:
            await self._messages.close()
        await self._adoption.close()
        if self._capture is not None:
            await self._capture.close()
        await self.cards.close()
        await self._agent.close()


class Agents:
    """Makes what serves each agent, and starts and ends it.

    Args:
        settings: all settings.
        shared: what the agents have in common.
        others: routes beside those of the agents.
    """

    def __init__(self, settings: Settings, shared: Shared, others: Sequence[Route]) -> None:
        room = Room(WAITING_BYTES_MAX)
        self._served = [Served(each, shared, room) for each in settings.of_agents]
        default = self._served[0]
        self.router = AgentRouter(
            Router([*default.routes, *others], default.gateway.answer),
            {served.name: Router(served.routes, served.gateway.answer) for served in self._served},
            # What of A2A is asked there, the default agent's door refuses: it is not its own name.
            Router(_routes_of_nobody(default, settings, shared), default.gateway.answer),
            default.gateway.answer,
        )

    def start(self) -> None:
        """Start all of them."""
        for served in self._served:
            served.start()

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*(served.close() for served in self._served))


class AgentRouter(Router):
    """Finds the handler of a request among those of the agent it means.

    Args:
        default: of paths that name no agent.
        named: of paths behind `/agents/{agent}`, by the agent's name.
        nobody: of such paths with another name.
        door: refuses, in whatever form A2A has for it, names that can't be decoded, and dots.
    """

    def __init__(self, default: Router, named: dict[str, Router], nobody: Router, door: Handler) -> None:
        super().__init__(())
        self._default = default
        self._named = named
        self._nobody = nobody
        self._door = door

    def find(self, method: str, target: str) -> Handler:
        """Give the handler of a request; the name is decoded once, and strictly.

        Args:
            method: the HTTP method.
            target: the request target as it was sent, with its query.

        Raises:
            Refused: no such path, or not with that method.
        """
        segment = agent_segment(target)
        if not segment:
            return self._default.find(method, target)
        try:
            name = decode_segment(segment)
        except Refused:
            return self._door
        if name in (".", ".."):
            return self._door
        return self._named.get(name, self._nobody).find(method, target)


def _desks(settings: Settings, shared: Shared, access: Access) -> list[Route]:
    return [
        *TicketDesk(settings, access, shared.tickets, shared.limits).routes(),
        *SubscriptionDesk(settings, access, shared.subscriptions).routes(),
    ]


def _routes_of_nobody(default: Served, settings: Settings, shared: Shared) -> list[Route]:
    """Give what answers for agents that aren't served here, as for tasks there are not."""
    other = structs.replace(settings, agent=structs.replace(settings.agent, name=NOBODY), agents={})
    access = Nowhere(shared.access)
    adoption = Adoption(shared.hubs, None)
    busy = Busy(other.stream, shared.metrics)
    public = Public(
        busy, other, shared.hubs, shared.streams, adoption, access, shared.subscriptions, shared.metrics
    )

    async def together(request: web.BaseRequest) -> web.StreamResponse:
        # No feed is opened for them, not even one that waits.
        arrived_s = access.now()
        shared.streams.arrive(request)
        await access.who(request)
        await access.hold(arrived_s)
        raise unknown()

    own = [*public.routes(), get("/events", together), *_desks(other, shared, access)]
    # A card there is not: the default agent's answers for its own name only.
    return [*behind_agent(own), *default.cards.routes()]
