from __future__ import annotations

import asyncio

import pytest

from sidecast_broker.use import Use


class Counted:
    """Something whose uses are counted."""

    def __init__(self) -> None:
        self.users = 1

    def leave(self) -> None:
        self.users -= 1


def test_a_use_ends_with_its_block() -> None:
    counted = Counted()
    with Use(counted.leave):
        assert counted.users == 1
    assert counted.users == 0


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
def test_a_use_ends_with_whatever_leaves_its_block_and_lets_it_through(error: type[BaseException]) -> None:
    counted = Counted()
    with pytest.raises(error), Use(counted.leave):
        raise error
    assert counted.users == 0


def test_a_use_that_is_kept_goes_on_after_its_block() -> None:
    counted = Counted()
    with Use(counted.leave) as use:
        use.keep()
    assert counted.users == 1
