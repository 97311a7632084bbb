"""The log keeps the newest records within its bound, and never claims to know what it dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.log import RECORD_BYTES, Log, Record, at_milliseconds
from sidecast_schemas.codec import decode_event

PAYLOAD = b'{"statusUpdate":{"taskId":"t","status":{"state":"TASK_STATE_WORKING"}}}'
ONE = RECORD_BYTES + len(PAYLOAD)


def record(sequence: int) -> Record:
    return Record(sequence, "2026-01-01T00:00:00.000Z", decode_event(PAYLOAD))


def filled(*sequences: int, bytes_max: int = 1 << 20) -> Log:
    log = Log(bytes_max)
    for sequence in sequences:
        log.append(record(sequence))
    return log


def sequences(log: Log, cursor: int) -> list[int]:
    return [one.sequence for one in log.after(cursor)]


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [(0, [3, 7, 9]), (2, [3, 7, 9]), (3, [7, 9]), (4, [7, 9]), (7, [9]), (9, []), (100, [])],
)
def test_after_gives_what_follows_any_cursor(cursor: int, expected: list[int]) -> None:
    assert sequences(filled(3, 7, 9), cursor) == expected


def test_after_gives_at_most_what_was_asked_for() -> None:
    assert [one.sequence for one in filled(3, 7, 9).after(0, 2)] == [3, 7]


@pytest.mark.parametrize("sequence", [9, 8, 0])
def test_a_record_must_come_after_the_end(sequence: int) -> None:
    log = filled(3, 7, 9)
    with pytest.raises(ValueError, match="not above"):
        log.append(record(sequence))
    assert sequences(log, 0) == [3, 7, 9]


def test_the_oldest_leave_first_and_the_floor_says_so() -> None:
    log = filled(3, 7, 9, 12, bytes_max=2 * ONE)
    assert (log.floor, log.end, len(log)) == (7, 12, 2)
    assert sequences(log, 7) == [9, 12]
    with pytest.raises(ValueError, match="below"):
        log.after(6)


def test_the_newest_record_stays_however_small_the_bound() -> None:
    log = filled(3, 7, bytes_max=1)
    assert sequences(log, log.floor) == [7]


def test_frames_count_and_are_given_back() -> None:
    log = filled(3, 7, bytes_max=1 << 20)
    before = log.size_bytes
    log.grow(log.after(0)[0], 1000)
    assert log.size_bytes == before + 1000
    log.trim(before)
    assert log.size_bytes == before - ONE


def test_a_frame_of_a_dropped_record_does_not_count() -> None:
    log = filled(3, 7)
    dropped = log.after(0)[0]
    log.drop_below(7)
    before = log.size_bytes
    log.grow(dropped, 1000)
    assert log.size_bytes == before


def test_skipping_moves_the_end_and_nothing_else() -> None:
    log = filled(3)
    log.skip(8)
    assert (log.floor, log.end, sequences(log, 0)) == (0, 8, [3])


def test_a_jump_forgets_all() -> None:
    log = filled(3, 7)
    log.jump(41)
    assert (log.floor, log.end, log.size_bytes, len(log)) == (41, 41, 0, 0)
    log.append(record(42))
    assert sequences(log, 41) == [42]


@pytest.mark.parametrize(
    ("below", "expected", "floor"), [(1, [3, 7, 9], 0), (7, [7, 9], 6), (8, [9], 7), (100, [], 9)]
)
def test_drop_below(below: int, expected: list[int], floor: int) -> None:
    log = filled(3, 7, 9)
    log.drop_below(below)
    assert [one.sequence for one in log] == expected
    assert log.floor == floor


def test_find() -> None:
    log = filled(3, 7, 9)
    found = log.find(7)
    assert found is not None
    assert found.sequence == 7
    assert log.find(8) is None
    log.drop_below(9)
    assert log.find(7) is None


def test_a_forgotten_event_is_decoded_again() -> None:
    one = record(1)
    before = one.event
    one.forget_event()
    assert one.event == before


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=300),
    st.integers(0, 40),
    st.lists(st.integers(0, 1500), max_size=5),
)
def test_the_log_is_a_window_of_all_records(steps: list[int], keep: int, cursors: list[int]) -> None:
    log, everything, sequence = Log(keep * ONE), [], 0
    for step in steps:
        sequence += step
        log.append(record(sequence))
        everything.append(sequence)
        assert log.size_bytes <= max(keep, 1) * ONE
    assert log.size_bytes == len(log) * ONE
    for cursor in cursors:
        if cursor >= log.floor:
            assert sequences(log, cursor) == [one for one in everything if one > cursor]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("2026-11-21T07:13:47.335520095Z", "2026-11-21T07:13:47.335Z"),
        ("2026-11-21T07:13:47.33Z", "2026-11-21T07:13:47.330Z"),
        ("2026-11-21T07:13:47.3Z", "2026-11-21T07:13:47.300Z"),
        ("2026-11-21T07:13:47Z", "2026-11-21T07:13:47.000Z"),
    ],
)
def test_times_have_milliseconds(server: str, expected: str) -> None:
    assert at_milliseconds(server) == expected
