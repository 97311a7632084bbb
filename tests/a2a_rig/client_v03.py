"""The client of a2a-sdk 0.3.x in a process of its own: JSON-RPC and REST.

Must not know who serves: a broker, or an agent itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.auth import AuthInterceptor, InMemoryContextCredentialStore
from a2a.client.middleware import ClientCallContext
from a2a.types import Message, Part, Role, TaskIdParams, TaskQueryParams, TextPart
from a2a_rig.driver import Command, drive, http_client

BINDINGS = {"jsonrpc": "JSONRPC", "rest": "HTTP+JSON"}
SESSION = "session"


async def connect(command: Command) -> Client:
    """Read the card, and make a client of what it says."""
    http = http_client()
    card = await A2ACardResolver(http, command["url"]).get_agent_card()
    config = ClientConfig(
        httpx_client=http,
        supported_transports=[BINDINGS[command["binding"]]],
        streaming=command["do"] != "send",
    )
    store = InMemoryContextCredentialStore()
    for scheme, credential in (command.get("credentials") or {}).items():
        await store.set_credentials(SESSION, scheme, credential)
    return ClientFactory(config).create(card, interceptors=[AuthInterceptor(store)])


def context(command: Command) -> ClientCallContext:
    """Give the headers of the call, and whose credentials it goes with."""
    headers = dict(command.get("headers") or {})
    return ClientCallContext(state={"sessionId": SESSION, "http_kwargs": {"headers": headers}})


def message_of(command: Command) -> Message:
    """Give the message of the call."""
    return Message(
        message_id=command["message_id"],
        role=Role.user,
        parts=[Part(root=TextPart(text=command["text"]))],
        task_id=command.get("task"),
        context_id=command.get("context"),
    )


def as_json(model: Any) -> dict[str, Any]:
    """Write one of the SDK's models as the protocol does."""
    return dict(model.model_dump(mode="json", by_alias=True, exclude_none=True))


def event_of(item: Any) -> dict[str, Any]:
    """Give what the SDK was sent: it hands out pairs of the whole task and the update."""
    if isinstance(item, tuple):
        task, update = item
        return as_json(task if update is None else update)
    return as_json(item)


async def events(command: Command) -> AsyncIterator[dict[str, Any]]:
    """Stream."""
    client = await connect(command)
    if command["do"] == "stream":
        stream = client.send_message(message_of(command), context=context(command))
    else:
        params = TaskIdParams(id=command["task"], metadata=command.get("metadata"))
        stream = client.resubscribe(params, context=context(command))
    async for item in stream:
        yield event_of(item)


async def answer(command: Command) -> dict[str, Any]:
    """Do a call that is no stream."""
    if command["do"] == "card":
        return as_json(await A2ACardResolver(http_client(), command["url"]).get_agent_card())
    client = await connect(command)
    given = context(command)
    match command["do"]:
        case "send":
            async for item in client.send_message(message_of(command), context=given):
                return event_of(item)
            raise AssertionError("no answer")
        case "get":
            return as_json(await client.get_task(TaskQueryParams(id=command["task"]), context=given))
        case "cancel":
            return as_json(await client.cancel_task(TaskIdParams(id=command["task"]), context=given))
    raise AssertionError(command["do"])


def describe(error: Exception) -> dict[str, Any]:
    """Say what the SDK raised: its JSON-RPC code, or the HTTP status."""
    inner = getattr(error, "error", None)
    code = getattr(inner, "code", None) or getattr(error, "status_code", None)
    return {"kind": type(error).__name__, "code": code, "message": str(error)}


if __name__ == "__main__":
    asyncio.run(drive(events, answer, describe))
