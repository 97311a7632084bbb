"""The live page in a real Chromium: a task across a broker restart, a gap, a finished task, 20,000 events."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from brokers import ChildBroker, RealBackend, child_broker
from browser.screen import Screen
from browser.story import Story
from playwright.async_api import expect

pytestmark = pytest.mark.browser

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()

TASK = "settlement-review-2026-q3"


@pytest.fixture
async def broker(real: RealBackend, tmp_path: Path) -> AsyncIterator[ChildBroker]:
    async with child_broker(real, tmp_path / "broker.log", stream__retry_ms=1500) as child:
        yield child


async def tell(real: RealBackend, task: str, records: list[bytes], every_s: float = 0.0) -> None:
    """Publish records one by one."""
    for record in records:
        await real.publish(record, task=task)
        await asyncio.sleep(every_s)


async def test_task_to_its_end_across_a_broker_restart(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    for other in ("nightly-import", "rates-backfill"):
        await real.publish(*Story(other).whole(), task=other)
    failing = Story("ledger-reconcile")
    await real.publish(*failing.work(), failing.status("The ledger is locked", "FAILED"), task=failing.task)
    asking = Story("onboarding-acme")
    await real.publish(
        *asking.work(), asking.status("Which entity signs?", "INPUT_REQUIRED"), task=asking.task
    )
    story = Story(TASK)
    pieces = story.report()
    await screen.watch(broker.url, TASK)
    await screen.text("#connection", "Waiting for the first event")
    await screen.text("#waiting", "curl -H 'Content-Type: application/json'")

    await tell(real, TASK, [*story.work(), *pieces[:9]], every_s=0.03)
    await screen.text("#state", "Working")
    await screen.text("#connection", "Live")
    await screen.text("#task-step", "Write the report")
    await screen.count(".step", 3)
    await screen.text(".step >> nth=0", re.compile(r"Read the trades\s*4\.3 s"))
    await expect(screen.page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "52")
    await expect(screen.page).to_have_title(f"52 % {TASK} · Sidecast")
    await screen.text('[data-kind="thought"]', "Six of the nine late trades")
    await screen.text('[data-kind="error"]', "TIMEOUT · venues · recoverable")
    await screen.text('[data-kind="progress"]', "12 updates")
    await screen.text(".markdown table", "Euronext")
    delays = await screen.at(".event-delay").all_inner_texts()
    assert any(re.fullmatch(r"< 1 ms|\d+ ms", delay) for delay in delays), delays
    await screen.text("#facts", re.compile(r"Delay p50 / p95\s*(< 1|\d+) ms"))
    await screen.count(".tasks-list li", 5)
    await screen.shot("running")

    screen.allow_cuts()
    broker.kill9()
    await screen.text("#connection", re.compile(r"Reconnecting in \d\.\d s"))
    await screen.text("#state", "Working")
    await screen.shot("reconnecting")
    missed = pieces[9:15]
    await tell(real, TASK, missed)
    await broker.restart()
    await screen.text("#connection", "Live, resumed")
    await screen.text('[data-kind="resumed"]', f"{len(missed)} events caught up, none lost")

    await tell(real, TASK, [*pieces[15:], *story.finish()], every_s=0.02)
    await screen.text("#state", "Completed")
    await screen.text("#connection", "Ended")
    await expect(screen.page).to_have_title(f"✓ {TASK} · Sidecast")
    await screen.text("#announcer", "Task completed. Nine of 1,284 trades settled late")
    # The list never says otherwise than the page beside it, however old its last answer is.
    await screen.text(".tasks-list a[aria-current]", "Completed", 0.1)
    await whole(screen, story)
    await screen.evaluate("() => document.querySelector('.artifact img').scrollIntoView({block: 'center'})")
    await screen.shot("done-figures")
    await screen.evaluate("() => { document.getElementById('main').scrollTop = 0 }")
    await screen.shot("done")


async def whole(screen: Screen, story: Story) -> None:
    """Check that all a story tells is on the page, once, and nothing of it as markup."""
    text = await screen.evaluate("() => document.querySelector('.markdown').textContent")
    assert text.count("Settlement review, 3rd quarter") == 1
    assert text.count("ask the counterparty for its cut-off times") == 1
    assert "<b>Markup of others</b> stays text" in text
    await expect(screen.at(".markdown a")).to_have_count(1)
    await expect(screen.at(".markdown a")).to_have_attribute("rel", "noopener noreferrer")
    await screen.text(".markdown pre code", "share = len(late) / len(trades)")
    await screen.text(".json", '"confirmed": true')
    image = await screen.evaluate(
        "() => [...document.querySelectorAll('.artifact img')].map((each) => [each.naturalWidth, each.alt])"
    )
    assert image == [[560, "late-share.png"]]
    await expect(screen.at(".artifact svg, .artifact object, .artifact iframe")).to_have_count(0)
    download = screen.at('a[download="drawing.svg"]')
    await expect(download).to_have_attribute("href", re.compile("^blob:"))
    events = len(story.whole())
    await screen.text("#facts", re.compile(rf"Events\s*{events}"))
    await screen.count(".artifact", 4)


async def test_finished_task_is_shown_whole(real: RealBackend, broker: ChildBroker, screen: Screen) -> None:
    strange = "a/b ü?#%2F .."
    for task in (TASK, strange, "..", "nightly-1", "nightly-2"):
        story = Story(task)
        records = story.whole()
        if task == "nightly-1":
            records = [*story.work(), story.status("The books are locked", "FAILED")]
        if task == "nightly-2":
            records = [*story.work(), story.status("Which calendar holds for XLON?", "INPUT_REQUIRED")]
        await real.publish(*records, task=task)

    await screen.page.goto(f"{broker.url}/ui/")
    await screen.count(".tasks-list li", 5)
    await screen.text(".tasks-list li >> nth=0", "Input required")
    await screen.shot("list")
    await screen.page.keyboard.press("/")
    await screen.page.keyboard.type("settle")
    await screen.count(".tasks-list li", 1)
    await screen.page.keyboard.press("ArrowDown")
    await screen.page.keyboard.press("Enter")
    await expect(screen.page).to_have_url(re.compile(rf"\?task={TASK}$"))
    await screen.text("#state", "Completed")
    await screen.text("#connection", "Ended")
    await whole(screen, Story(TASK))
    assert await screen.evaluate("() => document.getElementById('main').scrollTop") == 0
    await screen.text("#facts", re.compile(r"Took\s*(< 1|\d+) ms"))
    await screen.shot("finished")

    await screen.page.go_back()
    await screen.page.fill("#filter", "")
    await screen.page.get_by_role("link", name=strange).click()
    await screen.text("#state", "Completed")
    await screen.text("#task-id", strange)
    await screen.page.reload()
    await screen.text("#task-id", strange)
    await screen.text("#state", "Completed")
    await screen.watch(broker.url, "..")
    await screen.text("#state", "Completed")

    await screen.watch(broker.url, "nightly-2")
    await screen.text("#state", "Input required")
    await screen.text("#announcer", "Which calendar holds for XLON?")
    await screen.page.click("#theme")
    await expect(screen.at("html")).to_have_attribute("data-theme", "dark")
    await screen.shot("dark")
    await screen.page.reload()
    await expect(screen.at("html")).to_have_attribute("data-theme", "dark")


async def test_gap_is_told_and_closed_by_a_snapshot(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(TASK)
    pieces = story.report()
    await tell(real, TASK, [*story.work(), *pieces[:3]])
    await screen.watch(broker.url, TASK)
    await screen.text(".markdown", "1,284 trades")
    screen.allow_cuts()
    broker.kill9()
    await screen.text("#connection", "Reconnecting")
    last = await real.publish(*pieces[3:-2], task=TASK)
    await real.expire(last - 2)
    await broker.restart()

    await screen.text('[data-kind="gap"]', "Events are missing here")
    await screen.text("#connection", "Live, after a gap")
    await screen.text('[data-kind="resumed"]', re.compile(r"^[^:]*Reconnected after [\d.]+ s\.$"))
    await screen.text("#announcer", "Gap: events are missing")
    await screen.text("#state", "Working")
    await tell(real, TASK, [*pieces[-2:], story.progress(0.9, "nearly there")])
    await expect(screen.page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "90")
    # What the snapshot holds has taken the place of what was there before; nothing is shown twice.
    await screen.text(".markdown", "run again with the figures of October")
    await screen.count(".artifact", 1)
    await screen.shot("gap")

    await screen.page.reload()
    await screen.text('[data-kind="gap"]', "The beginning is missing")
    await screen.text("#state", "Working")


async def test_20000_events_without_freezing(real: RealBackend, broker: ChildBroker, screen: Screen) -> None:
    task = "long-run"
    story = Story(task)
    records = [story.begin(), story.status("A long run begins")]
    for number in range(1, 5_001):
        records += [
            story.status(f"Note {number}: venue {number % 7} has answered"),
            story.progress(number / 5_000, f"{number} of 5,000"),
            story.activity("thought", f"Thought {number}"),
            story.artifact(
                "log", {"text": f"line {number}: nothing unusual\n"}, name="run.log", append=True, last=False
            ),
        ]
    records = records[:20_000]
    await real.publish(*records, task=task)
    await screen.page.add_init_script(
        "window.longTasks = [];"
        "new PerformanceObserver((list) => {"
        "  for (const { duration } of list.getEntries()) longTasks.push(Math.round(duration));"
        "}).observe({ entryTypes: ['longtask'] });"
    )
    began = time.monotonic()
    await screen.watch(broker.url, task)
    await screen.text("#facts", re.compile(r"Events\s*20,000"), 20)
    shown_s = time.monotonic() - began
    loading = await screen.evaluate("() => longTasks.splice(0)")
    slowness = await screen.slowness()
    await screen.evaluate("() => { longTasks.length = 0 }")
    await screen.text("#task-text", re.compile("Thought|of 5,000|answered"))
    # What has scrolled out of reach is taken away between events: a busy machine is some frames behind.
    await screen.until("() => document.querySelectorAll('*').length < 6000")
    drawn = await screen.evaluate("() => document.querySelectorAll('*').length")

    steps = await screen.evaluate(
        """async () => {
          const frames = [];
          const frame = () => new Promise(requestAnimationFrame);
          const list = document.getElementById('events-list');
          for (const scroller of [list, document.getElementById('main')]) {
            for (let step = 0; step <= 40; step += 1) {
              const began = performance.now();
              scroller.scrollTop = scroller.scrollHeight * step / 40;
              await frame();
              await frame();
              frames.push(performance.now() - began);
            }
          }
          list.scrollTop = list.scrollHeight / 2;
          await frame();
          await frame();
          return [Math.max(...frames), list.querySelectorAll('.event').length,
                  [...list.querySelectorAll('.event-id')].map((cell) => Number(cell.textContent))];
        }"""
    )
    slowest_ms, rows, sequences = steps
    assert 10 < rows < 120
    # Rows leave and enter in any order; what is in sight is one contiguous run out of the middle.
    assert sorted(sequences) == list(range(min(sequences), min(sequences) + rows))
    assert min(sequences) % 1_000_000 > 9_000
    await screen.at("#events-list").focus()
    await screen.page.keyboard.press("End")
    await screen.text("#event-detail", f'"taskId": "{task}"')
    await screen.page.keyboard.press("Home")
    await screen.page.keyboard.press("ArrowDown")
    await screen.text("#event-detail", "task.snapshot")
    await screen.page.keyboard.press("Escape")
    await expect(screen.at("#event-detail")).to_be_hidden()
    before = await screen.at(".entry").count()
    await screen.evaluate("() => document.getElementById('earlier').click()")
    await expect(screen.at(".entry")).to_have_count(before + 200)

    await tell(real, task, [story.progress(0.99), story.status("Done at last", "COMPLETED")])
    await screen.text("#state", "Completed")
    await screen.evaluate("() => { document.getElementById('main').scrollTop = 1e9 }")
    await screen.text("#entries", "Done at last")
    await screen.shot("20000-events")
    after = await screen.evaluate("() => longTasks")
    slowness = max(slowness, await screen.slowness())
    print(f"20,000 events shown in {shown_s:.2f} s on a machine {slowness:.1f} times slower than idle;")
    print(f"{drawn} elements; long tasks {loading} ms, then {after}; slowest scroll step {slowest_ms:.0f} ms")
    assert drawn < 6_000
    assert shown_s < 5 * slowness
    assert max(loading, default=0) < 400 * slowness
    assert max(after, default=0) < 200 * slowness


async def test_phone_and_narrow_screens(real: RealBackend, broker: ChildBroker, screen: Screen) -> None:
    story = Story(TASK)
    await real.publish(*story.whole(), task=TASK)
    for width in (360, 390, 800):
        await screen.page.set_viewport_size({"width": width, "height": 800})
        await screen.watch(broker.url, TASK)
        await screen.text("#state", "Completed")
        wider = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await screen.evaluate(wider) == 0, width
        if width == 390:
            await screen.shot("phone")
        await screen.go_to(".artifact >> nth=3")
        await expect(screen.at("#state")).to_be_in_viewport(ratio=1)
        await screen.evaluate("() => scrollTo(0, 0)")
        await screen.page.get_by_role("button", name="Connection and events").click()
        await expect(screen.at("#rail")).to_be_visible()
        await screen.count(".event >> nth=3", 1)
        assert await screen.evaluate(wider) == 0, width
        if width == 390:
            await screen.shot("phone-events")
    await screen.page.set_viewport_size({"width": 390, "height": 800})
    await screen.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await screen.page.goto(f"{broker.url}/ui/")
    await screen.count(".tasks-list li", 1)
    await screen.shot("phone-list-dark")


async def test_page_is_usable_without_a_mouse(real: RealBackend, broker: ChildBroker, screen: Screen) -> None:
    await real.publish(*Story(TASK).whole(), task=TASK)
    await screen.watch(broker.url, TASK)
    await screen.text("#state", "Completed")
    for role in ("banner", "navigation", "main", "complementary"):
        await expect(screen.page.get_by_role(role)).to_have_count(1)
    for kind in ("Thought", "Debug", "Error"):  # what only an icon tells the eye
        await expect(screen.at("#entries").get_by_role("img", name=kind)).to_have_count(1)
    await screen.page.keyboard.press("Tab")
    await expect(screen.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    unnamed = await screen.evaluate(
        "() => [...document.querySelectorAll('button, a, input, img, [role=listbox], [role=progressbar]')]"
        ".filter((each) => !(each.textContent.trim() || each.ariaLabel || each.alt || each.labels?.length"
        " || each.getAttribute('aria-labelledby') || each.getAttribute('alt') !== null || each.hidden))"
        ".map((each) => each.outerHTML.slice(0, 200))"
    )
    assert unnamed == []
    for theme in ("light", "dark"):
        await screen.page.emulate_media(color_scheme=theme)
        faint = await screen.evaluate(CONTRAST)
        assert faint == [], theme


async def test_broker_without_tasks_says_how_to_begin(broker: ChildBroker, screen: Screen) -> None:
    await screen.page.goto(f"{broker.url}/ui/")
    await screen.text("#tasks-empty", "There are no tasks yet")
    await screen.text("#home", "sidecast demo README.md")
    await screen.shot("empty")
