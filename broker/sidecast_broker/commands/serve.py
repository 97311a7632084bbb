"""`sidecast serve`: the broker, alone or with a NATS server of its own.

Must not know how the broker works: `app.run` serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from sidecast_broker import log
from sidecast_broker.auth.watched_file import UnusableFile
from sidecast_broker.commands.settings_options import settings_from, settings_options
from sidecast_broker.embedded import EmbeddedFailed, embedded_nats
from sidecast_broker.settings import Settings
from sidecast_broker.tracing import TracesUnavailable
from sidecast_broker.workers import StartFailed

_Result = TypeVar("_Result")


def state_dir() -> Path:
    """Give the directory for data that outlives a run, by the XDG base directory specification.

    Raises:
        click.UsageError: this user has no home directory.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    try:
        # A relative path there is invalid by the specification, and is ignored.
        root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise click.UsageError("no home directory to keep NATS data in: give --store-dir") from error
    return root / "sidecast"


def run_loop(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine on the fastest event loop there is: uvloop, or asyncio's where it doesn't exist."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


async def _serve(settings: Settings) -> None:
    if settings.server.workers > 1:
        from sidecast_broker.supervisor import run
    else:
        from sidecast_broker.app import run
    try:
        await run(settings)
    except OSError as error:
        server = settings.server
        probe = f" and {server.probe_host} port {server.probe_port}" if server.probe_host else ""
        raise click.ClickException(
            f"can't listen on {server.host} port {server.port} and {server.internal_host} port "
            f"{server.internal_port}{probe}: {error.strerror or error}"
        ) from error


async def _serve_with_nats(settings: Settings, store_dir: Path) -> None:
    async with embedded_nats(store_dir) as url:
        nats = msgspec.structs.replace(settings.nats, url=url)
        await _serve(msgspec.structs.replace(settings, nats=nats))


@click.command("serve")
@settings_options
@click.option(
    "--embedded-nats", is_flag=True, help="Run a NATS server as a child, on a loopback port it keeps."
)
@click.option("--workers", type=int, help="Setting server.workers: processes that share the port.")
@click.option(
    "--store-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the embedded NATS server keeps its data [default: ~/.local/state/sidecast].",
)
def command(embedded_nats: bool, store_dir: Path | None, **options: Any) -> None:
    """Run the broker until SIGTERM or Ctrl-C."""
    settings = settings_from(options)
    if store_dir is not None and not embedded_nats:
        raise click.UsageError("--store-dir is of use only with --embedded-nats")
    if embedded_nats and "nats.url" in settings.sources:
        source = settings.sources["nats.url"]
        raise click.UsageError(f"--embedded-nats contradicts nats.url (from {source}): leave one out")
    log.configure(settings.server.log_level, settings.server.log_format)
    try:
        if embedded_nats:
            run_loop(_serve_with_nats(settings, store_dir or state_dir()))
        else:
            run_loop(_serve(settings))
    except (EmbeddedFailed, UnusableFile, StartFailed, TracesUnavailable) as error:
        raise click.ClickException(str(error)) from error
