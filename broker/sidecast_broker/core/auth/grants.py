"""Grants as text: `tenant/agent/task`, each a `*`, an id, or for the task the beginning of one.

Must not know who holds a grant, nor where its text stood.

| text | tasks |
|---|---|
| `acme/planner/task-1` | that one |
| `acme/planner/report-*` | those of that agent whose id begins with `report-` |
| `acme/*/*` | all of one tenant |
| `_/planner/*` | all of one agent, in the tenant without a name |

A `/`, `*` or `%` of an id is percent-encoded, as is the `_` of a tenant that is really called so.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from sidecast_broker.core.auth.principal import Grant
from sidecast_schemas.subjects import ID_BYTES_MAX, InvalidId, encode_token

GRANT_CHARS_MAX = 3 * (3 * ID_BYTES_MAX) + 3
"""Longest text: three ids of which every byte is percent-encoded, two slashes and a star."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NAMELESS = "_"
_ANY = "*"


class InvalidGrant(ValueError):  # noqa: N818 - named as the message reads: the grant is invalid
    """Text that is no grant."""


def parse_grant(text: str) -> Grant:
    """Read a grant.

    Args:
        text: `tenant/agent/task`, of any length and content.

    Raises:
        InvalidGrant: it is anything else.
    """
    if len(text) > GRANT_CHARS_MAX:
        raise InvalidGrant(f"a grant is at most {GRANT_CHARS_MAX} characters long")
    segments = text.split("/")
    if len(segments) != 3:
        raise InvalidGrant("a grant is tenant/agent/task; a slash within one of these is written %2F")
    tenant, agent, task = segments
    is_prefix = task != _ANY and task.endswith(_ANY)
    return Grant(
        "" if tenant == _NAMELESS else _any_or_literal(tenant, "tenant"),
        _any_or_literal(agent, "agent"),
        _literal(task.removesuffix(_ANY), "task") if is_prefix else _any_or_literal(task, "task"),
        is_prefix,
    )


def _any_or_literal(segment: str, name: str) -> str | None:
    return None if segment == _ANY else _literal(segment, name)


def _literal(segment: str, name: str) -> str:
    if _ANY in segment:
        where = "only at its end" if name == "task" else "only alone"
        raise InvalidGrant(f"the {name} of a grant: a star can stand {where}; one of an id is written %2A")
    if _BAD_ESCAPE.search(segment):
        raise InvalidGrant(f"the {name} of a grant: a percent sign starts no escape; one is written %25")
    try:
        value = unquote_to_bytes(segment).decode()
        encode_token(value)
    except UnicodeError as error:
        raise InvalidGrant(f"the {name} of a grant is not valid UTF-8") from error
    except InvalidId as error:
        raise InvalidGrant(f"the {name} of a grant: {error}") from error
    return value


def format_grant(grant: Grant) -> str:
    """Write a grant so that `parse_grant` gives it again."""
    tenant = _NAMELESS if grant.tenant == "" else _segment(grant.tenant)
    if grant.tenant == _NAMELESS:
        tenant = "%5F"
    return f"{tenant}/{_segment(grant.agent)}/{_segment(grant.task)}{_ANY if grant.is_prefix else ''}"


def _segment(value: str | None) -> str:
    return _ANY if value is None else quote(value, safe="")
