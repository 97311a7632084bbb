"""One worker of a broker: what `sidecast serve --workers` starts, and nobody else.

Must not know the other workers. Its orders come on standard input; it says on standard output once that it
listens, or why it can't.
"""

from __future__ import annotations

import sys

import msgspec
import structlog

from sidecast_broker import log
from sidecast_broker.app import Listening, run
from sidecast_broker.auth.watched_file import UnusableFile
from sidecast_broker.commands.serve import run_loop
from sidecast_broker.tracing import TracesUnavailable
from sidecast_broker.workers import Orders, Report


def report(what: Report) -> None:
    """Tell the process that started this one."""
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def announce(listening: Listening) -> None:
    """Say that both listeners accept."""
    report(Report(url=listening.url))


def main() -> int:
    """Serve until SIGTERM; give the exit code."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    settings = orders.settings
    log.configure(settings.server.log_level, settings.server.log_format)
    structlog.contextvars.bind_contextvars(worker=orders.number)
    try:
        paths = {"internal_path": orders.internal_path, "overview_path": orders.overview_path}
        run_loop(run(settings, announce=announce, **paths))
    except (OSError, UnusableFile, TracesUnavailable) as error:
        report(Report(error=str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
