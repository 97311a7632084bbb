"""Tasks at the agent, as whoever captures them asks for them.

Must not know what is captured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from sidecast_broker.agent_calls import AgentCalls
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.operations import GET_TASK, is_one_segment
from sidecast_broker.voices import NoStream


class AgentTasks:
    """Subscribes to tasks of the agent, and gets them.

    Args:
        calls: reach the agent.
    """

    def __init__(self, calls: AgentCalls) -> None:
        self._calls = calls

    @property
    def doubles(self) -> bool:
        """Whether its Tasks may hold a piece of an artifact once for each stream that was open.

        So those of a2a-sdk 0.3 are; other agents of that generation can't be told from it.
        """
        return self._calls.version == "0.3"

    async def subscribe(self, task_id: str) -> AsyncIterator[bytes]:
        """Give the StreamResponses of a subscription, as v1.0 JSON, until the agent ends it.

        Raises:
            AgentAway: it can't be reached, or the stream broke off.
            NoStream: it refuses.
        """
        try:
            async for payload in self._calls.subscribe(task_id):
                yield payload
        except A2AError as error:
            raise NoStream(str(error)) from error

    async def find(self, task_id: str) -> bytes | None:
        """Give a task by an id that no answer of the agent has named; None: the agent doesn't know it.

        Whoever made the id up must not reach by it what else there is on the agent's paths.

        Raises:
            AgentAway: it can't be reached, or answers with another error.
        """
        interface = await self._calls.interface()
        if interface.binding == "rest" and not is_one_segment(task_id):
            return None
        return await self.get(task_id)

    async def get(self, task_id: str) -> bytes | None:
        """Give a task as v1.0 JSON of a Task; None: the agent doesn't know it.

        Raises:
            AgentAway: it can't be reached, or answers with another error.
        """
        try:
            return await self._calls.call(GET_TASK, msgspec.json.encode({"id": task_id}), task=task_id)
        except A2AError as error:
            if error.kind is ErrorKind.TASK_NOT_FOUND:
                return None
            raise AgentAway("broken", f"the agent says of a task: {error}") from error
