"""The document that says which test proves which row of the A2A checklist, written from the tests' own marks.

Must not know how a row is tested.

    python -m conformance.document [--check] docs/a2a-conformance.md
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from conformance.marks import rows_of
from conformance.rows import COMMANDS, ROWS, Command, Row

ROOT = Path(__file__).parents[2]
A2A_TESTS = "tests/a2a/"
GENERATIONS = {"1.0": "1.0", "0.3": "0.3", "both": "1.0, 0.3"}

HEAD = """\
# A2A conformance

Written by `make docs` from the marks on the tests; do not edit. A run of one of these commands fails where it
leaves one of its rows unproven. What the door does, and how to use it, is said in [a2a.md](a2a.md).

| command | what runs |
|---|---|
| `make test` | modules, and brokers over a real nats-server |
| `make clients` | real agents and real clients of four SDKs on both sides of a real broker |
| `make accept` | what takes long, and further pairs of agent and wire |

"""


class Proof(NamedTuple):
    """A test that proves a row, and the command that runs it."""

    command: Command
    path: str
    name: str


class Contradiction(ValueError):  # noqa: N818 - named as the message reads
    """The table of rows and the marks on the tests say different things."""


Proofs = Mapping[str, set[Proof]]


class _Collector:
    """Takes the collected tests from pytest."""

    def __init__(self) -> None:
        self.proofs: defaultdict[str, set[Proof]] = defaultdict(set)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            path = item.path.relative_to(ROOT).as_posix()
            command = command_of(path, accept=item.get_closest_marker("accept") is not None)
            for row in rows_of(item):
                self.proofs[row].add(Proof(command, path, getattr(item, "originalname", item.name)))


def command_of(path: str, *, accept: bool) -> Command:
    """Tell which command runs a test, as the Makefile divides them.

    Args:
        path: of its file, from the root of the repository.
        accept: whether it has that marker.
    """
    return "accept" if accept else "clients" if path.startswith(A2A_TESTS) else "test"


def collect() -> Proofs:
    """Give the proofs of each row, as the marks on all tests name them.

    Raises:
        RuntimeError: the tests can't be collected.
    """
    collector = _Collector()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        # Nothing is run: assertions that aren't rewritten save most of the time.
        options = ["--collect-only", "-q", "--assert=plain", "-p", "no:randomly"]
        outcome = pytest.main([*options, str(ROOT / "tests")], plugins=[collector])
    if outcome != pytest.ExitCode.OK:
        raise RuntimeError(said.getvalue()[-3000:])
    return collector.proofs


def check(proofs: Proofs, rows: Iterable[Row] = ROWS) -> None:
    """Check that each row is proven by the commands its table names, and by no other.

    Raises:
        Contradiction: naming the row.
    """
    for row in rows:
        found = {proof.command for proof in proofs.get(row.name, ())}
        if missing := [command for command in COMMANDS if command in row.proven_in - found]:
            raise Contradiction(f"row {row.name}: no test of `make {missing[0]}` proves it")
        # Further pairs of a test that proves it anyway need no mention.
        if unknown := sorted(found - row.proven_in - {"accept"}):
            raise Contradiction(
                f"row {row.name}: `make {unknown[0]}` proves it too, which its table must say"
            )


def write(proofs: Proofs, rows: Iterable[Row] = ROWS) -> str:
    """Write the document."""
    lines = ["| row | A2A | what must hold | proven by |", "|---|---|---|---|"]
    for row in rows:
        proven = "<br>".join(_tests(row, proofs)) if row.proven_in else f"*open: comes with {row.awaits}*"
        lines.append(f"| {row.name} | {GENERATIONS[row.generations]} | {row.demand} | {proven} |")
    return HEAD + "\n".join(lines) + "\n"


def _tests(row: Row, proofs: Proofs) -> list[str]:
    found = proofs[row.name]
    normal = {(proof.path, proof.name) for proof in found if proof.command != "accept"}
    lines = []
    for command in COMMANDS:
        # A test whose further pairs run in `make accept` is named once.
        own = sorted(
            (proof.path, proof.name)
            for proof in found
            if proof.command == command and (command != "accept" or (proof.path, proof.name) not in normal)
        )
        lines += [f"`{command}` [{name}](../{path})" for path, name in own]
    return lines


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Say whether the file is current; write nothing.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def main(file: Path, only_check: bool) -> None:
    """Write which test proves which row of the A2A checklist."""
    proofs = collect()
    try:
        check(proofs)
    except Contradiction as error:
        raise click.ClickException(str(error)) from error
    text = write(proofs)
    if not only_check:
        file.write_text(text, encoding="utf-8")
    elif not file.exists() or file.read_text(encoding="utf-8") != text:
        raise click.ClickException(f"{file} is stale: run `make docs`")


if __name__ == "__main__":
    main()
