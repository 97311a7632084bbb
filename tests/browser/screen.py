"""The live page in a browser: what a test asks of it, and what its console said.

Must not know brokers or tasks' stories.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote, urljoin

from browser.chromium import SCREENSHOTS
from playwright.async_api import ConsoleMessage, Locator, Page, expect

CUT = re.compile(
    r"Failed to load resource: net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING"
    r"|EMPTY_RESPONSE|NETWORK_IO_SUSPENDED|SOCKET_NOT_CONNECTED)"
)
"""What Chromium itself writes to the console when a request meets no server: no page can prevent it."""

REFUSED = re.compile(r"Failed to load resource: the server responded with a status of 40[14] ")
BAD_REQUEST = re.compile(r"Failed to load resource: the server responded with a status of 400 ")

LOOP_MS = 190
"""What the loop of `slowness` takes on an idle machine (measured on two virtual cores: 188 to 190 ms)."""


class Screen:
    """One page, and the errors in its console.

    Attributes:
        page: Playwright's.
        errors: what went wrong, as the console has it.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self._cut_allowed = False
        self._refusal_allowed = False
        self._bad_request_allowed = False
        self._asked: list[str] = []
        page.on("request", lambda request: self._asked.append(request.url))
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        path = (message.location or {}).get("url", "")
        ours = re.search(r"/(tasks/[^/]+/events|a2a/stream|ui/api/(tasks|streams)|tickets)(\?|$)", path)
        if self._refusal_allowed and REFUSED.match(message.text) and ours:
            return
        if self._bad_request_allowed and BAD_REQUEST.match(message.text) and ours:
            return
        if self._cut_allowed and CUT.match(message.text) and ours:
            return
        self.errors.append(f"{message.text} ({path})")

    def allow_cuts(self) -> None:
        """From now on the broker may be away: requests of streams and lists may find nobody."""
        self._cut_allowed = True

    def allow_refusals(self) -> None:
        """From now on the broker may want a credential, or have no ticket for a task."""
        self._refusal_allowed = True

    def allow_bad_requests(self) -> None:
        """From now on the broker may not allow what the page asks for."""
        self._bad_request_allowed = True

    async def until(self, function: str, within_s: float = 10) -> None:
        """Wait until a function of the page gives true; asked from outside, for its policy forbids `eval`."""
        async with asyncio.timeout(within_s):
            while not await self.page.evaluate(function):
                await asyncio.sleep(0.05)

    def check(self) -> None:
        """Fail where the console holds an error, or the page has asked others than its broker."""
        assert self.errors == []
        for url in self._asked:
            assert url.removeprefix("blob:").startswith(urljoin(self._asked[0], "/")), url

    async def watch(self, url: str, task: str) -> None:
        """Open a task's page."""
        await self.page.goto(f"{url}/ui/?task={quote(task, safe='')}")

    async def shot(self, name: str) -> None:
        """Keep a picture of what is in sight."""
        await self.page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled")

    def at(self, selector: str) -> Locator:
        """Give what a CSS selector finds."""
        return self.page.locator(selector)

    async def text(self, selector: str, expected: str | re.Pattern[str], timeout_s: float = 10) -> None:
        """Wait until an element holds a text."""
        await expect(self.at(selector).first).to_contain_text(expected, timeout=timeout_s * 1000)

    async def count(self, selector: str, number: int, timeout_s: float = 10) -> None:
        """Wait until so many elements are there."""
        await expect(self.at(selector)).to_have_count(number, timeout=timeout_s * 1000)

    async def count_now(self, selector: str) -> int:
        """Tell how many elements are there."""
        return await self.at(selector).count()

    async def go_to(self, selector: str) -> None:
        """Scroll until an element stands in sight: what is laid out only on the way there moves it."""
        await self.at(selector).evaluate(
            """async (element) => {
              const frame = () => new Promise(requestAnimationFrame);
              for (let top = NaN, stable = 0; stable < 3; ) {
                element.scrollIntoView({ block: "center" });
                await frame();
                const now = element.getBoundingClientRect().top;
                stable = now === top ? stable + 1 : 0;
                top = now;
              }
            }"""
        )

    async def slowness(self) -> float:
        """Tell how many times slower than it could be this machine is just now, at least 1.

        Tests run beside others: what takes long because the processor is taken says nothing of the page.
        """
        took_ms = await self.evaluate(
            "() => { const began = performance.now(); let sum = 0;"
            " for (let i = 0; i < 3e7; i += 1) sum = (sum * 31 + i) | 0;"
            " return [performance.now() - began, sum][0] }"
        )
        return max(1.0, float(took_ms) / LOOP_MS)

    async def evaluate(self, script: str, argument: Any = None) -> Any:
        """Run a function in the page; give what it gives."""
        return await self.page.evaluate(script, argument)
