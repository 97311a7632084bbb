"""Every attack of the table is refused as it says, and leaves everything as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from access_rig import ALICES, status_of
from attacks.rows import GROUPS, UNKNOWN, watch
from attacks.scene import bearer, scene, token
from brokers import status


@pytest.mark.parametrize("name", GROUPS)
async def test_attacks_are_refused_and_change_nothing(name: str, tmp_path: Path, unharmed: None) -> None:
    group = GROUPS[name]()
    assert len({row.name for row in group.rows}) == len(group.rows)
    wrong = []
    async with scene(tmp_path) as it:
        before = it.state()
        for row in group.rows:
            answer = await it.fire(row.shot(it))
            code, text = row.refused
            if status_of(answer) != code or text.encode() not in answer.partition(b"\r\n\r\n")[2]:
                wrong.append((row.name, row.refused, answer))
            if it.state() != before:
                wrong.append((row.name, before, it.state()))
                before = it.state()
        assert wrong == []
        # What is refused above is refused for what is wrong with it.
        assert status_of(await it.fire(group.control(it))) == group.served


async def test_a_later_record_gives_a_task_to_nobody(tmp_path: Path) -> None:
    bob = watch(bearer(token(sub="bob")))
    async with scene(tmp_path) as it:
        it.backend.store(ALICES, status("mine", ALICES), owner="bob")
        answer = await it.fire(bob(it))
        assert (status_of(answer), UNKNOWN[1].encode() in answer) == (404, True)
        assert status_of(await it.fire(watch(bearer(token()))(it))) == 200
