"""All groups of attacks, by name.

Must not know what is in them. A new kind of request is a function that gives a group, listed here.
"""

from __future__ import annotations

from collections.abc import Callable

from attacks.agents import agents
from attacks.context_subscriptions import context_subscriptions
from attacks.door_subscriptions import door_subscriptions
from attacks.heads import heads
from attacks.live_page import page_tasks, watchers
from attacks.operations import parameters, streams, unary
from attacks.operators import operators
from attacks.pages import pages
from attacks.revoked import revoked_credentials, revoked_tasks
from attacks.several import listed, together
from attacks.subscriptions import subscriptions
from attacks.table import Group
from attacks.tickets import tickets
from attacks.tokens import keys, tokens
from attacks.watching import cursors, ids, tenants

GROUPS: dict[str, Callable[[], Group]] = {
    group.__name__: group
    for group in (
        *(tokens, keys, heads, tickets),
        *(ids, tenants, cursors),
        *(listed, together, subscriptions, context_subscriptions, door_subscriptions),
        *(unary, streams, parameters),
        *(operators, pages, agents),
        *(watchers, page_tasks, revoked_credentials, revoked_tasks),
    )
}
