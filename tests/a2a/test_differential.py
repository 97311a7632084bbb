"""One conversation with the agent and through the broker: they differ by what is on a list, and no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import pytest
from a2a_rig.conversation import Conversation, Exchange, Item
from a2a_rig.processes import Agent, Generation
from a2a_rig.script import SECRET
from a2a_rig.stage import Capture, Stage
from a2a_rig.wire import V03_REST, V03_RPC, WIRES, Wire, outline, split

StageOf = Callable[..., Stage]
AgentOf = Callable[[Generation], Agent]
Two = tuple[Exchange, Exchange]
"""What the agent itself has answered, and what was answered through the broker."""


class Pair(NamedTuple):
    """A broker beside an agent, and a wire the agent speaks itself."""

    generation: Generation
    capture: Capture
    wire: Wire

    def __str__(self) -> str:
        return f"{self.generation}-{self.capture}-{self.wire}"


GENERATIONS: tuple[Generation, ...] = ("v1", "v03")
CAPTURES: tuple[Capture, ...] = ("adapter", "proxy")
PAIRS = [
    Pair(generation, capture, wire)
    for generation in GENERATIONS
    for capture in CAPTURES
    for wire in WIRES
    if generation == "v1" or wire.version == "0.3"
]

# --- what an exchange says

EVENTS = ("task", "message", "statusUpdate", "artifactUpdate")


def event_of(item: Item) -> dict[str, Any] | None:
    """Give the event of a frame; None for an error, and for a body that is no event."""
    event = item.said.get("result", item.said) if isinstance(item.said, dict) else None
    if not isinstance(event, dict):
        return None
    held = [name for name in EVENTS if isinstance(event.get(name), dict)]
    return event if held or "kind" in event else None


def told(item: Item) -> str:
    """Give the outline of an event, empty for an error."""
    event = event_of(item)
    return outline(event) if event is not None else ""


def is_stream(exchange: Exchange) -> bool:
    return exchange.media_type == "text/event-stream"


def rewritten(exchange: Exchange, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Exchange:
    """Give an exchange with each object in it changed."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return change({name: walk(held) for name, held in value.items()})
        return [walk(each) for each in value] if isinstance(value, list) else value

    return exchange._replace(items=[item._replace(said=walk(item.said)) for item in exchange.items])


def spelled(*exchanges: Exchange) -> str:
    """Give exchanges as text, for 1 and 1.0 are not the same."""
    return json.dumps(exchanges, sort_keys=True)


# --- how a difference is taken out: both exchanges as if it weren't there


def without_defaults(direct: Exchange, broker: Exchange) -> Two:
    def change(found: dict[str, Any]) -> dict[str, Any]:
        flags = ("append", "lastChunk", "final")
        return {name: held for name, held in found.items() if name not in flags or held is not False}

    if is_stream(direct) and is_stream(broker):
        return rewritten(direct, change), rewritten(broker, change)
    return direct, broker


def final_at_a_question(direct: Exchange, broker: Exchange) -> Two:
    def change(found: dict[str, Any]) -> dict[str, Any]:
        state = str(found.get("status", {}).get("state", "")).lower().replace("_", "-")
        return found | {"final": True} if "taskId" in found and state.endswith("input-required") else found

    return (rewritten(direct, change), broker) if is_stream(direct) else (direct, broker)


def whole_numbers(direct: Exchange, broker: Exchange) -> Two:
    def change(found: dict[str, Any]) -> dict[str, Any]:
        return {
            n: int(held) if isinstance(held, float) and held % 1 == 0 else held for n, held in found.items()
        }

    return (rewritten(direct, change), broker) if is_stream(direct) else (direct, broker)


def without_empty_metadata(direct: Exchange, broker: Exchange) -> Two:
    def change(found: dict[str, Any]) -> dict[str, Any]:
        return {name: held for name, held in found.items() if (name, held) != ("metadata", {})}

    return rewritten(direct, change), rewritten(broker, change)


