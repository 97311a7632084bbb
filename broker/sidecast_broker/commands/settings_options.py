"""Options of the commands that read settings, and settings from them.

Must not know what a command does with its settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from sidecast_broker.configuration import InvalidSettings, load
from sidecast_broker.settings import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])

# Option name → setting. An option that isn't given leaves the setting to the environment and the file.
_FLAGS = {
    "host": "server.host",
    "port": "server.port",
    "internal_port": "server.internal_port",
    "workers": "server.workers",
    "insecure": "auth.insecure",
}


config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="SIDECAST_CONFIG",
    help="Settings file, TOML; also SIDECAST_CONFIG.",
)
"""Where settings are read from, for commands that change none."""


def settings_options(command: _Command) -> _Command:
    """Add the options that `settings_from` reads."""
    for option in (
        click.option(
            "--insecure",
            is_flag=True,
            default=None,
            help="No credentials, on any address: setting auth.insecure, and auth.required = false where "
            "that is given nowhere.",
        ),
        click.option("--internal-port", type=int, help="Setting server.internal_port; 0 picks a free one."),
        click.option("--port", type=int, help="Setting server.port; 0 picks a free one."),
        click.option("--host", help="Setting server.host."),
        config_option,
    ):
        command = option(command)
    return command


def settings_from(options: Mapping[str, Any]) -> Settings:
    """Load settings from the file, the environment, and those options of the command line that are there.

    Raises:
        click.UsageError: they can't be started with; the message has a line per problem.
    """
    file: Path | None = options["config"]
    flags = {name: options.get(option) for option, name in _FLAGS.items()}
    try:
        return load(file.read_bytes() if file else None, os.environ, flags)
    except InvalidSettings as error:
        raise click.UsageError(
            "invalid settings\n" + "\n".join(f"  {line}" for line in error.problems)
        ) from error
    except OSError as error:
        raise click.UsageError(f"can't read {file}: {error.strerror}") from error
