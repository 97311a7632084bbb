"""What agents send when nobody has told them what fits: long, hostile, right to left, hundreds of steps."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from brokers import ChildBroker, RealBackend, child_broker
from browser.screen import Screen
from browser.story import Story, chart
from playwright.async_api import expect

pytestmark = pytest.mark.browser

LONG_ID = "import-" + "0123456789abcdef" * 14 + "-of-everything"

HOSTILE = """# <img src=x onerror=alert(1)>

<script>document.title = 'owned'</script>
<iframe src="https://evil.example/"></iframe>
<svg onload=alert(1)><a xlink:href="javascript:alert(1)">x</a></svg>
<style>body { display: none }</style>
<link rel=stylesheet href="https://evil.example/x.css">
<meta http-equiv=refresh content="0;url=https://evil.example">

![pixel](https://evil.example/pixel.png) [run](javascript:alert(1))
[data](data:text/html,<script>alert(1)</script>)
[vb](vbscript:x) [tab](java\tscript:alert(1)) <https://evil.example/auto> [![nest](https://evil.example/n.png)](x)
"""

WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
IN_LIST = """() => {
  const list = document.getElementById('steps-list').getBoundingClientRect();
  const step = document.querySelector('.step[data-state=running]').getBoundingClientRect();
  return step.top >= list.top && step.bottom <= list.bottom;
}"""
OUTSIDE = """() => [...document.querySelectorAll('main *, #rail *')].filter((each) => {
  if (each.closest('.sr, pre, .scroll, .artifact-window, [hidden]') || !each.checkVisibility()) return false;
  const box = each.getBoundingClientRect();
  return box.width > 0 && box.right > innerWidth + 1;
}).map((each) => each.outerHTML.slice(0, 160))"""


@pytest.fixture
async def broker(real: RealBackend, tmp_path: Path) -> AsyncIterator[ChildBroker]:
    async with child_broker(real, tmp_path / "broker.log") as child:
        yield child


def extremes(story: Story) -> list[bytes]:
    """Give what is hard to show."""
    word = "x" * 3000
    return [
        story.begin("Ask " + "with-a-word-that-never-ends-" * 30),
        story.status("A single line " + "that goes on and on and on " * 300),
        story.activity("thought", word),
        story.activity("thought", "اقرأ الصفقات ثم اكتب التقرير (TRD-20931) قبل نهاية اليوم."),
        story.status("\u202egnp.exe\u202c is what it says; the next line stands as it should.\nSecond line"),
        story.activity("error", "Cannot reach " + word, code="E" * 200, component="c" * 200),
        story.step(0, "A step whose title is far too long to stand in a narrow column of a page", "running"),
        story.step(1, word, "done", 3_912_000),
        story.progress(7.5, "more than everything"),
        story.progress(-3, "less than nothing"),
        story.artifact("md", {"text": HOSTILE, "mediaType": "text/markdown"}, name="hostile.md"),
        story.artifact("line", {"text": word * 20, "mediaType": "text/plain"}, name="one-line.txt"),
        story.artifact(
            "rtl",
            {
                "text": "# تقرير\n\nهذه فقرة من اليمين إلى اليسار.\n\n- أول\n- ثان",
                "mediaType": "text/markdown",
            },
            name="تقرير.md",
        ),
        story.artifact("json", {"data": {"k" * 300: [word, None, 1e300, {"<b>": "</script>"}]}}, name=word),
        story.artifact("png", {"raw": chart(2400, 200), "mediaType": "image/png", "filename": "wide.png"}),
        story.artifact("bad", {"raw": "%%%", "mediaType": "image/png", "filename": "broken.png"}),
        story.artifact(
            "fake",
            {
                "raw": base64.b64encode(b"not an image").decode(),
                "mediaType": "image/png",
                "filename": "fake.png",
            },
        ),
        story.artifact(
            "url", {"url": "https://evil.example/" + word, "mediaType": "image/png", "filename": "far.png"}
        ),
        story.artifact("js", {"url": "javascript:alert(1)", "mediaType": "text/html"}),
    ]


async def test_nothing_an_agent_sends_breaks_the_page(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    story = Story(LONG_ID)
    await real.publish(*extremes(story), story.status("It broke: " + "because " * 60, "FAILED"), task=LONG_ID)
    dialogs: list[str] = []
    screen.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    for width, height in ((1440, 900), (1000, 800), (360, 740)):
        await screen.page.set_viewport_size({"width": width, "height": height})
        await screen.watch(broker.url, LONG_ID)
        await screen.text("#state", "Failed")
        await screen.count(".artifact", 9)
        assert await screen.evaluate(WIDER) == 0, width
        assert await screen.evaluate(OUTSIDE) == [], width
        await screen.shot(f"failed-{width}")
        await screen.go_to('[data-kind="thought"] >> nth=1')
        await screen.shot(f"extremes-{width}")
        await screen.go_to(".artifact >> nth=1")
        await screen.shot(f"extremes-artifacts-{width}")
    await screen.text(".artifact >> nth=6", "fake.png cannot be shown: its bytes are not image/png")
    await expect(screen.page).to_have_title(f"✕ {LONG_ID} · Sidecast")
    markup = "img:not([src^='blob:']), script, iframe, svg, style, link, meta, object, embed"
    await expect(screen.at(f".artifact :is({markup})")).to_have_count(0)
    links = await screen.evaluate(
        "() => [...document.querySelectorAll('.artifact a')].map((a) => a.protocol)"
    )
    assert set(links) <= {"https:", "blob:"}
    assert dialogs == []


async def test_two_hundred_steps_keep_the_running_one_in_sight(
    real: RealBackend, broker: ChildBroker, screen: Screen
) -> None:
    task = "two-hundred-steps"
    story = Story(task)
    records = [story.begin(), story.status("Many small things")]
    for number in range(121):  # the last one runs
        records.append(story.step(number, f"Small thing {number + 1}", "running", total=200))
        if number < 120:
            records.append(story.step(number, f"Small thing {number + 1}", "done", 10.0 + number, 200))
    await real.publish(*records, task=task)
    await screen.watch(broker.url, task)
    await screen.count(".step", 121)
    await screen.text("#steps-title", re.compile("120 of 200 done"))
    await screen.until(IN_LIST)
    await screen.go_to("#steps")
    await screen.shot("steps-200")
    # Whoever reads in the list is left where they are.
    await screen.at("#steps-list").focus()
    await screen.evaluate("() => { document.getElementById('steps-list').scrollTop = 0 }")
    await real.publish(story.step(150, "A later one", "running", total=200), task=task)
    await screen.text(".step >> nth=-1", "A later one")
    assert await screen.evaluate("() => document.getElementById('steps-list').scrollTop") == 0
