"""Options of the commands that talk to a running broker.

Must not know what they ask it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _checked_url(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise click.BadParameter(f"{value!r} is not http:// or https:// with a host")
    return value.rstrip("/")


def client_options(listener: str, default_url: str) -> Callable[[_Command], _Command]:
    """Add `--url` and `--token`.

    Args:
        listener: `public` or `internal`.
        default_url: where that listener is by default.
    """

    def add(command: _Command) -> _Command:
        command = click.option("--token", envvar="SIDECAST_TOKEN", help="Bearer token; also SIDECAST_TOKEN.")(
            command
        )
        return click.option(
            "--url",
            callback=_checked_url,
            default=default_url,
            show_default=True,
            help=f"The broker's {listener} listener.",
        )(command)

    return add
