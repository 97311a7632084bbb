"""An EventSource in Chromium lives through what becomes of brokers: a drain, an age, a killed worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from brokers import TASK, ChildBroker, RealBackend, child_broker, done, numbered, task_record
from browser.screen import Screen

pytestmark = pytest.mark.browser

WATCH = """
([url]) => {
  window.seen = []; window.kinds = []; window.opened = 0;
  const source = window.source = new EventSource(url);
  source.onopen = () => { window.opened += 1; };
  const take = (event) => {
    const data = JSON.parse(event.data);
    window.kinds.push(data.type);
    if (data.type === "task.status" && data.text !== undefined) window.seen.push(data.text);
    if (data.type === "stream.end") source.close();
  };
  for (const kind of ["task.snapshot", "task.status", "stream.drain", "stream.end", "stream.gap"])
    source.addEventListener(kind, take);
}
"""


async def watch(screen: Screen, child: ChildBroker) -> None:
    """Open an EventSource in a page of the broker's own origin."""
    await screen.page.goto(f"{child.url}/ui/")
    await screen.evaluate(WATCH, [f"/tasks/{TASK}/events?from=start"])


async def seen(screen: Screen, texts: list[str]) -> None:
    """Wait until the page has seen exactly these."""
    await screen.until(f"() => window.seen.length >= {len(texts)}", 30)
    assert await screen.evaluate("() => window.seen") == texts


async def test_an_event_source_lives_through_a_rolling_restart(
    real: RealBackend, tmp_path: Path, screen: Screen
) -> None:
    expected = [str(number) for number in range(30)]
    screen.allow_cuts()
    async with child_broker(
        real, tmp_path / "log", server__workers=2, stream__drain_s=1, stream__retry_ms=500
    ) as child:
        await real.publish(task_record(), *numbered(5))
        await watch(screen, child)
        await seen(screen, expected[:5])
        for number in range(2):
            process = child.terminate()
            await real.publish(*numbered(5, 5 + 10 * number))
            assert process.wait(20) == 0
            await real.publish(*numbered(5, 10 + 10 * number))
            await child.restart()
            await seen(screen, expected[: 15 + 10 * number])
        for pid in child.workers().values():
            os.kill(pid, signal.SIGKILL)
        await real.publish(*numbered(5, 25), done())
        await seen(screen, expected)
        kinds = await screen.evaluate("() => window.kinds")
        assert "stream.drain" in kinds
        assert "stream.gap" not in kinds
        await screen.until("() => window.kinds.includes('stream.end')", 30)


async def test_an_event_source_lives_through_its_age(
    real: RealBackend, tmp_path: Path, screen: Screen
) -> None:
    await real.publish(task_record(), *numbered(5))
    async with child_broker(
        real, tmp_path / "log", stream__age_max_s=1, stream__retry_ms=50, stream__heartbeat_s=0.4
    ) as child:
        await watch(screen, child)
        await screen.until("() => window.opened >= 3", 30)
        await real.publish(*numbered(5, 5), done())
        await seen(screen, [str(number) for number in range(10)])
        assert "stream.gap" not in await screen.evaluate("() => window.kinds")
