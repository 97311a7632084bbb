"""Requests of all A2A operations on all four wires, and what a seeded hand breaks in them.

Must not know how they are answered.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple

from sidecast_broker.core.a2a.operations import PROTOCOL_OPERATIONS, Operation, rest_form, rpc_method
from sidecast_broker.core.a2a.wire import WIRES, Wire

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
