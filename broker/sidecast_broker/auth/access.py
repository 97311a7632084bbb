"""Who may watch which task, decided in two steps; and how a refusal leaves, so that it says nothing else.

Must not know how credentials are checked, nor what is done with a task. Source: contract, section 5.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from aiohttp import web

from sidecast_broker.answers import Away
from sidecast_broker.auth.owners import Firsts, first_of
from sidecast_broker.auth.revocations import Revocations
from sidecast_broker.auth.visibility import Visibility, Visible
from sidecast_broker.auth.webhook import Action, Decider
from sidecast_broker.core.auth.decision import decide, in_any_tenant, tenant_within
from sidecast_broker.core.auth.principal import ANYBODY, Principal, Right, Scheme
from sidecast_broker.refused import Refused, unknown
from sidecast_broker.settings import Settings
from sidecast_schemas.subjects import TaskKey

FOLLOW_S = 2.0
"""How long the first record of a task may take from the agent's answer to the log."""
TICK_S = 0.001
FOLLOW_PAUSE_S = 0.01
FOLLOW_PAUSE_S_MAX = 0.2


class Authenticator(Protocol):
    """Tells who sends a request."""

    @property
    def schemes(self) -> Sequence[Scheme]:
        """The kinds of credential that are accepted; any one of them is enough."""

    async def principal(self, request: web.BaseRequest) -> Principal:
        """Give who sends a request.

        Raises:
            Refused: `unauthenticated`: it carries no credential, or one that isn't valid.
        """


class Verdict(NamedTuple):
    """Whether somebody may watch a task.

    Attributes:
        allowed: whether they may.
        first: sequence of the task's first retained record, where the leader was asked and there is one.
        owner: whom that record names.
    """

    allowed: bool
    first: int | None = None
    owner: str | None = None


_ALLOWED, _DENIED = Verdict(True), Verdict(False)


