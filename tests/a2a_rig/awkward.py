"""An agent that answers whatever the test says, byte for byte: what no SDK sends, and some agent does.

Must not know A2A beyond the card: its answers are the test's. Runs in the test's process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from aiohttp import web
from e2e.ports import fixed_ports

CARD_PATH = "/.well-known/agent-card.json"

Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


def card(url: str, *, version: str = "1.0", **fields: Any) -> dict[str, Any]:
    """Give an agent card whose JSON-RPC and REST interfaces speak one version."""
    common: dict[str, Any] = {
        "name": "Awkward",
        "description": "Answers whatever the test says.",
        "version": "1.0.0",
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "s", "name": "S", "description": "None.", "tags": ["test"]}],
    }
    if version == "1.0":
        common["supportedInterfaces"] = [
            {"url": url, "protocolBinding": binding, "protocolVersion": version}
            for binding in ("JSONRPC", "HTTP+JSON")
        ]
    else:
        common |= {
            "url": f"{url}/",
            "preferredTransport": "JSONRPC",
            "protocolVersion": version,
            "additionalInterfaces": [{"url": url, "transport": "HTTP+JSON"}],
        }
    return common | fields


class AwkwardAgent:
    """An HTTP server whose answers the test sets; a context manager that starts and stops it.

    Attributes:
        url: where it listens.
        card: what it serves as its card; None answers 404.
        answer: what answers every other request, given the request and its body.
        requests: each request but those for the card, with its body.
        card_headers: sent along with the card.
        cards: the requests for the card.
    """

    def __init__(self, **fields: Any) -> None:
        (self._port,) = fixed_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.card: dict[str, Any] | None = card(self.url, **fields)
        self.card_headers: dict[str, str] = {}
        self.answer: Answer = nothing
        self.requests: list[tuple[web.BaseRequest, bytes]] = []
        self.cards: list[web.BaseRequest] = []

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.path == CARD_PATH:
            self.cards.append(request)
            if self.card is None:
                return web.Response(status=404)
            return web.json_response(self.card, headers=self.card_headers)
        self.requests.append((request, body))
        return await self.answer(request, body)  # type: ignore[arg-type]

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        await self._runner.cleanup()


async def nothing(_request: web.Request, _body: bytes) -> web.StreamResponse:
    """Answer that there is nothing here."""
    return web.Response(status=404)


def unary(result: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Answer every JSON-RPC request with one result, and every REST request with the bare object."""

    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        found = result
        if request.path == "/" and "error" not in result:
            found = {"jsonrpc": "2.0", "id": json.loads(body).get("id"), "result": result}
        return web.json_response(found, status=status, headers=headers)

    return answer


def streamed(
    pieces: Sequence[bytes], *, gate: asyncio.Event | None = None, cut: bool = False, status: int = 200
) -> Answer:
    """Answer with an event stream written in these pieces, each on its own.

    Args:
        pieces: the bytes of each write.
        gate: what the last piece waits for.
        cut: break the connection at the end instead of ending the answer.
        status: of the answer.
    """

    async def answer(request: web.Request, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            if gate is not None and piece is pieces[-1]:
                await gate.wait()
            await response.write(piece)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


def saying(*events: dict[str, Any]) -> Answer:
    """Answer with a stream of these events, on JSON-RPC as on REST."""

    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        rpc_id = json.loads(body)["id"] if request.path == "/" else None
        return await streamed([frames(*events, rpc_id=rpc_id)])(request, body)

    return answer


def frames(*objects: dict[str, Any], rpc_id: object = None, end: bytes = b"\n") -> bytes:
    """Write events as an SDK does: one `data:` line each; with an id as JSON-RPC results."""
    lines = []
    for each in objects:
        held = each if rpc_id is None else {"jsonrpc": "2.0", "id": rpc_id, "result": each}
        lines.append(b"data: " + json.dumps(held, ensure_ascii=False).encode() + end + end)
    return b"".join(lines)
