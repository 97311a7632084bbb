"""Who watches a task, on the live page: for whom, of which streams, and what is told of each."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from brokers import ChildBroker, RealBackend, child_broker
from browser.screen import Screen
from browser.scripted import scripted
from browser.story import Story
from browser.test_page import CONTRAST
from playwright.async_api import Request, expect

from sidecast_broker.auth.api_keys import hash_key
from sidecast_schemas import headers
from sidecast_schemas.subjects import encode_token

pytestmark = pytest.mark.browser

TASK = "settlement-review-2026-q3"
SLOW = {"max_rate": 0.1, "coalesce": 1, "slow": "snapshot"}


@pytest.fixture
async def broker(real: RealBackend, tmp_path: Path) -> AsyncIterator[ChildBroker]:
    async with child_broker(real, tmp_path / "broker.log", pace__burst=1) as child:
        yield child


async def test_each_watcher_with_its_format_pace_and_lag(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(TASK)
    await real.publish(*story.work(), task=TASK)
    asked: list[Request] = []
    screen.page.on("request", lambda request: asked.append(request))
    await screen.watch(broker.url, TASK)
    await screen.text("#connection strong", "Live")
    box = screen.at("#watchers")
    await expect(box).to_be_visible()
    assert not any("/ui/api/streams" in request.url for request in asked)  # closed, it asks nothing
    for query in ({"batch_ms": 100}, SLOW):
        await (await broker.watch(TASK, **query)).take(2)
    a2a = {"A2A-Version": "1.0"}
    await broker.watch(path=f"/tasks/{TASK}:subscribe", headers=a2a)
    await real.publish(*(story.status(f"Note {n}") for n in range(30)), task=TASK)

    await box.locator("summary").click()
    await screen.count("#watchers-list li", 4)
    await screen.text("#watchers-count", "4")
    await screen.text("#watchers-note", "Streams of this task alone, of this broker.")
    rows = screen.at("#watchers-list li")
    for text in (
        "events · as events come",
        "events · in batches of 100 ms",
        "events · at most 0.1 a second, joined",
        "a2a-rest-1.0 · as events come",
    ):
        await expect(rows.filter(has_text=text)).to_have_count(1)
    await expect(rows.first).to_contain_text(
        re.compile(r"127\.0\.0\.1:\d+.*at its own pace.*\d+ events behind")
    )
    for scheme in ("light", "dark"):
        await screen.page.emulate_media(color_scheme=scheme)
        assert await screen.evaluate(CONTRAST) == []
        await screen.shot(f"watchers-{scheme}")
    await screen.page.set_viewport_size({"width": 390, "height": 800})
    await screen.page.get_by_role("button", name="Connection and events").click()
    wider = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await screen.evaluate(wider) == 0
    await screen.shot("watchers-phone")
    await screen.evaluate("() => document.getElementById('watchers').scrollIntoView()")
    await screen.shot("watchers-phone-list")


async def test_of_workers_all_are_asked(real: RealBackend, tmp_path: Path, screen: Screen) -> None:
    await real.publish(*Story(TASK).work(), task=TASK)
    screen.allow_cuts()
    async with child_broker(real, tmp_path / "log", server__workers=2) as broker:
        for _ in range(8):
            await (await broker.watch(TASK)).take(2)
        await screen.watch(broker.url, TASK)
        await screen.at("#watchers summary").click()
        await screen.count("#watchers-list li", 9)
        await screen.text("#watchers-note", re.compile(r"of this broker\.$"))
        await screen.text("#tasks-list", "9 watching")


@pytest.mark.parametrize(
    ("silent", "alone", "note"),
    [
        ([2], False, "of this broker, but for 1 worker that did not answer."),
        ([2, 3], False, "of this broker, but for 2 workers that did not answer."),
        ([], True, "of one of its workers: the others could not be asked."),
    ],
)
async def test_what_is_missing_is_said(screen: Screen, silent: list[int], alone: bool, note: str) -> None:
    screen.allow_cuts()
    async with scripted() as script:
        script.listed = {"watchers": True, "silent": silent}
        script.watching = {"watching": 0, "streams": [], "worker": alone, "silent": silent}
        script.open()
        await screen.watch(script.url, TASK)
        await screen.at("#watchers summary").click()
        await screen.text("#watchers-note", f"Streams of this task alone, {note}")
        if silent:
            await screen.text("#tasks-note", "A worker did not answer: who watches at it is not counted.")


@pytest.mark.parametrize(("rights", "shown"), [('["admin"]', True), ('["publish"]', False)])
async def test_only_who_may_administer_sees_it(
    real: RealBackend, tmp_path: Path, screen: Screen, rights: str, shown: bool
) -> None:
    key = "sidecast_k3yOfAliceThatNobodyMayFind"
    keys = tmp_path / "keys.toml"
    keys.write_text(
        f'[[key]]\nid = "one"\nsha256 = "{hash_key(key)}"\nprincipal = "alice"\nrights = {rights}\n'
    )
    await real.publish(*Story(TASK).work(), task=TASK, headers={headers.OWNER: encode_token("alice")})
    screen.allow_refusals()
    screen.allow_cuts()
    async with child_broker(real, tmp_path / "log", auth__api_keys_file=keys) as broker:
        await screen.watch(broker.url, TASK)
        await screen.page.get_by_label("Token or API key").fill(key)
        await screen.page.keyboard.press("Enter")
        await screen.text("#connection strong", "Live")
        await screen.count("#tasks-list li", 1)
        await expect(screen.at("#watchers")).to_be_visible(visible=shown)
        if shown:
            await screen.at("#watchers summary").click()
            await screen.text("#watchers-list", "events · as events come")
