"""A task's hub for a request, and how the stream of it begins.

Must not know formats, nor who may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from sidecast_broker.answers import Away
from sidecast_broker.core.resume import Opening, Position, Start, open_at
from sidecast_broker.hub import Hub
from sidecast_broker.hubs import Hubs
from sidecast_broker.metrics import Metrics
from sidecast_broker.refused import Refused, unknown
from sidecast_schemas.subjects import TaskKey

LOG_S_MAX = 4.0
"""How long the first event may take from the agent's answer to the log: Python clients give up after 5 s."""


async def open_hub(hubs: Hubs, key: TaskKey, *, wait: bool = False, first: int | None = None) -> Hub:
    """Give the hub of a task that exists, or that the caller will wait for; `Hubs.release` it after use.

    Args:
        hubs: the tasks.
        key: the task.
        wait: whether one without a record will do.
        first: a sequence of the task's that the leader has named already; None: it wasn't asked.

    Raises:
        Refused: there is no such task, or what is stored of it can't be read at the moment.
    """
    try:
        hub = hubs.peek(key)
        known = hub is not None and hub.first is not None
        if not known and not wait and first is None:
            stored = await hubs.first(key)
            if stored is None:
                raise unknown()
            first = stored.sequence
        hub = await hubs.acquire(key, first or 0)
    except Away as away:
        raise Refused("unavailable", str(away), retry_after_s=1) from away
    if first is not None and hub.first is not None and hub.first > first:
        hubs.release(hub)  # purged since the leader named its owner: it may be another's now
        raise Refused("unavailable", "the task has begun anew", retry_after_s=1)
    if hub.first is None and not wait:
        hubs.release(hub)
        raise unknown()
    return hub


def unfed_hub(hubs: Hubs, key: TaskKey) -> Hub:
    """Give a hub that nothing feeds, for who waits for a task that may not be looked at yet.

    Raises:
        Refused: the stream has not been reached yet.
    """
    try:
        return hubs.unfed(key)
    except Away as away:
        raise Refused("unavailable", str(away), retry_after_s=1) from away


def nothing() -> web.Response:
    """Give the answer that keeps an EventSource from coming again."""
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


async def until(hub: Hub, condition: Callable[[], bool], within_s: float | None = LOG_S_MAX) -> None:
    """Wait until what a task's records say fulfils a condition: the agent may be faster than the log.

    Args:
        hub: the task's.
        condition: asked after each burst of records.
        within_s: how long it may take; None: as long as it does.

    Raises:
        Refused: that takes longer than clients wait for an answer.
    """
    arrived = asyncio.Event()
    tell = arrived.set
    hub.listen(tell)
    try:
        async with asyncio.timeout(within_s):
            while not condition():
                arrived.clear()
                await arrived.wait()
    except TimeoutError:
        detail = "The agent's events have not reached the log"
        raise Refused("unavailable", detail, retry_after_s=1) from None
    finally:
        hub.stop_listening(tell)


async def opening_of(
    hubs: Hubs, metrics: Metrics, hub: Hub, cursor: str | None, start: Start
) -> Opening | None:
    """Decide how a stream begins; None: nothing it could deliver will ever follow.

    Asks the leader again where a cursor lies beyond what is known.

    Args:
        hubs: know where the stream stands.
        metrics: where to count.
        hub: the task's, with at least one record.
        cursor: the client's as it sent it, None for none.
        start: where to begin without one.

    Raises:
        Refused: the leader can't judge the cursor at the moment.
    """
    try:
        info = await hubs.position_of(cursor, hub)
    except Away as away:
        raise Refused("unavailable", str(away), retry_after_s=1) from away
    position = Position(
        epoch=hub.epoch,
        stream_first=info.first,
        stream_last=max(info.last, hub.end),
        interior_deletes=bool(info.deleted or hub.gap_below),
        first=max(hub.first or 0, hub.gap_below + 1),
        complete=hub.complete,
        end=hub.end,
        terminal=hub.fold.terminal_sequence,
    )
    opening = open_at(cursor, start, position)
    if cursor is not None:
        outcome = "ended" if opening is None else opening.gap.reason if opening.gap else "replay"
        metrics.resumes.labels(outcome).inc()
    return opening
