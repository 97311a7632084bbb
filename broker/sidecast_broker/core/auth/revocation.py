"""What has been revoked: credentials, their holders, tasks; and whom that concerns.

Must not know where revocations are kept, nor what time it is: `now_s` comes in, seconds since 1970.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from sidecast_broker.core.auth.principal import Principal
from sidecast_schemas.subjects import TaskKey

Kind: TypeAlias = Literal["token_id", "principal", "task"]

FORGET_S = 60.0
"""How often is looked for what is too old."""

_Name: TypeAlias = tuple[Kind, str, str | None, str]


class Revocation(Struct, frozen=True, omit_defaults=True):
    """One credential, everything of one holder, or one task; as it is stored.

    Attributes:
        kind: what `value` is.
        value: the credential's id, the principal's name, or the task's id.
        at_s: when, seconds since 1970.
        tenant: of the holder, or of the task; None (never of a task): whatever it is.
        agent: of the task.
        reason: for people.
        by: whom the credential named that revoked.
    """

    kind: Kind
    value: str
    at_s: float
    tenant: str | None = None
    agent: str = ""
    reason: str = ""
    by: str = ""

    @property
    def name(self) -> _Name:
        """What it revokes: two with the same name are one."""
        return (self.kind, self.value, self.tenant, self.agent)

    @property
    def key(self) -> str:
        """The name as one token of a subject, which no two names share."""
        return blake2b(msgspec.json.encode(self.name), digest_size=20).hexdigest()


class Unreadable(ValueError):  # noqa: N818 - named as it reads
    """Bytes that are no revocation."""


_decode = msgspec.json.Decoder(Revocation).decode


def encode_revocation(revocation: Revocation) -> bytes:
    """Write a revocation, to be stored."""
    return msgspec.json.encode(revocation)


def decode_revocation(value: bytes) -> Revocation:
    """Read what was stored.

    Raises:
        Unreadable: it is no revocation.
    """
    try:
        return _decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from error


class Revoked:
    """Everything that is revoked.

    Args:
        age_s: after which a revocation is forgotten.

    Attributes:
        generation: another one whenever something more is revoked.
    """

    def __init__(self, age_s: float) -> None:
        self.generation = 0
        self._age_s = age_s
        self._at_s: dict[_Name, float] = {}
        self._names: dict[str, _Name] = {}
        self._forget_at_s = 0.0

    def __len__(self) -> int:
        return len(self._at_s)

    def add(self, revocation: Revocation) -> None:
        """Take a revocation; of several of the same name the newest counts."""
        name = revocation.name
        if revocation.at_s > self._at_s.get(name, -1.0):
            self._at_s[name] = revocation.at_s
            self._names[revocation.key] = name
            self.generation += 1

    def lift(self, key: str) -> None:
        """Drop the revocation of a key; unknown ones are fine."""
        name = self._names.pop(key, None)
        if name is not None:
            del self._at_s[name]

    def forget(self, now_s: float) -> None:
        """Drop what is too old; looks for it only once in a while."""
        if now_s < self._forget_at_s:
            return
        self._forget_at_s = now_s + FORGET_S
        old = [key for key, name in self._names.items() if self._at_s[name] + self._age_s <= now_s]
        for key in old:
            self.lift(key)

    def covers_credential(self, principal: Principal) -> bool:
        """Tell whether a credential is revoked, by itself or with all its holder has.

        A revocation within a tenant concerns credentials that are bound to it; what those without one reach
        there, `covers_task` tells.
        """
        if not self._at_s:
            return False
        tenants = (None,) if principal.tenant is None else (None, principal.tenant)
        return any(
            ("token_id", principal.credential_id, tenant, "") in self._at_s
            or self._concerns(principal, tenant)
            for tenant in tenants
        )

    def covers_task(self, principal: Principal, key: TaskKey) -> bool:
        """Tell whether a task is revoked, for everybody or for this principal within its tenant."""
        if not self._at_s:
            return False
        if ("task", key.task, key.tenant, key.agent) in self._at_s:
            return True
        if principal.tenant is not None or principal.anybody:
            return False
        by_id = ("token_id", principal.credential_id, key.tenant, "") in self._at_s
        return by_id or self._concerns(principal, key.tenant)

    def _concerns(self, principal: Principal, tenant: str | None) -> bool:
        """Tell whether the holder was revoked, and not before the credential was issued."""
        at_s = self._at_s.get(("principal", principal.name, tenant, ""))
        if at_s is None:
            return False
        # Of the same second is of before: issuers leave the fraction out.
        return principal.issued_at_s is None or principal.issued_at_s <= at_s
