"""Requests that the broker serves, taken apart: every kind there is, on both listeners, with what opens it.

Must not know what is broken in them, nor how they are answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from access_rig import ALIASES, ALICES, BOBS, HERS_ELSEWHERE, MISSING, OPEN
from attacks.keyring import API_KEYS, TICKETS, TOKENS
from brokers import activity, artifact, encode, status, task_record
from fuzzed_requests import wanted_of

from sidecast_broker.core.a2a.operations import PROTOCOL_OPERATIONS
from sidecast_broker.core.a2a.wire import WIRES

TASKS = (ALICES, ALICES, OPEN, BOBS, HERS_ELSEWHERE, MISSING)
CURSORS = ("epoch1-0", "epoch1-1", "epoch1-4", "epoch1-9", "epoch0-3", "epoch1-999999", "epoch1-01", "x")
OPTIONS = (
    *("from=start", "from=now", "from=snapshot", "types=status,artifact", "debug=1", "named=0"),
    *("heartbeat=event", "refusal=status", "batch_ms=50", "batch_max=3", "batch=array", "max_rate=2.5"),
    *("coalesce=1", "wait_s=0.1", "x=y", "slow=snapshot", "slow=disconnect", "batch_ms=1000", "max_rate=0.1"),
    *("subscription=inbox", "subscription=inbox&ack=client", "subscription=tray&client=tab-1"),
)
ORIGIN = "https://app.example"
CANARY = "canary"
"""A task that the test watches itself."""


@dataclass
class Ask:
    """A request in parts, each as it will be sent.

    Attributes:
        internal: whether it is for the internal listener.
        method: of HTTP.
        path: of the target.
        query: pairs of the target.
        lines: of the head, but those of the credential, the cursor and the body.
        credential: lines that say who asks.
        cursor: lines that say where to go on.
        body: None: there is none.
        chunked: whether the body is sent in chunks.
        host: where it believes to be.
    """

    method: str
    path: str
    internal: bool = False
    query: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    credential: list[str] = field(default_factory=list)
    cursor: list[str] = field(default_factory=list)
    body: bytes | None = None
    chunked: bool = False
    host: str = "localhost"

    def raw(self) -> bytes:
        """Write it as one connection carries it."""
        target = self.path + ("?" + "&".join(self.query) if self.query else "")
        head = [f"{self.method} {target} HTTP/1.1", f"Host: {self.host}"]
        head += [*self.lines, *self.credential, *self.cursor]
        body = b""
        if self.body is not None:
            if not any(line.lower().startswith("content-type") for line in self.lines):
                head.append("Content-Type: application/json")
            if self.chunked:
                head.append("Transfer-Encoding: chunked")
                pieces = (self.body[:7], self.body[7:])
                body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces if each) + b"0\r\n\r\n"
            else:
                head.append(f"Content-Length: {len(self.body)}")
                body = self.body
        return "\r\n".join((*head, "", "")).encode("utf-8", "surrogatepass") + body


def bearer(text: str) -> list[str]:
    """Give the line of a token."""
    return [f"Authorization: Bearer {text}"]


def _opened(ask: Ask, dice: random.Random, who: str = "alice") -> Ask:
    """Let a request be alice's, in one of the ways a credential can come."""
    match dice.randrange(6):
        case 0:
            ask.credential = [f"X-API-Key: {API_KEYS[who]}"]
        case 1:
            ask.credential = bearer(API_KEYS[who])
        case _:
            ask.credential = bearer(TOKENS[who])
    return ask


def events(dice: random.Random) -> Ask:
    """Ask for the events of a task, under any of its names."""
    path, mark, query = dice.choice(list(ALIASES.values())).format(dice.choice(TASKS)).partition("?")
    return _stream(Ask("GET", path, query=[query] if mark else []), dice)


def several(dice: random.Random) -> Ask:
    """Ask for the events of several tasks."""
    match dice.randrange(4):
        case 0:
            query = [f"context={dice.choice(['context-1', 'context-2', ALICES])}"]
        case 1:
            query = ["agent=1"]
        case _:
            query = [f"task={task}" for task in dice.choices(TASKS, k=dice.randint(1, 4))]
    return _stream(Ask("GET", "/events", query=query), dice)


def subscriptions(dice: random.Random) -> Ask:
    """Confirm, list or delete named subscriptions."""
    path = f"/subscriptions/{dice.choice(['inbox', 'inbox', 'tray', 'none'])}"
    task = dice.choice(TASKS)
    match dice.randrange(4):
        case 0:
            ask = Ask("GET", "/subscriptions")
        case 1:
            ask = Ask("DELETE", path, query=dice.choice([[], [f"task={task}"]]))
        case _:
            body = {"id": dice.choice(CURSORS)} | dice.choice([{}, {"task": task}])
            ask = Ask("POST", f"{path}/ack", body=encode(body), chunked=dice.random() < 0.1)
    if dice.random() < 0.1:
        ask.query.append(f"ticket={dice.choice(list(TICKETS.values()))}")
        return ask
    return _opened(ask, dice)


def _stream(ask: Ask, dice: random.Random) -> Ask:
    """Ask for a stream or for JSON, from anywhere, at any pace, with any credential that opens it."""
    ask.lines = [
        f"Accept: {dice.choice(['application/json', 'application/json', 'text/event-stream', '*/*'])}"
    ]
    ask.query += dice.sample(OPTIONS, dice.choice([0, 0, 1, 2]))
    if dice.random() < 0.4:
        cursor = dice.choice(CURSORS)
        if dice.random() < 0.5:
            ask.cursor = [f"Last-Event-ID: {cursor}"]
        else:
            ask.query.append(f"last_event_id={cursor}")
    way = dice.random()
    if way < 0.15:
        ask.query.append(f"ticket={dice.choice(list(TICKETS.values()))}")
    elif way < 0.3:
        ask.credential = [f"Cookie: a=b; sidecast_ticket={dice.choice(list(TICKETS.values()))}"]
    else:
        _opened(ask, dice)
    return ask


