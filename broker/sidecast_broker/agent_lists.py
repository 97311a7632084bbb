"""The agent's list of tasks, cut down to what who asks may watch.

Must not know how the agent is asked, nor who owns a task.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.asked import Asked
from sidecast_broker.auth.access import Access
from sidecast_broker.auth.page_tokens import InvalidPageToken, PageTokens
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind, Violation
from sidecast_broker.core.a2a.task_lists import (
    Exchange,
    UnreadableList,
    exchange_in_body,
    exchange_in_params,
    exchange_in_query,
    ids_of,
    only,
)
from sidecast_broker.core.a2a.translate.raw import Untranslatable

T = TypeVar("T")


class AgentLists:
    """Cuts lists down.

    Args:
        access: who may watch what.
        tokens: seal the page tokens of the agent.
    """

    def __init__(self, access: Access, tokens: PageTokens) -> None:
        self._access = access
        self._tokens = tokens

    def to_agent(self, asked: Asked, target: str) -> tuple[bytes, str]:
        """Give body and target of a client's request as the agent gets them: with its own page token.

        Raises:
            A2AError: INVALID_PARAMS: the client's is not one of this principal's.
        """
        if asked.wire.binding == "jsonrpc":
            return self._opened(asked, partial(exchange_in_body, asked.body)), target
        return asked.body, self._opened(asked, partial(exchange_in_query, target))

    def params_to_agent(self, asked: Asked, params: bytes) -> bytes:
        """Give JSON parameters of a client's request as the agent gets them: with its own page token.

        Raises:
            A2AError: INVALID_PARAMS: the client's is not one of this principal's.
        """
        return self._opened(asked, partial(exchange_in_params, params))

    def _opened(self, asked: Asked, exchanged: Callable[[Exchange], T]) -> T:
        try:
            return exchanged(partial(self._tokens.open, asked.principal.name))
        except (InvalidPageToken, Untranslatable) as error:
            detail = "is not one of this list"
            raise A2AError(
                ErrorKind.INVALID_PARAMS, f"pageToken {detail}", violations=[Violation("pageToken", detail)]
            ) from error

    async def to_client(self, asked: Asked, result: bytes) -> bytes:
        """Give a v1.0 ListTasksResponse of the agent's as who asks may see it.

        Raises:
            AgentAway: it can't be read, so nothing of it is passed back.
        """
        try:
            keys = [asked.key._replace(task=task) for task in ids_of(result)]
            visible = await self._access.visible(asked.principal, keys, at_agent=True)
            kept = {key.task for key in visible.keys}
            return only(result, kept, partial(self._tokens.seal, asked.principal.name))
        except UnreadableList as error:
            raise AgentAway("broken", f"the agent's list of tasks can't be read: {error}") from error
