"""What can be set of an agent.

Must not know the other sections, nor which agents there are.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from sidecast_broker.settings.fields import listed, within


class Agent(Struct, frozen=True):
    """The agent this broker stands beside; or, of several, one of the others."""

    name: Annotated[str, "Name the agent publishes under; requests that name no agent mean this one."] = (
        "agent"
    )
    tenant: Annotated[str, "Tenant of requests that carry none; empty is the tenant without a name."] = ""
    url: Annotated[
        str,
        "Base URL of the agent; its card is at `/.well-known/agent-card.json` below it. Empty is no agent: "
        "tasks can be watched, by a card of the broker's own, and every other A2A operation answers with "
        "an error.",
    ] = ""
    capture: Annotated[
        Literal["adapter", "proxy"],
        "Who publishes the agent's events: the agent itself, with the adapter, or this broker, from what "
        "the agent answers.",
    ] = "adapter"
    passthrough: Annotated[
        str,
        "Paths beyond A2A that are passed to the agent with all below them, separated by commas, for "
        "example `/docs,/files`; `/` passes everything the broker doesn't serve itself.",
    ] = ""
    timeout_s: Annotated[
        float,
        within(0.1, 86400),
        "Silence of the agent after which a request is given up, in seconds; event streams may be silent "
        "for longer once they have begun. Blocking sends take as long as the agent works.",
    ] = 60.0
    card_s: Annotated[
        float, within(1, 86400), "Time the agent's card is kept before it is asked for again, in seconds."
    ] = 60.0

    @property
    def passthrough_paths(self) -> tuple[str, ...]:
        """The paths of `passthrough`, without a slash at their ends; `/` is the empty one."""
        return tuple(path.rstrip("/") for path in listed(self.passthrough))