def in_utc(direct: Exchange, broker: Exchange) -> Two:
    def change(found: dict[str, Any]) -> dict[str, Any]:
        return found | {"timestamp": "<time>Z"} if found.get("timestamp") == "<time>" else found

    return (rewritten(direct, change), broker) if is_stream(direct) else (direct, broker)


def without_times(direct: Exchange, broker: Exchange) -> Two:
    def change(found: dict[str, Any]) -> dict[str, Any]:
        return {name: held for name, held in found.items() if (name, held) != ("timestamp", "<time>Z")}

    if is_stream(direct) and is_stream(broker) and "<time>" not in spelled(direct):
        return direct, rewritten(broker, change)
    return direct, broker


def the_task_first(step: str, words: str) -> Callable[[Exchange, Exchange], Two]:
    def settle(direct: Exchange, broker: Exchange) -> Two:
        if (
            direct.step == step
            and told(broker.items[0]) == words
            and words not in map(told, direct.items[:1])
        ):
            return direct, broker._replace(items=broker.items[1:])
        return direct, broker

    return settle


def with_ids(direct: Exchange, broker: Exchange) -> Two:
    def change(item: Item) -> Item:
        event = event_of(item)
        return item._replace(resumable=event is not None and split(event)[0] != "message")

    if is_stream(direct):
        return direct._replace(items=[change(item) for item in direct.items]), broker
    return direct, broker


def led_to_an_end(state: str, *steps: str) -> Callable[[Exchange, Exchange], Two]:
    """The agent has broken off, or has fallen silent; the broker goes on to the status that ends the task."""

    def settle(direct: Exchange, broker: Exchange) -> Two:
        said = [item for item in direct.items if told(item)]
        rest = broker.items[len(said) :]
        unfinished = len(said) < len(direct.items) or direct.ending != "end"
        if direct.step in steps and unfinished and rest and SECRET not in spelled(broker):
            *between, last = map(told, rest)
            if last.startswith(f"status {state}") and not any(word.startswith("task") for word in between):
                return direct._replace(items=said + rest, ending="end"), broker
        return direct, broker

    return settle


def left_open(direct: Exchange, broker: Exchange) -> Two:
    if (direct.step, direct.ending) == ("failure", "broken"):
        return direct._replace(ending="open"), broker
    return direct, broker


REFUSED = {
    f"{do}, {which} task": code
    for do in ("subscribe", "stream")
    for which, code in (("unknown", -32001), ("ended", -32004))
}


def in_own_words(direct: Exchange, broker: Exchange) -> Two:
    code = REFUSED.get(direct.step)
    if code is not None:
        (item,) = broker.items
        error = item.said.get("error", item.said)
        if error["code"] == code or (error["code"], code) in ((404, -32001), (400, -32004)):
            return broker, broker
    return direct, broker


def no_such_operation(direct: Exchange, broker: Exchange) -> Two:
    if direct.step == "no such operation":
        (item,) = broker.items
        if item.said["error"]["code"] in (-32601, "method-not-allowed"):
            return broker, broker
    return direct, broker


# --- the list


class Difference(NamedTuple):
    """A difference that is meant to be.

    Attributes:
        what: it is, and why.
        where: it shows; everywhere there it must.
        settle: takes it out.
        always: whether it must; else it depends on what an agent does first.
    """

    what: str
    where: Callable[[Pair], bool]
    settle: Callable[[Exchange, Exchange], Two]
    always: bool = True


def anywhere(_pair: Pair) -> bool:
    return True


def plain_v03(pair: Pair) -> bool:
    return (pair.generation, pair.capture) == ("v03", "proxy")


