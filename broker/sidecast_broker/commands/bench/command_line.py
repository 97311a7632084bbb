"""The command `sidecast bench`, and the table of its result.

Must not know how it is measured.
"""

from __future__ import annotations

import os

import click
import msgspec

from sidecast_broker.commands.bench.measuring import Measured, measure
from sidecast_broker.commands.bench.publishing import BenchFailed
from sidecast_broker.commands.client_options import client_options
from sidecast_broker.commands.serve import run_loop
from sidecast_broker.commands.terminal import printable


def table(measured: Measured) -> str:
    """Write a result as lines of two columns."""
    rows = [
        ("streams", f"{measured.watchers:,}, of {measured.tasks:,} task{'s' * (measured.tasks > 1)}"),
        ("opened in", f"{measured.connect_s:.2f} s, with the start of the processes that hold them"),
        ("first frame", f"p50 {measured.connect_p50_ms:.1f} ms, p99 {measured.connect_p99_ms:.1f} ms"),
        ("published", f"{measured.published:,} events, {measured.published_per_s:,.1f}/s"),
        ("delivered", f"{measured.delivered:,} events, {measured.deliveries_per_s:,.0f}/s"),
        (
            "latency",
            f"p50 {measured.p50_ms:.1f} ms, p99 {measured.p99_ms:.1f} ms, p99.9 {measured.p999_ms:.1f} ms",
        ),
        ("lost", f"{measured.lost:,}"),
        ("duplicated", f"{measured.duplicated:,}"),
        *(("failed", f"{count:,} streams: {reason}") for reason, count in sorted(measured.failed.items())),
    ]
    return "\n".join(f"{name:<12} {value}" for name, value in rows)


@click.command("bench")
@client_options("public", "http://127.0.0.1:8480")
@click.option(
    "--internal-url",
    default="http://127.0.0.1:8481",
    show_default=True,
    help="The broker's internal listener, which takes events.",
)
@click.option("--watchers", type=click.IntRange(1, 20_000), default=100, show_default=True, help="Streams.")
@click.option(
    "--tasks",
    type=click.IntRange(1, 20_000),
    default=1,
    show_default=True,
    help="Tasks the streams are spread over.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 100_000),
    default=50.0,
    show_default=True,
    help="Events a second, to all tasks in turn.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86_400),
    default=5.0,
    show_default=True,
    help="How long to publish.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=lambda: min(4, os.cpu_count() or 1),
    show_default="up to 4",
    help="Processes that hold the streams.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(
    url: str,
    internal_url: str,
    token: str | None,
    watchers: int,
    tasks: int,
    rate: float,
    seconds: float,
    processes: int,
    as_json: bool,
) -> None:
    """Measure a running broker: publish events to new tasks and time their arrival at many streams.

    Latency is from just before an event is sent to the broker to its arrival here; the tasks are completed at
    the end. Exits with 1 when an event was lost or came twice, or a stream failed.
    """
    try:
        measured = run_loop(
            measure(
                url,
                internal_url.rstrip("/"),
                token,
                watchers=watchers,
                tasks=tasks,
                rate=rate,
                seconds=seconds,
                processes=processes,
            )
        )
    except BenchFailed as error:
        raise click.ClickException(printable(str(error))) from error
    click.echo(msgspec.json.encode(measured).decode() if as_json else printable(table(measured)))
    if measured.lost or measured.duplicated or measured.failed:
        raise click.exceptions.Exit(1)
