"""Thousands of broken requests over kept-alive connections, on all four wires, for all operations: each gets
the agent's answer or a well-formed error of its wire, and whatever the agent gets, all readers read alike.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote, urlsplit

from brokers import FakeBackend, broker, done, task_record
from fuzzed_requests import Wanted, fuzzed
from recording_agent import Heard, RecordingAgent, Trap

CONNECTIONS = 8
ANSWER_S = 10.0
RUNS = [("1.0 0.3", "adapter"), ("1.0", "adapter"), ("0.3", "adapter"), ("1.0 0.3", "proxy")]
"""What the agent speaks, so that requests pass as they are and translated; and who publishes."""

# --- what must come of them


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Take members that must not repeat."""
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def refuse(constant: str) -> Any:
    """Refuse what is no JSON."""
    raise AssertionError(constant)


def strict(body: bytes) -> Any:
    """Decode JSON that is beyond doubt."""
    return json.loads(body.decode(), object_pairs_hook=once, parse_constant=refuse)


def check_answer(wanted: Wanted, status: int, content_type: str, body: bytes) -> str:
    """Check that an answer is the agent's, or an error as the wire has it; give which."""
    assert status < 500, body
    if content_type.startswith("text/event-stream"):
        frames = [frame for frame in body.split(b"\n\n") if frame]
        assert len(frames) == 1
        assert frames[0].startswith(b"data: ")
        body = frames[0].removeprefix(b"data: ")
    said = strict(body)
    if not wanted.plain:
        return "said" if status < 400 and "error" not in said else "error"
    if wanted.wire.binding == "jsonrpc":
        assert b"-32006" not in body
        assert said.keys() in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
        assert said["jsonrpc"] == "2.0"
        assert said["id"] is None or type(said["id"]) in (str, int, float)
        if "result" in said:
            return "said"
        check_error(said["error"], int)
        assert status == 200
        return f"rpc {said['error']['code']}"
    if status < 400:
        return "said"
    if wanted.wire.version == "1.0":
        error = said["error"]
        check_error(error, int)
        assert (error["code"], type(error["status"]), type(error["details"])) == (status, str, list)
    else:
        check_error(said, int)
        error = said
    return f"rest {status}"


def check_error(error: dict[str, Any], kind: type) -> None:
    """Check what all forms of an error have."""
    assert type(error["code"]) is kind
    assert type(error["message"]) is str
    assert error["message"]


Reader = Callable[[list[tuple[str, Any]]], dict[str, Any]]


def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Read an object as some C libraries do."""
    return dict(reversed(pairs))


def any_case(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Read an object as Go does, whose structs have the names below."""
    known = ("jsonrpc", "method", "params", "id", "taskId", "tenant", "message", "contextId")
    right = {name.casefold(): name for name in known}
    return {right.get(name.casefold(), name): value for name, value in pairs}


def either_spelling(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Read an object as protobuf does."""
    right = {"task_id": "taskId", "context_id": "contextId", "request": "message"}
    return {right.get(name, name): value for name, value in pairs}


def one_spelling(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Read an object as protobuf does, of whose two spellings the first counts."""
    return either_spelling(list(reversed(pairs)))


def acted_on(body: bytes, reader: Reader) -> tuple[Any, ...]:
    """Give what an agent with this reader takes a request for."""
    said = json.loads(body, object_pairs_hook=reader) or {}
    rpc = "jsonrpc" in said
    params = (said.get("params") or {}) if rpc else said
    message = params.get("message")
    message = message if isinstance(message, dict) else {}
    ids = (params.get("id"), params.get("taskId"), params.get("tenant"), message.get("taskId"))
    return said.get("method") if rpc else None, *ids


def check_heard(heard: Heard) -> None:
    """Check that what the agent got means one thing."""
    path = heard.target.partition("?")[0]
    assert "//" not in path
    for _ in range(3):
        assert not {".", ".."} & set(path.split("/"))
        path = unquote(path)
    if heard.method != "POST":
        assert heard.body == b""
        return
    if heard.body:
        whole = acted_on(heard.body, dict)
        assert acted_on(heard.body, first_wins) == whole
        assert acted_on(heard.body, any_case) == whole
        assert acted_on(heard.body, either_spelling) == acted_on(heard.body, one_spelling)


# --- running


class Connection:
    """One connection that is kept as long as the broker keeps it."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, raw: bytes) -> tuple[int, str, bytes]:
        """Send a request; give status, content type and body of its answer."""
        if self._writer is None:
            address = self._address
            self._reader, self._writer = await asyncio.open_connection(address.hostname, address.port)
        self._writer.write(raw)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.partition(": ")[::2] for line in head.split("\r\n")[1:-2])
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self._reader.readline(), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readline()
        else:
            body = await self._reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close" or head.startswith("http/1.0"):
            await self.aclose()
        return int(head.split()[1]), fields["content-type"], body

    async def aclose(self) -> None:
        """Leave."""
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()
            self._writer = None


async def withstand(backend: FakeBackend, version: str, capture: str, count: int, seed: int) -> Counter[str]:
    """Send so many fuzzed requests to a broker; give how many came to what."""
    await backend.publish(task_record(), done())
    outcomes: Counter[str] = Counter()
    async with (
        Trap() as trap,
        RecordingAgent(version=version, elsewhere=f"http://{trap.authority}") as agent,
        broker(backend, agent__url=agent.url, agent__capture=capture) as running,
    ):
        requests = fuzzed(count, seed)

        async def client() -> None:
            async with aclosing(Connection(running.url)) as connection:
                for wanted in requests:
                    try:
                        async with asyncio.timeout(ANSWER_S):
                            answer = await connection.ask(wanted.bytes)
                        outcomes[check_answer(wanted, *answer)] += 1
                    except (AssertionError, KeyError, ValueError, TimeoutError, EOFError) as error:
                        raise AssertionError(f"{wanted} of seed {seed}") from error

        async with asyncio.TaskGroup() as clients:
            for _ in range(CONNECTIONS):
                clients.create_task(client())
        for heard in agent.heard:
            check_heard(heard)
        assert (agent.faults, agent.cut, trap.caught) == ([], 0, 0)
        outcomes["heard"] = len(agent.heard)
    return outcomes


async def test_fuzzed_requests_are_answered(unharmed: None) -> None:
    count, seed = 10_000, 20_000
    outcomes: Counter[str] = Counter()
    for number, (version, capture) in enumerate(RUNS):
        outcomes += await withstand(FakeBackend(), version, capture, count // len(RUNS), seed + number)
    assert sum(outcomes.values()) - outcomes["heard"] == count
    # What nothing was heard of, or nothing refused, would prove nothing.
    assert outcomes["heard"] > count / 10
    wanted = ("said", "error", "rpc -32700", "rpc -32600", "rpc -32601", "rpc -32602", "rest 400")
    assert min(outcomes[each] for each in wanted) > count / 300, outcomes
