"""Thousands of broken requests over kept-alive connections, on all four wires, for all operations: each gets
the agent's answer or a well-formed error of its wire, and whatever the agent gets, all readers read alike.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from copy import deepcopy
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
import structlog
from brokers import FakeBackend, broker, done, task_record
from recording_agent import Heard, RecordingAgent, Trap

from sidecast_broker.core.a2a.operations import PROTOCOL_OPERATIONS, Operation, rest_form, rpc_method
from sidecast_broker.core.a2a.wire import WIRES, Wire

CONNECTIONS = 8
ANSWER_S = 10.0
RUNS = [("1.0 0.3", "adapter"), ("1.0", "adapter"), ("0.3", "adapter"), ("1.0 0.3", "proxy")]
"""What the agent speaks, so that requests pass as they are and translated; and who publishes."""

# --- valid requests


class Wanted(NamedTuple):
    """A request.

    Attributes:
        wire: of the client.
        operation: what is asked for.
        method: of HTTP.
        target: of HTTP.
        body: of HTTP.
        plain: whether method and target are still those of the operation.
    """

    wire: Wire
    operation: Operation
    method: str
    target: str
    body: bytes
    plain: bool = True

    @property
    def bytes(self) -> bytes:
        """As it is sent."""
        lines = (
            f"{self.method} {self.target} HTTP/1.1",
            "Host: x",
            "Content-Type: application/json",
            f"A2A-Version: {self.wire.version}",
            f"Content-Length: {len(self.body)}",
        )
        return "\r\n".join((*lines, "", "")).encode("latin-1") + self.body


def params_of(wire: Wire, operation: Operation, serial: int) -> dict[str, Any]:
    """Give parameters that are right, with as many of the members there can be as possible."""
    v03, rest = wire.version == "0.3", wire.binding == "rest"
    if operation.name.startswith("Send"):
        part: dict[str, Any] = {"text": "x\u20ac"} if not v03 or rest else {"kind": "text", "text": "x\u20ac"}
        parts = [part, {"data": {"a": [1, 1.5, None]}} | ({"kind": "data"} if v03 and not rest else {})]
        message = {
            "messageId": f"m-{serial}",
            "contextId": "c",
            "role": "user" if v03 and not rest else "ROLE_USER",
            "content" if v03 and rest else "parts": parts,
            "metadata": {"m": 1},
            "extensions": ["urn:x"],
        }
        configuration = {"acceptedOutputModes": ["text/plain"], "historyLength": 3}
        return {
            "request" if v03 and rest else "message": message,
            "configuration": configuration,
            "metadata": {"urn:sidecast:resume:v1": {}},
        }
    if operation.name.startswith("Create"):
        config = {"id": "c", "url": "http://hook.example/", "token": "t"}
        return (
            {"taskId": "task-1", "pushNotificationConfig": config} if v03 else {"taskId": "task-1", **config}
        )
    place = (operation.task_v03 if v03 else operation.task) or "pageToken"
    known = {place: "task-1", "historyLength": 2, "metadata": {"a": {"b": [True]}}}
    if "PushNotificationConfig" in operation.name:
        known["pushNotificationConfigId" if v03 else "id"] = "c"
    return known


def wanted_of(wire: Wire, operation: Operation, serial: int) -> Wanted | None:
    """Give a valid request, where the wire has the operation."""
    params = params_of(wire, operation, serial)
    if wire.binding == "jsonrpc":
        name = rpc_method(operation, wire.version)
        if name is None:
            return None
        body = {"jsonrpc": "2.0", "id": serial, "method": name, "params": params}
        return Wanted(wire, operation, "POST", "/", json.dumps(body, ensure_ascii=False).encode())
    form = rest_form(operation, wire.version)
    target = form.path.replace("{task}", "task-1").replace("{config}", "c")
    method = form.methods[serial % len(form.methods)]
    return Wanted(wire, operation, method, target, json.dumps(params, ensure_ascii=False).encode())


# --- what is done to them


class Literal(str):
    """Stands in JSON as it is."""


class Object(list[tuple[Any, Any]]):
    """The members of a JSON object, which may repeat."""


def read(body: bytes) -> Any:
    """Decode JSON so that its objects can be made wrong."""
    return json.loads(body, object_pairs_hook=Object)


def write(value: Any) -> str:
    """Encode what `read` gave and somebody has made wrong."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, Object):
        return "{" + ",".join(f"{write(name)}:{write(each)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "task-2",
    "..",
    "a/b",
    "a:cancel",
    "\u2028\u0085",
    "x" * 300,
    [],
    Object(),
    [[]],
    ["a", 1],
    Object([("a", 1)]),
    *map(
        Literal,
        (
            "1" * 400,
            "-1e400",
            "1e-400",
            "9223372036854775808",
            "-0",
            "1E+2",
            "NaN",
            "Infinity",
            "01",
            "1.",
            "tru",
            "'x'",
            r'"\ud800"',
            r'"\udc00x"',
            r'"\u0000"',
            r'"\x"',
            '"a\nb"',
            '"\0"',
            '"\t"',
            "/**/1",
            "[" * 150 + "]" * 150,
            '{"a":' * 90 + "1" + "}" * 90,
            "[" * 3000,
            "",
            "1 2",
        ),
    ),
]
BYTES = [
    b"\0",
    b"\n",
    b"\r",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b'"',
    b"\\",
    b"{",
    b"]",
    b",",
    b"\xef\xbb\xbf",
]
IN_TARGETS = [
    "/",
    "//",
    "/..",
    "%2e%2e",
    "%2F",
    "%",
    "%ff",
    ":",
    ":cancel",
    ";",
    "?",
    "?id=b",
    "&tenant=t",
    "@",
    "~",
]


