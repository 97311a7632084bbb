"""API keys: a file of their hashes, and whom each names.

Must not know how a request carries one.

    [[key]]
    id = "dashboard"
    sha256 = "…"                       # of the key; the key itself is stored nowhere
    principal = "dashboard"
    tenant = "acme"                    # bounds it; left out: not bound to one
    grants = ["acme/planner/*"]
    rights = ["publish"]
    issued = 2026-01-01T00:00:00Z      # a revocation of the principal before that leaves it alone
    expires = 2027-01-01T00:00:00Z     # left out: has no end
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from sidecast_broker.auth.watched_file import WatchedFile
from sidecast_broker.core.auth.claims import InvalidCredential, check_name, check_tenant
from sidecast_broker.core.auth.grants import InvalidGrant, parse_grant
from sidecast_broker.core.auth.principal import Principal, Right

KEY_CHARS_MAX = 512
KEY_PREFIX = "sidecast_"
"""What keys made here begin with, so that scanners of source code find those that leaked."""
KEY_SECRET_BYTES = 32


class KeyEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One key as the file says it; the names are those of the file."""

    id: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    principal: str
    tenant: str | None = None
    grants: list[str] = []
    rights: list[Right] = []
    issued: Annotated[datetime, Meta(tz=True)] | None = None
    expires: Annotated[datetime, Meta(tz=True)] | None = None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    key: list[KeyEntry] = []


def make_key() -> str:
    """Make a key nobody can guess: 256 random bits, so that its hash needs no salt and no stretching."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_SECRET_BYTES)


def hash_key(key: str) -> str:
    """Give what the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def parse_keys(content: bytes) -> dict[bytes, Principal]:
    """Read a file of keys.

    Args:
        content: TOML, of any content.

    Returns:
        Whom a key names, by its SHA-256.

    Raises:
        ValueError: it is no file of keys; the message names the entry that is wrong.
    """
    try:
        entries = msgspec.toml.decode(content, type=_File).key
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"not a file of API keys: {error}") from error
    found: dict[bytes, Principal] = {}
    ids: set[str] = set()
    for number, entry in enumerate(entries, 1):
        try:
            principal = _principal(entry)
        except (InvalidCredential, InvalidGrant) as error:
            raise ValueError(f"key {number}: {error}") from error
        digest = bytes.fromhex(entry.sha256)
        if entry.id in ids or digest in found:
            raise ValueError(f"key {number}: its id or its hash is also another key's")
        ids.add(entry.id)
        found[digest] = principal
    return found


def _principal(entry: KeyEntry) -> Principal:
    return Principal(
        check_name(entry.principal, "the principal"),
        "api_key",
        None if entry.tenant is None else check_tenant(entry.tenant),
        tuple(map(parse_grant, entry.grants)),
        frozenset(entry.rights),
        ends_at_s=None if entry.expires is None else entry.expires.timestamp(),
        credential_id=check_name(entry.id, "the id"),
        issued_at_s=None if entry.issued is None else entry.issued.timestamp(),
    )


class ApiKeys:
    """Knows the keys of a file, which is read again when it changes.

    Args:
        path: of the file.
        clock: the time, seconds since 1970.
        monotonic: seconds, monotonic.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = WatchedFile(path, parse_keys, clock=monotonic)
        self._clock = clock

    def start(self) -> None:
        """Read the file.

        Raises:
            UnusableFile: it can't be read, or is no file of keys.
        """
        self._file.open()

    def principal(self, key: str) -> Principal:
        """Give whom a key names.

        Args:
            key: what a client sent, of any length and content.

        Raises:
            InvalidCredential: it isn't one, or has expired.
        """
        if not 0 < len(key) <= KEY_CHARS_MAX:
            raise InvalidCredential("not an API key")
        # Looked up by its hash, of which a guess at a key's beginning tells nothing: how long this takes
        # says nothing of any key.
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
        principal = self._file.look().get(digest)
        if principal is None:
            raise InvalidCredential("not a known API key")
        if principal.ends_at_s is not None and self._clock() >= principal.ends_at_s:
            raise InvalidCredential("the API key has expired", expired=True)
        return principal