def a2a(dice: random.Random) -> Ask:
    """Ask for an operation of A2A, on any wire."""
    wanted = None
    while wanted is None:
        wanted = wanted_of(dice.choice(WIRES), dice.choice(PROTOCOL_OPERATIONS), dice.randrange(10**9))
    task = dice.choice(TASKS)
    path, mark, query = wanted.target.replace("task-1", task).partition("?")
    prefix = dice.choice(["", "", "", "/agents/agent", "/agents/other", "/acme"])
    ask = Ask(wanted.method, prefix + path, query=[query] if mark else [])
    ask.lines = [f"A2A-Version: {wanted.wire.version}"]
    if wanted.method != "GET":
        ask.body = wanted.body.replace(b"task-1", task.encode())
        ask.chunked = dice.random() < 0.1
    if dice.random() < 0.2:
        ask.cursor = [f"Last-Event-ID: {dice.choice(CURSORS)}"]
    return _opened(ask, dice)


def tickets(dice: random.Random) -> Ask:
    """Ask for a ticket."""
    ask = Ask("POST", "/tickets", query=dice.choice([[], [], ["cookie=1"]]))
    ask.body = encode({"tasks": [ALICES, OPEN][: dice.randint(1, 2)], "ttl_s": dice.randint(1, 400)})
    return _opened(ask, dice)


def page(dice: random.Random) -> Ask:
    """Ask for the page, or what it shows."""
    if dice.random() < 0.3:
        task = dice.choice((*TASKS, CANARY))
        credential = bearer(dice.choice([TOKENS["operator"], TOKENS["operator"], TOKENS["alice"]]))
        return Ask("GET", "/ui/api/streams", query=[f"task={task}"], credential=credential)
    path = dice.choice(["/ui", "/ui/", "/ui/app.js", "/ui/layout.css", "/ui/none.js", *["/ui/api/tasks"] * 3])
    return _opened(Ask(dice.choice(["GET", "GET", "HEAD"]), path), dice)


def preflight(dice: random.Random) -> Ask:
    """Ask what a page of another origin may do."""
    path = dice.choice([f"/tasks/{ALICES}/events", "/tickets", "/", "/ui/"])
    method = dice.choice(["GET", "POST", "DELETE"])
    return Ask("OPTIONS", path, lines=[f"Origin: {ORIGIN}", f"Access-Control-Request-Method: {method}"])


def other(dice: random.Random) -> Ask:
    """Ask for the agent's card, and for what passes to it."""
    path = dice.choice(["/.well-known/agent-card.json", "/.well-known/agent.json", "/docs/a", "/nothing"])
    return _opened(Ask("GET", path), dice)


def health(dice: random.Random) -> Ask:
    """Ask for what is open on the internal listener, and who is connected."""
    path = dice.choice(["/livez", "/readyz", "/metrics", "/streams", "/streams"])
    return Ask("GET", path, internal=True, credential=bearer(TOKENS["operator"]))


def publish(dice: random.Random) -> Ask:
    """Publish events of a task of acme's."""
    task = f"published-{dice.randrange(20)}"
    made: list[Callable[[], bytes]] = [
        lambda: task_record(task),
        lambda: status("a word", task),
        lambda: artifact("a piece", task, append=True),
        lambda: activity("progress", task, progress=0.5),
    ]
    ask = Ask("POST", f"/publish/{task}", internal=True, credential=bearer(TOKENS["publisher"]))
    ask.query = dice.sample(["agent=agent", "agent=other", "owner=bob", "tenant=acme"], dice.randint(0, 1))
    if dice.random() < 0.5:
        ask.body = dice.choice(made)()
    else:
        ask.lines = ["Content-Type: application/x-ndjson"]
        ask.body = b"\n".join(dice.choice(made)() for _ in range(3))
    if dice.random() < 0.3:
        ask.lines += [f"Idempotency-Key: key-{dice.randrange(1000)}", "Idempotency-Offset: 2"]
    return ask


def revoke(dice: random.Random) -> Ask:
    """Revoke what somebody of acme's was given."""
    kind = dice.choice(["token_id", "principal", "task"])
    body: dict[str, Any] = {kind: f"gone-{dice.randrange(50)}", "reason": "lost"}
    body |= dice.choice([{}, {"tenant": "acme"}])
    return Ask("POST", "/revoke", internal=True, credential=bearer(TOKENS["operator"]), body=encode(body))


def drain(_dice: random.Random) -> Ask:
    """Ask the broker to go, which no credential here may."""
    return Ask("POST", "/drain", internal=True, credential=bearer(TOKENS["operator"]), body=b"{}")


KINDS: dict[str, tuple[Callable[[random.Random], Ask], float]] = {
    "events": (events, 5),
    "several": (several, 2),
    "subscriptions": (subscriptions, 1.5),
    "a2a": (a2a, 5),
    "tickets": (tickets, 1),
    "page": (page, 0.7),
    "preflight": (preflight, 0.5),
    "other": (other, 0.7),
    "health": (health, 0.7),
    "publish": (publish, 1.5),
    "revoke": (revoke, 0.7),
    "drain": (drain, 0.4),
}
"""What there is to ask for, and how often."""


def some_ask(dice: random.Random) -> tuple[str, Ask]:
    """Give a request that is right, and what it asks for."""
    name = dice.choices(list(KINDS), [weight for _make, weight in KINDS.values()])[0]
    return name, KINDS[name][0](dice)
