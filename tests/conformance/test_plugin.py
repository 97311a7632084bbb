"""The plugin: a run that leaves a row unproven fails, and says which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from conformance.marks import rows_of
from conformance.plugin import unproven
from conformance.rows import COMMANDS, ROW_OF, ROWS, Row

TESTS = Path(__file__).parents[1]
OF_TEST = [row.name for row in ROWS if "test" in row.proven_in]
PROVE_ALL = f"""
import pytest

@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.row({", ".join(map(repr, OF_TEST))})
def test_all(number):
    pass
"""


def run(folder: Path, body: str, *arguments: str) -> tuple[int, str]:
    """Run pytest on one module with the plugin; give its exit status and what it said."""
    (folder / "test_it.py").write_text(body)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    row(*names): rows\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # Only what the run is about: other plugins take seconds to import, in each process.
    named = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "conformance.plugin,xdist.plugin"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "test_it.py"],
        cwd=folder,
        env=clean | named | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_that_proves_its_rows_passes(tmp_path: Path, workers: str) -> None:
    code, said = run(tmp_path, PROVE_ALL, "--rows=test", "-n", workers)
    assert code == 0, said
    assert "not proven" not in said


def test_a_row_without_a_test_is_found_before_anything_runs(tmp_path: Path) -> None:
    code, said = run(tmp_path, PROVE_ALL.replace("'C64'", "'C65'"), "--rows=test")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "row C64 is not proven: no test of it is run" in said
    assert "passed" not in said


def test_a_row_whose_tests_are_left_out_is_not_proven(tmp_path: Path) -> None:
    for arguments in (["-k", "nothing"], ["--deselect", "test_it.py::test_all"]):
        code, said = run(tmp_path, PROVE_ALL, "--rows=test", *arguments)
        assert code != 0
        assert "row C64 is not proven: no test of it is run" in said


def test_among_workers_it_is_found_at_the_end(tmp_path: Path) -> None:
    code, said = run(tmp_path, PROVE_ALL.replace("'C64'", "'C65'"), "--rows=test", "-n", "2")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "row C64 is not proven: no test of it was run" in said


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_row_whose_tests_are_all_skipped_is_not_proven(tmp_path: Path, workers: str) -> None:
    body = PROVE_ALL.replace("    pass", "    pytest.skip('not here')")
    code, said = run(tmp_path, body, "--rows=test", "-n", workers)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "row C64 is not proven: all its tests were skipped" in said


def test_a_row_with_a_test_that_fails_is_not_proven(tmp_path: Path) -> None:
    code, said = run(tmp_path, PROVE_ALL.replace("    pass", "    assert number == 1"), "--rows=test")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "row C64 is not proven: test_it.py::test_all[2] failed" in said


def test_an_expected_failure_proves_nothing(tmp_path: Path) -> None:
    body = PROVE_ALL.replace("@pytest.mark.row", "@pytest.mark.xfail\n@pytest.mark.row")
    code, said = run(tmp_path, body.replace("    pass", "    assert not number"), "--rows=test")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "row C64 is not proven" in said


def test_without_the_option_any_tests_may_be_run(tmp_path: Path) -> None:
    code, said = run(tmp_path, "def test_it():\n    pass\n")
    assert code == 0, said


@pytest.mark.parametrize(
    ("mark", "complaint"),
    [
        ('"C99"', "there is no row 'C99'"),
        ("", "names rows"),
        ('name="C01"', "names rows"),
    ],
)
def test_a_mark_that_names_no_row_is_an_error(tmp_path: Path, mark: str, complaint: str) -> None:
    code, said = run(tmp_path, f"import pytest\n\n@pytest.mark.row({mark})\ndef test_it():\n    pass\n")
    assert code != 0
    assert complaint in said


class Marked:
    """Stands in for a test with one mark."""

    nodeid = "test_it.py::test_it"

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [pytest.Mark(name, ("C07",), {}, _ispytest=True)]


def test_a_mark_of_a_row_that_is_open_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    item = cast(pytest.Item, Marked())
    assert rows_of(item) == ["C07"]
    monkeypatch.setitem(ROW_OF, "C07", Row("C07", "both", "It holds.", frozenset(), "more"))
    with pytest.raises(pytest.UsageError, match="row C07 is open"):
        rows_of(item)


def test_one_that_passes_does_not_hide_one_that_fails() -> None:
    assert unproven("C01", {"a": "passed", "b": "skipped"}) == ""
    assert unproven("C01", {"a": "passed", "b": "failed"}) == "row C01 is not proven: b failed"


def test_each_row_is_proven_by_a_command_or_says_what_it_waits_for() -> None:
    names = [row.name for row in ROWS]
    assert names == [f"C{number:02}" for number in range(1, 75)]
    for row in ROWS:
        assert bool(row.proven_in) != bool(row.awaits), row
        assert row.proven_in <= set(COMMANDS)
    assert not [row.name for row in ROWS if row.awaits]
