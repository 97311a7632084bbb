"""Which tasks a stream of an agent or of a context begins with, in which order, and for whom."""

from __future__ import annotations

import pytest
from access_rig import ALICES, BOBS, OPEN, PRINCIPALS, stocked
from board_rig import Rig, key_of, rig
from brokers import FakeBackend, encode, status, task_record

from sidecast_broker.core.auth.principal import ANYBODY, Principal
from sidecast_broker.core.log import Stored
from sidecast_broker.entry import Selection
from sidecast_schemas import headers as names
from sidecast_schemas.subjects import encode_token

AGENT = Selection(agent=True)
CHECKED = {"auth__required": "true"}
WHO = {principal.name: principal for principal in PRINCIPALS}


async def look(
    there: Rig, selection: Selection = AGENT, who: Principal = ANYBODY, count_max: int = 100
) -> tuple[list[str], int]:
    keys, left_out = await there.survey.tasks("", "agent", selection, who, count_max)
    return [key.task for key in keys], left_out


def of_context(task: str, context: str | None) -> bytes:
    body = {"taskId": task, "status": {"state": "TASK_STATE_WORKING"}}
    return encode({"statusUpdate": body | ({"contextId": context} if context else {})})


async def test_an_agents_tasks_come_newest_first_and_those_beyond_the_bound_are_counted(
    fake: FakeBackend,
) -> None:
    for task in ("a", "b", "c"):
        await fake.publish(task_record(task), task=task)
    await fake.publish(status("on", "a"), task="a")
    await fake.publish_on("sidecast.v1.events._.neighbour.t", task_record("t"))
    async with rig(fake) as there:
        assert await look(there) == (["a", "c", "b"], 0)
        assert await look(there, count_max=2) == (["a", "c"], 1)


async def test_one_that_has_begun_since_the_list_was_read_is_not_missing(fake: FakeBackend) -> None:
    await fake.publish(task_record("a"), task="a")
    async with rig(fake) as there:
        assert await look(there) == (["a"], 0)
        await fake.publish(task_record("b"), task="b")
        assert await look(there) == (["b", "a"], 0)


async def test_a_context_is_found_by_the_newest_record_or_where_that_is_silent_by_the_first(
    fake: FakeBackend,
) -> None:
    await fake.publish(of_context("says", "x"), task="says")
    await fake.publish(of_context("silent", "x"), of_context("silent", None), task="silent")
    await fake.publish(of_context("broken", "x"), b"\xff", task="broken")
    await fake.publish(of_context("other", "y"), of_context("other", None), task="other")
    await fake.publish(of_context("never", None), task="never")
    async with rig(fake) as there:
        assert await look(there, Selection(context="x")) == (["broken", "silent", "says"], 0)
        assert await look(there, Selection(context="y")) == (["other"], 0)
        assert await look(there, Selection(context="z")) == ([], 0)


async def test_a_subject_that_is_no_tasks_is_none(fake: FakeBackend) -> None:
    await fake.publish(task_record("a"), task="a")
    await fake.publish_on("sidecast.v1.events._.agent.=!!", of_context("x", "context-1"))
    async with rig(fake) as there:
        assert await look(there) == (["a"], 0)
        assert await look(there, Selection(context="context-1")) == (["a"], 0)


@pytest.mark.parametrize(
    ("name", "wanted"), [("alice", {ALICES, OPEN}), ("bob", {BOBS}), ("erin", set()), ("root", None)]
)
async def test_who_is_asked_for_is_given_only_what_they_may_watch(name: str, wanted: set[str] | None) -> None:
    async with rig(stocked(), **CHECKED) as there:
        for selection in (AGENT, Selection(context="context-1")):
            tasks, _left_out = await look(there, selection, WHO[name])
            assert set(tasks) == wanted if wanted is not None else len(tasks) == 4


async def test_a_first_record_at_hand_is_not_asked_for(fake: FakeBackend) -> None:
    async with rig(fake, **CHECKED) as there:
        headers = {names.OWNER: encode_token("alice")}
        first = Stored(1, 0, "2026-01-01T00:00:00Z", headers, b"{}")
        # The stream holds nothing of it: whoever asks there is told no.
        for name, may in (("alice", True), ("bob", False)):
            assert await there.survey.may_watch(WHO[name], key_of("t"), first) == may
        assert not await there.survey.may_watch(WHO["alice"], key_of("t"))


async def test_without_credentials_everything_may_be_watched(fake: FakeBackend) -> None:
    async with rig(fake) as there:
        assert await there.survey.may_watch(ANYBODY, key_of("t"))
