"""Where Chromium is on this machine, and how it gets there.

Must not know what is tested with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCREENSHOTS = Path(__file__).parents[2] / ".cache" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW = "set CHROMIUM to its path, or run `playwright install chromium`, or `apt-get install chromium`"


def find_chromium() -> str:
    """Give the path of Chromium: `CHROMIUM`, Playwright's own, the system's; installed where we may."""
    if given := os.environ.get("CHROMIUM"):
        if not Path(given).exists():
            pytest.fail(f"CHROMIUM is {given!r}, and there is no such file")
        return given
    found = _installed()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
        found = _installed()
    if found is None:
        pytest.fail(f"the browser tests need Chromium: {HOW}")
    return found


def _installed() -> str | None:
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    own = sorted(cache.glob("chromium-*/chrome-linux*/chrome"))
    return str(own[-1]) if own else next(filter(None, map(shutil.which, NAMES)), None)


def _install() -> None:
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        done = subprocess.run(
            ["apt-get", "--quiet", *arguments], env=environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.fail(
                f"apt-get {arguments[0]} failed, and there is no Chromium: {HOW}\n{done.stderr[-2000:]}"
            )
