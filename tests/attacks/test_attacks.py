"""Every attack of the table is refused as it says, and leaves everything as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from access_rig import MISSING, status_of
from attacks.groups import GROUPS
from attacks.scene import Scene, scene
from attacks.table import Row, elsewhere
from nats_server import NatsServer


def body_of(answer: bytes) -> bytes:
    """Give what stands below the head."""
    return answer.partition(b"\r\n\r\n")[2]


def faults(row: Row, answer: bytes) -> list[str]:
    """Say what is wrong with how a row is refused."""
    found = []
    if status_of(answer) != row.refused.status or row.refused.text.encode() not in body_of(answer):
        found.append(f"is not {row.refused}")
    if status_of(answer) == 401 and b'\r\nWWW-Authenticate: Bearer realm="sidecast"\r\n' not in answer:
        found.append("does not ask who it is")
    found += [f"tells of {text}" for text in row.absent if text.encode() in answer]
    return found


async def twin_of(it: Scene, row: Row) -> bytes | None:
    """Give what is said of a task that there is not; None: the row names no task."""
    shot = row.shot(it)
    twin = row.twin(it) if row.twin is not None else elsewhere(shot)
    if twin == shot:
        assert not row.refused.hides, f"{row.name}: nothing to compare with"
        return None
    return await it.fire(twin)


@pytest.mark.parametrize("name", GROUPS)
async def test_attacks_are_refused_and_change_nothing(
    name: str, nats_of_run: NatsServer, tmp_path: Path, unharmed: None
) -> None:
    group = GROUPS[name]()
    assert len({row.name for row in group.rows}) == len(group.rows)
    wrong: list[object] = []
    async with scene(nats_of_run, tmp_path, **group.settings) as it:
        for shot in group.first:
            await it.fire(shot(it))
        it = await it.hold(*(shot(it) for shot in group.held))
        before = await it.state()
        for row in group.rows:
            heard = len(it.agent.requests)
            answer = await it.fire(row.shot(it))
            await it.settled()
            if len(it.agent.requests) != heard + row.passes:
                wrong.append((row.name, "reached the agent", it.agent.requests[heard:]))
            del it.agent.requests[heard:]
            wrong += [(row.name, fault, answer) for fault in faults(row, answer)]
            if row.echoes:
                answer = answer.replace(row.echoes.encode(), MISSING.encode())
            if not row.passes and (twin := await twin_of(it, row)) not in (None, answer):
                wrong.append((row.name, "differs", answer, twin))
            if (after := await it.state()) != before:
                wrong.append((row.name, before, after))
                before = after
        assert wrong == []
        await it.goes_on()
        # What is refused above is refused for what is wrong with it.
        controls = {row.served or group.served: row.name for row in group.rows}
        for served, of in controls.items():
            answer = await it.fire(served.shot(it))
            if status_of(answer) != served.status or served.text.encode() not in answer:
                wrong.append((of, served, answer))
        assert wrong == []
