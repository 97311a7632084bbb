"""Everything that can be set: all sections in one, and what follows from several of them together.

Must not know what must hold between settings for the broker to start with them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from sidecast_broker.settings.agent import Agent
from sidecast_broker.settings.auth import Auth
from sidecast_broker.settings.internal import Internal
from sidecast_broker.settings.log import Log
from sidecast_broker.settings.nats import Nats
from sidecast_broker.settings.pace import Pace
from sidecast_broker.settings.server import Server
from sidecast_broker.settings.stream import Stream


class Settings(Struct, frozen=True):
    """Everything that can be set; every field has a default that works on one machine.

    Attributes:
        agents: the agents beside the one of `agent`, by name; what `[agents.NAME]` leaves out is filled in.
        sources: where each setting that isn't at its default came from, by `section.key`.
    """

    server: Server = Server()
    nats: Nats = Nats()
    agent: Agent = Agent()
    auth: Auth = Auth()
    stream: Stream = Stream()
    pace: Pace = Pace()
    log: Log = Log()
    internal: Internal = Internal()
    agents: dict[str, Agent] = {}
    sources: dict[str, str] = {}

    @property
    def of_agents(self) -> tuple[Settings, ...]:
        """These settings as each agent is served by them: that of `agent.name` first."""
        alone = msgspec.structs.replace(self, agents={})
        return alone, *(msgspec.structs.replace(alone, agent=agent) for agent in self.agents.values())

    @property
    def auth_on(self) -> bool:
        """Whether requests need a credential."""
        asked_for = self.auth.required == "true" or (self.auth.required == "auto" and self.auth.schemes)
        return bool(asked_for) or not self.may_be_open

    @property
    def may_be_open(self) -> bool:
        """Whether requests without a credential are acceptable: on loopback, or where asked for."""
        hosts = (self.server.host, self.server.internal_host)
        asked_for = self.auth.required == "false" and self.auth.insecure
        return asked_for or all(map(is_loopback, hosts))


def sections() -> Iterator[tuple[str, type[Struct]]]:
    """Give every section with its struct."""
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            yield field.name, field.type


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener on that address."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
