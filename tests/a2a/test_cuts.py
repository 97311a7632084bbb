"""Streams of messages that are cut at any byte and resumed: what came of all of them is the uncut stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from a2a_rig.operations import Asked
from a2a_rig.raw import Connection
from a2a_rig.stage import Stage
from a2a_rig.wire import WIRES, Frame, Wire, numbers, outline, request, split, task_of, text_after

StageOf = Callable[..., Stage]

CUTS = 200
PIECES = 40
WHOLE = 1 << 40
"""More bytes than any stream has."""


class Resumer:
    """A client that is cut once, and comes again with the id of the last frame it got whole.

    Args:
        url: of the broker.
        sent: the request that began the stream.
        subscribed: the request it comes again with, where it knows the task; None: with the same one.
    """

    def __init__(self, url: str, sent: Asked, subscribed: Asked | None) -> None:
        self._url = url
        self._sent = sent
        self._subscribed = subscribed
        self.before: list[Frame] = []

    async def break_off(self, count: int) -> None:
        """Read so many bytes, and break the connection off."""
        async with Connection(self._url, self._sent) as connection:
            await connection.read(count)
            self.before = connection.frames

    async def come_again(self, opened: asyncio.Semaphore | None = None) -> list[Frame]:
        """Resume and read to the end; give all frames of both connections, without the Task in between."""
        cursor = self.before[-1].id if self.before else None
        # Who has seen the end of a task has nothing to subscribe to.
        over = bool(self.before) and outline(self.before[-1].result) == "status completed"
        again = self._subscribed if self._subscribed and self.before and not over else self._sent
        async with Connection(self._url, again, cursor) as connection:
            await connection.until(b"\n\n")
            if opened is not None:
                opened.release()
            await connection.rest()
            after = connection.frames
        if self.before:
            leading, *after = after
            assert split(leading.result)[0] == "task"
            assert leading.id == cursor, "it stands where the client left"
        return self.before + after


def size_of(frames: list[Frame]) -> int:
    """Give the length of frames in a body."""
    return sum(len(frame.raw) + 2 for frame in frames)


@pytest.mark.row("C29", "C31", "C33")
@pytest.mark.parametrize("ending", ["done", "ask why"])
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c29_a_stream_cut_at_any_byte_is_continued_as_if_it_had_not_been(
    wire: Wire, ending: str, stage_of: StageOf
) -> None:
    stage = stage_of("v1", "adapter")
    gate = stage.new_task()
    text = f"chunks {PIECES}; gate {gate}; say on; chunks {PIECES} {PIECES + 1}; {ending}"
    sent = request(wire, "stream", text=text, message_id=gate)
    chance = random.Random(f"{wire} {ending}")

    def resumers() -> list[Resumer]:
        # Subscribers stay where a task waits for input.
        ways = [None, request(wire, "subscribe", task=task)] if ending == "done" else [None]
        return [Resumer(stage.url, sent, chance.choice(ways)) for _ in range(CUTS // 2)]

    async with Connection(stage.url, sent) as uncut:
        await uncut.until(f'"{PIECES} "'.encode())
        await uncut.until(b"\n\n\r\n")
        await asyncio.to_thread(stage.agent.reached, gate)
        task = task_of(uncut.frames[0].result)
        head = uncut.head_bytes
        # Half are cut while the turn goes on: some of what they miss is in the log, the rest comes live.
        early, there = resumers(), head + size_of(uncut.frames)
        await asyncio.gather(*(each.break_off(chance.randint(head, there)) for each in early))
        opened = asyncio.Semaphore(0)
        coming = [asyncio.create_task(each.come_again(opened)) for each in early]
        for _ in coming:
            await opened.acquire()
        stage.agent.open(gate)
        await uncut.rest()
        found = await asyncio.gather(*coming)
    late, there = resumers(), head + size_of(uncut.frames)
    # Before the first frame, and behind the last one: an EventSource comes again after a clean end, too.
    places = [head, head + 1, WHOLE, WHOLE, *(chance.randint(head, there) for _ in late[4:])]
    await asyncio.gather(*(each.break_off(place) for each, place in zip(late, places, strict=True)))
    found += await asyncio.gather(*(each.come_again() for each in late))
    whole = [frame.raw for frame in uncut.frames]
    assert len(whole) == 2 * PIECES + 4
    assert text_after([frame.result for frame in uncut.frames]) == numbers(1, 2 * PIECES)
    for each, frames in zip(early + late, found, strict=True):
        assert [frame.raw for frame in frames] == whole, f"cut behind {len(each.before)} frames"
    assert len({len(each.before) for each in early + late}) > PIECES, "they were cut at many places"
    seen = [message for message in stage.agent.seen["messages"] if message["messageId"] == gate]
    assert len(seen) == 1, "nobody has started a turn but the first"
