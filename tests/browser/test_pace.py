"""The live page at its reader's pace: what it asks for, shows and keeps, and what it is told of lag."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from brokers import ChildBroker, RealBackend, child_broker
from browser.screen import Screen
from browser.scripted import Scripted, scripted
from browser.story import Story
from playwright.async_api import Request, expect

from sidecast_broker.core.frame import frame
from sidecast_broker.core.views import events

pytestmark = pytest.mark.browser

TASK = "settlement-review-2026-q3"
AT = "2026-01-01T00:00:00.000Z"


@pytest.fixture
async def broker(real: RealBackend, tmp_path: Path) -> AsyncIterator[ChildBroker]:
    async with child_broker(real, tmp_path / "broker.log", stream__retry_ms=500) as child:
        yield child


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        yield script


def queries(screen: Screen) -> list[dict[str, list[str]]]:
    """Give the parameters of each stream the page asks for from now on."""
    found: list[dict[str, list[str]]] = []

    def note(request: Request) -> None:
        if "/events?" in request.url:
            found.append(parse_qs(urlsplit(request.url).query))

    screen.page.on("request", note)
    return found


def said(sequence: int, kind: str, /, event_id: str | None = "", **fields: object) -> bytes:
    """Give a frame of a task; `event_id` None: it is no place to go on from."""
    body = {"type": f"task.{kind}", "taskId": TASK, "contextId": "c", "seq": sequence, "at": AT, **fields}
    given = f"e-{sequence}" if event_id == "" else event_id
    return frame(json.dumps(body).encode(), None, given)


def snapshot(sequence: int, state: str = "working", **fields: object) -> bytes:
    """Give the task as it stands."""
    task = {"id": TASK, "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}, **fields}
    return said(sequence, "snapshot", task=task, state=state, progress=None, steps=[], partial=False)


def chunk(sequence: int, text: str, event_id: str | None = "") -> bytes:
    """Give a piece of an artifact."""
    fields = {"artifactId": "log", "name": "run.log", "text": text, "append": True, "lastChunk": False}
    return said(sequence, "artifact", event_id, **fields)


async def test_pace_is_chosen_kept_in_the_address_and_loses_nothing(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story, asked = Story(TASK), queries(screen)
    await real.publish(*story.work(), task=TASK)
    await screen.watch(broker.url, TASK)
    await screen.text("#connection", "Live")
    pace = screen.page.get_by_label("Asked pace")
    await expect(pace).to_have_value("live")
    assert not {"batch_ms", "batch", "max_rate", "coalesce", "slow"} & asked[0].keys()
    shown = re.compile(rf"Events\s*{len(story.work())}(?!\d)")
    await screen.text("#facts", shown)

    await pace.select_option("batched")
    await screen.text("#connection", "events, in batches")
    await expect(screen.page).to_have_url(re.compile(rf"\?task={TASK}&pace=batched$"))
    await screen.until("() => document.querySelector('#connection strong').textContent === 'Live'")
    assert (asked[1]["batch_ms"], asked[1]["batch"]) == (["100"], ["array"])
    assert "last_event_id" in asked[1]
    await screen.text("#facts", shown)
    await screen.count('[data-kind="resumed"]', 0)
    pieces = story.report()
    await real.publish(*pieces[:20], task=TASK)
    await screen.text(".markdown table", "Euronext")
    await screen.text(".event-type >> nth=-1", "artifact")

    await pace.select_option("slow")
    await screen.text("#connection", "events, joined")
    await screen.text("#connection", "Live")
    wanted = {"max_rate": ["5"], "coalesce": ["1"], "slow": ["snapshot"]}
    assert wanted.items() <= asked[2].items()
    await screen.shot("pace-slow")
    held = await screen.evaluate("() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
    assert "slow" not in held
    await real.publish(*pieces[20:], *story.finish(), task=TASK)
    await screen.text("#state", "Completed")
    await screen.text("#entries", "frames of joined events")
    text = await screen.evaluate("() => document.querySelector('.markdown').textContent")
    assert text.count("Settlement review, 3rd quarter") == 1
    assert text.count("ask the counterparty for its cut-off times") == 1

    await screen.page.reload()
    await screen.text("#state", "Completed")
    await expect(pace).to_have_value("slow")
    await screen.count(".artifact", 4)
    await screen.page.evaluate("() => history.replaceState(null, '', '?task=x&pace=__proto__')")
    await screen.page.reload()
    await expect(pace).to_have_value("live")


async def test_each_event_of_a_batch_is_shown_as_it_was_sent(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    """Its own id, to link to; its own text, with numbers that JavaScript would round."""
    story = Story(TASK)
    large = 2**60 + 1
    tricky = 'a "quoted\\" } brace, {"events":[ and a \\\\'
    await real.publish(story.begin(), task=TASK)
    await screen.page.goto(f"{broker.url}/ui/?task={TASK}&pace=batched")
    await screen.text("#connection", "Live")
    first = await real.publish(story.status("first"), task=TASK)
    records = [
        story.status(tricky),
        story.artifact("v", {"data": {"n": large}}),
        story.status("the very end"),
    ]
    await real.publish(*records, task=TASK)
    await screen.text("#entries", "the very end")
    ids = [int(text) for text in await screen.at(".event-id").all_inner_texts() if text != "·"]
    assert ids == list(range(ids[0], first + len(records) + 1))
    async with screen.page.expect_download() as saving:
        await screen.at("#events-save").click()
    saved = Path(await (await saving.value).path()).read_text().splitlines()
    bodies = [json.loads(line) for line in saved]
    assert [body["seq"] for body in bodies if "seq" in body] == ids
    assert tricky in [body.get("text") for body in bodies]
    assert f'"n":{large}' in "".join(saved)
    await screen.at(".event >> nth=-1").click()
    await expect(screen.page).to_have_url(re.compile(rf"pace=batched&event=[^&]+-{first + len(records)}$"))


async def test_what_was_joined_is_not_shown_twice_after_a_cut(script: Scripted, screen: Screen) -> None:
    """A frame without an id is part of what the next id stands for, and comes again after a cut before it."""
    screen.allow_cuts()
    script.open()
    script.say(snapshot(1), chunk(2, "one,"))
    script.say(chunk(5, "two,", None))  # its other half, up to e-6, was cut off
    script.end()
    await screen.page.goto(f"{script.url}/ui/?task={TASK}&pace=slow")
    await screen.text("#connection", "Reconnecting")
    script.open()
    script.say(chunk(5, "two,", None), said(6, "progress", progress=0.5))
    script.say(chunk(7, "three."))
    await screen.text(".artifact", "one,two,three.")
    assert script.asked[1]["last_event_id"] == "e-2"
    text = await screen.at(".artifact").first.inner_text()
    assert text.count("two,") == 1


async def test_lag_is_told_with_what_is_done_about_it(script: Scripted, screen: Screen) -> None:
    script.open()
    script.say(snapshot(1))
    await screen.page.goto(f"{script.url}/ui/?task={TASK}&pace=slow")
    await screen.text("#connection strong", "Live")
    script.say(events.lag_frame(3, "snapshot", named=False).data)
    await screen.text("#connection strong", "Live, behind")
    await screen.text(".delivery", "up to 3 events · fell behind once")
    await screen.text(".delivery", "If that lasts, the broker goes on with the task as it stands.")
    await screen.text(".incidents", "Fell behind by 3 events")
    await screen.text("#announcer", "Fell behind by 3 events")
    await screen.shot("pace-behind")
    script.say(*(said(sequence, "status", state="working", text=f"no {sequence}") for sequence in (2, 3)))
    await screen.text(".delivery", "up to 1 event ·")
    script.say(said(4, "status", state="working", text="no 4"))
    await screen.text(".incidents", "Caught up")
    await expect(screen.at("#connection strong")).to_have_text("Live")
    await screen.text(".delivery", "nothing · fell behind once")

    script.say(events.lag_frame(40, "disconnect", named=False).data)
    await screen.text(".delivery", "If nothing is, the connection is cut, and continues where it was.")
    script.say(events.heartbeat_frame(named=False).data)  # sent to who has everything
    await screen.text(".delivery", "nothing · fell behind 2 times")

    script.say(events.lag_frame(900, "snapshot", named=False).data)
    script.say(events.gap_frame("slow", "e-4", "e-0", named=False).data, snapshot(900))
    await screen.text("#connection strong", "Live, skipped ahead")
    await screen.text(".delivery", "skipped ahead once")
    gap = screen.at('[data-kind="gap"]')
    await expect(gap).to_contain_text("Skipped ahead to the task as it stands")
    await expect(gap).to_contain_text("so far behind that the broker went on with the task as it stands")
    await screen.text("#events-list", "behind · snapshot")


async def test_real_broker_skips_ahead_for_who_asks_for_too_little(
    real: RealBackend, tmp_path: Path, screen: Screen
) -> None:
    """At 5 events a second a task that says more is shown as it stands, and none of its state is missing."""
    story = Story(TASK)
    await real.publish(story.begin(), task=TASK)
    screen.allow_cuts()
    async with child_broker(real, tmp_path / "log", pace__late_s_max=1) as broker:
        await screen.page.goto(f"{broker.url}/ui/?task={TASK}&pace=slow")
        await screen.text("#connection strong", "Live")
        await real.publish(*(story.status(f"Note {number}") for number in range(300)), task=TASK)
        await screen.text(".delivery", re.compile(r"Behind1\.\d s, by the last event"))
        gap = screen.at('[data-kind="gap"]').first
        await expect(gap).to_contain_text("Skipped ahead to the task as it stands", timeout=20_000)
        await screen.text("#task-text", "Note 299")
        await screen.text(".delivery", "skipped ahead once")
        await screen.text("#connection strong", "Live, skipped ahead")
        await gap.scroll_into_view_if_needed()
        await screen.shot("pace-skipped")
        await real.publish(story.status("All is well", "COMPLETED"), task=TASK)
        await screen.text("#state", "Completed")
        await screen.text("#connection strong", "Ended")


async def test_a_pace_the_broker_does_not_allow_is_told(
    real: RealBackend, tmp_path: Path, screen: Screen
) -> None:
    await real.publish(*Story(TASK).work(), task=TASK)
    screen.allow_bad_requests()
    screen.allow_cuts()
    async with child_broker(real, tmp_path / "log", pace__batch_ms_max=50) as broker:
        await screen.page.goto(f"{broker.url}/ui/?task={TASK}&pace=batched")
        await screen.text("#connection strong", "Refused")
        await screen.text("#connection", "batch_ms must be a whole number from 0 to 50")
        await screen.page.get_by_label("Asked pace").select_option("live")
        await screen.text("#connection strong", "Live")
        await screen.text("#state", "Working")


@pytest.mark.parametrize("pace", ["batched", "slow"])
async def test_much_history_stays_fluid_at_any_pace(
    real: RealBackend, tmp_path: Path, screen: Screen, pace: str
) -> None:
    """20,000 events, as batches or joined: shown whole within seconds, no long task holds the page up."""
    story, task = Story("load"), "load"
    records = [story.begin(), story.step(0, "Write", "running")]
    records += [
        story.artifact("log", {"text": f"line {n}\n"}, name="run.log", append=n > 0, last=False)
        if n % 4
        else story.progress(n / 20_000, f"{n} of 20,000")
        for n in range(1, 19_999)
    ]
    await real.publish(*records, task=task)
    await screen.page.add_init_script(
        "window.longTasks = [];"
        "new PerformanceObserver((list) => {"
        "  for (const { duration } of list.getEntries()) longTasks.push(Math.round(duration));"
        "}).observe({ entryTypes: ['longtask'] });"
    )
    screen.allow_cuts()
    async with child_broker(real, tmp_path / "log", pace__late_s_max=60) as broker:
        started = asyncio.get_running_loop().time()
        await screen.page.goto(f"{broker.url}/ui/?task={task}&pace={pace}")
        await screen.text("#task-text", "19996 of 20,000", 40)
        shown_s = asyncio.get_running_loop().time() - started
        longest = max(await screen.evaluate("() => longTasks"), default=0)
        slowness = await screen.slowness()
    print(
        f"{pace}: shown in {shown_s:.2f} s, longest task {longest} ms, {slowness:.1f} times slower than idle"
    )
    assert longest < 400 * slowness
    assert shown_s < (10 if pace == "batched" else 30) * slowness