DIFFERENCES = [
    Difference(
        "v0.3: a field at its default is spelled out or not, as in what is stored",
        lambda pair: pair.wire.version == "0.3",
        without_defaults,
    ),
    Difference(
        "v0.3: `final` is true on the question that ends the stream of a message (C35)",
        lambda pair: pair.generation == "v1" and pair.wire.version == "0.3",
        final_at_a_question,
    ),
    Difference(
        "whole numbers stay whole on the way through the log; protobuf makes floats of them",
        lambda pair: pair.wire == V03_REST if pair.generation == "v03" else pair.capture == "adapter",
        whole_numbers,
    ),
    Difference(
        "a message is sent to the agent on one binding, and the other one adds empty metadata",
        lambda pair: pair.generation == "v03" and pair.wire == V03_REST,
        without_empty_metadata,
    ),
    Difference(
        "times without an offset are UTC (C60)",
        lambda pair: pair.generation == "v03" and pair.wire == V03_RPC,
        in_utc,
    ),
    Difference(
        "times are there that this binding of the agent leaves out",
        lambda pair: pair.generation == "v03" and pair.wire == V03_REST,
        without_times,
    ),
    Difference(
        "a follow-up turn begins with the Task (C11)",
        anywhere,
        the_task_first("answer", "task input-required 1 2 "),
    ),
    Difference(
        "a subscription begins with the Task (C01), also where v0.3 does not ask for it",
        lambda pair: pair.generation == "v03",
        the_task_first("watched while it is canceled", "task working 1 "),
    ),
    Difference("a frame that can be resumed from has an `id:` (C27)", anywhere, with_ids),
    Difference(
        "after an exception there comes FAILED (C62), without the exception's text",
        lambda pair: not plain_v03(pair),
        led_to_an_end("failed", "failure"),
    ),
    Difference(
        "a plain agent on a2a-sdk 0.3 breaks off and leaves its task open: the stream waits for more",
        plain_v03,
        left_open,
    ),
    Difference(
        "streams of a canceled task show CANCELED, and end (C63)",
        lambda pair: pair.generation == "v03",
        led_to_an_end("canceled", "watched while it is canceled", "canceled"),
        # An agent that has the time shows it, too, before it ends the stream.
        always=False,
    ),
    Difference("what a stream can't be had of is refused in the broker's own words", anywhere, in_own_words),
    Difference(
        "what is no operation is refused in the broker's own words",
        lambda pair: pair.wire != V03_RPC,
        no_such_operation,
    ),
]
"""In the order in which they are taken out."""


Held = dict[tuple[str, Wire], list[Exchange]]


@pytest.fixture(scope="module")
def held() -> Held:
    """Keep the conversations, by the address and the wire: each is held once."""
    return {}


async def hold(session: aiohttp.ClientSession, held: Held, url: str, generation: Generation) -> None:
    """Hold the conversations with an address on all wires at once, unless that was done."""
    wires = [wire for wire in WIRES if Pair(generation, "proxy", wire) in PAIRS]
    if (url, wires[0]) not in held:
        said = await asyncio.gather(*(Conversation(session, url, wire).hold() for wire in wires))
        held.update({(url, wire): exchanges for wire, exchanges in zip(wires, said, strict=True)})


@pytest.mark.row("C71")
@pytest.mark.parametrize("pair", PAIRS, ids=str)
async def test_the_broker_answers_as_the_agent_does(
    pair: Pair, stage_of: StageOf, agent_of: AgentOf, session: aiohttp.ClientSession, held: Held
) -> None:
    generation, capture, wire = pair
    direct, through = agent_of(generation).url, stage_of(generation, capture).url
    for url in (direct, through):
        await hold(session, held, url, generation)
    expected = [difference for difference in DIFFERENCES if difference.where(pair)]
    needed = set()
    for own, theirs in zip(held[direct, wire], held[through, wire], strict=True):
        two = (own, theirs)
        for difference in expected:
            before, two = two, difference.settle(*two)
            if spelled(*two) != spelled(*before):
                needed.add(difference.what)
        assert two[0] == two[1]
        assert spelled(two[0]) == spelled(two[1])
    missing = {difference.what for difference in expected if difference.always} - needed
    assert not missing, "what is on the list and shows nowhere is wrong"
