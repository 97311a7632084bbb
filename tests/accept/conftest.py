from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print the numbers of a run, also when it is good."""

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {text}")

    return tell
