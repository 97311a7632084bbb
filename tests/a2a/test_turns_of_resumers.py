"""A send that resumes attaches to its turn or is refused: it never starts another one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from a2a_rig.stage import Stage
from a2a_rig.wire import WIRES, Door, Wire

StageOf = Callable[..., Stage]
DoorTo = Callable[[str], Door]


@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("cursor", ["epoch1-1", "other-7", "garbage", "epoch1-999999999"])
async def test_a_cursor_of_no_turn_is_refused(
    wire: Wire, cursor: str, stage_of: StageOf, door_to: DoorTo
) -> None:
    stage = stage_of("v1", "adapter")
    seen = len(stage.agent.seen["messages"])
    door = door_to(stage.url)
    answer = await door.ask(wire, "stream", text="chunks 1", headers={"Last-Event-ID": cursor})
    assert b"No turn of this message is known to resume" in answer.body
    assert len(stage.agent.seen["messages"]) == seen
