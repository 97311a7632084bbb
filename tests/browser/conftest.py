from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from browser.chromium import SCREENSHOTS, find_chromium
from browser.screen import Screen
from playwright.async_api import async_playwright


@pytest.fixture(scope="session")
def chromium() -> str:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return find_chromium()


@pytest.fixture
async def screen(chromium: str) -> AsyncIterator[Screen]:
    """A page in a browser of its own; at the end, its console must hold no error that was not expected."""
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        context = await browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
        screen = Screen(await context.new_page())
        try:
            yield screen
        finally:
            await browser.close()
    screen.check()
