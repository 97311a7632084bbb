"""What a row of the attack table is: what is sent, how it is refused, and what shows that it need not be.

Must not know what is attacked, nor how it is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from access_rig import ALICES, BOBS, HERS_ELSEWHERE, MISSING, OPEN, OWNERLESS
from attacks.scene import Scene, Shot, bearer, token

Shooter = Callable[[Scene], Shot]
"""Gives what is sent; what it takes from the scene is the ticket."""


class Refusal(NamedTuple):
    """How an attack is refused.

    Attributes:
        status: of HTTP.
        text: that the answer's body holds.
        hides: whether it must be to the byte what is said of a task that there is not (contract, section 5).
    """

    status: int
    text: str = ""
    hides: bool = False


class Served(NamedTuple):
    """The request with what the attack lacks: it is served, so that the attack is refused for that alone.

    Attributes:
        shot: gives it.
        status: of HTTP.
        text: that the answer's body holds.
    """

    shot: Shooter
    status: int = 200
    text: str = ""


class Row(NamedTuple):
    """One attack.

    Attributes:
        name: says what it tries.
        shot: gives what is sent.
        refused: how it is answered.
        served: the control; None: that of the group.
        twin: the same about a task that there is not; None: the row's own with every id in it exchanged.
        passes: how many requests the agent may hear of, where the refusal is what the answer leaves out.
        absent: what must stand nowhere in the answer.
        echoes: an id that the answer gives back, which is exchanged before it is compared with the twin's.
    """

    name: str
    shot: Shooter
    refused: Refusal
    served: Served | None = None
    twin: Shooter | None = None
    passes: int = 0
    absent: tuple[str, ...] = ()
    echoes: str = ""


class Group(NamedTuple):
    """Attacks of a kind.

    Attributes:
        rows: all of them.
        served: the control of those that have none of their own.
        settings: of the broker, beside the scene's.
        first: sent before anything is compared: what who asks for their own leaves behind.
        held: streams of alice's that are open all the while, and carry events of the scene's open task.
    """

    rows: list[Row]
    served: Served
    settings: Mapping[str, object] = {}
    first: tuple[Shooter, ...] = ()
    held: tuple[Shooter, ...] = ()


EVENTS = f"/tasks/{ALICES}/events"
JSON = "Accept: application/json"
VERSION = "A2A-Version: 1.0"
EVIL = "Origin: https://evil.example"

UNKNOWN = Refusal(404, "there is no such task, or it is not yours", hides=True)
HIDDEN = Refusal(200, '"code":-32001', hides=True)
GONE = Refusal(404, '"code":404', hides=True)
INVALID = Refusal(401, "the credential is not valid")
EXPIRED = Refusal(401, "the credential has expired")
NONE = Refusal(401, "a credential is required")
TWO = Refusal(401, "more than one credential")
BAD = Refusal(400)
NOWHERE = Refusal(404, "not-found")

SHOWN = "TASK_STATE_COMPLETED"
"""Stands in what the browser format says of the tasks of the scene that have ended."""


def alice(**claims: Any) -> str:
    """Give the line with a token of alice's."""
    return bearer(token(**claims))


def bob(**claims: Any) -> str:
    """Give the line with a token of bob's, who owns `BOBS` alone."""
    return bearer(token(sub="bob", **claims))


def sends(method: str, target: str, *lines: str, body: bytes | None = None) -> Shooter:
    """Give a request to the public listener."""
    shot = Shot(method, target, lines, body)
    return lambda _scene: shot


def left(shot: Shooter, at: bytes) -> Shooter:
    """Give a request whose client leaves the stream that answers it at its first such bytes."""
    return lambda scene: shot(scene)._replace(until=at)


def operates(method: str, target: str, *lines: str, body: bytes | None = None) -> Shooter:
    """Give a request to the internal listener."""
    shot = Shot(method, target, lines, body, internal=True)
    return lambda _scene: shot


def watch(*lines: str, target: str = EVENTS) -> Shooter:
    """Ask once for what a watcher of a task would see."""
    return sends("GET", target, JSON, *lines)


def calls(method: str, *lines: str, target: str = "/", **params: Any) -> Shooter:
    """Give a JSON-RPC request of A2A v1.0; a field whose name ends in `_` stands for one without it."""
    named = {name.rstrip("_"): value for name, value in params.items()}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": named}
    return sends("POST", target, VERSION, *lines, body=json.dumps(body).encode())


def instead(shot: Shooter, line: str) -> Shooter:
    """Give the same request with another credential in `Authorization`."""

    def give(scene: Scene) -> Shot:
        old = shot(scene)
        kept = [each for each in old.lines if not each.lower().startswith("authorization:")]
        return old._replace(lines=(*kept, line))

    return give


_IDS = (ALICES, BOBS, OPEN, OWNERLESS, HERS_ELSEWHERE)


def elsewhere(shot: Shot) -> Shot:
    """Give the same request about a task that there is not."""
    target, body = shot.target, shot.body
    for task in _IDS:
        target = target.replace(task, MISSING)
        body = body and body.replace(task.encode(), MISSING.encode())
    return shot._replace(target=target, body=body)


def foreign(
    name: str, shot: Shooter, refused: Refusal, *, served: int = 200, text: str = "", **fields: Any
) -> Row:
    """Give a row whose control is the same request by alice, to whom what it names belongs."""
    return Row(name, shot, refused, Served(instead(shot, alice()), served, text), **fields)