class Access:
    """Decides who may do what.

    Args:
        settings: whether credentials are needed, the tenant of who names none, and the floor of refusals.
        authenticator: tells who sends a request.
        firsts: the stream's leader.
        webhook: asked last; None: nobody is.
        revocations: what is revoked; None: nothing ever is.
        clock: seconds, monotonic.

    Attributes:
        on: whether credentials are needed; else everything is allowed, and costs nothing.
        schemes: for the agent's card.
    """

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        firsts: Firsts,
        webhook: Decider | None = None,
        revocations: Revocations | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on = settings.auth_on
        self._authenticator = authenticator
        self._firsts = firsts
        self._webhook = webhook
        self._revocations = revocations
        self._default_tenant = settings.agent.tenant
        self._floor_s = settings.auth.refusal_floor_ms / 1000
        self._clock = clock
        self._visibility = Visibility(firsts, webhook, clock)

    def within(self, tenant: str) -> Access:
        """Give the same for requests to an agent whose tenant is meant where they name none."""
        other = copy.copy(self)
        other._default_tenant = tenant
        return other

    @property
    def schemes(self) -> Sequence[Scheme] | None:
        """The kinds of credential the broker takes, for the agent's card; None: none is needed here."""
        return self._authenticator.schemes if self.on else None

    @property
    def asks_elsewhere(self) -> bool:
        """Whether who may watch a task is not told by grants and owners alone."""
        return self._webhook is not None

    def now(self) -> float:
        """Give the time of a request's arrival, to be handed to `hold` where it is refused."""
        return self._clock()

    async def who(self, request: web.BaseRequest) -> Principal:
        """Give who sends a request.

        Raises:
            Refused: `unauthenticated`; `unavailable`: it can't be told at the moment.
        """
        if not self.on:
            return ANYBODY
        principal = await self._authenticator.principal(request)
        if self._revocations is not None:
            await self._revocations.admit(principal)
        return principal

    def _hides(self, principal: Principal, key: TaskKey) -> bool:
        """Tell whether a task is revoked, so that there is none for this principal."""
        return self._revocations is not None and self._revocations.covers_task(principal, key)

    def tenant(self, principal: Principal, named: str = "") -> str | None:
        """Give the tenant a request is about; None: one that doesn't exist to this principal.

        Args:
            principal: who asks.
            named: by the request; empty: it names none.
        """
        return tenant_within(principal, named, self._default_tenant)

    def require_right(self, principal: Principal, *rights: Right) -> None:
        """Let pass who has one of these rights.

        Raises:
            Refused: `forbidden`.
        """
        if not (principal.anybody or principal.rights.intersection(rights)):
            raise Refused("forbidden", f"this needs the right {' or '.join(rights)}")

    # ------------------------------------------------------------------ one task

    async def judge(
        self, principal: Principal, key: TaskKey, action: Action = "watch", *, at_agent: bool = False
    ) -> Verdict:
        """Decide whether a principal may watch a task, with as little as decides it.

        What is asked of the leader and of the webhook is the same for a task that exists, one of somebody
        else and one there is not: whoever refuses learns the answer in the same time.

        Args:
            principal: who asks.
            key: the task.
            action: what for; only the webhook tells them apart.
            at_agent: the agent may be asked for the task, which doesn't know whose tenant it is of: so the
                log has to.

        Raises:
            Refused: `unavailable`: the leader can't be asked.
        """
        decided = decide(principal, key)
        if decided is False:
            return _DENIED
        must_exist = at_agent and not in_any_tenant(principal, key)
        hidden = self._hides(principal, key)
        if decided and not must_exist and not hidden:
            return _ALLOWED
        try:
            first = await first_of(self._firsts, key)
        except Away as away:
            raise Refused("unavailable", "owners can't be looked up", retry_after_s=1) from away
        sequence, owner = (first.sequence, first.owner) if first is not None else (None, None)
        allowed = bool(decided) or (owner is not None and owner == principal.name)
        if not allowed and self._webhook is not None:
            allowed = await self._webhook.allows(principal, key, action)
        if hidden:
            return _DENIED
        return Verdict(allowed and not (must_exist and first is None), sequence, owner)

    async def may_watch(self, principal: Principal, key: TaskKey) -> bool:
        """Tell whether a principal may watch a task.

        Raises:
            Refused: `unavailable`.
        """
        return (await self.judge(principal, key)).allowed

    def may_watch_new(self, principal: Principal, key: TaskKey, owner: str | None) -> bool:
        """Tell whether a principal may watch a task that has just begun, by what its first record says alone.

        Nothing is looked up, and no webhook asked, so that it takes no time that somebody could notice.

        Args:
            principal: who asks.
            key: the task.
            owner: whom its first record names.
        """
        return not self.on or (self.is_of(principal, key, owner) and not self._hides(principal, key))

    def is_of(self, principal: Principal, key: TaskKey, owner: str | None) -> bool:
        """Tell whether a grant or its owner makes a task one of a principal's, whatever is revoked.

        Args:
            principal: who asks.
            key: the task.
            owner: whom its first record names.
        """
        if not self.on:
            return True
        decided = decide(principal, key)
        return decided if decided is not None else owner is not None and owner == principal.name

    async def require(
        self,
        principal: Principal,
        key: TaskKey,
        arrived_s: float,
        action: Action = "watch",
        *,
        at_agent: bool = False,
    ) -> Verdict:
        """Let pass who may watch a task.

        Args:
            principal: who asks.
            key: the task.
            arrived_s: when the whole request was there, as `now` gave it.
            action: what for.
            at_agent: as in `judge`.

        Raises:
            Refused: `not-found`, held back as `hold` does it; or `unavailable`.
        """
        verdict = await self.judge(principal, key, action, at_agent=at_agent)
        if not verdict.allowed:
            await self.hold(arrived_s)
            raise unknown()
        return verdict

    async def hold(self, arrived_s: float) -> None:
        """Wait until a refusal may leave: a whole number of floors after the request came.

        A look-up that took longer than the floor shows in the number of floors only, not in what it took.

        Args:
            arrived_s: when the whole request was there.
        """
        if not self.on or not self._floor_s:
            return
        floors = (self._clock() - arrived_s) // self._floor_s + 1
        until_s = arrived_s + floors * self._floor_s
        # A timer may fire a tick early; a refusal must not leave then.
        await asyncio.sleep(until_s - self._clock() + TICK_S)

    async def hold_back(self, refused: Refused, arrived_s: float) -> None:
        """Wait as `hold` does where a refusal says that there is no such task, and must not say more.

        Args:
            refused: what the request is answered with.
            arrived_s: when the whole request was there.
        """
        if refused.code == "not-found":
            await self.hold(arrived_s)

    async def follows(self, principal: Principal, key: TaskKey) -> bool:
        """Tell whether a principal may follow a task that the agent has answered their message with.

        The agent may be faster than the log, so its first record is waited for: who has begun a task sees it
        from the answer on. What the log doesn't say to be somebody else's is believed to be theirs.

        Raises:
            Refused: `unavailable`.
        """
        decided = decide(principal, key)
        if self._hides(principal, key):
            return False
        if decided is not None:
            return decided
        pause_s, until_s = FOLLOW_PAUSE_S, self._clock() + FOLLOW_S
        while (verdict := await self.judge(principal, key, "send")).first is None:
            if self._clock() >= until_s:
                return True
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, FOLLOW_PAUSE_S_MAX)
        return verdict.allowed or (verdict.owner is None and not self._hides(principal, key))

    async def visible(
        self, principal: Principal, keys: Iterable[TaskKey], *, at_agent: bool = False
    ) -> Visible:
        """Find out which of many tasks a principal may watch; see `Visibility.of`."""
        shown = [key for key in keys if not self._hides(principal, key)]
        return await self._visibility.of(principal, shown, at_agent=at_agent)
