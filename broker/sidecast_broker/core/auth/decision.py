"""What a credential alone decides: which tenant it reaches, and whether its holder may watch a task.

Must not know where credentials come from, nor anything about the task but its name.
"""

from __future__ import annotations

from sidecast_broker.core.auth.principal import Principal
from sidecast_schemas.subjects import TaskKey


def tenant_within(principal: Principal, named: str, default: str) -> str | None:
    """Give the tenant a request is about; None: one that the credential doesn't reach.

    Args:
        principal: who asks.
        named: by the request; empty: it names none.
        default: where neither names one.

    Source: contract, section 5: the claim, else the path's, else `_`; the claim bounds everything.
    """
    if principal.tenant is None:
        return named or default
    return principal.tenant if named in ("", principal.tenant) else None


def in_any_tenant(principal: Principal, key: TaskKey) -> bool:
    """Tell whether somebody may watch a task whatever tenant it is of.

    An agent knows tasks by their ids alone. Who is bound to a tenant must not reach another one's task by
    naming it as one of theirs, so for them a task has to be in the log under its tenant.
    """
    if principal.anybody:
        return True
    if principal.tenant is not None or principal.tasks is not None:
        return False
    return any(grant.tenant is None and grant.covers(key) for grant in principal.grants)


def decide(principal: Principal, key: TaskKey) -> bool | None:
    """Tell whether somebody may watch a task, as far as their credential says.

    A ticket holds tasks that were checked when it was made, so within its life it needs no other look.

    Returns:
        None where that depends on whose task it is.

    Source: contract, section 5, step 1.
    """
    if principal.anybody:
        return True
    if principal.tenant is not None and principal.tenant != key.tenant:
        return False
    if principal.tasks is not None:
        return key in principal.tasks
    return True if any(grant.covers(key) for grant in principal.grants) else None
