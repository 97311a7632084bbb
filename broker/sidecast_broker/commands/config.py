"""`sidecast config`: the settings in effect as a settings file.

Must not know what they are used for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import click

from sidecast_broker.commands.settings_options import settings_from, settings_options
from sidecast_broker.setting_urls import MASK, mask_url
from sidecast_broker.settings import SETTINGS, Agent, Setting, Settings

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_value(value: Any) -> str:
    """Write a setting's value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, except that TOML wants DEL escaped and knows no surrogates.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(int(value)) if value == int(value) else repr(value)


def masked(setting: Setting, value: Any) -> Any:
    """Give a value as it may be shown: a secret's is replaced, of a URL only the part before the host."""
    if not setting.masked or not value:
        return value
    return mask_url(value) if setting.masked == "url" else MASK


def describe(settings: Settings) -> Iterator[str]:
    """Write settings as the lines of a settings file, each with a comment that says where it comes from."""
    section = None
    for setting in SETTINGS:
        if setting.section != section:
            if section is not None:
                yield ""
            section = setting.section
            yield f"[{section}]"
        value = masked(setting, getattr(getattr(settings, setting.section), setting.key))
        source = settings.sources.get(setting.name, "default")
        yield f"{setting.key} = {toml_value(value)}  # {source}"
    for name, agent in settings.agents.items():
        yield ""
        yield f"[agents.{name if _BARE.fullmatch(name) else toml_value(name)}]"
        yield from _describe_agent(settings, name, agent)


def _describe_agent(settings: Settings, name: str, agent: Agent) -> Iterator[str]:
    for setting in SETTINGS:
        if setting.section != "agent" or setting.key == "name":
            continue
        value = getattr(agent, setting.key)
        inherited = "default" if value == setting.default else "agent"
        source = settings.sources.get(f"agents.{name}.{setting.key}", inherited)
        yield f"{setting.key} = {toml_value(masked(setting, value))}  # {source}"


@click.command("config")
@settings_options
def command(**options: Any) -> None:
    """Print the settings in effect, and where each comes from.

    The output is a settings file again. Secrets are masked.
    """
    click.echo("\n".join(describe(settings_from(options))))
