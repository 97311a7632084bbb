"""Who asks: what a credential says of its holder, whatever kind of credential it was.

Must not know credentials, requests or clocks.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from sidecast_schemas.subjects import TaskKey

Right: TypeAlias = Literal["publish", "admin"]
RIGHTS: tuple[Right, ...] = ("publish", "admin")

Scheme: TypeAlias = Literal["none", "jwt", "api_key", "ticket", "mtls"]


class Grant(Struct, frozen=True):
    """Tasks that somebody may watch without owning them.

    Attributes:
        tenant: of the tasks; empty is the tenant without a name, None any.
        agent: of the tasks; None is any.
        task: an id, or what it begins with where `is_prefix`; None is any.
        is_prefix: whether `task` is only the beginning of the id.
    """

    tenant: str | None
    agent: str | None
    task: str | None
    is_prefix: bool = False

    def covers(self, key: TaskKey) -> bool:
        """Tell whether a task is one of those."""
        if self.tenant not in (None, key.tenant) or self.agent not in (None, key.agent):
            return False
        if self.task is None:
            return True
        return key.task.startswith(self.task) if self.is_prefix else key.task == self.task


class Principal(Struct, frozen=True):
    """Somebody who asks.

    Attributes:
        name: who; the owner of the tasks that are begun for them. Empty only where no credential is needed.
        scheme: the kind of credential; `none` where none is needed, and everything is allowed.
        tenant: bounds everything they do; None: the credential names none.
        grants: tasks they may watch beside their own.
        rights: what they may do beyond watching and sending.
        tasks: the only tasks they may watch, as a ticket names them; None: the credential doesn't narrow it.
        ends_at_s: when the credential ends, seconds since 1970; None: it has no end.
        credential_id: names the credential for revocation (`jti`, or what stands for it), never its secret.
        issued_at_s: when the credential was issued, seconds since 1970; None: it doesn't say.
    """

    name: str
    scheme: Scheme
    tenant: str | None = None
    grants: tuple[Grant, ...] = ()
    rights: frozenset[Right] = frozenset()
    tasks: frozenset[TaskKey] | None = None
    ends_at_s: float | None = None
    credential_id: str = ""
    issued_at_s: float | None = None

    @property
    def anybody(self) -> bool:
        """Whether no credential is needed, so that everything is allowed."""
        return self.scheme == "none"


ANYBODY = Principal("", "none", rights=frozenset(RIGHTS))
"""Who asks where no credential is needed."""
