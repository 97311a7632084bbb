"""The client of a2a-sdk 1.x in a process of its own: JSON-RPC and REST.

Must not know who serves: a broker, or an agent itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.auth import AuthInterceptor, InMemoryContextCredentialStore
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
)
from a2a.utils.errors import JSON_RPC_ERROR_CODE_MAP
from a2a_rig.driver import Command, drive, http_client
from google.protobuf.json_format import MessageToDict

BINDINGS = {"jsonrpc": "JSONRPC", "rest": "HTTP+JSON"}
SESSION = "session"


async def connect(command: Command) -> Client:
    """Read the card, and make a client of what it says."""
    http = http_client()
    card = await A2ACardResolver(http, command["url"]).get_agent_card()
    config = ClientConfig(
        httpx_client=http,
        supported_protocol_bindings=[BINDINGS[command["binding"]]],
        streaming=command["do"] != "send",
    )
    store = InMemoryContextCredentialStore()
    for scheme, credential in (command.get("credentials") or {}).items():
        await store.set_credentials(SESSION, scheme, credential)
    return ClientFactory(config).create(card, interceptors=[AuthInterceptor(store)])


def context(command: Command) -> ClientCallContext:
    """Give the headers of the call, and whose credentials it goes with."""
    return ClientCallContext(
        state={"sessionId": SESSION}, service_parameters=dict(command.get("headers") or {})
    )


def message_of(command: Command) -> SendMessageRequest:
    """Give the message of the call."""
    message = Message(
        message_id=command["message_id"],
        role=Role.ROLE_USER,
        parts=[Part(text=command["text"])],
        task_id=command.get("task") or "",
        context_id=command.get("context") or "",
    )
    return SendMessageRequest(message=message)


async def events(command: Command) -> AsyncIterator[dict[str, Any]]:
    """Stream."""
    client = await connect(command)
    if command["do"] == "stream":
        stream = client.send_message(message_of(command), context=context(command))
    else:
        stream = client.subscribe(SubscribeToTaskRequest(id=command["task"]), context=context(command))
    async for event in stream:
        yield MessageToDict(event)


async def answer(command: Command) -> dict[str, Any]:
    """Do a call that is no stream."""
    if command["do"] == "card":
        resolver = A2ACardResolver(http_client(), command["url"])
        return dict(MessageToDict(await resolver.get_agent_card()))
    client = await connect(command)
    given = context(command)
    match command["do"]:
        case "send":
            async for event in client.send_message(message_of(command), context=given):
                return dict(MessageToDict(event))
            raise AssertionError("no answer")
        case "get":
            return dict(
                MessageToDict(await client.get_task(GetTaskRequest(id=command["task"]), context=given))
            )
        case "cancel":
            task = await client.cancel_task(CancelTaskRequest(id=command["task"]), context=given)
            return dict(MessageToDict(task))
    raise AssertionError(command["do"])


def describe(error: Exception) -> dict[str, Any]:
    """Say what the SDK raised."""
    code = JSON_RPC_ERROR_CODE_MAP.get(type(error))
    return {"kind": type(error).__name__, "code": code, "message": str(error)}


if __name__ == "__main__":
    asyncio.run(drive(events, answer, describe))
