"""The document of the A2A checklist is current, and what it says of rows is what the marks say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conformance.document import ROOT, Contradiction, Proof, check, command_of, write
from conformance.rows import Command, Row

DOCUMENT = ROOT / "docs" / "a2a-conformance.md"


def test_the_document_is_current() -> None:
    """In a process of its own, for it collects all tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "conformance.document", "--check", str(DOCUMENT)],
        cwd=ROOT,
        env=clean | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_linked_is_there() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    paths = {part.partition(")")[0] for part in text.split("](../")[1:]}
    assert paths
    assert all((ROOT / path).is_file() for path in paths)


def row(*proven_in: Command, awaits: str = "") -> Row:
    return Row("C01", "both", "It holds.", frozenset(proven_in), awaits)


HERE = Proof("test", "tests/core/test_x.py", "test_x")
THERE = Proof("clients", "tests/a2a/test_y.py", "test_y")
LATER = Proof("accept", "tests/a2a/test_y.py", "test_y")
LONG = Proof("accept", "tests/a2a/test_z.py", "test_z")


@pytest.mark.parametrize(
    ("declared", "found", "complaint"),
    [
        (row("test"), {HERE}, ""),
        (row("test", "clients"), {HERE, THERE}, ""),
        (row("clients"), {THERE, LATER}, ""),
        (row("accept"), {LONG}, ""),
        (row(awaits="more"), set(), ""),
        (row("test"), set(), "no test of `make test` proves it"),
        (row("clients"), {LATER}, "no test of `make clients` proves it"),
        (row("accept"), {HERE}, "no test of `make accept` proves it"),
        (row("test"), {HERE, THERE}, "`make clients` proves it too"),
    ],
)
def test_the_table_and_the_marks_agree(declared: Row, found: set[Proof], complaint: str) -> None:
    if not complaint:
        check({"C01": found}, [declared])
        return
    with pytest.raises(Contradiction, match=complaint):
        check({"C01": found}, [declared])


def test_a_row_names_each_of_its_tests_once_with_its_command() -> None:
    line = write({"C01": {HERE, THERE, LATER, LONG}}, [row("test", "clients", "accept")]).splitlines()[-1]
    assert line == (
        "| C01 | 1.0, 0.3 | It holds. | `test` [test_x](../tests/core/test_x.py)<br>"
        "`clients` [test_y](../tests/a2a/test_y.py)<br>`accept` [test_z](../tests/a2a/test_z.py) |"
    )
    assert "| *open: comes with more* |" in write({}, [row(awaits="more")])


@pytest.mark.parametrize(
    ("path", "accept", "command"),
    [
        ("tests/a2a/test_x.py", False, "clients"),
        ("tests/a2a/test_x.py", True, "accept"),
        ("tests/core/a2a/test_x.py", False, "test"),
    ],
)
def test_the_command_that_runs_a_test(path: str, accept: bool, command: Command) -> None:
    assert command_of(path, accept=accept) == command
