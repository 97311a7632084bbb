"""Tickets that were changed, made by somebody else, are over, or are for something else.

Must not know how they are checked.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from access_rig import ALICES, BOBS, MISSING, OPEN
from attacks.scene import TICKET_SECRET, Scene, Shot, bearer
from attacks.table import (
    EVENTS,
    INVALID,
    JSON,
    SHOWN,
    TWO,
    UNKNOWN,
    VERSION,
    Group,
    Refusal,
    Row,
    Served,
    Shooter,
)

from sidecast_broker.auth.derived import derived_keys
from sidecast_broker.auth.tickets import PURPOSE
from sidecast_broker.core.auth.principal import Principal
from sidecast_broker.core.auth.tickets import make_ticket
from sidecast_schemas.subjects import TaskKey

ONLY_STREAMS = Refusal(403, "a ticket only opens streams")
MAC_BYTES = 32


def carried(change: Callable[[str], str] = str, target: str = EVENTS) -> Shooter:
    """Give a request that carries alice's ticket, changed."""
    return lambda it: Shot("GET", f"{target}?ticket={change(it.ticket)}", (JSON,))


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _places(raw: bytes) -> dict[str, int]:
    """Give a byte of each part of a ticket: version, each field of its body, and the HMAC."""
    expiry = raw.index(ALICES.encode()) + len(ALICES)
    end, credential = expiry + 9, expiry + 18
    assert raw[expiry] == raw[end] == 0xCB, "two numbers of eight bytes"
    assert raw[credential] == 0xD9, "a text whose length stands in a byte"
    body_end = len(raw) - MAC_BYTES
    return {
        "version": 0,
        "number of fields": 1,
        "principal": raw.index(b"alice"),
        "tenant": raw.index(b"alice") + 5,
        "agent": raw.index(b"agent"),
        "task": raw.index(ALICES.encode()),
        "length of the task": raw.index(ALICES.encode()) - 1,
        "expiry": expiry + 3,
        "kind of the expiry": expiry,
        "end of the credential": end + 3,
        "id of the credential": credential + 2,
        "issue of the credential": body_end - 1,
        "first of the HMAC": body_end,
        "middle of the HMAC": body_end + 16,
        "last of the HMAC": len(raw) - 1,
    }


PARTS = (
    *("version", "number of fields", "principal", "tenant", "agent", "task", "length of the task"),
    *("expiry", "kind of the expiry", "end of the credential", "id of the credential"),
    *("issue of the credential", "first of the HMAC", "middle of the HMAC", "last of the HMAC"),
)


def _changed(part: str, bit: int) -> Callable[[str], str]:
    def change(text: str) -> str:
        raw = bytearray(_decoded(text))
        raw[_places(bytes(raw))[part]] ^= bit
        return _encoded(bytes(raw))

    return change


def _made(
    expires_in_s: float = 60, *, ends_in_s: float = 60, secret: str = TICKET_SECRET, purpose: str = PURPOSE
) -> str:
    now_s = time.time()
    alice = Principal("alice", "jwt", ends_at_s=now_s + ends_in_s, credential_id="made")
    return made_for(ALICES, of=alice, expires_in_s=expires_in_s, key=derived_keys(purpose, secret, "")[0])


def made_for(
    task: str, *, of: Principal | None = None, expires_in_s: float = 60, key: bytes | None = None
) -> str:
    """Give a ticket for one task, of alice's unless somebody else is named, as the broker makes them."""
    now_s = time.time()
    principal = of or Principal("alice", "jwt", ends_at_s=now_s + 60)
    key = key or derived_keys(PURPOSE, TICKET_SECRET, "")[0]
    return make_ticket(principal, [TaskKey("", "agent", task)], now_s + expires_in_s, key)


def _last_bits(text: str) -> str:
    """Change bits of the last character that no byte holds: another spelling of the same bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    return other if len(text) % 4 else text + "="


def tickets() -> Group:
    """Give such tickets."""
    spelled: dict[str, Callable[[str], str]] = {
        "cut off": lambda text: text[:-1],
        "without its HMAC": lambda text: _encoded(_decoded(text)[:-MAC_BYTES]),
        "with a byte more": lambda text: _encoded(_decoded(text) + b"\0"),
        "padded": lambda text: text + "=",
        "spelled with bits that nothing holds": _last_bits,
        "percent-encoded": lambda text: f"%{ord(text[0]):02x}{text[1:]}",
        "with a space before": lambda text: "%20" + text,
        "with NUL behind": lambda text: text + "%00",
        "empty": lambda _text: "",
    }
    made = {
        "past its time": _made(-5),
        "past the end of its credential": _made(60, ends_in_s=-5),
        "made with another secret": _made(secret=TICKET_SECRET[::-1]),
        "made with the secret of page tokens": _made(purpose="sidecast page tokens"),
    }
    rows = [
        *(
            Row(f"{part}, bit {bit}", carried(_changed(part, bit)), INVALID)
            for part in PARTS
            for bit in (0x01, 0x80)
        ),
        *(Row(name, carried(change), INVALID) for name, change in spelled.items()),
        *(
            Row(name, carried(lambda _text, text=text: text), INVALID, Served(carried(lambda _t: _made())))
            for name, text in made.items()
        ),
        Row("past its time, in a cookie", lambda _it: Shot("GET", EVENTS, _cookie(_made(-5))), INVALID),
        Row("twice", carried(lambda text: f"{text}&ticket={text}"), TWO),
        Row("as a bearer", lambda it: Shot("GET", EVENTS, (JSON, bearer(it.ticket))), INVALID),
        Row("as a key", lambda it: Shot("GET", EVENTS, (JSON, f"X-API-Key: {it.ticket}")), INVALID),
        *_elsewhere(),
    ]
    return Group(rows, Served(carried(), text=SHOWN))


def _cookie(text: str) -> tuple[str, ...]:
    return (JSON, f"Cookie: sidecast_ticket={text}")


def _elsewhere() -> list[Row]:
    """Give a ticket that is good, for what it isn't for."""

    def used(method: str, target: str, body: bytes | None = None, **where: bool) -> Shooter:
        def give(it: Scene) -> Shot:
            mark = "&" if "?" in target else "?"
            return Shot(method, f"{target}{mark}ticket={it.ticket}", (VERSION,), body, **where)

        return give

    named = b'{"tasks":["%b"]}' % ALICES.encode()
    get_task = b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"%b"}}' % ALICES.encode()
    return [
        Row("for another task", carried(target=f"/tasks/{BOBS}/events"), UNKNOWN),
        Row("for another of one's own", carried(target=f"/tasks/{OPEN}/events"), UNKNOWN),
        Row("for one there is not", carried(target="/tasks/*/events"), UNKNOWN, twin=_missing()),
        Row("to make another", used("POST", "/tickets", named), ONLY_STREAMS),
        Row("to ask the agent", used("GET", f"/tasks/{ALICES}"), Refusal(403)),
        Row("to ask by JSON-RPC", used("POST", "/", get_task), Refusal(403)),
        Row("to cancel", used("POST", f"/tasks/{ALICES}:cancel", b"{}"), Refusal(403)),
        Row("to subscribe by POST", used("POST", f"/tasks/{ALICES}:subscribe", b"{}"), Refusal(403)),
        Row("to list streams", used("GET", "/streams", internal=True), Refusal(403)),
        Row("to drain", used("POST", "/drain", b"{}", internal=True), Refusal(403)),
        Row("to publish", used("POST", f"/publish/{ALICES}", b"{}", internal=True), Refusal(403)),
    ]


def _missing() -> Shooter:
    return carried(target=f"/tasks/{MISSING}/events")
