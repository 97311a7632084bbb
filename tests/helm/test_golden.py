from __future__ import annotations

from pathlib import Path

import chart_golden
import pytest
from image_tree import ROOT

FILES = {str(path.relative_to(ROOT)): content for path, content in chart_golden.files().items()}


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_rendered_is_what_was_read(name: str) -> None:
    assert (ROOT / name).read_text() == FILES[name], "make golden, and read the difference"


def test_there_is_none_of_a_shape_that_is_gone() -> None:
    there = {str(path.relative_to(ROOT)) for path in Path(chart_golden.GOLDEN).iterdir()}
    assert there == {name for name in FILES if "golden" in name}
