"""The agents beside the one of `agent.name`: what `[agents.NAME]` or `SIDECAST_AGENTS` says of each.

Must not know the other settings, nor what an agent is used for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sidecast_broker.core.strict_json import read_strictly
from sidecast_broker.setting_values import convert, unknown
from sidecast_broker.settings import SETTINGS, Agent, Setting
from sidecast_schemas.subjects import InvalidId, encode_token

SECTION = "agents"
VARIABLE = "SIDECAST_AGENTS"
AGENTS_MAX = 256
"""Each has a few objects of its own, and the HTTP connections to it."""

_OF_AGENT: dict[str, Setting] = {
    setting.key: setting for setting in SETTINGS if setting.section == "agent" and setting.key != "name"
}
_ITS_OWN = ("url",)
"""What no agent has from `[agent]`: messages for one must not reach another."""
_NEED_URL = ("capture", "passthrough")
"""What an agent without a URL can't have."""


class Tables(NamedTuple):
    """What is given of the agents, and where.

    Attributes:
        given: should be tables by name.
        source: as `sidecast config` shows it.
    """

    given: Any
    source: str


def from_variable(text: str) -> Tables:
    """Read the JSON of `SIDECAST_AGENTS`: an object of the same tables.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return Tables(read_strictly(text.encode()), f"env {VARIABLE}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{VARIABLE} is no JSON: {error or 'nested too deeply'}") from error


def read_agents(
    tables: Tables, default: Agent, inherited: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, Agent], dict[str, str]]:
    """Give the agents by name, and where each of their settings came from.

    Args:
        tables: what is given.
        default: the agent of `[agent]`.
        inherited: what `[agent]` says, by key; an agent has it where it says nothing else, but for the URL,
            and without one of its own also but for what needs one.
        problems: where to say what is wrong.
    """
    agents: dict[str, Agent] = {}
    sources: dict[str, str] = {}
    if not isinstance(tables.given, dict):
        problems.append(f"{SECTION}: holds tables, written [{SECTION}.NAME]")
        return agents, sources
    if len(tables.given) > AGENTS_MAX:
        problems.append(f"{SECTION}: at most {AGENTS_MAX} are served beside agent.name")
        return agents, sources
    for name, table in tables.given.items():
        problem = _bad_name(name, default.name)
        if problem is None and not isinstance(table, dict):
            problem = f"is a table, written [{SECTION}.NAME]"
        if problem is not None:
            problems.append(f"{SECTION}.{name}: {problem}")
            continue
        values = dict(_values(name, table, tables.source, problems))
        kept = {
            key: value
            for key, value in inherited.items()
            if key in _OF_AGENT and key not in _ITS_OWN and (values.get("url") or key not in _NEED_URL)
        }
        agents[name] = Agent(**(kept | values | {"name": name}))
        sources |= {f"{SECTION}.{name}.{key}": tables.source for key in values}
    return agents, sources


def _bad_name(name: str, default: str) -> str | None:
    if name == default:
        return "is agent.name, which [agent] describes"
    if name in (".", ".."):
        return "can't be a segment of a path"
    if not name.isprintable():
        return "must not hold control characters"
    try:
        encode_token(name)
    except InvalidId as error:
        return str(error)
    return None


def _values(name: str, table: dict[str, Any], source: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        full = f"{SECTION}.{name}.{key}"
        setting = _OF_AGENT.get(key)
        if setting is None:
            problems.append(unknown(full, [f"{SECTION}.{name}.{known}" for known in _OF_AGENT]))
            continue
        try:
            yield key, convert(setting, value, strict=True)
        except ValueError as error:
            problems.append(f"{full}: {error} (from {source})")
