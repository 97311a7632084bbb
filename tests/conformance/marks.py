"""The marks by which tests say which rows of the A2A checklist they prove.

Must not know what becomes of it.
"""

from __future__ import annotations

import pytest
from conformance.rows import ROW_OF

MARK = "row"


def rows_of(item: pytest.Item) -> list[str]:
    """Give the rows a test proves.

    Raises:
        pytest.UsageError: it names none, or one that there isn't.
    """
    names: list[str] = []
    for mark in item.iter_markers(MARK):
        if not mark.args or mark.kwargs:
            raise pytest.UsageError(
                f'{item.nodeid}: @pytest.mark.{MARK}("C01", …) names rows, and nothing else'
            )
        names += mark.args
    for name in names:
        if name not in ROW_OF:
            raise pytest.UsageError(f"{item.nodeid}: there is no row {name!r} in the A2A checklist")
        if not ROW_OF[name].proven_in:
            raise pytest.UsageError(f"{item.nodeid}: row {name} is open; say in its table what proves it")
    return sorted(set(names))
