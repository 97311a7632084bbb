"""The a2a-sdk adapter on the SDK's own request handler: the log of each way an executor can behave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from a2a.auth.user import User
from a2a.helpers.proto_helpers import new_task, new_text_artifact, new_text_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.struct_pb2 import Struct
from nats_server import NatsServer, create_stream, read_records
from starlette.requests import Request

from sidecast_adapters import Publisher
from sidecast_adapters.a2a import publishing
from sidecast_schemas.subjects import TaskKey, events_subject

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:a2a")

Script = Callable[[Any, Any], Awaitable[None]]


class Scripted(AgentExecutor):
    """An executor that does what the test says."""

    def __init__(self, execute: Script, cancel: Script | None = None) -> None:
        self._execute = execute
        self._cancel = cancel
        self.name = "scripted"

    async def execute(self, context: Any, event_queue: Any) -> None:
        await self._execute(context, event_queue)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        if self._cancel is not None:
            await self._cancel(context, event_queue)


class Alice(User):
    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def user_name(self) -> str:
        return "alice"


class Agent:
    """An agent in this process, its SDK handler, and the log its adapter writes."""

    def __init__(
        self, server: NatsServer, publisher: Publisher, executor: AgentExecutor, **options: Any
    ) -> None:
        self._server = server
        self._publisher = publisher
        self.store = InMemoryTaskStore()
        self.context = ServerCallContext(user=Alice())
        self.executor = publishing(executor, publisher, **options)
        self.handler = DefaultRequestHandler(
            agent_executor=self.executor,
            task_store=self.store,
            agent_card=AgentCard(name="agent", capabilities=AgentCapabilities(streaming=True)),
        )

    async def send(
        self, text: str = "go", *, task_id: str = "", message_id: str = "m1", wait: bool = True
    ) -> Any:
        message = Message(
            message_id=message_id, role=Role.ROLE_USER, parts=[Part(text=text)], task_id=task_id
        )
        request = SendMessageRequest(
            message=message, configuration=SendMessageConfiguration(return_immediately=not wait)
        )
        return await self.handler.on_message_send(request, self.context)

    async def stored_state(self, task_id: str) -> str:
        task = await self.handler.on_get_task(GetTaskRequest(id=task_id), self.context)
        assert task is not None
        return TaskState.Name(task.status.state)

    async def records(self, task_id: str = "*", tenant: str = "") -> list[dict[str, Any]]:
        return [msgspec.json.decode(payload) for _, payload in await self.raw(task_id, tenant)]

    async def raw(self, task_id: str = "*", tenant: str = "") -> list[tuple[dict[str, str], bytes]]:
        assert await self._publisher.flush(5)
        subject = (
            "sidecast.v1.events.>" if task_id == "*" else events_subject(TaskKey(tenant, "agent", task_id))
        )
        return await read_records(self._server.url, subject)


Start = Callable[..., Agent]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    with NatsServer(tmp_path / "nats") as server:
        await create_stream(server.url)
        async with Publisher(server.url, agent="agent") as publisher:
            agents: list[Agent] = []

            def begin(execute: Script, cancel: Script | None = None, **options: Any) -> Agent:
                agents.append(Agent(server, publisher, Scripted(execute, cancel), **options))
                return agents[-1]

            yield begin
            for agent in agents:
                await agent.handler.aclose()


def outline(records: list[dict[str, Any]]) -> list[str]:
    """Give one word per record: its kind, and the state, phase or artifact."""
    words = []
    for record in records:
        ((kind, body),) = record.items()
        if kind in ("task", "statusUpdate"):
            words.append(f"{kind} {body['status']['state'].removeprefix('TASK_STATE_').lower()}")
        elif kind == "turn":
            words.append(f"turn {body['phase']}" + (f" {body['reason']}" if "reason" in body else ""))
        else:
            words.append(f"{kind} {body['artifact']['artifactId']}")
    return words


def status(context: Any, state: int, **fields: Any) -> TaskStatusUpdateEvent:
    return TaskStatusUpdateEvent(
        task_id=context.task_id, context_id=context.context_id, status=TaskStatus(state=state), **fields
    )


def artifact(
    context: Any, text: str, *, artifact_id: str = "a", append: bool = False
) -> TaskArtifactUpdateEvent:
    return TaskArtifactUpdateEvent(
        task_id=context.task_id,
        context_id=context.context_id,
        artifact=new_text_artifact(name="a", text=text, artifact_id=artifact_id),
        append=append,
    )


def first_task(context: Any) -> Task:
    return new_task(context.task_id, context.context_id, TaskState.TASK_STATE_SUBMITTED)


@pytest.mark.row("C66")
async def test_a_normal_turn(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(first_task(context))
        updater = TaskUpdater(queue, context.task_id, context.context_id)
        await updater.start_work()
        await queue.enqueue_event(artifact(context, "one "))
        await queue.enqueue_event(artifact(context, "two", append=True))
        await updater.complete()

    agent = start(execute)
    task = await agent.send("hello")
    records = await agent.records(task.id)
    assert outline(records) == [
        *("task submitted", "turn begin", "statusUpdate working", "artifactUpdate a", "artifactUpdate a"),
        *("statusUpdate completed", "turn end returned"),
    ]
    turn = records[1]["turn"]
    assert turn["id"] == "m1"
    assert turn["message"]["parts"] == [{"text": "hello"}]
    assert turn["message"]["role"] == "ROLE_USER"
    raw = await agent.raw(task.id)
    assert all(headers["Sidecast-Owner"] == "alice" for headers, _ in raw)
    assert raw[-1][0]["Sidecast-State"] == "TASK_STATE_COMPLETED"


async def test_a_single_message_makes_no_task(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(new_text_message("hi", context_id=context.context_id))

    agent = start(execute)
    assert isinstance(await agent.send(), Message)
    assert await agent.records() == []


@pytest.mark.row("C62")
@pytest.mark.parametrize(("error_text", "text"), [("type", "KeyError"), ("full", "KeyError: 's3cret'")])
async def test_an_exception_fails_the_task(start: Start, error_text: str, text: str) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(first_task(context))
        await queue.enqueue_event(artifact(context, "one"))
        raise KeyError("s3cret")

    agent = start(execute, error_text=error_text)
    with pytest.raises(KeyError):
        await agent.send()
    records = await agent.records()
    assert outline(records) == [
        *("task submitted", "turn begin", "artifactUpdate a", "statusUpdate failed", "turn end error"),
    ]
    assert records[3]["statusUpdate"]["status"]["message"]["parts"] == [{"text": text}]
    assert await agent.stored_state(records[0]["task"]["id"]) == "TASK_STATE_FAILED"


async def test_an_exception_before_any_event_leaves_a_failed_task_as_the_sdk_stores_it(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        raise ValueError

    agent = start(execute)
    with pytest.raises(ValueError):  # noqa: PT011 - the executor's own
        await agent.send()
    records = await agent.records()
    assert outline(records) == ["task submitted", "turn begin", "statusUpdate failed", "turn end error"]
    assert records[0]["task"]["history"][0]["messageId"] == "m1"
    assert await agent.stored_state(records[0]["task"]["id"]) == "TASK_STATE_FAILED"


async def test_an_artifact_first_gets_its_task(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(artifact(context, "one"))
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_COMPLETED))

    agent = start(execute)
    task = await agent.send("hello")
    records = await agent.records(task.id)
    assert outline(records) == [
        *("task submitted", "turn begin", "artifactUpdate a", "statusUpdate completed", "turn end returned"),
    ]
    assert records[0]["task"]["history"][0]["parts"] == [{"text": "hello"}]


async def test_a_status_before_the_task_makes_none_as_in_the_sdk(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_WORKING))

    agent = start(execute)
    with pytest.raises(Exception, match="Agent should enqueue Task before"):
        await agent.send()
    assert await agent.records() == []


async def test_a_later_task_object_becomes_updates(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        task = first_task(context)
        await queue.enqueue_event(task)
        # The SDK shares the object: what is published is what it was when it was enqueued.
        later = Task()
        later.CopyFrom(task)
        later.status.state = TaskState.TASK_STATE_WORKING
        later.artifacts.append(new_text_artifact(name="a", text="one", artifact_id="a"))
        await queue.enqueue_event(later)
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_COMPLETED))

    agent = start(execute)
    task = await agent.send()
    assert outline(await agent.records(task.id)) == [
        *(
            "task submitted",
            "turn begin",
            "artifactUpdate a",
            "statusUpdate working",
            "statusUpdate completed",
        ),
        "turn end returned",
    ]


@pytest.mark.parametrize("bad", ["append", "message", "task id"])
async def test_what_the_sdk_fails_a_task_for_fails_it_in_the_log(start: Start, bad: str) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(first_task(context))
        if bad == "append":
            await queue.enqueue_event(artifact(context, "x", artifact_id="unknown", append=True))
        elif bad == "message":
            await queue.enqueue_event(new_text_message("x", context_id=context.context_id))
        else:
            event = status(context, TaskState.TASK_STATE_WORKING)
            event.task_id = "another"
            await queue.enqueue_event(event)

    agent = start(execute)
    with pytest.raises(Exception, match=r"append=True|Message object|mismatch|match"):
        await agent.send()
    records = await agent.records()
    assert outline(records) == ["task submitted", "turn begin", "statusUpdate failed", "turn end returned"]
    assert await agent.stored_state(records[0]["task"]["id"]) == "TASK_STATE_FAILED"


async def test_nothing_is_published_after_the_end(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(first_task(context))
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_COMPLETED))
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_WORKING))

    agent = start(execute)
    task = await agent.send()
    assert outline(await agent.records(task.id)) == [
        *("task submitted", "turn begin", "statusUpdate completed", "turn end returned"),
    ]


async def waiting(context: Any, queue: Any) -> None:
    await queue.enqueue_event(first_task(context))
    await asyncio.Event().wait()


async def test_a_cancellation_the_agent_reports(start: Start) -> None:
    async def cancel(context: Any, queue: Any) -> None:
        message = new_text_message("stopped", context_id=context.context_id, task_id=context.task_id)
        event = status(context, TaskState.TASK_STATE_CANCELED)
        event.status.message.CopyFrom(message)
        await queue.enqueue_event(event)

    agent = start(waiting, cancel)
    task = await agent.send(wait=False)
    await agent.handler.on_cancel_task(CancelTaskRequest(id=task.id), agent.context)
    records = await agent.records(task.id)
    assert outline(records) == ["task submitted", "turn begin", "statusUpdate canceled", "turn end cancelled"]
    assert records[2]["statusUpdate"]["status"]["message"]["parts"] == [{"text": "stopped"}]


async def test_a_cancellation_without_a_word(start: Start) -> None:
    agent = start(waiting)
    task = await agent.send(wait=False)
    await agent.handler.on_cancel_task(CancelTaskRequest(id=task.id), agent.context)
    assert outline(await agent.records(task.id)) == [
        *("task submitted", "turn begin", "statusUpdate canceled", "turn end cancelled"),
    ]
    assert await agent.stored_state(task.id) == "TASK_STATE_CANCELED"


async def test_a_cancellation_that_raises_fails_the_task(start: Start) -> None:
    async def cancel(context: Any, queue: Any) -> None:
        raise NotImplementedError

    agent = start(waiting, cancel)
    task = await agent.send(wait=False)
    with pytest.raises(NotImplementedError):
        await agent.handler.on_cancel_task(CancelTaskRequest(id=task.id), agent.context)
    records = await agent.records(task.id)
    assert outline(records) == ["task submitted", "turn begin", "statusUpdate failed", "turn end cancelled"]


async def test_a_turn_that_ends_open_and_the_next_one(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        if context.current_task is None:
            await queue.enqueue_event(first_task(context))
            await queue.enqueue_event(artifact(context, "one "))
            await queue.enqueue_event(status(context, TaskState.TASK_STATE_INPUT_REQUIRED))
            return
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_WORKING))
        await queue.enqueue_event(artifact(context, "two", append=True))
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_COMPLETED))

    agent = start(execute)
    task = await agent.send("one", message_id="m1")
    assert outline(await agent.records(task.id))[-2:] == ["statusUpdate input_required", "turn end returned"]
    await agent.send("two", task_id=task.id, message_id="m2")
    records = await agent.records(task.id)
    assert outline(records)[5:] == [
        *(
            "turn begin",
            "statusUpdate working",
            "artifactUpdate a",
            "statusUpdate completed",
            "turn end returned",
        ),
    ]
    assert [record["turn"]["id"] for record in records if "turn" in record] == ["m1", "m1", "m2", "m2"]
    assert sum("task" in record for record in records) == 1


async def test_cancelling_a_task_that_waits_for_input(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(first_task(context))
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_INPUT_REQUIRED))

    agent = start(execute)
    task = await agent.send()
    await agent.handler.on_cancel_task(CancelTaskRequest(id=task.id), agent.context)
    records = await agent.records(task.id)
    assert outline(records)[-2:] == ["turn end returned", "statusUpdate canceled"]
    assert await agent.stored_state(task.id) == "TASK_STATE_CANCELED"


async def test_the_log_has_the_order_of_the_queue_and_natural_numbers(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(first_task(context))

        async def say(number: int) -> None:
            metadata = Struct()
            metadata.update({"number": number, "half": number + 0.5})
            await queue.enqueue_event(status(context, TaskState.TASK_STATE_WORKING, metadata=metadata))

        await asyncio.gather(*(say(number) for number in range(50)))
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_COMPLETED))

    agent = start(execute)
    request = SendMessageRequest(
        message=Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text="go")])
    )
    seen: list[int] = []
    task_id = ""
    async for event in agent.handler.on_message_send_stream(request, agent.context):
        task_id = event.id if isinstance(event, Task) else event.task_id
        if isinstance(event, TaskStatusUpdateEvent) and "number" in event.metadata:
            seen.append(int(event.metadata["number"]))
    raw = await agent.raw(task_id)
    updates = [msgspec.json.decode(payload).get("statusUpdate", {}).get("metadata") for _, payload in raw]
    published = [metadata["number"] for metadata in updates if metadata]
    assert published == seen
    assert all(isinstance(number, int) for number in published)
    assert sorted(published) == list(range(50))
    assert updates[2]["half"] == published[0] + 0.5


def told(**headers: str) -> ServerCallContext:
    """Give the context the SDK makes of a request with these headers, from a user it knows."""
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw})
    context = DefaultServerCallContextBuilder().build(request)
    context.user = Alice()
    return context


ID = "=YUBiLmM"
"""The token of a@b.c."""


@pytest.mark.parametrize(
    ("context", "owner", "tenant"),
    [
        (told(Sidecast_Principal="bob"), "bob", ""),
        (told(Sidecast_Principal=ID), ID, ""),
        (told(Sidecast_Principal="bob", Sidecast_Tenant="acme"), "bob", "acme"),
        (told(Sidecast_Principal="bob", Sidecast_Tenant=ID), "bob", "a@b.c"),
        (told(), "alice", ""),
        (told(Sidecast_Principal="a b"), "alice", ""),
        (told(Sidecast_Principal="=YQ", Sidecast_Tenant="*"), "alice", ""),
        (told(Sidecast_Principal=""), "alice", ""),
        (ServerCallContext(user=Alice(), state={"headers": "Sidecast-Principal: bob"}), "alice", ""),
        (ServerCallContext(user=Alice(), state={"headers": {"sidecast-principal": b"bob"}}), "alice", ""),
        (ServerCallContext(state={"headers": {"SIDECAST-PRINCIPAL": "bob"}}), "bob", ""),
        (ServerCallContext(tenant="own", state={"headers": {"Sidecast-Tenant": "acme"}}), None, "acme"),
        (ServerCallContext(), None, ""),
    ],
)
async def test_whom_the_broker_names_owns_what_they_begin(
    start: Start, context: ServerCallContext, owner: str | None, tenant: str
) -> None:
    async def execute(context: Any, queue: Any) -> None:
        updater = TaskUpdater(queue, context.task_id, context.context_id)
        await queue.enqueue_event(
            new_task(context.task_id, context.context_id, TaskState.TASK_STATE_SUBMITTED)
        )
        await updater.complete()

    agent = start(execute)
    agent.context = context
    task = await agent.send()
    raw = await agent.raw(task.id, tenant)
    assert raw
    assert {headers.get("Sidecast-Owner") for headers, _ in raw} == {owner}


async def test_the_tenant_of_the_call_is_the_tasks(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        task = first_task(context)
        task.status.state = TaskState.TASK_STATE_COMPLETED
        await queue.enqueue_event(task)

    agent = start(execute)
    agent.context = ServerCallContext(tenant="acme")
    task = await agent.send()
    assert await agent.records(task.id) == []
    raw = await agent.raw(task.id, "acme")
    assert outline([msgspec.json.decode(payload) for _, payload in raw]) == [
        *("task completed", "turn begin", "turn end returned"),
    ]
    assert all("Sidecast-Owner" not in headers for headers, _ in raw)


async def test_an_agent_works_where_its_events_cant_be_published(start: Start) -> None:
    async def execute(context: Any, queue: Any) -> None:
        await queue.enqueue_event(first_task(context))
        event = status(context, TaskState.TASK_STATE_WORKING)
        event.metadata.update({"not a number": float("nan")})
        await queue.enqueue_event(event)
        await queue.enqueue_event(status(context, TaskState.TASK_STATE_COMPLETED))

    agent = start(execute)
    task = await agent.send()
    assert await agent.stored_state(task.id) == "TASK_STATE_COMPLETED"
    assert outline(await agent.records(task.id))[-2:] == ["statusUpdate completed", "turn end returned"]


async def test_the_wrapped_executor_still_has_its_own_attributes(start: Start) -> None:
    agent = start(waiting)
    assert agent.executor.name == "scripted"
