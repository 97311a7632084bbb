"""Two hundred clients of five formats, come to one task at different moments: all see one log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import aiohttp
import pytest
from a2a_rig.stage import Stage, begin, chunks
from a2a_rig.wire import WIRES, Door, Frame, Stream, Wire, outline, text_of_task
from brokers import activity, done, status

DoorTo = Callable[[str], Door]
Format = Wire | Literal["events"]

FORMATS: list[Format] = [*WIRES, "events"]
MOMENTS = 20
AT_A_MOMENT = 10
PIECES = 6


class Event(NamedTuple):
    """What a client was given of the log: its position, and what it says."""

    id: str
    said: str


class Client(NamedTuple):
    """One of the two hundred.

    Attributes:
        format: it speaks.
        cursor: the id it comes with; empty for none.
        start: `start` for one of the browser format that wants everything.
    """

    format: Format
    cursor: str
    start: str = ""


class Seen(NamedTuple):
    """What a client was given.

    Attributes:
        place: the id it began at; empty: before the first event.
        task: the Task as it stood there; None where the format has none.
        events: what followed.
    """

    place: str
    task: dict[str, Any] | None
    events: list[Event]


def browser_event(frame: Frame) -> Event:
    """Give a frame of the browser format in the words of the A2A wires."""
    held = frame.json
    text = held.get("text", "")
    if held["type"] == "task.artifact":
        said = f"artifact {held['artifactId']}{'+' if held['append'] else ''} {text}"
    elif held["type"] == "task.snapshot":
        said = outline({"task": held["task"]})
    else:
        said = " ".join(word for word in ("status", held.get("state", "working"), text) if word)
    return Event(frame.id or "", said)


@asynccontextmanager
async def opened(client: Client, log: Stage, door: Door, task: str) -> AsyncIterator[Stream]:
    """Open the stream of a client."""
    headers = {"Last-Event-ID": client.cursor} if client.cursor else {}
    if client.format != "events":
        async with door.open(client.format, "subscribe", task=task, headers=headers) as stream:
            yield stream
        return
    url = f"{log.url}/tasks/{task}/events" + (f"?from={client.start}" if client.start else "")
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        yield Stream(response)


async def watch(client: Client, log: Stage, door: Door, task: str, here: asyncio.Semaphore) -> Seen:
    """Be a client from its opening to the end of the task."""
    async with opened(client, log, door, task) as stream:
        frames = await stream.take(1)
        here.release()
        frames += await stream.rest()
    if client.format != "events":
        first, *rest = frames
        (held,) = [first.result.get("task", first.result)]
        return Seen(first.id or "", held, [Event(frame.id or "", outline(frame.result)) for frame in rest])
    assert frames[-1].json["type"] == "stream.end"
    told = [frame for frame in frames if frame.json["type"].startswith("task.")]
    if client.cursor or client.start:
        return Seen(client.cursor, None, [browser_event(frame) for frame in told])
    snapshot, *told = told
    return Seen(snapshot.id or "", snapshot.json["task"], [browser_event(frame) for frame in told])


def burst(task: str, moment: int) -> list[tuple[bytes, str]]:
    """Give the events of a moment, each with its outline."""
    first = moment * PIECES + 1
    pieces = chunks(task, first, first + PIECES - 1)
    said = [f"artifact out{'+' if first + index > 1 else ''} {first + index} " for index in range(PIECES)]
    told = [
        (status(f"say {moment}", task), f"status working say {moment}"),
        (activity("progress", task, progress=moment / MOMENTS), "status working"),
    ]
    return [*zip(pieces, said, strict=True), *told]


@pytest.mark.row("C02", "C14", "C15", "C19", "C29", "C43")
async def test_c15_two_hundred_clients_see_the_same_events_in_the_same_order(
    log: Stage, door_to: DoorTo
) -> None:
    task, door, here = log.new_task(), door_to(log.url), asyncio.Semaphore(0)
    chance = random.Random(MOMENTS)
    last = await log.publish(task, begin(task))
    events = [Event(f"epoch1-{last}", "task submitted")]

    async def publish(said: list[tuple[bytes, str]]) -> None:
        nonlocal last
        before, last = last, await log.publish(task, *(payload for payload, _ in said))
        assert last - before == len(said), "nobody else has written meanwhile"
        events.extend(Event(f"epoch1-{before + 1 + n}", words) for n, (_, words) in enumerate(said))

    def newcomer(number: int) -> Client:
        spoken = FORMATS[number % len(FORMATS)]
        cursor = chance.choice(events).id if chance.random() < 0.4 else ""
        start = "start" if spoken == "events" and not cursor and chance.random() < 0.3 else ""
        return Client(spoken, cursor, start)

    clients: list[Client] = []
    watching: list[asyncio.Task[Seen]] = []
    for moment in range(MOMENTS):
        new = [newcomer(number) for number in range(AT_A_MOMENT)]
        clients += new
        watching += [asyncio.create_task(watch(each, log, door, task, here)) for each in new]
        # They open while it is said.
        await publish(burst(task, moment))
        for _ in new:
            await here.acquire()
    await publish([(done(task), "status completed")])
    found = await asyncio.gather(*watching)
    assert len(found) == 200
    places = {event.id: index for index, event in enumerate(events)}
    for client, seen in zip(clients, found, strict=True):
        if client.cursor:
            assert seen.place == client.cursor, client
        after = places[seen.place] + 1 if seen.place else 0
        assert seen.events == events[after:], client
        if seen.task is not None:
            pieces = [event.said.split(" ", 2)[2] for event in events[:after] if event.said.startswith("art")]
            assert text_of_task(seen.task) == "".join(pieces), client
    assert len({seen.place for seen in found}) > 2 * MOMENTS, "they came at many different moments"
    assert {client.format for client, seen in zip(clients, found, strict=True) if not seen.place} == {
        "events"
    }
