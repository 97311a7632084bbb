"""A pytest plugin: a run of one `make` target fails where it leaves a row of the A2A checklist unproven.

Must not know what the rows demand, nor what their tests do.

    pytest --rows=clients …     the rows that `make clients` proves
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import pytest
from conformance.marks import rows_of
from conformance.rows import COMMANDS, ROWS, Command

Outcome = Literal["passed", "failed", "skipped"]

_PROPERTY = "rows"


class Proof:
    """What the tests of one run say of the rows.

    Args:
        command: whose rows the run must prove.
    """

    def __init__(self, command: Command) -> None:
        self._rows = [row.name for row in ROWS if command in row.proven_in]
        self._outcomes: defaultdict[str, dict[str, Outcome]] = defaultdict(dict)
        self._lines: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse to begin where a row has no test: an hour later it would say the same."""
        if hasattr(session.config, "workerinput"):
            return
        found = {
            name for item in session.items if not item.get_closest_marker("skip") for name in rows_of(item)
        }
        missing = [name for name in self._rows if name not in found]
        if missing:
            raise pytest.UsageError(
                "\n".join(f"row {name} is not proven: no test of it is run" for name in missing)
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the outcome of one phase of a test."""
        rows = dict(report.user_properties).get(_PROPERTY)
        if not isinstance(rows, Iterable):
            return
        for name in rows:
            outcomes = self._outcomes[name]
            if report.outcome != "passed":
                if outcomes.get(report.nodeid) != "failed":
                    outcomes[report.nodeid] = report.outcome
            elif report.when == "call":
                outcomes.setdefault(report.nodeid, "passed")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run where a row is left unproven."""
        if session.config.option.collectonly or hasattr(session.config, "workerinput"):
            return
        if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        self._lines = [line for name in self._rows if (line := unproven(name, self._outcomes[name]))]
        if self._lines:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name each row that is left unproven."""
        if self._lines:
            terminalreporter.section("A2A checklist", red=True)
        for line in self._lines:
            terminalreporter.line(line)


def unproven(name: str, outcomes: dict[str, Outcome]) -> str:
    """Say why a row is not proven; empty where it is.

    Args:
        name: the row's.
        outcomes: of each of its tests that were run, by node id.
    """
    failed = [test for test, outcome in outcomes.items() if outcome == "failed"]
    if failed:
        return f"row {name} is not proven: {', '.join(failed)} failed"
    if "passed" in outcomes.values():
        return ""
    return (
        f"row {name} is not proven: {'all its tests were skipped' if outcomes else 'no test of it was run'}"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--rows`."""
    parser.addoption("--rows", choices=COMMANDS, help="the rows this make target proves must be proven")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the run where it is one of a make target."""
    command = config.getoption("--rows")
    if command is not None:
        config.pluginmanager.register(Proof(command))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Send the rows of a test along with its reports: that is how they reach the process that sums up."""
    rows = rows_of(item)
    if rows:
        item.user_properties.append((_PROPERTY, rows))
