"""What the live page says of all a broker may tell about a stream, and what it does then."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest
from brokers import RealBackend, child_broker
from browser.screen import Screen
from browser.scripted import Scripted, scripted
from browser.story import Story
from browser.test_pace import TASK, snapshot
from playwright.async_api import expect

from sidecast_broker.core.views import events
from sidecast_broker.core.views.shapes import StreamGapReason
from sidecast_broker.refused import TEMPORARY

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]

SAY = """async ([name, keys]) => {
  const words = await import(new URL("words.js", location.href));
  return keys.map((key) => words[name](key));
}"""


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        yield script


def documented(path: str, heading: str) -> list[str]:
    """Give the names in the first column of a table of the documentation."""
    table = (ROOT / path).read_text().split(heading, 1)[1].split("\n\n", 1)[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    names = [name for row in rows for name in re.findall(r"`([a-z-]+)`", row)]
    assert names
    return names


END_REASONS = documented("docs/protocol.md", "| `reason` of `stream.end` | means |")
LIMITS = documented("docs/operations.md", "| `reason` | setting | bounds |")
NO_STREAM = {"tickets", "connections", "address-connections", "handshake", "request-timeout"} | {
    "head-too-large",
    "body-too-large",
}
"""Limits of other things than streams: an EventSource is never told of them."""


async def test_there_is_a_sentence_for_everything_a_broker_tells(script: Scripted, screen: Screen) -> None:
    await screen.page.goto(f"{script.url}/ui/")
    busy = [*TEMPORARY, *(name for name in LIMITS if name not in NO_STREAM)]
    told = {
        "endReason": END_REASONS,
        "busyReason": busy,
        "gapReason": list(get_args(StreamGapReason)),
        "lagPolicy": ["disconnect", "snapshot"],
    }
    for name, keys in told.items():
        said = await screen.evaluate(SAY, [name, keys])
        assert len(set(said)) == len(set(keys)), name
        for key, sentence in zip(keys, said, strict=True):
            assert re.search(rf" .*(?<!: {key})(?<!: {key}\.)$", sentence), (name, key)
        # What a later broker may say is shown as it is, also where JavaScript has something of that name.
        for key in ("later-reason", "constructor", "__proto__"):
            (sentence,) = await screen.evaluate(SAY, [name, [key]])
            assert key in sentence


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("displaced", "Another page has taken this subscription over"),
        ("deleted", "The subscription was deleted"),
    ],
)
async def test_what_others_have_taken_is_not_taken_back(
    script: Scripted, screen: Screen, reason: str, sentence: str
) -> None:
    script.open()
    script.say(snapshot(1), events.end_frame("TASK_STATE_WORKING", reason, named=False).data)
    script.end()
    await screen.page.goto(f"{script.url}/ui/?task={TASK}")
    await screen.text("#connection strong", "Closed by the broker")
    await screen.text("#connection .note", sentence)
    await screen.text(".incidents", sentence)
    await screen.shot(f"state-{reason}")
    assert len(script.asked) == 1
    script.open()
    await screen.page.get_by_role("button", name="Reconnect now").click()
    await screen.text("#connection strong", "Live")
    assert script.asked[1]["last_event_id"] == "e-1"


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("expired", "The credential has ended"),
        ("revoked", "Access was revoked"),
        ("later-reason", "The broker has ended the stream: later-reason"),
    ],
)
async def test_a_stream_that_was_ended_is_asked_for_again(
    script: Scripted, screen: Screen, reason: str, sentence: str
) -> None:
    """The answer says whether there is one for who asks now."""
    script.open()
    script.say(snapshot(1), events.expiring_frame(20.0, named=False).data)
    await screen.page.goto(f"{script.url}/ui/?task={TASK}")
    await screen.text("#connection .note", re.compile(r"The credential ends in (20\.0|19\.\d) s"))
    await screen.text(".incidents", re.compile(r"The credential ends in (20\.0|19\.\d) s"))
    script.say(events.end_frame(None, reason, named=False).data)
    script.end()
    await screen.text(".incidents", sentence)
    script.open()
    await screen.text("#connection strong", "Live, resumed")
    await expect(screen.at("#connection .note").first).not_to_contain_text("credential ends")


async def test_a_busy_broker_says_why_and_when(script: Scripted, screen: Screen) -> None:
    for _ in range(2):
        script.say(events.busy_frame("principal-streams", 1500, named=False).data)
        script.end()
    await screen.page.goto(f"{script.url}/ui/?task={TASK}")
    await screen.text("#connection strong", re.compile(r"Reconnecting in [01]\.\d s"))
    # It stands there until the next try, not only for a moment.
    await screen.text(
        "#connection .note", "You have as many streams open as you may: other pages and tabs count too."
    )
    await screen.shot("state-busy")
    await screen.until("() => document.querySelectorAll('.incidents li').length === 1", 5)
    script.open()
    script.say(snapshot(1))
    await screen.text("#connection strong", "Live")
    assert len(script.asked) == 3
    await screen.count(".incidents li", 2)  # told twice, noted once


async def test_a_drain_sends_the_page_away_for_as_long_as_it_says(script: Scripted, screen: Screen) -> None:
    script.open()
    script.say(snapshot(1), events.drain_frame(1500, named=False).data)
    script.end()
    await screen.page.goto(f"{script.url}/ui/?task={TASK}")
    await screen.text(
        "#connection .note",
        "it is going away, or this stream was old. What is missed meanwhile is caught up.",
    )
    await screen.text("#events-list", "come again in 1.5 s")
    script.open()
    await screen.text("#connection strong", "Live, resumed")
    await screen.text('[data-kind="resumed"]', "nothing was missed")


async def test_page_lives_through_the_age_of_its_streams(
    real: RealBackend, tmp_path: Path, screen: Screen
) -> None:
    story = Story(TASK)
    await real.publish(*story.work(), task=TASK)
    screen.allow_cuts()
    async with child_broker(
        real, tmp_path / "log", stream__age_max_s=1, stream__retry_ms=50, stream__heartbeat_s=0.4
    ) as broker:
        await screen.watch(broker.url, TASK)
        await screen.text(".incidents", "The broker has asked to connect anew")
        await screen.text("#connection", "came back")
        await real.publish(*story.report(), *story.finish(), task=TASK)
        await screen.text("#state", "Completed")
        await screen.text("#connection strong", "Ended")
        await screen.text("#facts", re.compile(rf"Events\s*{len(story.whole())}(?!\d)"))
        await screen.count('[data-kind="gap"]', 0)
        await screen.count(".artifact", 4)
