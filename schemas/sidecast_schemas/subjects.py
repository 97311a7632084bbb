"""NATS subjects of tasks, and the encoding that makes any id one safe subject token.

Must not know what travels on a subject.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

EVENTS_PREFIX = "sidecast.v1.events"
LIVE_PREFIX = "sidecast.v1.live"
CAPTORS_PREFIX = "sidecast.v1.captors"
SUBSCRIPTIONS_PREFIX = "sidecast.v1.subscriptions"

ID_BYTES_MAX = 256
"""Longest id in UTF-8 bytes: four encoded ids and a prefix stay far below the server's 4 KiB control line."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_EMPTY = "_"
_ENCODED = "="


class InvalidId(ValueError):  # noqa: N818 - named as the answer reads: the id is invalid
    """An id that can't become a subject token: empty, longer than 256 bytes, or not valid Unicode."""


class TaskKey(NamedTuple):
    """What names one task: all three are the plain ids, not their tokens."""

    tenant: str
    agent: str
    task: str


def encode_token(value: str) -> str:
    """Encode an id as one NATS subject token; different ids give different tokens.

    An id of letters, digits, `_` and `-` (at most 128, and not `_` alone) stands as it is; anything else
    becomes `=` and the unpadded base64url of its UTF-8. So no id can widen a subscription (`*`, `>`), add a
    level (`.`) or end a protocol line.

    Args:
        value: the id, not empty.

    Raises:
        InvalidId: the id is empty, longer than 256 bytes of UTF-8, or holds a lone surrogate.
    """
    if _PLAIN.fullmatch(value) and value != _EMPTY:
        return value
    try:
        raw = value.encode()
    except UnicodeEncodeError as error:
        raise InvalidId("an id must be valid Unicode") from error
    if not raw:
        raise InvalidId("an id must not be empty")
    if len(raw) > ID_BYTES_MAX:
        raise InvalidId(f"an id is {len(raw)} bytes long, at most {ID_BYTES_MAX} are allowed")
    return _ENCODED + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode_token(token: str) -> str:
    """Decode what `encode_token` made.

    Raises:
        InvalidId: the token is not one that `encode_token` makes (each id has exactly one token).
    """
    if not token.startswith(_ENCODED):
        if _PLAIN.fullmatch(token) and token != _EMPTY:
            return token
        raise InvalidId("not the token of an id")
    try:
        body = token[1:]
        value = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidId("not the token of an id") from error
    if encode_token(value) != token:
        raise InvalidId("not the token of an id")
    return value


def _encode_tenant(tenant: str) -> str:
    return encode_token(tenant) if tenant else _EMPTY


def _join(prefix: str, key: TaskKey) -> str:
    return f"{prefix}.{agent_tokens(key.tenant, key.agent)}.{encode_token(key.task)}"


def events_subject(key: TaskKey) -> str:
    """Give the subject a task's events are published and stored on; an empty tenant is `_`.

    Raises:
        InvalidId: one of the ids can't be a token.
    """
    return _join(EVENTS_PREFIX, key)


def live_subject(key: TaskKey) -> str:
    """Give the subject the server republishes a task's stored events on.

    Raises:
        InvalidId: one of the ids can't be a token.
    """
    return _join(LIVE_PREFIX, key)


def captor_subject(key: TaskKey) -> str:
    """Give the subject that the broker which captures a task attends, for others to ask; nothing stores it.

    Raises:
        InvalidId: one of the ids can't be a token.
    """
    return _join(CAPTORS_PREFIX, key)


def agent_tokens(tenant: str, agent: str) -> str:
    """Give the tokens of a tenant and an agent, as they stand in all subjects of the agent's tasks.

    Raises:
        InvalidId: one of the names can't be a token.
    """
    return f"{_encode_tenant(tenant)}.{encode_token(agent)}"


def parse_subject(subject: str) -> TaskKey:
    """Give the task of an events or live subject.

    Raises:
        InvalidId: it is not the subject of a task.
    """
    for prefix in (EVENTS_PREFIX, LIVE_PREFIX):
        if subject.startswith(prefix + "."):
            tokens = subject[len(prefix) + 1 :].split(".")
            if len(tokens) == 3:
                tenant = "" if tokens[0] == _EMPTY else decode_token(tokens[0])
                return TaskKey(tenant, decode_token(tokens[1]), decode_token(tokens[2]))
    raise InvalidId(f"not the subject of a task: {subject!r}")
