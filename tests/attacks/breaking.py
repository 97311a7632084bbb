"""What is done to the parts of a request, and to its bytes, by a seeded hand.

Must not know how the broken request is answered.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Sequence

from attacks.asks import Ask, bearer
from attacks.forging import some_credential, ticket
from attacks.keyring import TOKENS
from attacks.words import HOSTS, LINES, METHODS, NAMES, SNIPPETS, WORDS
from fuzzed_requests import IN_TARGETS, break_bytes, break_json

# --- what can be done to each part


def break_method(ask: Ask, dice: random.Random) -> None:
    """Use another method."""
    ask.method = dice.choice(METHODS)


def break_path(ask: Ask, dice: random.Random) -> None:
    """Ask for another path."""
    segments = ask.path.split("/")
    at = dice.randint(0, len(ask.path))
    match dice.randrange(7):
        case 0:
            segments[dice.randrange(len(segments))] = dice.choice(WORDS)
            ask.path = "/".join(segments)
        case 1:
            ask.path = dice.choice(
                ["*", "", "http://evil.example/", "//evil.example/", "http:", "localhost:80", "/"]
            )
        case 2:
            ask.path = ask.path[:at] + "".join(f"%{each:02X}" for each in ask.path[at:].encode())
        case 3:
            segments.insert(dice.randint(1, len(segments)), dice.choice(["", "..", ".", "v1", "agents", "x"]))
            ask.path = "/".join(segments)
        case _:
            ask.path = ask.path[:at] + dice.choice([*IN_TARGETS, *WORDS]) + ask.path[at:]


def break_query(ask: Ask, dice: random.Random) -> None:
    """Ask for it in another way."""
    name = dice.choice(NAMES)
    match dice.randrange(5):
        case 0 if ask.query:
            ask.query.append(dice.choice(ask.query))
        case 1 if ask.query:
            at = dice.randrange(len(ask.query))
            ask.query[at] = ask.query[at].partition("=")[0] + "=" + dice.choice(WORDS)
        case 2:
            ask.query += [f"{name}={dice.choice(WORDS)}"] * dice.choice([1, 2, 400])
        case _:
            ask.query.append(f"{name}={dice.choice(WORDS)}")


def break_headers(ask: Ask, dice: random.Random) -> None:
    """Send other lines along."""
    match dice.randrange(6):
        case 0 if ask.lines:
            at = dice.randrange(len(ask.lines))
            ask.lines[at] = ask.lines[at].partition(":")[0] + ": " + dice.choice(WORDS)
        case 1 if ask.lines:
            ask.lines.append(dice.choice(ask.lines))
        case 2:
            ask.lines += [dice.choice(LINES)] * dice.choice([2, 150])
        case 3:
            ask.host = dice.choice(HOSTS)
        case _:
            ask.lines += dice.sample(LINES, dice.choice([1, 1, 2]))


def break_token(ask: Ask, dice: random.Random) -> None:
    """Send another token or key."""
    text = some_credential(dice)
    line = dice.choice(
        ["Authorization: Bearer {}", "X-API-Key: {}", "Authorization: Basic {}", "authorization:bearer {}"]
    )
    ask.credential = [line.replace("{}", text), *dice.choice([[], [], [], bearer(TOKENS["bob"])])]


def break_ticket(ask: Ask, dice: random.Random) -> None:
    """Send another ticket in the query."""
    if dice.random() < 0.7:
        ask.credential = []
    ask.query = [pair for pair in ask.query if not pair.startswith("ticket=")]
    ask.query += [f"ticket={ticket(dice) if dice.random() < 0.5 else some_credential(dice)}"] * dice.choice(
        [1, 1, 1, 2]
    )


def break_cookie(ask: Ask, dice: random.Random) -> None:
    """Send another ticket in a cookie, or cookies that are none."""
    if dice.random() < 0.7:
        ask.credential = []
    text = ticket(dice) if dice.random() < 0.5 else some_credential(dice)
    ask.credential.append(
        dice.choice(
            ["Cookie: sidecast_ticket={}", "Cookie: a; =; sidecast_ticket={} ; b={}", "Cookie: {}"]
        ).replace("{}", text)
    )


def break_cursor(ask: Ask, dice: random.Random) -> None:
    """Ask to go on from where nothing ever was."""
    epoch = dice.choice(["epoch1", "", "-", "epoch1-", "e" * 65, dice.choice(WORDS)])
    sequence = dice.choice(
        ["0", "1", "3", "-1", "01", "9" * 19, "9223372036854775808", "1e1", "\u0661", "0x1", ""]
    )
    cursor = f"{epoch}-{sequence}" if dice.random() < 0.8 else dice.choice(WORDS)
    if dice.random() < 0.6:
        ask.cursor = [f"Last-Event-ID: {cursor}"] * dice.choice([1, 1, 1, 2])
    else:
        ask.query.append(f"last_event_id={cursor}")


def break_body(ask: Ask, dice: random.Random) -> None:
    """Send another body."""
    body = ask.body or b'{"id":"task-1","tasks":["a"]}'
    match dice.randrange(12):
        case 0:
            ask.body = b""
        case 1:
            packed = gzip.compress(body, mtime=0)
            ask.body = dice.choice([packed, packed[:-3], packed + b"x", body])
            ask.lines.append(f"Content-Encoding: {dice.choice(['gzip', 'deflate'])}")
        case 2:
            ask.body = dice.choice(
                [b"[" * 20_000, b"x" * 70_000, gzip.compress(bytes(10**6), mtime=0), b"\xff\xfe{\x00}"]
            )
        case 3 | 4 | 5:
            ask.body = break_bytes(body, dice)
        case _ if b"\n" not in body:
            ask.body = break_json(body, dice)
        case _:
            ask.body = break_bytes(body, dice)
    ask.chunked = dice.random() < 0.15


PARTS: dict[str, Callable[[Ask, random.Random], None]] = {
    "method": break_method,
    "path": break_path,
    "query": break_query,
    "headers": break_headers,
    "token": break_token,
    "ticket": break_ticket,
    "cookie": break_cookie,
    "cursor": break_cursor,
    "body": break_body,
}
FRAMING = frozenset({"method", "headers"})
"""Parts that, broken, may have two programs disagree on where a request ends."""

# --- what can be done to bytes


def break_raw(raw: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """Do something to the bytes of a request, whatever they mean."""
    for _ in range(dice.choice([1, 1, 2, 4])):
        at = dice.randint(0, len(raw))
        match dice.randrange(8):
            case 0:
                raw = raw[:at]
            case 1:
                raw = raw[:at] + dice.choice(SNIPPETS) + raw[at:]
            case 2:
                other = dice.choice(others)
                raw = raw[:at] + other[dice.randint(0, len(other)) :]
            case 3:
                lines = raw.split(b"\r\n")
                first, second = dice.randrange(len(lines)), dice.randrange(len(lines))
                lines[first], lines[second] = lines[second], lines[first]
                raw = b"\r\n".join(lines)
            case 4:
                raw += dice.choice(others)
            case _:
                raw = break_bytes(raw, dice)
    return raw[:200_000]
