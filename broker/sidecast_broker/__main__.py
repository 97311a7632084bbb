"""The command line: which commands there are.

Must not know what they do: each is a module of `commands`, imported when it is asked for.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

COMMANDS = {
    "bench": "Measure a running broker.",
    "config": "Print the settings in effect, and where each comes from.",
    "demo": "Watch a real A2A agent work on a file.",
    "doctor": "Look at what a broker needs, and say what is amiss.",
    "drain": "Have a running broker go away, and wait for that.",
    "injector": "Put the broker into pods, as an admission webhook.",
    "publish": "Publish JSON lines from standard input as events of TASK.",
    "serve": "Run the broker.",
    "tail": "Follow a task's events.",
    "token": "Make keys and credentials.",
}


class _Commands(click.Group):
    """A group that knows its commands' one-line help, and imports only the one that runs."""

    def main(self, *args: Any, **extra: Any) -> Any:
        # Python has none for a standard stream that is closed, and the next file would take its number.
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - open as long as the process
        return super().main(*args, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"sidecast_broker.commands.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sidecast", prog_name="sidecast")
def main() -> None:
    """Durable, resumable event streams of A2A agents."""


if __name__ == "__main__":
    main(prog_name="sidecast")
