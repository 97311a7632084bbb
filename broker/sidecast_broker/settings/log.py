"""What can be set of the events that are kept in memory.

Must not know the other sections.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from sidecast_broker.settings.fields import GIB, KIB, MIB, within


class Log(Struct, frozen=True):
    """Recent events kept in memory."""

    task_bytes_max: Annotated[int, within(KIB, GIB), "Recent events of one task in memory, in bytes."] = (
        8 * MIB
    )
    bytes_max: Annotated[int, within(KIB, 64 * GIB), "Recent events of all tasks in memory, in bytes."] = (
        256 * MIB
    )
    idle_s: Annotated[
        float, within(0, 86400), "Time after which a task nobody watches leaves memory, in seconds."
    ] = 60.0
