"""Settings as tests give them, and what is wrong with those that can't be started with.

Must not know any setting.
"""

from __future__ import annotations

from typing import Any

import pytest

from sidecast_broker.configuration import InvalidSettings, load


def problems(file: bytes | None = None, environ: dict[str, str] | None = None, **flags: Any) -> list[str]:
    """Give what keeps from starting; flags are written `section__key`."""
    with pytest.raises(InvalidSettings) as caught:
        load(file, environ or {}, {name.replace("__", "."): value for name, value in flags.items()})
    return caught.value.problems
