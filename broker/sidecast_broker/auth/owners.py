"""Whose a task is: what the stream's leader holds of its first retained record.

Must not know who asks. Source: contract, section 1.
"""

from __future__ import annotations

from typing import Protocol

from sidecast_broker.core.log import Stored
from sidecast_schemas.subjects import InvalidId, TaskKey


class Firsts(Protocol):
    """What is asked of the stream's leader."""

    async def first(self, key: TaskKey) -> Stored | None:
        """Give a task's first retained record; None: there is no such task.

        Raises:
            Away: no answer.
            InvalidId: no task can be called so.
        """


async def first_of(firsts: Firsts, key: TaskKey) -> Stored | None:
    """Give a task's first retained record; None: there is no such task, or none can be called so.

    Raises:
        Away: no answer.
    """
    try:
        return await firsts.first(key)
    except InvalidId:
        return None  # an agent's answer can name anything
