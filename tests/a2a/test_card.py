"""The agent card the broker serves: rows C08 and C56 to C59 of the A2A checklist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from a2a_rig.awkward import AwkwardAgent
from a2a_rig.processes import CLIENTS, Client, Driver, SdkError
from a2a_rig.stage import Stage, begin, chunks
from a2a_rig.wire import (
    V1_REST,
    V1_RPC,
    WIRES,
    Door,
    Wire,
    numbers,
    outline,
    request,
    split,
    state_of,
    text_after,
)
from brokers import status

DoorTo = Callable[[str], Door]
StageOf = Callable[..., Stage]
DriverOf = Callable[[str], Driver]

CARD = "/.well-known/agent-card.json"
OLD_CARD = "/.well-known/agent.json"


def interfaces_of(card: dict[str, Any]) -> set[tuple[Wire, str]]:
    """Give every endpoint a card names, in either generation's fields."""
    bindings = {"JSONRPC": "jsonrpc", "HTTP+JSON": "rest"}
    found = [
        (each["protocolVersion"], each["protocolBinding"], each["url"])
        for each in card.get("supportedInterfaces", [])
    ]
    if "url" in card:
        found.append(("0.3", card.get("preferredTransport", "JSONRPC"), card["url"]))
    found += [("0.3", each["transport"], each["url"]) for each in card.get("additionalInterfaces", [])]
    return {(Wire(version[:3], bindings[binding]), url) for version, binding, url in found}  # type: ignore[arg-type]


@pytest.mark.row("C56")
@pytest.mark.parametrize("path", [CARD, OLD_CARD])
async def test_c56_every_endpoint_on_the_card_works(path: str, stage: Stage, door_to: DoorTo) -> None:
    card = (await door_to(stage.url).raw("GET", path)).json
    found = interfaces_of(card)
    assert {wire for wire, _ in found} == set(WIRES)
    for wire, url in found:
        assert url.startswith(stage.url), "the broker's own address, not the agent's"
        door = door_to(url.rstrip("/"))
        if wire.binding == "jsonrpc":
            method, _, body, headers = request(wire, "stream", text="chunks 2")
            async with door._session.request(method, url, data=body, headers=headers) as response:
                whole = await response.read()
            assert b"completed" in whole.lower()
        else:
            async with door.open(wire, "stream", text="chunks 2") as stream:
                assert outline((await stream.rest())[-1].result) == "status completed"


@pytest.mark.row("C56")
async def test_c56_the_address_is_the_one_clients_use(stage_of: StageOf, door_to: DoorTo) -> None:
    stage = stage_of("v1", "adapter")
    answer = await door_to(stage.url).raw("GET", CARD, headers={"Host": "agents.example.org"})
    urls = {url for _, url in interfaces_of(answer.json)}
    assert all(url.startswith("http://agents.example.org") for url in urls)


@pytest.mark.row("C56")
async def test_c56_the_address_that_is_configured(own_stage: StageOf, door_to: DoorTo) -> None:
    public = "https://agents.example.org/planner"
    stage = own_stage("v1", "adapter", server__public_url=public)
    answer = await door_to(stage.url).raw("GET", CARD, headers={"Host": "other.example.org"})
    urls = {url for _, url in interfaces_of(answer.json)}
    assert all(url.startswith(public) for url in urls)


@pytest.mark.row("C59")
@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_c59_one_card_serves_all_generations(client: Client, stage: Stage, driver_of: DriverOf) -> None:
    driver = driver_of(client.driver)
    call = await driver.call(
        "stream", stage.url, client.binding, text="chunks 3", message_id=stage.new_task()
    )
    events = await call.rest()
    assert client.text_after(events) == numbers(1, 3)
    assert outline(events[-1]) == "status completed"


@pytest.mark.row("C57")
async def test_c57_a_card_can_be_cached(stage: Stage, door_to: DoorTo) -> None:
    door = door_to(stage.url)
    first = await door.raw("GET", CARD)
    assert (first.status, first.media_type) == (200, "application/json")
    assert "max-age=" in first.headers["Cache-Control"]
    etag = first.headers["ETag"]
    again = await door.raw("GET", CARD, headers={"If-None-Match": etag})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == etag
    listed = await door.raw("GET", CARD, headers={"If-None-Match": f'"other", W/{etag.removeprefix("W/")}'})
    assert listed.status == 304
    other = await door.raw("GET", CARD, headers={"If-None-Match": '"other"'})
    assert (other.status, other.body) == (200, first.body)


