"""Which tasks don't belong on a board, as far as was decided.

Must not know who decides, nor records.
"""

from __future__ import annotations

REFUSED_MAX = 50_000
"""Tasks of others remembered as such, some 5 MB; beyond that it is decided anew."""


class Belonging:
    """Remembers of tasks that were looked at what came of it."""

    def __init__(self) -> None:
        self._refused: set[str] = set()
        self._unnamed: set[str] = set()
        self._late: set[str] = set()

    def refuses(self, task: str) -> bool:
        """Tell whether nothing of a task is for the board."""
        return task in self._refused or task in self._unnamed

    def refuse(self, task: str) -> None:
        """Know that a task doesn't belong there."""
        _add(self._refused, task)

    def put_off(self, task: str) -> None:
        """Know that nothing a task has said so far names its context: it may belong there yet."""
        _add(self._unnamed, task)
        _add(self._late, task)

    def heed(self, task: str) -> None:
        """Know that a task names its context: where it was put off, it is to be looked at again."""
        self._unnamed.discard(task)

    def is_late(self, task: str) -> bool:
        """Tell whether a task was put off, so that records of it were left out."""
        return task in self._late

    def admit(self, task: str) -> None:
        """Know that a task belongs there."""
        for tasks in (self._refused, self._unnamed, self._late):
            tasks.discard(task)

    def clear(self) -> None:
        """Forget all of it."""
        for tasks in (self._refused, self._unnamed, self._late):
            tasks.clear()


def _add(tasks: set[str], task: str) -> None:
    if len(tasks) >= REFUSED_MAX:
        tasks.clear()
    tasks.add(task)
