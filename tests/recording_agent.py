"""An agent that writes down every byte it is sent, and a trap beside it that nobody may knock at.

Must not know what is tested. Requests are taken apart more strictly than any server does: bytes that two
readers could take apart differently are kept as faults.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Self
from urllib.parse import unquote

import msgspec
from msgspec import Raw

CARD = "/.well-known/agent-card.json"

_LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.1")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\x00-\x08\x0a-\x1f\x7f]*)")
_SIZE = re.compile(rb"[0-9A-Fa-f]+")


class Heard(NamedTuple):
    """One request as it came.

    Attributes:
        line: method and target.
        headers: names in lower case, and values, in their order.
        body: without its framing.
    """

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def method(self) -> str:
        """Its HTTP method."""
        return self.line.partition(" ")[0]

    @property
    def target(self) -> str:
        """Its request target."""
        return self.line.partition(" ")[2]

    def values(self, name: str) -> list[str]:
        """Give all values of a header."""
        return [value for each, value in self.headers if each == name]


class Said(NamedTuple):
    """An answer of the agent."""

    body: bytes
    status: str = "200 OK"
    headers: tuple[str, ...] = ("Content-Type: application/json",)


class Ambiguous(Exception):  # noqa: N818 - a state of what was received
    """Bytes that are no request, or not the same one to everybody."""


class RecordingAgent:
    """Listens on loopback; an async context manager.

    Args:
        version: of A2A it speaks.
        elsewhere: the address its card names in place of its own.

    Attributes:
        url: where it listens.
        heard: all requests but those for the card.
        cards: the requests for the card.
        faults: what could not be taken apart.
        cut: how many requests broke off in their middle.
        answer: gives what is answered to a request.
    """

    def __init__(self, version: str = "1.0", elsewhere: str = "") -> None:
        self.version = version
        self.url = ""
        self.heard: list[Heard] = []
        self.cards: list[Heard] = []
        self.faults: list[bytes] = []
        self.cut = 0
        self.answer: Callable[[Heard], Said] = obliging
        self._elsewhere = elsewhere
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=16 * 2**20)
        self.authority = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.url = f"http://{self.authority}"
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                heard = await self._hear(reader)
                if heard is None:
                    return
                said = self._say(heard)
                lines = (
                    f"HTTP/1.1 {said.status}",
                    *said.headers,
                    f"Content-Length: {len(said.body)}",
                    "",
                    "",
                )
                head = "\r\n".join(lines).encode(errors="surrogateescape")
                writer.write(head + (b"" if heard.method == "HEAD" else said.body))
        except Ambiguous as fault:
            self.faults.append(fault.args[0])
        except (ConnectionError, asyncio.IncompleteReadError):
            self.cut += 1
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _hear(self, reader: asyncio.StreamReader) -> Heard | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise Ambiguous(error.partial) from error
            return None
        except asyncio.LimitOverrunError as error:
            raise Ambiguous(b"a head without an end") from error
        first, *lines = head[:-4].split(b"\r\n")
        line = _LINE.fullmatch(first)
        pairs = [_HEADER.fullmatch(each) for each in lines]
        if line is None or not all(pairs):
            raise Ambiguous(head)
        headers = [(pair[1].decode().lower(), pair[2].decode()) for pair in pairs if pair is not None]
        heard = Heard(f"{line[1].decode()} {line[2].decode()}", headers, b"")
        lengths, codings = heard.values("content-length"), heard.values("transfer-encoding")
        if heard.values("host") != [self.authority] or len(lengths) + len(codings) > 1:
            raise Ambiguous(head)
        if codings:
            if codings != ["chunked"]:
                raise Ambiguous(head)
            return heard._replace(body=await self._chunks(reader))
        if lengths:
            if not lengths[0].isdecimal():
                raise Ambiguous(head)
            return heard._replace(body=await reader.readexactly(int(lengths[0])))
        return heard

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while True:
            size = (await reader.readuntil(b"\r\n"))[:-2]
            if _SIZE.fullmatch(size) is None:
                raise Ambiguous(size)
            chunk = await reader.readexactly(int(size, 16) + 2)
            if not chunk.endswith(b"\r\n"):
                raise Ambiguous(chunk)
            if len(chunk) == 2:
                return body
            body += chunk[:-2]

    def _say(self, heard: Heard) -> Said:
        if heard.target == CARD:
            self.cards.append(heard)
            return Said(json.dumps(self._card()).encode())
        self.heard.append(heard)
        return self.answer(heard)

    def _card(self) -> dict[str, Any]:
        url = self._elsewhere or self.url
        card: dict[str, Any] = {
            "name": "Recording",
            "description": "Writes down what it is sent.",
            "version": "1.0.0",
            "capabilities": {"streaming": True, "extendedAgentCard": True},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [{"id": "s", "name": "S", "description": "None.", "tags": ["test"]}],
            "supportedInterfaces": [
                {"url": url, "protocolBinding": binding, "protocolVersion": version}
                for binding in ("JSONRPC", "HTTP+JSON")
                for version in self.version.split()
            ],
        }
        return card


def obliging(heard: Heard) -> Said:
    """Answer every request with success: a send with a message, everything else with the Task it names."""
    rpc_id, method = b"", heard.target
    named = re.search(r"/tasks/([^/?]+?)(?::\w+)?(?:[/?]|$)", method)
    task: Any = unquote(named[1]) if named else "task-9"
    if not heard.target.partition("?")[0].strip("/"):
        envelope = msgspec.json.decode(heard.body, type=dict[str, Raw])
        rpc_id, method = bytes(envelope.get("id", b"null")), msgspec.json.decode(envelope["method"], type=str)
        params = json.loads(bytes(envelope.get("params", b"null"))) or {}
        task = params.get("id") or "task-9"
    v03 = method.startswith("/v1/") if not rpc_id else "/" in method
    streams = re.search(r"(?i)message[:/]stream|SendStreaming|subscribe", method) is not None
    result = _extended() if re.search(r"(?i)card", method) else _result(method, task, bool(rpc_id), v03)
    data = msgspec.json.encode(result)
    if rpc_id:
        data = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (rpc_id, data)
    if streams:
        return Said(b"data: " + data + b"\n\n", headers=("Content-Type: text/event-stream",))
    return Said(data)


def _extended() -> dict[str, Any]:
    return {"name": "Extended", "url": "http://trap.example/"}


def _configuration(method: str, task_id: str, v03: bool) -> Any:
    config: dict[str, Any] = {"id": "c", "url": "http://hook.example/"}
    config = {"taskId": task_id, **({"pushNotificationConfig": config} if v03 else config)}
    if re.search(r"(?i)list", method) is not None:
        return [config] if v03 else {"configs": [config]}
    return config


def _result(method: str, task_id: str, rpc: bool, v03: bool) -> Any:
    kinds = v03 and rpc
    if re.search(r"(?i)pushNotificationConfig", method) is not None:
        return _configuration(method, task_id, v03)
    if re.search(r"(?i)message[:/]?(?:send|stream)|^Send", method) is None:
        state = "completed" if kinds else "TASK_STATE_COMPLETED"
        task: dict[str, Any] = {"id": task_id, "contextId": "c", "status": {"state": state}}
        return {"kind": "task", **task} if kinds else task
    message: dict[str, Any] = {"messageId": "m-a", "role": "agent" if kinds else "ROLE_AGENT"}
    if kinds:
        return {"kind": "message", **message, "parts": [{"kind": "text", "text": "heard"}]}
    return {"message": message | {"content" if v03 else "parts": [{"text": "heard"}]}}


class Trap:
    """An address at which nobody may ask for anything; an async context manager.

    Attributes:
        authority: its host and port.
        caught: the connections that were made all the same.
    """

    def __init__(self) -> None:
        self.authority = ""
        self.caught = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.authority = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.caught += 1
        writer.close()
