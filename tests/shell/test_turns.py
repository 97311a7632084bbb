from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecast_broker import turns as rooms
from sidecast_broker.agent_connections import AgentAway
from sidecast_broker.turns import Turns


def turns() -> Turns:
    no_agent: Any = None
    return Turns(no_agent, None, None)


async def test_of_turns_that_have_ended_only_so_many_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "KEPT_MAX", 3)
    known = turns()

    async def answer() -> bytes:
        return b'{"task":{"id":"t","status":{"state":"TASK_STATE_COMPLETED"}}}'

    for number in range(10):
        sent = known.pass_on("", "", f"m{number}", "", 0, answer)
        assert (await sent.begun).task == "t"
        await asyncio.sleep(0)
    await known.close()
    assert [n for n in range(10) if known.find("", "", f"m{n}", "") is not None] == [7, 8, 9]


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b'{"task":{}}', b'{"turn":{"id":"m","phase":"begin"}}', b"\xff"]
)
async def test_an_answer_that_names_nothing_may_be_asked_for_again(answer: bytes) -> None:
    known = turns()

    async def give() -> bytes:
        return answer

    sent = known.pass_on("", "", "m", "", 0, give)
    with pytest.raises(AgentAway):
        await sent.begun
    await known.close()
    await asyncio.sleep(0)
    assert known.find("", "", "m", "") is None


async def test_what_names_another_task_is_another_message() -> None:
    known = turns()

    async def answer() -> bytes:
        return b'{"task":{"id":"t","status":{"state":"TASK_STATE_WORKING"}}}'

    sent = known.pass_on("", "", "m", "t", 0, answer)
    await sent.begun
    assert known.find("", "", "m", "t") is sent
    assert known.find("", "", "m", "u") is None
    assert known.find("", "", "m", "") is None
    await known.close()
