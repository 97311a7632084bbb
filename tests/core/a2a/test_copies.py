from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.copies import news_at, news_before


def words(text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


@pytest.mark.parametrize(
    ("known", "parts", "new"),
    [
        ("", "", ""),
        ("", "1 2", "1 2"),
        ("1 2", "1 2", ""),
        ("1 2", "1 2 3", "3"),
        ("1 2 3 4", "1 2 3 3 4 4", ""),
        ("1 2 3 4", "1 2 3 4 3 4", ""),
        ("1 2 3 4", "1 2 3 4 3 4 3 4", ""),
        ("1 2 3 4", "1 2 3 3 3 4 4 4", ""),
        ("1 2 3 4 5", "1 2 3 4 3 4 5 5", ""),
        ("1 2 3 4", "1 2 3 3 4 4 5", "5"),
        ("1 2 3 4", "1 2 3 3 4 5 4 6", "5 4 6"),
        # A piece of two parts.
        ("1 a b", "1 a b a b", ""),
        ("1 a b c d", "1 a b a b c d c d", ""),
        # One that is said twice.
        ("x", "x x", ""),
        ("x", "x x y", "y"),
        ("1 2", "1 2 1 2 3", "3"),
        ("1 2 3", "1 2 3 3 4 4", "4 4"),
        ("x x y", "x x x x y y", ""),
        ("1 the 2", "1 the 2 the 3", "the 3"),
        ("1 . 2", "1 . 2 .", "."),
    ],
)
def test_what_is_new(known, parts, new):
    start = news_at(words(known), words(parts))
    assert start is not None
    assert words(parts)[start:] == words(new)


@pytest.mark.parametrize(
    ("known", "parts"),
    [("1", ""), ("1", "2"), ("1 2", "1"), ("1 2", "2 1"), ("1 2 3", "1 3"), ("1 2 3", "1 2 4")],
)
def test_parts_that_do_not_say_what_is_known(known, parts):
    assert news_at(words(known), words(parts)) is None


@pytest.mark.parametrize(
    ("known", "heard", "parts", "between"),
    [
        ("1 2", "3", "1 2 3", ""),
        ("1 2", "3", "1 2 3 3", ""),
        ("1 2", "4", "1 2 3 4", "3"),
        ("1 2", "4", "1 2 3 4 4", "3"),
        ("1 2", "4 5", "1 2 3 4 5 4 5", "3"),
        ("", "4", "2 4 4", "2"),
        ("1 2", "", "1 2 3", "3"),
        # Its answer was faster than the stream, or slower.
        ("1 2", "4", "1 2 3 4 4 5 5", "3"),
        ("1 2", "3 4", "1 2 3", ""),
        ("1 2", "3 4", "1 2", ""),
        # What was heard first had been said before, too.
        ("1", "the", "1 the cat the the", "the cat"),
        ("1", "the dog", "1 the cat the dog the dog 2", "the cat"),
        # A copy of what is known stands before it.
        ("1 2 3", "5", "1 2 2 3 3 4 5 5", "4"),
    ],
)
def test_what_was_said_before_something_was_heard(known, heard, parts, between):
    found = news_before(words(known), words(heard), words(parts))
    assert found is not None
    assert words(parts)[found] == words(between)


@pytest.mark.parametrize(("known", "heard", "parts"), [("1", "3", "2 3"), ("1", "3", "1 2"), ("", "3", "2")])
def test_parts_that_say_something_else_than_was_heard(known, heard, parts):
    assert news_before(words(known), words(heard), words(parts)) is None


@st.composite
def doubled(draw, streams_max=3, burst=True):
    """Give what was said, from where on further streams were open, and what the Task makes of it."""
    count = draw(st.integers(0, 30))
    bursts = sorted({0, count, *draw(st.lists(st.integers(0, count), max_size=5))})
    taps = sorted(draw(st.lists(st.sampled_from(bursts), max_size=streams_max)))
    parts: list[bytes] = []
    for start, end in pairwise(bursts):
        # All streams take in a burst one after the other, or each piece as it comes.
        steps = (
            [(start, end)] if burst and draw(st.booleans()) else [(at, at + 1) for at in range(start, end)]
        )
        for begin, stop in steps:
            for tap in (0, *taps):
                parts += [b"%d" % at for at in range(max(begin, tap), stop)]
    return [b"%d" % at for at in range(count)], taps, parts


@given(doubled())
def test_however_many_streams_were_open_nothing_new_is_nothing_new(case):
    said, _, parts = case
    assert news_at(said, parts) == len(parts)


@given(doubled(1, False), st.lists(st.sampled_from([b"new", b"newer", b"0"]), max_size=5))
def test_what_comes_behind_copies_is_found(case, more):
    said, _, parts = case
    more = [b"new", *more]
    start = news_at(said, parts + more)
    assert start is not None
    assert (parts + more)[start:] == more


@given(doubled(), st.integers(0, 30), st.integers(0, 30))
def test_what_was_heard_is_left_to_the_stream(case, known, first):
    said, taps, parts = case
    first = max(first, taps[0] if taps else 0) if said else 0
    known = min(known, first)
    assume(first < len(said) and all(tap >= first for tap in taps))
    found = news_before(said[:known], said[first:], parts)
    assert found is not None
    assert parts[found] == said[known:first]


@pytest.mark.parametrize("words_of_it", [[b"x"], [b"x", b"y"], [b"x", b"y", b"x", b"z"]])
def test_long_lists_that_repeat_themselves_cost_no_more_than_seconds(words_of_it):
    parts = words_of_it * (20_000 // len(words_of_it))
    began_s = time.process_time()
    news_before(parts[:5_000], [*words_of_it, b"never"], parts)
    news_at(parts[:10_000], parts[1:])
    assert time.process_time() - began_s < 5
