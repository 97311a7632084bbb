"""Ways to a task by the path of another agent, served here or not.

Must not know how agents are told apart.
"""

from __future__ import annotations

import json

from access_rig import ALIASES, ALICES, BROWSER, MISSING
from attacks.scene import Scene, Shot
from attacks.table import (
    BAD,
    EVENTS,
    HIDDEN,
    SHOWN,
    UNKNOWN,
    VERSION,
    Group,
    Refusal,
    Row,
    Served,
    Shooter,
    alice,
    bob,
    calls,
    sends,
    watch,
)

NEVER_COMES = Refusal(200, '"reason":"not-found"', hides=True)
REST_UNKNOWN = Refusal(404, '"code":404', hides=True)
STRANGE = {
    "one that isn't served": "nobody",
    "one in another case": "AGENT",
    "one with a space": "agent%20",
    "one with NUL": "agent%00",
    "one with a slash": "other%2F..%2Fagent",
    "one encoded twice": "%2561gent",
    "one as subjects encode it": "=YWdlbnQ",
    "one with a tenant before it": "_.agent",
    "all of them": "*",
    "a letter that looks like it": "%D0%B0gent",
}
"""Names, of which none is `agent`."""


def agents() -> Group:
    """Give alice's own task behind the paths of agents whose it is not."""
    hers, his = alice(), bob()

    def behind(agent: str, name: str, who: str, task: str = ALICES) -> Shooter:
        ask = BROWSER[name](task)
        lines = tuple(f"{key}: {value}" for key, value in ask.headers.items())
        return sends(ask.method, f"/agents/{agent}{ask.target}", *lines, who)

    def ticket(agent: str) -> Shooter:
        body = json.dumps({"tasks": [ALICES]}).encode()
        return sends("POST", f"/agents/{agent}/tickets", hers, body=body)

    def with_ticket(prefix: str) -> Shooter:
        def give(scene: Scene) -> Shot:
            return Shot("GET", f"{prefix}{EVENTS}?ticket={scene.ticket}", ("Accept: application/json",))

        return give

    own = Served(watch(his, target=f"/agents/other{EVENTS}"), text=SHOWN)
    rows = [
        *(Row(f"of another, {name}", behind("other", name, hers), UNKNOWN, own) for name in BROWSER),
        *(
            Row(
                name,
                watch(hers, target=f"/agents/{segment}{EVENTS}"),
                UNKNOWN,
                twin=watch(hers, target=_MISSED),
            )
            for name, segment in STRANGE.items()
        ),
        *(
            Row(
                f"waiting at {agent}",
                sends("GET", f"/agents/{agent}{ALIASES['events'].format(ALICES)}?wait_s=0.05", hers),
                NEVER_COMES,
                twin=sends("GET", f"{_MISSED}?wait_s=0.05", hers),
            )
            for agent in ("other", "nobody")
        ),
        *(Row(f"a ticket at {agent}", ticket(agent), UNKNOWN) for agent in ("other", "nobody")),
        *(
            Row(
                f"with a ticket at {agent}",
                with_ticket(f"/agents/{agent}"),
                UNKNOWN,
                Served(with_ticket("/agents/agent"), text=SHOWN),
                twin=watch(hers, target=_MISSED),
            )
            for agent in ("other", "nobody")
        ),
        *(
            Row(f"{method} at {agent}", calls(method, hers, target=f"/agents/{agent}/a2a", id=ALICES), HIDDEN)
            for agent in ("other", "nobody")
            for method in ("GetTask", "CancelTask", "SubscribeToTask")
        ),
        *(
            Row(
                f"by REST at {agent}",
                sends("GET", f"/agents/{agent}/tasks/{ALICES}", VERSION, hers),
                REST_UNKNOWN,
                Served(sends("GET", f"/agents/agent/tasks/{ALICES}", VERSION, hers)),
            )
            for agent in ("other", "nobody")
        ),
        *(
            Row(f"several at {agent}", watch(hers, target=f"/agents/{agent}/events?task={ALICES}"), UNKNOWN)
            for agent in ("other", "nobody")
        ),
        *(
            Row(f"no name: {segment}", watch(hers, target=f"/agents/{segment}{EVENTS}"), BAD)
            for segment in ("%ff", "%f", "%C0%AE")
        ),
        *(
            Row(f"a path in it: {segment}", watch(hers, target=f"/agents/{segment}{EVENTS}"), Refusal(400))
            for segment in ("..", "%2e%2e", "")
        ),
        Row(
            "with a grant for the other agent",
            watch(bob(sidecast_grants=["*/other/*"])),
            UNKNOWN,
            Served(watch(bob(sidecast_grants=["*/agent/*"])), text=SHOWN),
        ),
        Row(
            "with a grant for the default agent",
            watch(alice(sidecast_grants=["*/agent/*"]), target=f"/agents/other{EVENTS}"),
            UNKNOWN,
            Served(watch(alice(sidecast_grants=["*/other/*"]), target=f"/agents/other{EVENTS}"), text=SHOWN),
        ),
    ]
    return Group(rows, Served(watch(hers, target=f"/agents/agent{EVENTS}"), text=SHOWN), {"agents": TABLES})


_MISSED = f"/tasks/{MISSING}/events"
TABLES = json.dumps({"other": {}})
