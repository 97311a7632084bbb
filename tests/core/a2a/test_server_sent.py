from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.server_sent import EventTooLarge, Parser, Received


def parse(*pieces: bytes, event_bytes_max: int = 1000) -> list[Received]:
    parser = Parser(event_bytes_max)
    return [received for piece in pieces for received in parser.feed(piece)]


def message(data: bytes, event_id: str = "") -> Received:
    return Received("message", data, event_id)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"data: one\n\n", [message(b"one")]),
        (b"data:one\n\n", [message(b"one")]),
        (b"data:  one \n\n", [message(b" one ")]),
        (b"data: a: b\n\n", [message(b"a: b")]),
        (b"data: one\n\ndata: two\n\n", [message(b"one"), message(b"two")]),
        (b'data: {\ndata:   "a": 1\ndata: }\n\n', [message(b'{\n  "a": 1\n}')]),
        (b"data\n\n", [message(b"")]),
        (b"data\ndata\n\n", [message(b"\n")]),
        (b"data:\n\n", [message(b"")]),
        (b"Data: one\n data: two\ndatax: three\n\n", []),
        (b": ping\n\n", []),
        (b": ping\ndata: one\n:\n\n", [message(b"one")]),
        (b"retry: 1500\n\ndata: one\n\n", [message(b"one")]),
        (b"event: error\ndata: {}\n\n", [Received("error", b"{}", "")]),
        (b"event: error\n\ndata: one\n\n", [message(b"one")]),
        (b"event: error\nevent\ndata: one\n\n", [message(b"one")]),
        (b"event: \xff\xc3\xa4\ndata: one\n\n", [Received("\ufffdä", b"one", "")]),
        (b"id: 1\ndata: one\n\ndata: two\n\n", [message(b"one", "1"), message(b"two", "1")]),
        (b"id: 1\n\ndata: one\n\n", [message(b"one", "1")]),
        (b"id: 1\ndata: one\n\nid\ndata: two\n\n", [message(b"one", "1"), message(b"two", "")]),
        (b"id: 1\nid: 2\x003\ndata: one\n\n", [message(b"one", "1")]),
        (b"\xef\xbb\xbfdata: one\n\n", [message(b"one")]),
        (b"\xef\xbb\xbf\ndata: one\n\n", [message(b"one")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: one\n\n", []),
        (b"\n\xef\xbb\xbfdata: one\n\n", []),
        (b"data: one\r\rdata: two\r\n\r\n", [message(b"one"), message(b"two")]),
        (b"data: one\n\rdata: two\r\r", [message(b"one"), message(b"two")]),
        (b"data: one\r\n\n", [message(b"one")]),
        (b"data: one\ndata: lost", []),
        (b"data: one\n\ndata: lost\n", [message(b"one")]),
        (b"data: \x00\xff\n\n", [message(b"\x00\xff")]),
        (b"data: a\xe2\x80\xa8b\x0bc\x0cd\x85e\n\n", [message(b"a\xe2\x80\xa8b\x0bc\x0cd\x85e")]),
    ],
)
def test_one_piece_and_byte_by_byte(stream: bytes, expected: list[Received]) -> None:
    assert parse(stream) == expected
    assert parse(*(stream[at : at + 1] for at in range(len(stream)))) == expected


def test_an_event_is_given_as_soon_as_its_blank_line_has_come() -> None:
    parser = Parser(100)
    assert list(parser.feed(b"data: one\r")) == []
    assert list(parser.feed(b"\r")) == [message(b"one")]
    assert list(parser.feed(b"\ndata: two\n\n")) == [message(b"two")]


LINES = st.sampled_from(
    [
        b"",
        b"",
        b"data: ",
        b"data",
        b"data: \xf0\x9f\x90\x88 cat",
        b'data: {"a": "\xc3\xa4"}',
        b"data:  x",
        b"event: error",
        b"event",
        b"id: 7",
        b"id: \xe2\x82\xac",
        b"id: a\x00b",
        b": ping",
        b"retry: 10",
        b"\xef\xbb\xbfdata: bom",
        b"other: field",
        b"data: " + b"x" * 24,
        b"data: " + b"x" * 25,
        b": " + b"x" * 40,
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.builds(
    lambda bom, lines, rest: bom + b"".join(line + end for line, end in lines) + rest,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(LINES, ENDS), max_size=30),
    st.sampled_from([b"", b"data: lost", b"\r", b"data: " + b"x" * 30]),
)


def outcome(pieces: list[bytes]) -> tuple[list[Received], bool]:
    """Parse with a small bound; give the events, and whether the bound was passed."""
    parser, events = Parser(30), []
    try:
        for piece in pieces:
            for received in parser.feed(piece):
                events.append(received)  # noqa: PERF402 - what came before a failure counts
    except EventTooLarge:
        return events, True
    return events, False


@pytest.mark.row("C72")
@given(STREAMS, st.lists(st.integers(0, 400), max_size=40))
def test_any_cut_gives_the_same_events_and_the_same_failure(stream: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(bounds)]
    assert outcome(pieces) == outcome([stream])


def reference(stream: bytes) -> list[tuple[str, str, str]]:
    """Interpret a whole stream as the standard words it, one character at a time, for valid UTF-8."""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events, data, name, last_id = [], "", "", ""
    for line in text.split("\n")[:-1]:
        if line == "":
            if data:
                events.append((name or "message", data.removesuffix("\n"), last_id))
            data, name = "", ""
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "data":
            data += value + "\n"
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            last_id = value
    return events


@pytest.mark.row("C72")
@given(STREAMS)
def test_as_the_standard_says(stream: bytes) -> None:
    parsed = parse(stream)
    assert [(received.event, received.data.decode(), received.id) for received in parsed] == reference(stream)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_bytes_are_taken(pieces: list[bytes]) -> None:
    for received in parse(*pieces):
        assert b"\r" not in received.data
        assert "\0" not in received.id


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 100,
        b": " + b"x" * 100,
        b"x" * 101,
        b"data: " + b"x" * 60 + b"\ndata: " + b"x" * 60 + b"\n",
        b"data\n" * 102,
        b"event: " + b"x" * 200 + b"\n",
        b"\xef\xbb\xbf" + b"id:" * 50,
    ],
)
def test_what_passes_the_bound_is_refused_before_its_end_and_after_all_before_it(stream: bytes) -> None:
    events = Parser(100).feed(b"data: before\n\n" + stream)
    assert next(events) == message(b"before")
    with pytest.raises(EventTooLarge, match="100 bytes"):
        next(events)


def test_what_fits_the_bound_is_taken() -> None:
    assert parse(b"data: " + b"x" * 94 + b"\n\n", event_bytes_max=100) == [message(b"x" * 94)]
    halves = b"data: " + b"x" * 50 + b"\ndata: " + b"x" * 49 + b"\n\n"
    assert len(parse(halves, event_bytes_max=100)[0].data) == 100


def test_a_long_line_in_small_pieces_costs_no_more_than_its_length() -> None:
    piece = b"x" * 7
    parser = Parser(8_000_000)
    # The square of a million pieces would take hours.
    assert [event for _ in range(1_000_000) for event in parser.feed(piece)] == []
    assert list(parser.feed(b"\ndata: end\n\n")) == [message(b"end")]
