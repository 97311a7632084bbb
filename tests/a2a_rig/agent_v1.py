"""The test agent on a2a-sdk 1.x: JSON-RPC and REST, v1.0 and (with `--compat`) v0.3.

python -m a2a_rig.agent_v1 --port 9000 --tasks FOLDER [--nats nats://127.0.0.1:4222] [--compat]

Must not know the broker: with `--nats` it publishes as any agent with the adapter does, without it is plain.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from inspect import signature
from pathlib import Path
from typing import Any

from a2a.server.agent_execution import AgentExecutor
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentExtension,
    AgentInterface,
    AgentSkill,
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from a2a_rig.control import Control, Folder, serve
from a2a_rig.script import Script
from google.protobuf.json_format import MessageToDict, ParseDict
from starlette.applications import Starlette

from sidecast_adapters import Publisher
from sidecast_adapters.a2a import publishing

EXTENSION = "https://example.org/extensions/rig/v1"
"""An extension the card names, so that a test can tell whether the header that asks for it arrives."""


class KeptTasks(InMemoryTaskStore):
    """A task store that a killed and restarted agent reads again."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self._folder = folder

    async def load(self) -> None:
        """Read what an earlier process has kept."""
        for kept in self._folder.read():
            await super().save(ParseDict(kept, Task()), ServerCallContext())

    async def save(self, task: Task, context: ServerCallContext) -> None:
        """Keep a task in memory and on disk."""
        await super().save(task, context)
        self._folder.write(task.id, MessageToDict(task))


class VoiceV1:
    """One turn's voice on a2a-sdk 1.x."""

    def __init__(self, context: Any, queue: Any) -> None:
        self._context = context
        self._queue = queue
        self._ids = {"task_id": context.task_id, "context_id": context.context_id}

    async def task(self) -> None:
        """Say the task, with the message that began it."""
        status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
        task = Task(id=self._context.task_id, context_id=self._context.context_id, status=status)
        task.history.append(self._context.message)
        await self._queue.enqueue_event(task)

    async def status(self, state: str, text: str = "", metadata: dict[str, Any] | None = None) -> None:
        """Say a state."""
        event = TaskStatusUpdateEvent(
            status=TaskStatus(state=TaskState.Value(f"TASK_STATE_{state.upper()}")), **self._ids
        )
        event.status.timestamp.GetCurrentTime()
        if text:
            event.status.message.CopyFrom(self._message(text))
        if metadata:
            event.metadata.update(metadata)
        await self._queue.enqueue_event(event)

    async def artifact(self, text: str, *, append: bool, last: bool) -> None:
        """Say a piece of the artifact `out`."""
        await self._say_artifact("out", [Part(text=text)], append=append, last_chunk=last)

    async def parts(self) -> None:
        """Say an artifact with a part of each kind."""
        data = Part()
        ParseDict({"data": {"n": 1, "deep": [True, None, "é"]}}, data)
        parts = [
            Part(text="hi"),
            Part(raw=b"hi", media_type="text/plain", filename="hi.txt"),
            Part(url="https://example.org/x", media_type="text/html"),
            data,
        ]
        await self._say_artifact("parts", parts)

    async def message(self, text: str) -> None:
        """Answer with a single message."""
        message = self._message(text)
        message.task_id = ""
        await self._queue.enqueue_event(message)

    async def _say_artifact(self, name: str, parts: list[Part], **fields: Any) -> None:
        artifact = Artifact(artifact_id=name, name=name, parts=parts)
        await self._queue.enqueue_event(TaskArtifactUpdateEvent(artifact=artifact, **self._ids, **fields))

    def _message(self, text: str) -> Message:
        return Message(
            message_id=f"said-{text}"[:32], role=Role.ROLE_AGENT, parts=[Part(text=text)], **self._ids
        )


class ScriptExecutor(AgentExecutor):
    """Performs the script that a message holds."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._quiet: set[str] = set()

    async def execute(self, context: Any, event_queue: Any) -> None:
        """Perform the script."""
        text = context.get_user_input()
        self._control.messages.append(
            {
                "messageId": context.message.message_id,
                "text": text,
                "taskId": context.task_id,
                "contextId": context.context_id,
                "tenant": context.call_context.tenant,
            }
        )
        script = Script(text, VoiceV1(context, event_queue), self._control)
        if script.quiet:
            self._quiet.add(context.task_id)
        await script.perform(new=context.current_task is None)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """Say `canceled`, unless the script is quiet about it."""
        self._control.canceled.append(context.task_id)
        if context.task_id not in self._quiet:
            await VoiceV1(context, event_queue).status("canceled", "stopped")


def agent_card(url: str, *, compat: bool, streaming: bool) -> AgentCard:
    """Give the card: JSON-RPC and REST at one address."""
    versions = ("1.0", "0.3") if compat else ("1.0",)
    return AgentCard(
        name="Rig",
        description="Does what a message says.",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=binding, protocol_version=version)
            for version in versions
            for binding in ("JSONRPC", "HTTP+JSON")
        ],
        capabilities=AgentCapabilities(
            streaming=streaming,
            push_notifications=True,
            extensions=[AgentExtension(uri=EXTENSION, description="Nothing but a name")],
        ),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="script", name="Script", description="Performs a script.", tags=["test"])],
    )


async def accept_any(_url: str) -> bool:
    """Let any push address pass: nothing is ever sent there."""
    return True


async def run(options: argparse.Namespace) -> None:
    """Serve until told to end."""
    control = Control()
    store = KeptTasks(Folder(options.tasks))
    await store.load()
    card = agent_card(f"http://127.0.0.1:{options.port}", compat=options.compat, streaming=not options.unary)
    executor: AgentExecutor = ScriptExecutor(control)
    async with AsyncExitStack() as stack:
        if options.nats:
            publisher = await stack.enter_async_context(Publisher(options.nats, agent=options.agent))
            executor = publishing(executor, publisher)
        # The first 1.x accept any address of their own, and have no such argument.
        named = signature(DefaultRequestHandler).parameters
        validator = {"push_url_validator": accept_any} if "push_url_validator" in named else {}
        handler = DefaultRequestHandler(
            agent_executor=executor,
            task_store=store,
            agent_card=card,
            push_config_store=InMemoryPushNotificationConfigStore(),
            **validator,
        )
        routes = [
            *control.routes(),
            *create_agent_card_routes(card),
            *create_jsonrpc_routes(handler, "/", enable_v0_3_compat=options.compat),
            *create_rest_routes(handler, enable_v0_3_compat=options.compat),
        ]
        await serve(Starlette(routes=routes), control, options.port)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--nats", default="")
    parser.add_argument("--agent", default="agent")
    parser.add_argument("--compat", action="store_true")
    parser.add_argument("--unary", action="store_true", help="the card says that it can't stream")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(run(read_options()))