def copied(dice: random.Random, *others: Any) -> Any:
    """Give something strange, or one of the others, that can be changed without changing it elsewhere."""
    return deepcopy(dice.choice([*others, *STRANGE]))


def nodes(value: Any) -> Iterator[Any]:
    """Give all objects and arrays within a value."""
    if isinstance(value, list):
        yield value
        for each in value:
            yield from nodes(each[1] if isinstance(value, Object) else each)


def respell(name: str, dice: random.Random) -> Any:
    """Spell a name as some reader would still know it."""
    snake = re.sub("([A-Z])", lambda letter: "_" + letter[1].lower(), name)
    first = Literal(f'"\\u{ord(name[0]):04x}{name[1:]}"') if name else name
    kelvin = name.replace("k", "\u212a").replace("s", "\u017f")
    return dice.choice([name, name.upper(), name.lower(), name.swapcase(), snake, first, kelvin, name + "_"])


def break_object(members: Object, dice: random.Random) -> None:
    """Do something to one member of an object."""
    index = dice.randrange(len(members)) if members else -1
    name, value = members[index] if members else ("x", 1)
    match dice.randrange(7):
        case 0:
            members.insert(dice.randint(0, len(members)), (name, copied(dice, value)))
        case 1:
            spelled = respell(name, dice) if type(name) is str else name
            members.insert(
                dice.randint(0, len(members)), (spelled, deepcopy(dice.choice([value, "task-2", "t"])))
            )
        case 2 if members:
            members[index] = (respell(name, dice) if type(name) is str else name, value)
        case 3 if members:
            members.pop(index)
        case 4:
            extra = dice.choice(
                ["id", "taskId", "tenant", "message", "request", "method", "params", "\ue000", ""]
            )
            members.append((extra, copied(dice, value)))
        case 5:
            members.extend((f"x{number}", number) for number in range(dice.choice([3, 300])))
        case _ if members:
            members[index] = (name, copied(dice))


def break_json(body: bytes, dice: random.Random) -> bytes:
    """Do something to the value a body holds."""
    value = read(body)
    for _ in range(dice.choice([1, 1, 2, 3])):
        node = dice.choice(list(nodes(value)))
        if isinstance(node, Object):
            break_object(node, dice)
        else:
            node.insert(dice.randint(0, len(node)), copied(dice))
    if dice.random() < 0.05:
        value = copied(dice, [value], [value, value])
    return write(value).encode("utf-8", "surrogatepass")


def break_bytes(body: bytes, dice: random.Random) -> bytes:
    """Do something to the bytes of a body, whatever they hold."""
    broken = bytearray(body)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at, to = sorted(dice.randint(0, len(broken)) for _ in range(2))
        match dice.randrange(6):
            case 0 if at < len(broken):
                broken[at] ^= 1 << dice.randrange(8)
            case 1:
                broken[at:at] = dice.choice(BYTES)
            case 2:
                del broken[at : min(to, at + 20)]
            case 3:
                del broken[at:]
            case 4:
                broken[at:at] = broken[at:to]
            case _:
                broken[at:at] = dice.randbytes(dice.randint(1, 12))
    return bytes(broken)


def break_target(target: str, dice: random.Random) -> str:
    """Do something to a request target that leaves it one."""
    at = dice.randint(1, len(target))
    return target[:at] + dice.choice(IN_TARGETS) + target[at:]


def fuzzed(count: int, seed: int) -> Iterator[Wanted]:
    """Give so many requests, the same ones for the same seed."""
    dice = random.Random(seed)
    serial = 0
    while serial < count:
        wanted = wanted_of(dice.choice(WIRES), dice.choice(PROTOCOL_OPERATIONS), serial)
        if wanted is None:
            continue
        serial += 1
        how = dice.random()
        if how < 0.55:
            wanted = wanted._replace(body=break_json(wanted.body, dice))
        elif how < 0.9:
            wanted = wanted._replace(body=break_bytes(wanted.body, dice))
        if wanted.wire.binding == "rest" and dice.random() < 0.2:
            wanted = wanted._replace(target=break_target(wanted.target, dice), plain=False)
        yield wanted


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
    said = json.loads(body, object_pairs_hook=reader)
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


async def all_runs(count: int, seed: int, caplog: pytest.LogCaptureFixture) -> Counter[str]:
    """Fuzz brokers before agents of all kinds, and check that nothing was a fault of theirs."""
    outcomes: Counter[str] = Counter()
    with structlog.testing.capture_logs() as lines, caplog.at_level(logging.WARNING):
        for number, (version, capture) in enumerate(RUNS):
            outcomes += await withstand(FakeBackend(), version, capture, count // len(RUNS), seed + number)
    assert [record.getMessage() for record in caplog.records] == []
    assert [line for line in lines if line["log_level"] in ("error", "critical") or "exc_info" in line] == []
    return outcomes


async def test_fuzzed_requests_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    count = 10_000
    outcomes = await all_runs(count, 20_000, caplog)
    assert sum(outcomes.values()) - outcomes["heard"] == count
    # What nothing was heard of, or nothing refused, would prove nothing.
    assert outcomes["heard"] > count / 10
    wanted = ("said", "error", "rpc -32700", "rpc -32600", "rpc -32601", "rpc -32602", "rest 400")
    assert min(outcomes[each] for each in wanted) > count / 300, outcomes
