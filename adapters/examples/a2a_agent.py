"""An A2A agent (a2a-sdk 1.x) whose tasks can be watched: one line more than without.

python adapters/examples/a2a_agent.py [nats://127.0.0.1:4222]

It listens on http://127.0.0.1:9000.
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from a2a.helpers.proto_helpers import new_task
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, Part, TaskState
from starlette.applications import Starlette

from sidecast_adapters import Publisher
from sidecast_adapters.a2a import publishing


class Echo(AgentExecutor):
    """Says back what it was told, word by word."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Work on one message."""
        if context.current_task is None:
            state = TaskState.TASK_STATE_SUBMITTED
            await event_queue.enqueue_event(new_task(context.task_id, context.context_id, state))
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        for index, word in enumerate(context.get_user_input().split()):
            await asyncio.sleep(0.3)
            await updater.add_artifact([Part(text=word + " ")], artifact_id="echo", append=index > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Stop; the framework ends the run."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


async def main(nats_url: str) -> None:
    """Serve the agent until it is interrupted."""
    url = "http://127.0.0.1:9000"
    card = AgentCard(
        name="echo",
        version="1.0",
        capabilities=AgentCapabilities(streaming=True),
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
    )
    async with Publisher(nats_url, agent="echo") as publisher:
        handler = DefaultRequestHandler(
            agent_executor=publishing(Echo(), publisher),  # the one line
            task_store=InMemoryTaskStore(),
            agent_card=card,
        )
        routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, rpc_url="/")]
        await uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=9000)).serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"))
