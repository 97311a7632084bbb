"""The names of states and roles: in v1.0, in v0.3's JSON-RPC form, and in its REST form, which is ProtoJSON.

Must not know where a name stands.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from msgspec import Raw

from sidecast_broker.core.a2a.translate.raw import NULL, Untranslatable, text_of
from sidecast_schemas.events import TASK_STATE_PATTERN, TERMINAL_STATES

UNSPECIFIED = Raw(b'"TASK_STATE_UNSPECIFIED"')
ROLE_UNSPECIFIED = Raw(b'"ROLE_UNSPECIFIED"')

# In the order of v0.3's proto, whose numbers ProtoJSON may write instead (digest 2.3).
_STATES = (
    ("TASK_STATE_UNSPECIFIED", "unknown", "TASK_STATE_UNSPECIFIED"),
    ("TASK_STATE_SUBMITTED", "submitted", "TASK_STATE_SUBMITTED"),
    ("TASK_STATE_WORKING", "working", "TASK_STATE_WORKING"),
    ("TASK_STATE_COMPLETED", "completed", "TASK_STATE_COMPLETED"),
    ("TASK_STATE_FAILED", "failed", "TASK_STATE_FAILED"),
    ("TASK_STATE_CANCELED", "canceled", "TASK_STATE_CANCELLED"),
    ("TASK_STATE_INPUT_REQUIRED", "input-required", "TASK_STATE_INPUT_REQUIRED"),
    ("TASK_STATE_REJECTED", "rejected", "TASK_STATE_REJECTED"),
    ("TASK_STATE_AUTH_REQUIRED", "auth-required", "TASK_STATE_AUTH_REQUIRED"),
)
_ROLES = (
    ("ROLE_UNSPECIFIED", "agent", "ROLE_UNSPECIFIED"),
    ("ROLE_USER", "user", "ROLE_USER"),
    ("ROLE_AGENT", "agent", "ROLE_AGENT"),
)


class StateName(NamedTuple):
    """A state in v0.3.

    Attributes:
        raw: its name.
        terminal: whether the task is over.
        known: v0.3 has it; False: `raw` says that it is unknown.
    """

    raw: Raw
    terminal: bool
    known: bool = True


def _quoted(name: str) -> bytes:
    return f'"{name}"'.encode()


def _states_to(column: int) -> dict[bytes, StateName]:
    return {
        _quoted(row[0]): StateName(Raw(_quoted(row[column])), row[0] in TERMINAL_STATES) for row in _STATES
    }


_STATES_TO_RPC = _states_to(1)
_STATES_TO_REST = _states_to(2)
_STATES_FROM_RPC = {_quoted(rpc): Raw(_quoted(v1)) for v1, rpc, _ in _STATES}
_STATES_FROM_REST = {_quoted(rest): Raw(_quoted(v1)) for v1, _, rest in _STATES} | {
    str(number).encode(): Raw(_quoted(row[0])) for number, row in enumerate(_STATES)
}
_ROLES_TO_RPC = {_quoted(v1): Raw(_quoted(rpc)) for v1, rpc, _ in _ROLES if v1 != "ROLE_UNSPECIFIED"}
_ROLES_TO_REST = {_quoted(v1): Raw(_quoted(rest)) for v1, _, rest in _ROLES}
_ROLES_FROM_RPC = {_quoted(rpc): Raw(_quoted(v1)) for v1, rpc, _ in _ROLES}
_ROLES_FROM_REST = {_quoted(rest): Raw(_quoted(v1)) for v1, _, rest in _ROLES} | {
    str(number).encode(): Raw(_quoted(row[0])) for number, row in enumerate(_ROLES)
}
_AGENT = {False: Raw(b'"agent"'), True: Raw(b'"ROLE_AGENT"')}
_UNKNOWN = {
    False: StateName(Raw(b'"unknown"'), False, False),
    True: StateName(Raw(b'"TASK_STATE_UNSPECIFIED"'), False, False),
}
_STATE = re.compile(TASK_STATE_PATTERN)


def state_to_v03(raw: Raw, *, rest: bool) -> StateName:
    """Give v0.3's name of a state; one of a later version than v1.0 is unknown there.

    Raises:
        Untranslatable: it is no name of a state.
    """
    table = _STATES_TO_REST if rest else _STATES_TO_RPC
    name = table.get(bytes(raw))
    if name is None:
        text = text_of(raw, "state")
        name = table.get(_quoted(text))
        if name is None:
            if not _STATE.fullmatch(text):
                raise Untranslatable(f"state: {text!r} is no task state")
            name = _UNKNOWN[rest]
    return name


def state_from_v03(raw: Raw, *, rest: bool) -> Raw:
    """Give v1.0's name of a state.

    Raises:
        Untranslatable: v0.3 has no such state.
    """
    table = _STATES_FROM_REST if rest else _STATES_FROM_RPC
    return table.get(bytes(raw)) or _with_escapes(table, raw, "state", "task state")


def _with_escapes(table: dict[bytes, Raw], raw: Raw, what: str, kind: str) -> Raw:
    """Look up a name that may be spelled with escapes."""
    text = text_of(raw, what)
    name = table.get(_quoted(text))
    if name is None:
        raise Untranslatable(f"{what}: {text!r} is no {kind} of v0.3")
    return name


def is_later_state(raw: Raw) -> bool:
    """Tell whether this names a state that v0.3 does not know."""
    if memoryview(raw)[0] != 0x22:
        return False
    text = text_of(raw, "state")
    return _STATE.fullmatch(text) is not None and _quoted(text) not in _STATES_TO_RPC


def role_to_v03(raw: Raw | None, *, rest: bool) -> tuple[Raw, bool]:
    """Give v0.3's name of a role, and whether v0.3 has it; where not, it is the agent's, as in the SDK.

    Raises:
        Untranslatable: it is no string.
    """
    if raw is None or raw == NULL:
        raw = ROLE_UNSPECIFIED
    table = _ROLES_TO_REST if rest else _ROLES_TO_RPC
    role = table.get(bytes(raw))
    if role is None:
        role = table.get(_quoted(text_of(raw, "role")))
    return (role, True) if role is not None else (_AGENT[rest], False)


def role_from_v03(raw: Raw, *, rest: bool) -> Raw:
    """Give v1.0's name of a role.

    Raises:
        Untranslatable: v0.3 has no such role.
    """
    table = _ROLES_FROM_REST if rest else _ROLES_FROM_RPC
    return table.get(bytes(raw)) or _with_escapes(table, raw, "role", "role")


def is_other_role(raw: Raw) -> bool:
    """Tell whether this names a role that v0.3 does not know."""
    return memoryview(raw)[0] == 0x22 and _quoted(text_of(raw, "role")) not in _ROLES_TO_RPC
