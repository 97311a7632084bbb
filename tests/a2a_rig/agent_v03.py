"""The test agent on a2a-sdk 0.3.x: JSON-RPC at `/`, REST at `/v1`.

python -m a2a_rig.agent_v03 --port 9000 --tasks FOLDER [--nats nats://127.0.0.1:4222]

Must not know the broker: with `--nats` it publishes as any agent with the adapter does, without it is plain.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from a2a.server.agent_execution import AgentExecutor
from a2a.server.apps import A2ARESTFastAPIApplication, A2AStarletteApplication
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Artifact,
    DataPart,
    FilePart,
    FileWithBytes,
    FileWithUri,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
    TextPart,
    TransportProtocol,
)
from a2a_rig.control import Control, Folder, serve
from a2a_rig.script import Script
from starlette.applications import Starlette
from starlette.routing import Mount

from sidecast_adapters import Publisher
from sidecast_adapters.a2a import publishing

FINAL = frozenset({"completed", "failed", "canceled", "rejected", "input_required"})


class KeptTasks(InMemoryTaskStore):
    """A task store that a killed and restarted agent reads again."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self._folder = folder
        self.tasks = {kept["id"]: Task.model_validate(kept) for kept in folder.read()}

    async def save(self, task: Task, context: ServerCallContext | None = None) -> None:
        """Keep a task in memory and on disk."""
        await super().save(task, context)
        self._folder.write(task.id, task.model_dump(mode="json", by_alias=True, exclude_none=True))


class VoiceV03:
    """One turn's voice on a2a-sdk 0.3.x."""

    def __init__(self, context: Any, queue: Any) -> None:
        self._context = context
        self._queue = queue
        self._ids = {"task_id": context.task_id, "context_id": context.context_id}

    async def task(self) -> None:
        """Say the task, with the message that began it."""
        status = TaskStatus(state=TaskState.submitted)
        history = [self._context.message]
        await self._queue.enqueue_event(
            Task(
                id=self._context.task_id,
                context_id=self._context.context_id,
                status=status,
                history=history,
            )
        )

    async def status(self, state: str, text: str = "", metadata: dict[str, Any] | None = None) -> None:
        """Say a state; the naive time is one a v0.3 agent may send."""
        status = TaskStatus(
            state=TaskState[state],
            message=self._message(text) if text else None,
            timestamp=datetime.now(UTC).replace(tzinfo=None).isoformat(),
        )
        await self._queue.enqueue_event(
            TaskStatusUpdateEvent(status=status, final=state in FINAL, metadata=metadata, **self._ids)
        )

    async def artifact(self, text: str, *, append: bool, last: bool) -> None:
        """Say a piece of the artifact `out`."""
        await self._say_artifact("out", [_text(text)], append=append, last_chunk=last)

    async def parts(self) -> None:
        """Say an artifact with a part of each kind."""
        held = FileWithBytes(bytes="aGk=", mime_type="text/plain", name="hi.txt")
        elsewhere = FileWithUri(uri="https://example.org/x", mime_type="text/html")
        parts = [
            _text("hi"),
            Part(root=FilePart(file=held)),
            Part(root=FilePart(file=elsewhere)),
            Part(root=DataPart(data={"n": 1, "deep": [True, None, "é"]})),
        ]
        await self._say_artifact("parts", parts)

    async def message(self, text: str) -> None:
        """Answer with a single message."""
        message = self._message(text)
        message.task_id = None
        await self._queue.enqueue_event(message)

    async def _say_artifact(self, name: str, parts: list[Part], **fields: Any) -> None:
        artifact = Artifact(artifact_id=name, name=name, parts=parts)
        await self._queue.enqueue_event(TaskArtifactUpdateEvent(artifact=artifact, **self._ids, **fields))

    def _message(self, text: str) -> Message:
        return Message(message_id=f"said-{text}"[:32], role=Role.agent, parts=[_text(text)], **self._ids)


def _text(value: str) -> Part:
    return Part(root=TextPart(text=value))


class ScriptExecutor(AgentExecutor):
    """Performs the script that a message holds."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._quiet: set[str] = set()
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def execute(self, context: Any, event_queue: Any) -> None:
        """Perform the script."""
        text = context.get_user_input()
        self._control.messages.append(
            {
                "messageId": context.message.message_id,
                "text": text,
                "taskId": context.task_id,
                "contextId": context.context_id,
                "tenant": "",
            }
        )
        script = Script(text, VoiceV03(context, event_queue), self._control)
        if script.quiet:
            self._quiet.add(context.task_id)
        await script.perform(new=context.current_task is None)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """Say `canceled`, unless the script is quiet about it."""
        self._control.canceled.append(context.task_id)
        if context.task_id not in self._quiet:
            await VoiceV03(context, event_queue).status("canceled", "stopped")


def agent_card(url: str) -> AgentCard:
    """Give the card: JSON-RPC and REST at one address."""
    return AgentCard(
        name="Rig",
        description="Does what a message says.",
        version="1.0.0",
        url=f"{url}/",
        preferred_transport=TransportProtocol.jsonrpc,
        additional_interfaces=[AgentInterface(transport=TransportProtocol.http_json, url=url)],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="script", name="Script", description="Performs a script.", tags=["test"])],
    )


async def run(options: argparse.Namespace) -> None:
    """Serve until told to end."""
    control = Control()
    card = agent_card(f"http://127.0.0.1:{options.port}")
    executor: AgentExecutor = ScriptExecutor(control)
    async with AsyncExitStack() as stack:
        if options.nats:
            publisher = await stack.enter_async_context(Publisher(options.nats, agent=options.agent))
            executor = publishing(executor, publisher)
        handler = DefaultRequestHandler(
            agent_executor=executor,
            task_store=KeptTasks(Folder(options.tasks)),
            push_config_store=InMemoryPushNotificationConfigStore(),
        )
        rpc = A2AStarletteApplication(agent_card=card, http_handler=handler)
        rest = A2ARESTFastAPIApplication(agent_card=card, http_handler=handler)
        routes = [*control.routes(), *rpc.routes(), Mount("/", rest.build())]
        await serve(Starlette(routes=routes), control, options.port)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--nats", default="")
    parser.add_argument("--agent", default="agent")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(run(read_options()))
