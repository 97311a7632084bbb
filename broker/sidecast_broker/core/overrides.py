"""What a pod's annotations change about its own broker: agent name, tenant, where the agent is.

Must not know the rest of the pod, nor how the broker gets it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from sidecast_schemas.subjects import InvalidId, encode_token

PREFIX = "sidecast.dev/"
STATUS = f"{PREFIX}status"
"""Says in an injected pod that it is one."""
AGENT_NAME = f"{PREFIX}agent-name"
TENANT = f"{PREFIX}tenant"
AGENT_URL = f"{PREFIX}agent-url"
AGENT_PORT = f"{PREFIX}agent-port"

KNOWN = (AGENT_NAME, AGENT_PORT, AGENT_URL, TENANT)

_PORT = re.compile(r"[1-9][0-9]{0,4}")
_PORT_MAX = 65_535
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:]{2,45}\])"
_SEGMENT = r"/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]{1,128}"
_URL = re.compile(rf"https?://({_HOST})(?::([0-9]{{1,5}}))?(?:{_SEGMENT}){{0,16}}/?")
"""Narrower than the setting is: the broker must start with whatever passes here."""


class InvalidOverride(ValueError):  # noqa: N818 - named as the denial reads: the override is invalid
    """An annotation whose value can't be used. The message names it, and holds nothing of the value: an URL
    with a password would reach audit logs.
    """


class Overrides(NamedTuple):
    """What a pod's annotations ask for.

    Attributes:
        environment: variables of the broker that are set in this pod only.
        unknown: annotations with our prefix that mean nothing, in order.
    """

    environment: dict[str, str]
    unknown: tuple[str, ...]


def read_overrides(annotations: Mapping[str, object], ports: Collection[int]) -> Overrides:
    """Read the annotations of a pod that are about its broker.

    Args:
        annotations: all of the pod's.
        ports: what the broker itself listens on; containers of a pod share one address.

    Raises:
        InvalidOverride: one of ours has a value that can't be used.
    """
    environment: dict[str, str] = {}
    for key, variable in ((AGENT_NAME, "SIDECAST_AGENT_NAME"), (TENANT, "SIDECAST_AGENT_TENANT")):
        if key in annotations:
            environment[variable] = _name(key, annotations[key])
    if AGENT_PORT in annotations and AGENT_URL in annotations:
        raise InvalidOverride(f"{AGENT_PORT}: not together with {AGENT_URL}, which says the port, too")
    if AGENT_PORT in annotations:
        environment["SIDECAST_AGENT_URL"] = f"http://127.0.0.1:{_port(annotations[AGENT_PORT], ports)}"
    if AGENT_URL in annotations:
        environment["SIDECAST_AGENT_URL"] = _url(annotations[AGENT_URL], ports)
    ours = (key for key in annotations if key.startswith(PREFIX))
    return Overrides(environment, tuple(key for key in ours if key not in (*KNOWN, STATUS)))


def _name(key: str, value: object) -> str:
    """Give an id that is safe as a variable: Kubernetes expands `$(…)` there, also into secrets."""
    if not isinstance(value, str):
        raise InvalidOverride(f"{key}: must be text")
    try:
        encode_token(value)
    except InvalidId as error:
        raise InvalidOverride(f"{key}: {error}") from error
    if not value.isprintable() or "$" in value or value != value.strip():
        raise InvalidOverride(f"{key}: must be printable, without $ and without spaces at its ends")
    return value


def _port(value: object, ports: Collection[int]) -> int:
    if not isinstance(value, str) or not _PORT.fullmatch(value) or int(value) > _PORT_MAX:
        raise InvalidOverride(f"{AGENT_PORT}: must be a number from 1 to {_PORT_MAX}, as text")
    if int(value) in ports:
        raise InvalidOverride(f"{AGENT_PORT}: is a port of the broker, and both share the pod's address")
    return int(value)


def _url(value: object, ports: Collection[int]) -> str:
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    if match is None or (match[2] and not 0 < int(match[2]) <= _PORT_MAX):
        raise InvalidOverride(
            f"{AGENT_URL}: must be http:// or https:// with a host, and a path of plain segments at most; "
            "credentials, a query and a fragment can't be used"
        )
    if match[2] and int(match[2]) in ports and _is_own(match[1]):
        raise InvalidOverride(f"{AGENT_URL}: is the broker itself, which shares the pod's address")
    return match[0]


def _is_own(host: str) -> bool:
    return host.lower() in ("localhost", "[::1]") or host.startswith("127.")
