"""Access where no task is: for paths of an agent that this broker doesn't serve.

Must not know which agents there are. Whoever asks is known or turned away as elsewhere, and then hears of any
task what is heard of one that doesn't exist: so the code that answers for tasks answers alike.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from sidecast_broker.auth.access import Access, Verdict
from sidecast_broker.auth.visibility import Visible
from sidecast_broker.auth.webhook import Action
from sidecast_broker.core.auth.principal import Principal
from sidecast_schemas.subjects import TaskKey


class Nowhere(Access):
    """Denies every task, also where no credential is needed; neither log nor agent is asked.

    Args:
        access: tells who asks, and how refusals leave.
    """

    def __init__(self, access: Access) -> None:
        vars(self).update(vars(access))
        self._access = access
        self.on = True

    async def who(self, request: web.BaseRequest) -> Principal:
        """Give who sends a request, as elsewhere."""
        return await self._access.who(request)

    async def judge(
        self, principal: Principal, key: TaskKey, action: Action = "watch", *, at_agent: bool = False
    ) -> Verdict:
        """Deny a task."""
        return Verdict(False)

    async def hold(self, arrived_s: float) -> None:
        """Wait until a refusal may leave, as elsewhere."""
        await self._access.hold(arrived_s)

    async def visible(
        self, principal: Principal, keys: Iterable[TaskKey], *, at_agent: bool = False
    ) -> Visible:
        """Find nothing."""
        return Visible(frozenset(), left_out=False, away=False)
