"""Agents on a2a-sdk 0.3.x: run in a Python of its own, prints what each answered and has stored as JSON.

python a2a03_agent.py nats://127.0.0.1:4222
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from a2a.server.agent_execution import AgentExecutor
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    Artifact,
    DataPart,
    FilePart,
    FileWithBytes,
    FileWithUri,
    Message,
    MessageSendConfiguration,
    MessageSendParams,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskIdParams,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
    TextPart,
)

from sidecast_adapters import Publisher
from sidecast_adapters.a2a import publishing

Script = Callable[[Any, Any], Awaitable[None]]


class Scripted(AgentExecutor):
    def __init__(self, execute: Script) -> None:
        self._execute = execute

    async def execute(self, context: Any, event_queue: Any) -> None:
        await self._execute(context, event_queue)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        if self._execute is reports_its_end:
            await event_queue.enqueue_event(status(context, TaskState.canceled, final=True))


def text(value: str) -> Part:
    return Part(root=TextPart(text=value))


def status(
    context: Any, state: TaskState, *, final: bool = False, said: str | None = None
) -> TaskStatusUpdateEvent:
    message = None
    if said is not None:
        message = Message(message_id="s1", role=Role.agent, parts=[text(said)])
    return TaskStatusUpdateEvent(
        task_id=context.task_id,
        context_id=context.context_id,
        final=final,
        metadata={"count": 3},
        status=TaskStatus(state=state, message=message, timestamp="2025-04-02T16:59:25.331844"),
    )


def artifact(context: Any, parts: list[Part], *, append: bool = False) -> TaskArtifactUpdateEvent:
    return TaskArtifactUpdateEvent(
        task_id=context.task_id,
        context_id=context.context_id,
        append=append,
        artifact=Artifact(artifact_id="a", parts=parts),
    )


def task(context: Any) -> Task:
    return Task(
        id=context.task_id, context_id=context.context_id, status=TaskStatus(state=TaskState.submitted)
    )


async def normal(context: Any, queue: Any) -> None:
    await queue.enqueue_event(task(context))
    await queue.enqueue_event(status(context, TaskState.working, said="reading"))
    file = FileWithBytes(bytes="aGk=", mime_type="text/plain", name="hi.txt")
    parts = [
        text("hi"),
        Part(root=FilePart(file=file)),
        Part(root=FilePart(file=FileWithUri(uri="https://example.org/x", mime_type="text/html"))),
        Part(root=DataPart(data={"n": 1})),
    ]
    await queue.enqueue_event(artifact(context, parts))
    await TaskUpdater(queue, context.task_id, context.context_id).complete()


async def message(context: Any, queue: Any) -> None:
    await queue.enqueue_event(Message(message_id="r1", role=Role.agent, parts=[text("hi")]))


async def raises(context: Any, queue: Any) -> None:
    await queue.enqueue_event(task(context))
    raise KeyError("s3cret")


async def raises_first(context: Any, queue: Any) -> None:
    raise KeyError("s3cret")


async def status_first(context: Any, queue: Any) -> None:
    await queue.enqueue_event(status(context, TaskState.working))
    await queue.enqueue_event(artifact(context, [text("lost")], append=True))
    await queue.enqueue_event(status(context, TaskState.completed, final=True))


async def silent(context: Any, queue: Any) -> None:
    await queue.enqueue_event(task(context))
    await asyncio.Event().wait()


async def reports_its_end(context: Any, queue: Any) -> None:
    await silent(context, queue)


second_may_end = asyncio.Event()


async def two_messages(context: Any, queue: Any) -> None:
    if context.current_task is None:
        await queue.enqueue_event(task(context))
        await second_may_end.wait()
        await queue.enqueue_event(status(context, TaskState.completed, final=True))
    else:
        await queue.enqueue_event(status(context, TaskState.working, said=context.get_user_input()))
        second_may_end.set()


async def run(script: Script, publisher: Publisher) -> dict[str, Any]:
    store = InMemoryTaskStore()
    executor = publishing(Scripted(script), publisher)
    handler = DefaultRequestHandler(agent_executor=executor, task_store=store)
    # As the SDK's own builder keeps what a broker has said in the request.
    context = ServerCallContext(state={"headers": {"sidecast-principal": "=YUBi"}})
    held = script in (silent, reports_its_end, two_messages)

    def params(message_id: str, task_id: str | None = None) -> MessageSendParams:
        sent = Message(message_id=message_id, role=Role.user, parts=[text("go")], task_id=task_id)
        return MessageSendParams(message=sent, configuration=MessageSendConfiguration(blocking=not held))

    try:
        answer = await handler.on_message_send(params("m1"), context)
        if script in (silent, reports_its_end):
            await handler.on_cancel_task(TaskIdParams(id=answer.id), context)
        if script is two_messages:
            await handler.on_message_send(params("m2", answer.id), context)
            await second_may_end.wait()
    except Exception as error:  # noqa: BLE001 - whatever the SDK makes of it is what the test looks at
        return {"error": type(error).__name__}
    if isinstance(answer, Message):
        return {"message": answer.message_id}
    return {"task": answer.id}


async def main() -> None:
    async with Publisher(sys.argv[1], agent="agent") as publisher:
        scripts = [normal, message, raises, raises_first, status_first, silent, reports_its_end, two_messages]
        answers = {}
        for script in scripts:
            answers[script.__name__] = await run(script, publisher)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            executing = [each for each in others if "agent" in each.get_name() or "_run_event" in repr(each)]
            if executing:
                await asyncio.wait(executing, timeout=5)
            assert await publisher.flush(10)
        print(json.dumps(answers))


asyncio.run(main())
