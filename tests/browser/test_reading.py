"""What a reader does with a task on the screen: narrows it, holds it still, links to it, takes it home."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from brokers import ChildBroker, RealBackend, child_broker
from browser.screen import Screen
from browser.story import REPORT, VERDICT, Story, chart
from playwright.async_api import expect

pytestmark = pytest.mark.browser

TASK = "settlement-review-2026-q3"

KINDS = "() => [...new Set([...document.querySelectorAll('.event-type')].map((each) => each.dataset.type))]"


@pytest.fixture
async def broker(real: RealBackend, tmp_path: Path) -> AsyncIterator[ChildBroker]:
    async with child_broker(real, tmp_path / "broker.log") as child:
        yield child


async def downloaded(screen: Screen, press: Any) -> tuple[str, bytes]:
    """Press something that saves a file; give its name and content."""
    async with screen.page.expect_download() as waiting:
        await press.click()
    download = await waiting.value
    return download.suggested_filename, Path(await download.path()).read_bytes()


async def test_events_are_narrowed_by_kind_and_by_text(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(TASK)
    await real.publish(*story.work(), task=TASK)
    await screen.watch(broker.url, TASK)
    await screen.text("#events-count", re.compile(r"^\d+$"))
    await screen.page.get_by_label("Kind of event").select_option("step")
    await screen.text("#events-count", re.compile("^5 of "))
    assert await screen.evaluate(KINDS) == ["task.step"]
    # What comes is added only where it is asked for.
    await real.publish(
        story.progress(0.6), story.step(2, "Write the report", "done", 10.0), story.step(3, "x", "running"),
        task=TASK,
    )  # fmt: skip
    await screen.text("#events-count", re.compile("^7 of "))
    name, content = await downloaded(screen, screen.at("#events-save"))
    rows = [json.loads(line) for line in content.splitlines()]
    assert (name, [row["type"] for row in rows]) == (f"{TASK}.ndjson", ["task.step"] * 7)

    await screen.page.get_by_label("Kind of event").select_option("")
    await screen.page.get_by_label("Search in events").fill("COUNTERPARTY")
    await screen.text("#events-count", re.compile("^1 of "))
    await screen.text(".event", "Six of the nine")
    await screen.page.get_by_label("Search in events").fill("no agent says this")
    await screen.text("#events-count", re.compile("^0 of "))
    await expect(screen.at("#events-space")).to_have_attribute("data-none", "No event is like this")
    await screen.shot("no-such-events")
    await screen.page.get_by_label("Kind of event").select_option("stream")
    await screen.page.get_by_label("Search in events").fill("")
    await screen.text(".event", "stream.open")
    await screen.count(".event", 1)


async def test_oldest_events_are_forgotten_also_where_only_some_are_shown(
    broker: ChildBroker, screen: Screen
) -> None:
    await screen.page.goto(f"{broker.url}/ui/")
    told = await screen.evaluate(
        """async () => {
          const { EventRows } = await import('/ui/event-rows.js');
          const rows = new EventRows();
          const type = (seq) => seq % 4 ? 'task.progress' : 'task.step';
          const add = (seq) => rows.add({ id: `e-${seq}`, type: type(seq), raw: '{}' });
          for (let seq = 1; seq <= 400_000; seq += 1) add(seq);
          rows.narrow('step', '');
          const before = [rows.shown.length, rows.first, rows.forgotten];
          const gone = add(400_001);
          const after = [rows.shown.length, rows.first, rows.forgotten, rows.total, rows.shown[0].id];
          rows.narrow('', '');
          return [before, gone, after, [rows.shown.length, rows.first, rows.shown[0].id]];
        }"""
    )
    assert told == [
        [100_000, 0, 0],
        10_000,
        [90_000, 10_000, 40_001, 400_001, "e-40004"],
        [360_000, 40_001, "e-40002"],
    ]


async def test_address_names_an_event(real: RealBackend, broker: ChildBroker, screen: Screen) -> None:
    await real.publish(*Story(TASK).whole(), task=TASK)
    await screen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await screen.watch(broker.url, TASK)
    await screen.text("#state", "Completed")
    await screen.page.get_by_label("Search in events").fill("TIMEOUT")
    await screen.count(".event", 1)
    await screen.at(".event").click()
    await screen.text("#event-detail", '"TIMEOUT"')
    await expect(screen.page).to_have_url(re.compile(rf"/ui/\?task={TASK}&event=epoch1-\d+$"))
    await screen.page.get_by_role("button", name="Copy JSON").click()
    await screen.text("#event-detail", "Copied")
    raw = await screen.evaluate("() => navigator.clipboard.readText()")
    assert json.loads(raw)["code"] == "TIMEOUT"
    await screen.page.get_by_role("button", name="Copy link").click()
    await screen.text("#event-detail button >> nth=1", "Copied")
    link = await screen.evaluate("() => navigator.clipboard.readText()")
    assert link == screen.page.url

    for width in (1440, 390):  # on a phone, it is in the other pane
        await screen.page.set_viewport_size({"width": width, "height": 800})
        await screen.page.goto(link)
        await screen.text("#event-detail", '"TIMEOUT"')
        await expect(screen.at(".event[aria-selected=true]")).to_be_in_viewport()
        await screen.shot(f"event-{width}")
    await screen.page.get_by_role("button", name="Close").click()
    await expect(screen.at("#events-list")).to_be_focused()
    await expect(screen.page).to_have_url(re.compile(rf"/ui/\?task={TASK}$"))

    await screen.page.goto(re.sub(r"epoch1-\d+", "epoch1-99999", link))
    await screen.text("#event-detail", "epoch1-99999 is not among the events the stream still holds")


async def test_paused_page_stands_still_and_loses_nothing(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(TASK)
    await real.publish(*story.work(), task=TASK)
    await screen.watch(broker.url, TASK)
    await screen.text("#task-step", "Write the report")
    await screen.page.get_by_role("button", name="Pause").click()
    await screen.text("#announcer", "Paused")
    before = await screen.at("#entries").inner_text()
    await real.publish(*story.report(), *story.finish(), task=TASK)
    new = len(story.report()) + len(story.finish()) + 1  # and the end of the stream
    await screen.text("#hold", f"Continue · {new} new")
    await screen.text("#connection", "Ended")
    await screen.text("#state", "Working")
    assert await screen.at("#entries").inner_text() == before
    await screen.shot("paused")
    await screen.at("#hold").click()
    await screen.text("#state", "Completed")
    await screen.count(".artifact", 4)
    await screen.text("#facts", re.compile(rf"Events\s*{len(story.whole())}"))
    await expect(screen.at("#hold")).to_be_hidden()


async def test_timeline_shows_what_is_asked_for(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(TASK)
    notes = [story.status(f"note {number}") for number in range(450)]
    await real.publish(*story.work(), *notes, task=TASK)
    await screen.watch(broker.url, TASK)
    await screen.text("#entries", "note 449")
    kind = screen.page.get_by_label("Show in the timeline")
    await kind.select_option(label="Errors and gaps")
    await screen.count(".entry", 1)
    await screen.text(".entry", "SIX answers slowly")
    await kind.select_option(label="Artifacts")
    await screen.count(".entry", 0)
    await screen.text("#timeline-none", "Nothing of this kind yet")
    await real.publish(*story.report(), story.status("after it"), task=TASK)
    await screen.count(".entry", 1)
    await screen.text(".markdown", "ask the counterparty")
    await expect(screen.at("#timeline-none")).to_be_hidden()
    await kind.select_option(label="Words and thoughts")
    await screen.count(".entry", 200)
    await screen.text("#entries", "after it")
    await screen.text("#earlier", "Show 200 of 253 earlier")
    await screen.at("#earlier").click()
    await screen.count(".entry", 400)
    await kind.select_option(label="Everything")
    await screen.text("#entries", "ask the counterparty")
    await screen.text("#entries", "after it")


async def test_artifacts_are_taken_home_whatever_they_are(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(TASK)
    await real.publish(*story.whole(), task=TASK)
    await screen.watch(broker.url, TASK)
    await screen.text("#connection", "Ended")
    files = {}
    for number in range(await screen.count_now(".artifact")):
        button = screen.at(".artifact").nth(number).get_by_role("button", name="Download")
        name, content = await downloaded(screen, button)
        files[name] = content
    assert files.pop("settlement-review.md").decode() == REPORT
    assert files.pop("late-share.png") == base64.b64decode(chart())
    assert json.loads(files.pop("verdict.json")) == VERDICT
    assert files == {"drawing.svg": b"<svg onload='alert(1)'/>"}


async def test_long_text_is_cut_until_it_is_asked_for(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(TASK)
    whole = "word " * 2000 + "the end"
    lines = "\n".join(f"line {number}" for number in range(40))
    short = "\n".join(f"row {number}" for number in range(16))
    thoughts = [story.activity("thought", text) for text in (whole, lines, short)]
    await real.publish(story.begin(), *thoughts, task=TASK)
    await screen.watch(broker.url, TASK)
    shown = screen.at('[data-kind="thought"]')
    await expect(shown).to_have_count(3)
    await expect(shown.nth(0).locator(".said")).not_to_contain_text("the end")
    await expect(shown.nth(1).locator(".said")).to_contain_text("line 13 …")
    await expect(shown.nth(2).get_by_role("button")).to_have_count(0)
    await screen.page.get_by_role("button", name="Show all 10,007 characters").press("Enter")
    await expect(shown.nth(0).locator(".said")).to_contain_text("the end")
    await expect(shown.nth(0).locator(".said")).to_be_focused()


async def test_focus_goes_where_the_eye_goes_and_is_seen(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(TASK)
    await real.publish(*story.work(), task=TASK)
    await screen.watch(broker.url, TASK)
    await screen.text("#state", "Working")
    stops = []
    for _ in range(20):
        await screen.page.keyboard.press("Tab")
        stop = await screen.evaluate(
            "() => { const at = document.activeElement; const style = getComputedStyle(at);"
            " return [at.id || at.className || at.tagName,"
            " style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]; }"
        )
        if stop[0] == "BODY":
            break
        stops.append(stop)
    assert [name for name, seen in stops if not seen] == []
    order = ["skip", "brand", "theme", "filter", "copy-id", "hold", "timeline-kind"]
    order += ["events-save", "events-kind", "events-words", "events-list"]
    named = [re.sub(r"^quiet (copy|hold)$", r"\1", name) for name, _seen in stops]
    assert [name for name in named if name in order] == order
