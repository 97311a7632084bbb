"""A broker's A2A door between a test and a recording agent, and requests no client library would write.

Must not know what is tested.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from brokers import Backend, Broker, broker
from recording_agent import RecordingAgent, Trap
from sse import exchange

BODY_BYTES_MAX = 4096
LIMITS = {
    "server__body_bytes_max": BODY_BYTES_MAX,
    "agent__passthrough": "/docs",
    "agent__timeout_s": 5,
}
SMUGGLED = b"GET /docs/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

# --- requests


def request(method: str, target: str, *lines: str, body: bytes | None = None, host: str = "x") -> bytes:
    """Write a request as the test says, and nothing besides."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    head = (f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *length, *lines, "", "")
    return "\r\n".join(head).encode("latin-1") + (body or b"")


def post(body: str | bytes, *lines: str, target: str = "/", version: str = "1.0") -> bytes:
    """Write a POST of JSON."""
    body = body.encode() if isinstance(body, str) else body
    said = [f"A2A-Version: {version}"] if version else []
    return request("POST", target, "Content-Type: application/json", *said, *lines, body=body)


def get(target: str, *lines: str, version: str = "1.0", method: str = "GET") -> bytes:
    """Write a request without a body."""
    return request(method, target, f"A2A-Version: {version}", *lines)


def rpc(method: str = "GetTask", params: str = '{"id":"a"}', rpc_id: str = "1") -> str:
    """Write a JSON-RPC request from its parts, which need not be JSON."""
    return f'{{"jsonrpc":"2.0","id":{rpc_id},"method":"{method}","params":{params}}}'


def message(**members: object) -> str:
    """Give the parameters of a send."""
    fields = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "x"}], **members}
    return json.dumps({"message": fields})


def chunked(*pieces: bytes, lines: tuple[str, ...] = (), target: str = "/") -> bytes:
    """Write a POST whose body comes in chunks, ended."""
    head = request("POST", target, "A2A-Version: 1.0", "Transfer-Encoding: chunked", *lines)
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def framed(*lines: str, body: bytes = b"", version: str = "1.1", target: str = "/") -> bytes:
    """Write a POST with only these lines, and something behind it."""
    head = "\r\n".join((f"POST {target} HTTP/{version}", "Host: x", "A2A-Version: 1.0", *lines, "", ""))
    return head.encode("latin-1") + body + SMUGGLED


GET_TASK = rpc()


# --- the door


class Door:
    """A broker with a recording agent behind it, and a trap where nobody may ask."""

    def __init__(self, running: Broker, agent: RecordingAgent, trap: Trap) -> None:
        self.running = running
        self.agent = agent
        self.trap = trap

    def write(self, raw: bytes) -> bytes:
        """Put the trap's address into a request."""
        return raw.replace(b"{trap}", self.trap.authority.encode())

    async def ask(self, raw: bytes) -> Answer:
        """Send a request over a connection of its own; give its answer."""
        return Answer(await exchange(self.running.url, self.write(raw)))

    def clean(self) -> None:
        """Check that nobody was asked who may not be, and the agent for nothing ambiguous."""
        assert self.trap.caught == 0
        assert self.agent.faults == []
        assert not any("smuggled" in heard.line for heard in self.agent.heard)


class Answer:
    """What a raw socket got: one response and no more."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _blank, body = raw.partition(b"\r\n\r\n")
        if head.endswith(b" 100 Continue"):
            head, _blank, body = body.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.lower(): value.strip() for name, _colon, value in pairs}
        self.body = body
        if "content-length" in self.headers:
            assert len(body) == int(self.headers["content-length"]), raw

    @property
    def json(self) -> Any:
        """Its body; of an event stream that of its one event."""
        body = self.body
        if self.headers["content-type"].startswith("text/event-stream"):
            body = body.removeprefix(b"data: ")
        return json.loads(body)

    @property
    def code(self) -> int | str | None:
        """The error's code, where it says one in one of the forms there are."""
        said = self.json
        error = said.get("error", said)
        return error.get("code") if isinstance(error, dict) else None


@asynccontextmanager
async def opened(backend: Backend, agent: RecordingAgent, **changes: object) -> AsyncIterator[Door]:
    """Run a broker in this process before an agent."""
    async with (
        Trap() as trap,
        agent,
        broker(backend, agent__url=agent.url, **LIMITS | changes) as running,
    ):
        yield Door(running, agent, trap)
