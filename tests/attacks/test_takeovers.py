"""Who publishes later, or says otherwise, does not come to own a task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from access_rig import ALICES, OPEN, status_of
from attacks.scene import Scene, bearer, scene, token
from attacks.table import UNKNOWN, Shooter, alice, bob, operates, watch
from brokers import status, task_record
from nats_server import NatsServer

from sidecast_schemas import headers as names
from sidecast_schemas.subjects import TaskKey, encode_token, events_subject

BOBS_OWN = {names.OWNER: encode_token("bob")}

Takeover = Callable[[Scene, str], Awaitable[None]]


def _published(query: str = "", *lines: str) -> Takeover:
    async def take(it: Scene, task: str) -> None:
        teller = bearer(token(sub="bob", sidecast_rights=["publish"]))
        shot = operates("POST", f"/publish/{task}{query}", teller, *lines, body=status("mine", task))
        assert status_of(await it.fire(shot(it))) == 200

    return take


def _stored(payload: Callable[[str], bytes], headers: dict[str, str], times: int = 1) -> Takeover:
    async def take(it: Scene, task: str) -> None:
        for _ in range(times):
            await it.backend.publish_on(events_subject(TaskKey("", "agent", task)), payload(task), headers)

    return take


TAKEOVERS: dict[str, Takeover] = {
    "a record that names another owner": _stored(lambda task: status("mine", task), BOBS_OWN),
    "many of them": _stored(lambda task: status("mine", task), BOBS_OWN, 20),
    "a second first record": _stored(task_record, BOBS_OWN),
    "a record without an owner": _stored(lambda task: status("mine", task), {}),
    "a name in another case": _stored(lambda task: status("mine", task), {names.OWNER.lower(): "bob"}),
    "published over HTTP": _published(),
    "published with an owner of choice": _published("?owner=bob"),
    "published with an owner in a header": _published("", "Sidecast-Owner: bob"),
    "published with a line end in the owner": _published(f"?owner=alice%0d%0a{names.OWNER}:%20bob"),
}


async def refused_or_served(it: Scene, shot: Shooter, *, served: bool) -> None:
    answer = await it.fire(shot(it))
    assert status_of(answer) == (200 if served else 404)
    assert (UNKNOWN.text.encode() in answer) is not served


@pytest.mark.parametrize("task", [ALICES, OPEN], ids=["ended", "open"])
@pytest.mark.parametrize("name", TAKEOVERS)
async def test_a_task_stays_whose_it_is(
    name: str, task: str, nats_of_run: NatsServer, tmp_path: Path, unharmed: None
) -> None:
    target = f"/tasks/{task}/events"
    async with scene(nats_of_run, tmp_path) as it:
        await TAKEOVERS[name](it, task)
        await refused_or_served(it, watch(bob(), target=target), served=False)
        await refused_or_served(it, watch(alice(), target=target), served=True)


async def test_who_begins_a_task_over_http_is_its_owner_whatever_a_header_says(
    nats_of_run: NatsServer, tmp_path: Path, unharmed: None
) -> None:
    async with scene(nats_of_run, tmp_path) as it:
        await _published("", "Sidecast-Owner: alice")(it, "new")
        await refused_or_served(it, watch(bob(), target="/tasks/new/events"), served=True)
        await refused_or_served(it, watch(alice(), target="/tasks/new/events"), served=False)


async def test_an_owner_of_choice_owns_what_begins_with_it(
    nats_of_run: NatsServer, tmp_path: Path, unharmed: None
) -> None:
    async with scene(nats_of_run, tmp_path) as it:
        await _published("?owner=alice")(it, "new")
        await _published("?owner=bob")(it, "new")
        await refused_or_served(it, watch(bob(), target="/tasks/new/events"), served=False)
        await refused_or_served(it, watch(alice(), target="/tasks/new/events"), served=True)
