from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from certificate_files import Files, files_in


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    """The files of a listener that speaks TLS."""
    return files_in(tmp_path, authority)
