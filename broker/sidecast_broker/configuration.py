"""Builds the settings from a file, the environment and flags, once at start.

Must not know what any setting is used for, nor what must hold between settings.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sidecast_broker.agent_tables import SECTION, VARIABLE, Tables, from_variable, read_agents
from sidecast_broker.contradictions import contradictions
from sidecast_broker.setting_values import convert, unknown
from sidecast_broker.settings import ENV_PREFIX, SETTINGS, Settings, sections

ENV_OF_CLIENTS = frozenset({"SIDECAST_CONFIG", "SIDECAST_TOKEN"})
"""Environment variables of the command line that are no settings."""


class InvalidSettings(ValueError):  # noqa: N818 - named as the answer reads: the settings are invalid
    """Settings that can't be started with: every problem found, one per line, each naming its setting."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_ENV = {setting.env: setting for setting in SETTINGS}
_FILE_BY_ENV = {setting.env + "_FILE": setting for setting in SETTINGS if setting.masked}
_SECTIONS = tuple(section for section, _ in sections())

# Kubernetes tells every pod about the services of its namespace; one named sidecast, or sidecast-anything,
# does it in our prefix.
_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def load(
    file: bytes | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    *,
    read: Callable[[str], bytes] = lambda path: Path(path).read_bytes(),
) -> Settings:
    """Build the settings: flags go before the environment, that before the file, that before defaults.

    Args:
        file: the settings file, TOML with one table per section; None for none.
        environ: environment variables; those outside `SIDECAST_` are ignored. A secret can also be given as
            the path of a file that holds it, in the variable's name with `_FILE` at its end.
        flags: values by `section.key`; None is a flag that wasn't given. `auth.insecure` is also a false
            `auth.required`, where that is given nowhere: who types it means it.
        read: reads the file a `_FILE` variable names.

    Raises:
        InvalidSettings: a key that doesn't exist, a value of the wrong type or out of bounds, or settings
            that contradict each other; all of what was found.
    """
    problems: list[str] = []
    given: dict[str, tuple[Any, str, bool]] = {}
    for name, value in _from_file(file, problems):
        given[name] = (value, "file", True)
    for name, value, variable in _from_environ(environ, read, problems):
        given[name] = (value, f"env {variable}", False)
    tables = _agent_tables(file, environ, problems)
    for name, value in flags.items():
        if name not in _BY_NAME:
            problems.append(unknown(name, list(_BY_NAME)))
        elif value is not None:
            given[name] = (value, "flag", True)
    if flags.get("auth.insecure") and "auth.required" not in given:
        given["auth.required"] = ("false", "flag", True)

    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for name, (value, source, strict) in given.items():
        setting = _BY_NAME[name]
        try:
            values[setting.section][setting.key] = convert(setting, value, strict)
        except ValueError as error:
            problems.append(f"{name}: {error} (from {source})")
    if problems:
        raise InvalidSettings(problems)
    structs: dict[str, Any] = {section: struct(**values[section]) for section, struct in sections()}
    sources = {name: source for name, (_, source, _) in given.items()}
    agents, sources_of_agents = read_agents(tables, structs["agent"], values["agent"], problems)
    settings = Settings(**structs, agents=agents, sources=sources | sources_of_agents)
    problems += contradictions(settings)
    if problems:
        raise InvalidSettings(problems)
    return settings


def _agent_tables(file: bytes | None, environ: Mapping[str, str], problems: list[str]) -> Tables:
    """Give the tables of agents: of the environment all or none, as of any other setting."""
    if (text := environ.get(VARIABLE)) is not None:
        try:
            return from_variable(text)
        except ValueError as error:
            problems.append(f"{SECTION}: {error}")
            return Tables({}, "")
    try:
        return Tables(tomllib.loads((file or b"").decode()).get(SECTION, {}), "file")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return Tables({}, "")  # what is wrong with the file is said where its sections are read


def _from_file(file: bytes | None, problems: list[str]) -> Iterator[tuple[str, Any]]:
    if file is None:
        return
    try:
        tables = tomllib.loads(file.decode())
    except UnicodeDecodeError as error:
        problems.append(f"settings file: not valid UTF-8 at byte {error.start}")
        return
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problems.append(f"settings file: {error or 'nested too deeply'}")
        return
    for section, table in tables.items():
        if section == SECTION:
            continue
        if section not in _SECTIONS:
            problems.append(unknown(section, [*_SECTIONS, SECTION], "section"))
        elif not isinstance(table, dict):
            problems.append(f"{section}: is a section, written [{section}]")
        else:
            for key, value in table.items():
                name = f"{section}.{key}"
                if name in _BY_NAME:
                    yield name, value
                else:
                    problems.append(unknown(name, list(_BY_NAME)))


def _from_environ(
    environ: Mapping[str, str], read: Callable[[str], bytes], problems: list[str]
) -> Iterator[tuple[str, str, str]]:
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in ENV_OF_CLIENTS or variable == VARIABLE:
            continue
        if _is_service_link(variable, value):
            continue
        if setting := _BY_ENV.get(variable):
            yield setting.name, value, variable
        elif setting := _FILE_BY_ENV.get(variable):
            if setting.env in environ:
                problems.append(f"{setting.name}: both {setting.env} and {variable} are set")
                continue
            try:
                yield setting.name, read(value).decode().strip(), variable
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not a readable path of UTF-8 text"
                problems.append(f"{setting.name}: {variable} names {value!r}: {reason}")
        else:
            problems.append(unknown(variable, [*_BY_ENV, *_FILE_BY_ENV, VARIABLE]))


def _is_service_link(variable: str, value: str) -> bool:
    if variable not in _BY_ENV and _SERVICE_LINK.search(variable):
        return True
    # A service named sidecast-server takes the very name of server.port.
    return variable.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None
