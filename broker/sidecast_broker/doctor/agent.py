"""Looks at the agents the settings name: whether each answers, and what its card says.

Must not know NATS or clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from sidecast_broker.agent import Agent
from sidecast_broker.agent_card import AgentCards
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.doctor.finding import Finding
from sidecast_broker.settings import Settings

AT_ONCE = 16
"""Agents that are asked together."""


async def look_at_agents(settings: Settings) -> AsyncIterator[Finding]:
    """Ask every agent for its card, as a broker does; of several, each finding names its own."""
    several = list(settings.of_agents)
    for start in range(0, len(several), AT_ONCE):
        some = several[start : start + AT_ONCE]
        for each, found in zip(some, await asyncio.gather(*map(look_at_agent, some)), strict=True):
            for finding in found:
                text = f"{each.agent.name}: {finding.text}" if settings.agents else finding.text
                yield msgspec.structs.replace(finding, text=text)


async def look_at_agent(settings: Settings) -> list[Finding]:
    """Ask one agent for its card."""
    url, capture = settings.agent.url, settings.agent.capture
    if not url:
        return [Finding("agent", "skip", "agent.url is not set: tasks can be watched, and nothing be sent")]
    agent = Agent(settings.agent)
    agent.start()
    cards = AgentCards(agent, settings)
    try:
        card = await cards.card()
    except AgentAway as away:
        remedy = "agent.url is where the card is, without /.well-known/agent-card.json"
        return [Finding("agent", "fail", f"no card from {url}: {away}", remedy)]
    finally:
        await cards.close()
        await agent.close()
    ways = ", ".join(f"{way.binding} {way.version}" for way in card.interfaces)
    if not ways:
        text = f"the card of {url} names no JSON-RPC or REST interface that the broker speaks"
        return [Finding("agent", "fail", text, "A2A v1.0 or v0.3, over JSON-RPC or REST")]
    found = [Finding("agent", "ok", f"{url}: {ways}, {'streaming' if card.streaming else 'not streaming'}")]
    if not card.streaming and capture == "proxy":
        text = "the agent doesn't stream: its events come when a turn is over, or as it is polled"
        found.append(Finding("agent", "warn", text, "let the agent publish (agent.capture = adapter)"))
    return found
