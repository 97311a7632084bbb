"""Which of many tasks somebody may watch: for lists, whose owners are looked up together and remembered.

Must not know where lists come from. Nothing is opened on the word of what is remembered here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sidecast_broker.answers import Away
from sidecast_broker.auth.owners import Firsts, first_of
from sidecast_broker.auth.webhook import Decider
from sidecast_broker.core.auth.decision import decide, in_any_tenant
from sidecast_broker.core.auth.principal import Principal
from sidecast_schemas.subjects import TaskKey

AT_ONCE = 32
"""Questions to the stream's leader under way for one list."""
LOOKUPS_MAX = 2048
"""Owners looked up for one list: some 200 ms."""
WEBHOOK_MAX = 256
"""Tasks of one list that the webhook is asked about."""
OWNER_S = 30.0
"""How long a list believes an owner once seen: only a purge can change it."""
OWNERS_MAX = 50_000


class Visible(NamedTuple):
    """Which of many tasks somebody may watch.

    Attributes:
        keys: those tasks.
        left_out: whether there were too many to look at all of them.
        away: whether the leader couldn't be asked for all of them.
    """

    keys: frozenset[TaskKey]
    left_out: bool
    away: bool


class Visibility:
    """Tells which of many tasks somebody may watch.

    Args:
        firsts: the stream's leader.
        webhook: asked last; None: nobody is.
        clock: seconds, monotonic.
    """

    def __init__(self, firsts: Firsts, webhook: Decider | None, clock: Callable[[], float]) -> None:
        self._firsts = firsts
        self._webhook = webhook
        self._clock = clock
        self._owners: OrderedDict[TaskKey, tuple[str | None, float]] = OrderedDict()

    async def of(self, principal: Principal, keys: Iterable[TaskKey], *, at_agent: bool = False) -> Visible:
        """Find out which of many tasks a principal may watch.

        Args:
            principal: who asks.
            keys: the tasks, those first that matter most: of very many only the first are looked at.
            at_agent: the agent has named them, not the log; so for a grant within a tenant the
                log has to have them under it, too.
        """
        found: set[TaskKey] = set()
        granted: set[TaskKey] = set()
        open_: list[TaskKey] = []
        for key in keys:
            decided = decide(principal, key)
            if decided and not (at_agent and not in_any_tenant(principal, key)):
                found.add(key)
            elif decided is not False:
                open_.append(key)
            if decided:
                granted.add(key)
        owners, left_out, away = await self._owners_of(open_)
        found.update(key for key, owner in owners.items() if key in granted or owner == principal.name)
        if self._webhook is not None:
            others = [key for key in owners if key not in found]
            left_out = left_out or len(others) > WEBHOOK_MAX
            asked = others[:WEBHOOK_MAX]
            for start in range(0, len(asked), AT_ONCE):
                some = asked[start : start + AT_ONCE]
                answers = await asyncio.gather(
                    *(self._webhook.allows(principal, key, "watch") for key in some)
                )
                found.update(key for key, allowed in zip(some, answers, strict=True) if allowed)
        return Visible(frozenset(found), left_out, away)

    async def _owners_of(self, keys: list[TaskKey]) -> tuple[dict[TaskKey, str | None], bool, bool]:
        """Give owners of tasks that exist; whether there were too many to ask for; whether NATS is away."""
        now_s = self._clock()
        owners: dict[TaskKey, str | None] = {}
        missing: list[TaskKey] = []
        for key in keys:
            owner, until_s = self._owners.get(key, (None, 0.0))
            if now_s < until_s:
                owners[key] = owner
            else:
                missing.append(key)
        left_out = len(missing) > LOOKUPS_MAX
        for start in range(0, min(len(missing), LOOKUPS_MAX), AT_ONCE):
            some = missing[start : min(start + AT_ONCE, LOOKUPS_MAX)]
            try:
                firsts = await asyncio.gather(*(first_of(self._firsts, key) for key in some))
            except Away:
                return owners, left_out, True
            for key, first in zip(some, firsts, strict=True):
                if first is not None:
                    owners[key] = first.owner
                    self._remember(key, owners[key])
        return owners, left_out, False

    def _remember(self, key: TaskKey, owner: str | None) -> None:
        self._owners[key] = owner, self._clock() + OWNER_S
        self._owners.move_to_end(key)
        if len(self._owners) > OWNERS_MAX:
            self._owners.popitem(last=False)
