from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # a bare `pytest` doesn't put the repository's root there
    sys.path.append(str(ROOT))

from bench.build import NoCompiler, Programs, build  # noqa: E402 - needs the path


@pytest.fixture(scope="session")
def programs() -> Programs:
    try:
        return build()
    except NoCompiler as error:
        pytest.skip(str(error))
