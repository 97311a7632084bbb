"""`sidecast injector`: the admission webhook that puts the broker into pods.

Must not know how it is decided which pods get it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sidecast_broker import log
from sidecast_broker.auth.watched_file import UnusableFile
from sidecast_broker.commands.serve import run_loop
from sidecast_broker.commands.settings_options import config_option, settings_from


@click.command("injector")
@config_option
@click.option(
    "--template",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What is put into which pods, as the chart renders it: JSON.",
)
def command(config: Path | None, template: Path) -> None:
    """Answer a Kubernetes API server, as a mutating webhook at POST /mutate, until SIGTERM or Ctrl-C.

    It needs TLS (server.tls_certificate, server.tls_key), and no credential: what it says is what the chart
    renders.
    """
    options: dict[str, Any] = {"config": config, "insecure": True}
    settings = settings_from(options)
    server = settings.server
    if not server.tls_certificate:
        raise click.UsageError("server.tls_certificate: is needed, since API servers call over TLS only")
    log.configure(server.log_level, server.log_format)

    from sidecast_broker.injector import run

    try:
        run_loop(run(settings, str(template)))
    except UnusableFile as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"can't listen on {server.host} port {server.port} and {server.internal_host} port "
            f"{server.internal_port}: {error.strerror or error}"
        ) from error
