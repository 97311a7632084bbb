"""What a ticket is: who may open the streams of which tasks until when, sealed into a text for a URL.

Must not know where keys come from, nor what time it is: `now_s` comes in, seconds since 1970.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from sidecast_broker.core.auth.claims import InvalidCredential
from sidecast_broker.core.auth.principal import Principal
from sidecast_schemas.subjects import TaskKey

TASKS_MAX = 100
CHARACTERS_MAX = 6144
"""What a request line of 8 KiB has room for beside a task's path and the rest of the query."""
KEY_BYTES_MIN = 32
"""RFC 2104, section 3: a key no shorter than the hash."""

_VERSION = b"\x01"
_MAC_BYTES = 32


class TicketTooLong(ValueError):  # noqa: N818 - named as the answer reads: the ticket is too long
    """A ticket that wouldn't fit into a request."""


class _Body(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A ticket as it is written; ids of tasks stand by tenant and agent, which nearly always are the same."""

    principal: str
    tenant: str | None
    tasks: tuple[tuple[str, str, tuple[str, ...]], ...]
    expires_at_s: float
    ends_at_s: float | None
    credential_id: str
    issued_at_s: float | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


def make_ticket(principal: Principal, tasks: Iterable[TaskKey], expires_at_s: float, key: bytes) -> str:
    """Write a ticket.

    Args:
        principal: whose credential it is made with; its grants and rights are not in the ticket.
        tasks: those it is for, which the principal may watch.
        expires_at_s: until when it opens streams.
        key: at least `KEY_BYTES_MIN`.

    Returns:
        base64url without padding: version byte, body, HMAC-SHA256 of both.

    Raises:
        TicketTooLong: it has more than `CHARACTERS_MAX`.
    """
    by_agent: dict[tuple[str, str], list[str]] = {}
    for task in dict.fromkeys(tasks):
        by_agent.setdefault((task.tenant, task.agent), []).append(task.task)
    body = _Body(
        principal.name,
        principal.tenant,
        tuple((tenant, agent, tuple(ids)) for (tenant, agent), ids in by_agent.items()),
        expires_at_s,
        principal.ends_at_s,
        principal.credential_id,
        principal.issued_at_s,
    )
    signed = _VERSION + _encode(body)
    text = base64.urlsafe_b64encode(signed + _mac(signed, key)).rstrip(b"=").decode()
    if len(text) > CHARACTERS_MAX:
        raise TicketTooLong(f"a ticket for them has {len(text)} characters; {CHARACTERS_MAX} are the most")
    return text


def read_ticket(text: str, keys: Sequence[bytes], now_s: float) -> Principal:
    """Give whom a ticket names.

    Nothing of it is decoded before its HMAC holds under one of the keys, which are all tried whatever they
    say: how long it takes tells nothing about them.

    Args:
        text: of any content.
        keys: those that tickets may be made with.
        now_s: the time.

    Returns:
        The principal with the ticket's tasks, without grants and rights; ending when the credential does.

    Raises:
        InvalidCredential: it is no ticket, was made with another key or by somebody else, or has expired.
    """
    raw = _raw(text)
    signed, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    holds = [hmac.compare_digest(mac, _mac(signed, key)) for key in keys]
    if not any(holds) or signed[:1] != _VERSION:
        raise InvalidCredential("not a ticket made here")
    try:
        body = _decode(signed[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidCredential("not a ticket of this version") from error
    # Where no credential is needed, tickets name nobody: they must not open anything where one is.
    if not body.principal:
        raise InvalidCredential("the ticket names nobody")
    if now_s >= body.expires_at_s or (body.ends_at_s is not None and now_s >= body.ends_at_s):
        raise InvalidCredential("the ticket has expired", expired=True)
    return Principal(
        body.principal,
        "ticket",
        body.tenant,
        tasks=frozenset(TaskKey(tenant, agent, each) for tenant, agent, ids in body.tasks for each in ids),
        ends_at_s=body.ends_at_s,
        credential_id=body.credential_id,
        issued_at_s=body.issued_at_s,
    )


def _raw(text: str) -> bytes:
    if len(text) > CHARACTERS_MAX:
        raise InvalidCredential("too long for a ticket")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidCredential("not base64url") from error
    # One ticket has one spelling: the last character's spare bits are not free.
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise InvalidCredential("not base64url")
    return raw


def _mac(signed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, signed, "sha256")
