"""The script of the documentation that watches by tickets: over the end of a ticket, and of a broker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from brokers import RealBackend, artifact, child_broker, done, task_record
from browser.screen import Screen

from sidecast_broker.auth.api_keys import hash_key
from sidecast_schemas import headers
from sidecast_schemas.subjects import encode_token

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
TASK = "task-1"
KEY = "sidecast_k3yOfAlice"
OF_ALICE = {headers.OWNER: encode_token("alice")}

OF_TASK = """({ type }) => type.startsWith("task.")"""

START = """([task, key]) => {
  window.seen = [];
  window.over = null;
  watch(task, async () => key, (event) => window.seen.push(event)).then(
    () => { window.over = "ended"; },
    (error) => { window.over = error.message; },
  );
}"""


def script() -> str:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"^```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found)


async def test_it_goes_on_with_a_new_ticket_and_misses_nothing(
    real: RealBackend, screen: Screen, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nid = "one"\nsha256 = "{hash_key(KEY)}"\nprincipal = "alice"\n')
    await real.publish(task_record(TASK), artifact("a", TASK), task=TASK, headers=OF_ALICE)
    screen.allow_cuts()
    screen.allow_refusals()
    async with child_broker(real, tmp_path / "log", auth__api_keys_file=keys, stream__retry_ms=50) as child:
        page = screen.page
        await page.goto(f"{child.url}/ui/")
        await page.evaluate(f"() => {{ window.watch = {script()} }}")

        async def said(count: int) -> list[str]:
            await screen.until(f"() => window.seen.filter({OF_TASK}).length >= {count}")
            found = await page.evaluate(f"() => window.seen.filter({OF_TASK})")
            return [f"{each['type']} {each.get('text', '')}".strip() for each in found]

        await page.evaluate(START, [TASK, KEY])
        assert await said(1) == ["task.snapshot"]
        await real.publish(artifact("b", TASK, append=True), task=TASK, headers=OF_ALICE)
        assert await said(2) == ["task.snapshot", "task.artifact b"]
        # Without a secret of its own the process that comes next knows none of its tickets.
        child.kill9()
        await child.restart()
        await real.publish(artifact("c", TASK, append=True), task=TASK, headers=OF_ALICE)
        assert (await said(3))[1:] == ["task.artifact b", "task.artifact c"]
        await real.publish(done(TASK), task=TASK, headers=OF_ALICE)
        assert (await said(4))[3].startswith("task.status")
        await screen.until("() => window.over !== null")
        assert await page.evaluate("() => window.over") == "ended"

        await page.evaluate(START, ["another", KEY])
        await screen.until("() => window.over !== null")
        assert await page.evaluate("() => window.over") == "there is no such task, or it is not yours"