@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_clients_that_only_watch_need_no_agent(client: Client, log: Stage, driver_of: DriverOf) -> None:
    """Without `agent.url`, the broker's own card leads each SDK to it; a send is answered with an error."""
    driver, task = driver_of(client.driver), log.new_task()
    await log.publish(task, begin(task), *chunks(task, 1, 2))
    watching = await driver.call("subscribe", log.url, client.binding, task=task)
    first = await watching.next() or {}
    await log.publish(task, *chunks(task, 3, 4), status(state="COMPLETED", task=task))
    events = [first, *await watching.rest()]
    assert client.text_after(events) == numbers(1, 4)
    assert outline(events[-1]) == "status completed"
    sent = await driver.call("stream", log.url, client.binding, text="chunks 1", message_id=task)
    with pytest.raises(SdkError):
        await sent.rest()


SIGNATURE = {"protected": "eyJhbGciOiJFUzI1NiJ9", "signature": "c2ln"}


@pytest.mark.row("C58")
async def test_c58_a_signature_that_no_longer_holds_is_not_served(
    own_stage: StageOf, door_to: DoorTo
) -> None:
    async with AwkwardAgent(signatures=[SIGNATURE], futureField={"kept": [1.50]}) as agent:
        door = door_to(own_stage(agent__url=agent.url).url)
        for path in (CARD, OLD_CARD):
            answer = await door.raw("GET", path)
            assert not answer.json.get("signatures")
            assert answer.json["futureField"] == {"kept": [1.5]}, "what isn't known passes"


async def test_a_card_that_changes_is_served_anew(own_stage: StageOf, door_to: DoorTo) -> None:
    async with AwkwardAgent() as agent:
        door = door_to(own_stage(agent__url=agent.url, agent__card_s=1).url)
        first = await door.raw("GET", CARD)
        assert agent.card is not None
        agent.card["description"] = "Changed."
        import asyncio

        async with asyncio.timeout(10):
            while (answer := await door.raw("GET", CARD)).json["description"] != "Changed.":
                await asyncio.sleep(0.05)
        assert answer.headers["ETag"] != first.headers["ETag"]


async def test_an_agent_without_a_card_is_said_so(own_stage: StageOf, door_to: DoorTo) -> None:
    async with AwkwardAgent() as agent:
        agent.card = None
        door = door_to(own_stage(agent__url=agent.url).url)
        answer = await door.raw("GET", CARD)
        assert answer.status in (404, 502, 503)
        assert answer.json["error"]["code"]


async def test_the_resume_extension_is_on_the_card(stage: Stage, door_to: DoorTo) -> None:
    card = (await door_to(stage.url).raw("GET", CARD)).json
    (extension,) = [
        each for each in card["capabilities"]["extensions"] if each["uri"] == "urn:sidecast:resume:v1"
    ]
    assert not extension.get("required")


@pytest.mark.row("C08")
@pytest.mark.parametrize("capture", ["adapter", "proxy"])
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_c08_streaming_is_added_to_an_agent_that_lacks_it(
    wire: Wire, capture: str, stage_of: StageOf, door_to: DoorTo
) -> None:
    stage = stage_of("v1", capture, options=("--unary",))
    door = door_to(stage.url)
    before = len(stage.agent.requests_to(":subscribe", ":stream"))
    card = (await door.raw("GET", CARD)).json
    assert card["capabilities"]["streaming"] is True
    async with door.open(wire, "stream", text="chunks 3") as stream:
        frames = await stream.rest()
    assert text_after([frame.result for frame in frames]) == numbers(1, 3)
    # A Task that has ended may be all there is to say.
    assert state_of(split(frames[-1].result)[1]["status"]) == "completed"
    assert len(stage.agent.requests_to(":subscribe", ":stream")) == before


@pytest.mark.row("C08")
async def test_c08_the_agent_itself_refuses_to_stream(stage_of: StageOf, door_to: DoorTo) -> None:
    stage = stage_of("v1", "adapter", options=("--unary",))
    direct = await door_to(stage.agent.url).ask(V1_REST, "stream", text="chunks 1")
    assert direct.status == 400
    rpc = await door_to(stage.agent.url).ask(V1_RPC, "stream", text="chunks 1")
    assert rpc.json["error"]["code"] == -32004
