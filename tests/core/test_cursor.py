from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.cursor import (
    SEQUENCE_MAX,
    Cursor,
    Gap,
    MalformedCursor,
    Replay,
    epoch_of_creation,
    format_cursor,
    is_epoch,
    parse_cursor,
    resolve,
)

EPOCHS = st.text("ABYZabyz0189._~-", min_size=1, max_size=64)


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("mf3k2q1z-0", Cursor("mf3k2q1z", 0)),
        ("mf3k2q1z-42", Cursor("mf3k2q1z", 42)),
        ("a-b-7", Cursor("a-b", 7)),
        ("a--7", Cursor("a-", 7)),
        ("---7", Cursor("--", 7)),
        ("v1.2_x~y-10", Cursor("v1.2_x~y", 10)),
        ("1-2-3", Cursor("1-2", 3)),
        ("e" * 64 + f"-{SEQUENCE_MAX}", Cursor("e" * 64, SEQUENCE_MAX)),
    ],
)
def test_parse(text, cursor):
    assert parse_cursor(text) == cursor
    assert format_cursor(*cursor) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "-1",
        "e",
        "e-",
        "7",
        "e-+1",
        "e- 1",
        "e-1 ",
        " e-1",
        "e-1\n",
        "e-1\0",
        "\0-1",
        "e-01",
        "e-00",
        "e-1e9",
        "e-0x1",
        "e-1_0",
        "e-1.0",
        "e-\u0661\u0662",  # digits, but not ASCII's
        "e-\uff11",
        "e-\u00b2",
        "é-1",
        "\ud800-1",
        "e/x-1",
        "e x-1",
        f"e-{SEQUENCE_MAX + 1}",
        "e-99999999999999999999",
        "e" * 65 + "-1",
        "e-" + "1" * 4096,
        "-" * 4096,
        "a" * 10_000_000,
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_parse_refuses(text):
    with pytest.raises(MalformedCursor):
        parse_cursor(text)


@given(EPOCHS, st.integers(0, SEQUENCE_MAX))
def test_reads_back_what_was_written(epoch, sequence):
    assert is_epoch(epoch)
    assert parse_cursor(format_cursor(epoch, sequence)) == Cursor(epoch, sequence)


@given(st.text() | st.text("ae0129-~. \n", max_size=90))
def test_any_text_is_one_cursor_or_none(text):
    try:
        cursor = parse_cursor(text)
    except MalformedCursor:
        return
    assert format_cursor(*cursor) == text


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("mf3k2q1z", True),
        ("a.b_c~d-e", True),
        ("x" * 64, True),
        ("", False),
        ("x" * 65, False),
        ("a b", False),
        ("a\n", False),
        ("é", False),
        ("a/b", False),
    ],
)
def test_is_epoch(text, is_one):
    assert is_epoch(text) is is_one


@pytest.mark.parametrize(
    ("created_ms", "epoch"), [(0, "0"), (35, "z"), (36, "10"), (1_700_000_000_000, "loyw3v28")]
)
def test_epoch_of_creation(created_ms, epoch):
    assert epoch_of_creation(created_ms) == epoch
    assert is_epoch(epoch)
    assert int(epoch, 36) == created_ms


# The stream holds 100..200; the task's first stored record is 120.
WHOLE = {"complete": True, "interior_deletes": False}
WHOLE_PURGED = {"complete": True, "interior_deletes": True}
CUT = {"complete": False, "interior_deletes": False}
CUT_PURGED = {"complete": False, "interior_deletes": True}


@pytest.mark.parametrize(
    ("requested", "log", "decision"),
    [
        # the task's start is there: every position of this epoch will do
        ("e-0", WHOLE, Replay(0)),
        ("e-5", WHOLE, Replay(5)),
        ("e-150", WHOLE, Replay(150)),
        ("e-200", WHOLE, Replay(200)),
        ("e-5", WHOLE_PURGED, Replay(5)),
        ("e-201", WHOLE, Gap("ahead", 0)),
        # the stream let its oldest messages go, and nothing else is missing
        ("e-98", CUT, Gap("expired", 99)),
        ("e-99", CUT, Replay(99)),
        ("e-100", CUT, Replay(100)),
        ("e-119", CUT, Replay(119)),
        ("e-200", CUT, Replay(200)),
        ("e-0", CUT, Gap("expired", 99)),
        # messages in between are gone too: only what follows the first record is certain
        ("e-99", CUT_PURGED, Gap("expired", 119)),
        ("e-118", CUT_PURGED, Gap("expired", 119)),
        ("e-119", CUT_PURGED, Replay(119)),
        ("e-120", CUT_PURGED, Replay(120)),
        ("e-200", CUT_PURGED, Replay(200)),
        ("e-201", CUT_PURGED, Gap("ahead", 119)),
        # not of this stream
        ("f-150", WHOLE, Gap("epoch", 0)),
        ("f-999", CUT, Gap("epoch", 99)),
        ("E-150", WHOLE, Gap("epoch", 0)),
        ("e--150", WHOLE, Gap("epoch", 0)),
        ("150", WHOLE, Gap("malformed", 0)),
        ("", CUT, Gap("malformed", 99)),
        ("e-0150", WHOLE, Gap("malformed", 0)),
        (f"e-{SEQUENCE_MAX}", WHOLE, Gap("ahead", 0)),
        (f"e-{SEQUENCE_MAX + 1}", WHOLE, Gap("malformed", 0)),
    ],
)
def test_resolve(requested, log, decision):
    assert (
        resolve(requested, epoch="e", stream_first=100, stream_last=200, first_retained=120, **log)
        == decision
    )


def test_resolve_in_an_empty_stream():
    new = {"epoch": "e", "stream_first": 0, "stream_last": 0, "first_retained": 0}
    assert resolve("e-0", **new, **CUT) == Replay(0)
    assert resolve("e-1", **new, **CUT) == Gap("ahead", 0)


@pytest.mark.row("C30")
@given(
    stored=st.sets(st.integers(1, 30)),
    mine=st.sets(st.integers(1, 30)),
    cursor=st.integers(0, 35),
    last=st.integers(1, 30),
)
def test_a_replay_is_never_a_hole(stored, mine, cursor, last):
    """Whatever was deleted: a cursor is continued only if every record of the task above it is stored.

    What a broker can see is the stream's ends, whether something between is missing, and the first stored
    record of the task. It can't see a single record deleted from a task's middle, so that isn't generated.
    """
    mine = {sequence for sequence in mine if sequence <= last}
    if not mine:
        return
    oldest_kept = min(stored & mine, default=None)
    if oldest_kept is None:
        return
    kept = {sequence for sequence in mine if sequence >= oldest_kept}
    stored = {sequence for sequence in stored if sequence <= last and sequence not in mine} | kept
    decision = resolve(
        f"e-{cursor}",
        epoch="e",
        stream_first=min(stored),
        stream_last=last,
        interior_deletes=stored != set(range(min(stored), last + 1)),
        first_retained=oldest_kept,
        complete=oldest_kept == min(mine),
    )
    if isinstance(decision, Replay):
        assert {sequence for sequence in mine if sequence > cursor} <= kept
    elif cursor <= last:
        assert decision.reason == "expired"
        assert cursor < decision.oldest
        assert oldest_kept != min(mine)
