"""The command protocol between a test and an SDK client in a process of its own, on the client's side.

Commands come as JSON lines on standard input, what happens goes out as JSON lines on standard output:

    → {"call": 1, "do": "card", "url": "http://…"}
    → {"call": 2, "do": "stream", "url": …, "binding": "rest", "text": "…", "message_id": "m", "task": "…"}
      do: `card`, `stream` and `send` (a message), `subscribe`, `get`, `cancel` (a task); with `headers`,
      and `credentials` by the names of the card's security schemes, for the SDK's own hook
    → {"leave": 2}
    ← {"call": 2, "event": {…}}                  one event, as the SDK gave it, as JSON
    ← {"call": 1, "result": {…}, "cursor": ""}   the answer of a call that is no stream
    ← {"call": 2, "end": true, "cursor": "…"}    the stream has ended; the last event id that passed by
    ← {"call": 2, "error": {"kind", "code", "message"}, "cursor": "…"}

Must not know any SDK: the JavaScript drivers speak the same protocol.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import httpx
from a2a_rig.ids import Ids

Command = dict[str, Any]

_ids: ContextVar[Ids] = ContextVar("ids")


class _Listening(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, ids: Ids) -> None:
        self._stream = stream
        self._ids = ids

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._ids.feed(data)
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Transport(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if response.headers.get("Content-Type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _Listening(response.stream, _ids.get())
        return response


def http_client() -> httpx.AsyncClient:
    """Give an HTTP client with httpx's own timeouts, which are what most programs run with."""
    return httpx.AsyncClient(transport=_Transport())


def say(line: dict[str, Any]) -> None:
    """Write one line to the test."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def drive(
    events: Callable[[Command], AsyncIterator[dict[str, Any]]],
    answer: Callable[[Command], Awaitable[dict[str, Any]]],
    describe: Callable[[Exception], dict[str, Any]],
) -> None:
    """Do what standard input says until it ends.

    Args:
        events: does `stream` and `subscribe`.
        answer: does the others.
        describe: gives `kind`, `code` and `message` of what the SDK raised.
    """

    async def run(command: Command) -> None:
        call = command["call"]
        ids = Ids()
        _ids.set(ids)
        try:
            if command["do"] in ("stream", "subscribe"):
                async for event in events(command):
                    say({"call": call, "event": event})
                say({"call": call, "end": True, "cursor": ids.last})
            else:
                say({"call": call, "result": await answer(command), "cursor": ids.last})
        except asyncio.CancelledError:
            say({"call": call, "end": True, "cursor": ids.last})
        except Exception as error:  # noqa: BLE001 - whatever the SDK makes of it is what the test looks at
            say({"call": call, "error": describe(error), "cursor": ids.last})

    running: dict[int, asyncio.Task[None]] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        if "leave" in command:
            running[command["leave"]].cancel()
        else:
            running[command["call"]] = asyncio.create_task(run(command))
