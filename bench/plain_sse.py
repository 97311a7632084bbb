"""The usual way in aiohttp: aiohttp-sse, an `asyncio.Queue` per client, one task per client that reads it.

    python -m bench.plain_sse

Listens on a free loopback port, written as `{"port":P}`. `POST /pub/{task}` gives its body to every client of
`GET /sub/{task}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections import defaultdict

import uvloop
from aiohttp import web
from aiohttp_sse import sse_response

queues: defaultdict[str, set[asyncio.Queue[tuple[str, str]]]] = defaultdict(set)
numbers = itertools.count(1)


async def publish(request: web.Request) -> web.Response:
    """Put an event into the queue of every client of its task."""
    event = (str(next(numbers)), await request.text())
    for queue in queues[request.match_info["task"]]:
        queue.put_nowait(event)
    return web.Response(status=202)


async def subscribe(request: web.Request) -> web.StreamResponse:
    """Send a task's events as they come."""
    clients = queues[request.match_info["task"]]
    queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    clients.add(queue)
    try:
        async with sse_response(request, sep="\n") as response:
            with contextlib.suppress(ConnectionResetError):
                while True:
                    number, event = await queue.get()
                    await response.send(event, id=number, event="task.status")
    finally:
        clients.discard(queue)
    return response


async def main() -> None:
    """Serve until killed."""
    app = web.Application()
    app.add_routes([web.post("/pub/{task}", publish), web.get("/sub/{task}", subscribe)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    sys.stdout.write(json.dumps({"port": runner.addresses[0][1]}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main())
