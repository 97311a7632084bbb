"""The collector: what reference counts can't free doesn't stay."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from brokers import until

from sidecast_broker.collector import Collector


class Held:
    """Holds itself."""

    def __init__(self) -> None:
        self.held = self


@pytest.fixture
def thresholds() -> Iterator[None]:
    """Leave the collector as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


async def test_what_is_old_and_holds_itself_is_freed_within_a_period(thresholds: None) -> None:
    collector = Collector(0.05)
    collector.start()
    try:
        held = weakref.ref(Held())
        gc.disable()  # nothing but the period frees it
        await until(lambda: held() is None)
    finally:
        gc.enable()
        await collector.close()


async def test_what_was_there_at_first_is_walked_no_more_and_all_else_seldom(thresholds: None) -> None:
    collector = Collector()
    collector.start()
    await collector.close()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[2] >= 100_000
