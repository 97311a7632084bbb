"""The tables of settings and metrics in the documentation, written from the code.

Must not know what stands around them: only the lines between two markers are replaced.

    python -m sidecast_broker.reference [--check] docs/operations.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from sidecast_broker.commands.config import toml_value
from sidecast_broker.settings import SETTINGS, Setting

# prometheus_client names a family without what its samples carry at their end.
_SUFFIXES = {"counter": "_total", "info": "_info"}


class MissingMarkers(ValueError):  # noqa: N818 - named as the message reads
    """A file without exactly one pair of markers for a table."""


def settings_table() -> str:
    """Write every setting as a Markdown table, in the order of the settings' sections."""
    rows = [
        (f"`{setting.name}`", f"`{toml_value(setting.default)}`", _bounds(setting), setting.description)
        for setting in SETTINGS
    ]
    return _table(("Setting", "Default", "Values", "What it sets"), rows)


def metrics_table() -> str:
    """Write every metric of the broker as a Markdown table, by name."""
    from sidecast_broker.metrics import Metrics

    return _table(("Metric", "Type", "Labels", "What it counts"), sorted(_metrics(Metrics().registry)))


def _bounds(setting: Setting) -> str:
    plain = get_args(setting.type)[0]
    if get_origin(plain) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(plain))
    if plain is bool:
        return "`true`, `false`"
    low = next((meta.ge for meta in setting.metas if meta.ge is not None), None)
    high = next((meta.le for meta in setting.metas if meta.le is not None), None)
    return f"{low:,} to {high:,}" if low is not None and high is not None else "text"


def _metrics(registry: Any) -> Iterator[tuple[str, str, str, str]]:
    # The registry's public face shows a metric's labels only once it has samples.
    for collector in registry._collector_to_names:
        labels = getattr(collector, "_labelnames", None)
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            names = labels or sorted({name for sample in family.samples for name in sample.labels})
            yield (
                f"`{family.name}{_SUFFIXES.get(family.type, '')}`",
                family.type,
                ", ".join(f"`{name}`" for name in names if name not in ("le", "quantile")),
                family.documentation,
            )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


TABLES: dict[str, Callable[[], str]] = {"settings": settings_table, "metrics": metrics_table}


def rewrite(text: str, tables: dict[str, Callable[[], str]] | None = None) -> str:
    """Replace what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` by the table NAME.

    Args:
        text: a Markdown file with one pair of markers for each table.
        tables: by default settings and metrics.

    Raises:
        MissingMarkers: a pair is missing, or stands there twice.
    """
    for name, table in (TABLES if tables is None else tables).items():
        marked = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        pairs = list(marked.finditer(text))
        if len(pairs) != 1:
            raise MissingMarkers(
                f"{len(pairs)} pairs of <!-- {name}:begin --> and <!-- {name}:end -->, not 1"
            )
        text = f"{text[: pairs[0].end(1)]}{table()}\n{text[pairs[0].start(2) :]}"
    return text


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 when FILE is stale.")
def main(file: Path, check: bool) -> None:
    """Rewrite the tables of settings and metrics in FILE from the code."""
    text = file.read_text()
    try:
        current = rewrite(text)
    except MissingMarkers as error:
        raise click.ClickException(f"{file}: {error}") from error
    if check and current != text:
        raise click.ClickException(f"{file} is stale: python -m sidecast_broker.reference {file}")
    if current != text:
        file.write_text(current)


if __name__ == "__main__":
    main()
