"""What counts as outlived: acknowledged by the peer's TCP, and two heartbeats older than that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.outlived import Outlived

BEAT_S = 10.0


def test_a_position_is_told_two_heartbeats_after_its_bytes_were_acknowledged() -> None:
    outlived = Outlived(BEAT_S)
    assert outlived.look(7, 100, 0, 0.0) is None
    assert outlived.look(7, 100, 99, 50.0) is None  # however long: not all of it has arrived
    assert outlived.look(7, 100, 100, 51.0) is None
    assert outlived.look(7, 100, 100, 70.9) is None
    assert outlived.look(7, 100, 100, 71.0) == 7
    assert outlived.look(7, 100, 100, 99.0) is None  # told once


def test_what_was_written_meanwhile_is_told_later() -> None:
    outlived = Outlived(BEAT_S)
    outlived.look(1, 10, 10, 0.0)
    outlived.look(2, 20, 10, 1.0)  # too soon after the first to be followed by itself
    assert outlived.look(3, 30, 30, 20.0) == 1
    assert outlived.look(3, 30, 30, 39.0) is None
    assert outlived.look(3, 30, 30, 40.0) == 3


def test_of_several_that_are_due_the_newest_is_told() -> None:
    outlived = Outlived(BEAT_S)
    for step in range(5):
        outlived.look(step + 1, 10 * (step + 1), 0, 5.0 * step)
    assert outlived.look(5, 50, 40, 30.0) is None
    assert outlived.look(5, 50, 40, 50.0) == 4


def test_nothing_written_is_nothing_to_tell() -> None:
    outlived = Outlived(BEAT_S)
    assert [outlived.look(0, 0, 0, float(now)) for now in range(0, 100, 10)] == [None] * 10


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.integers(0, 100), st.floats(0, 1, allow_nan=False), st.floats(0.1, 15)
        ),
        max_size=60,
    )
)
def test_never_told_before_its_time_nor_backwards(
    steps: list[tuple[int, int, float, float]],
) -> None:
    outlived = Outlived(BEAT_S)
    cursor, sent, acknowledged, now = 0, 0, 0, 0.0
    bytes_of: dict[int, int] = {}  # position → bytes it needed, the fewest seen
    arrived: list[tuple[float, int]] = []
    last = 0
    for more, size, share, pause_s in steps:
        now += pause_s
        if more:
            cursor, sent = cursor + more, sent + size
            bytes_of[cursor] = sent
        acknowledged = max(acknowledged, int(sent * share))
        arrived.append((now, acknowledged))
        told = outlived.look(cursor, sent, acknowledged, now)
        if told is not None:
            assert told > last
            last = told
            since = next(at for at, had in arrived if had >= bytes_of[told])
            assert now - since >= 2 * BEAT_S
