"""What stands behind streams of several tasks, without HTTP: the stream, the hubs, the boards.

Must not know what is tested.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from askers import Askers
from brokers import Backend, settings_of

from sidecast_broker.auth.access import Access
from sidecast_broker.boards import Boards
from sidecast_broker.current import Current
from sidecast_broker.hubs import Hubs
from sidecast_broker.jetstream import JetStream
from sidecast_broker.metrics import Metrics
from sidecast_broker.positioner import Positioner
from sidecast_broker.survey import Survey
from sidecast_broker.task_list import TaskLists
from sidecast_schemas.subjects import TaskKey


class Rig(NamedTuple):
    """Parts of a broker."""

    stream: JetStream
    positioner: Positioner
    hubs: Hubs
    current: Current
    survey: Survey
    boards: Boards

    def users(self, *tasks: str) -> list[int]:
        """Tell how many use the hub of each task."""
        return [self.hubs.watchers(key_of(task)) for task in tasks]


@asynccontextmanager
async def rig(backend: Backend, **changes: object) -> AsyncIterator[Rig]:
    """Run them for the length of the block; a change of the settings is named `section__key`."""
    settings, metrics = settings_of(backend, **changes), Metrics()
    stream = backend.connect(settings.nats, lambda reason: positioner.doubt(reason))
    positioner = Positioner(stream, settings.nats.verify_s)
    hubs = Hubs(stream, positioner, settings.log, metrics)
    access = Access(settings, Askers(), hubs)
    survey = Survey(stream, TaskLists(stream), access)
    boards = Boards(settings, stream, positioner, hubs, access, survey, metrics)
    stream.start()
    positioner.start()
    hubs.start()
    await positioner.known.wait()
    try:
        yield Rig(stream, positioner, hubs, Current(stream, hubs), survey, boards)
    finally:
        await boards.close()
        await hubs.close()
        await positioner.close()
        await stream.close()


def key_of(task: str) -> TaskKey:
    """Give the key of a task of the broker's own agent."""
    return TaskKey("", "agent", task)
