from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.frame import HEARTBEAT, chunk, frame, with_id


class Message(NamedTuple):
    """What an EventSource dispatches, and its last event id after that."""

    event: str
    data: str
    last_event_id: str


class EventStream:
    """A strict reader of WHATWG HTML section 9.2.6: what is no field of that section fails."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.retry_ms: int | None = None
        self.comments = 0
        self.last_event_id = ""

    def read(self, stream: bytes) -> list[Message]:
        text = stream.decode("utf-8", errors="strict")
        assert text.endswith("\n"), "a line is not ended"
        event, data, block_open = "", None, False
        for line in text.replace("\r\n", "\n").replace("\r", "\n")[:-1].split("\n"):
            if line == "":
                assert data is not None, "a block without data"
                self.messages.append(Message(event or "message", data, self.last_event_id))
                event, data, block_open = "", None, False
                continue
            if line.startswith(":"):
                self.comments += 1
                continue
            block_open = True
            name, colon, value = line.partition(":")
            assert colon, f"a field without a value: {line!r}"
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                assert data is None, "more than one data line"
                data = value
            elif name == "id":
                assert "\0" not in value
                self.last_event_id = value
            elif name == "retry":
                assert value.isascii()
                assert value.isdigit()
                self.retry_ms = int(value)
            else:
                raise AssertionError(f"unknown field {name!r}")
        assert not block_open, "the last block is not ended"
        return self.messages


def read_stream(stream: bytes) -> list[Message]:
    return EventStream().read(stream)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"data": b"{}"}, b"data: {}\n\n"),
        ({"data": b""}, b"data: \n\n"),
        ({"data": b"{}", "event": "task.status"}, b"event: task.status\ndata: {}\n\n"),
        ({"data": b"{}", "event_id": "e-1"}, b"id: e-1\ndata: {}\n\n"),
        ({"data": b"{}", "retry_ms": 0}, b"retry: 0\ndata: {}\n\n"),
        (
            {"data": b"{}", "event": "a", "event_id": "e-1", "retry_ms": 2500},
            b"event: a\nid: e-1\nretry: 2500\ndata: {}\n\n",
        ),
        ({"data": '{"a":"é\u2028"}'.encode()}, '{"a":"é\u2028"}'.encode().join([b"data: ", b"\n\n"])),
    ],
)
def test_frame_lines(fields, expected):
    assert frame(**fields) == expected


@pytest.mark.parametrize("hostile", ["\n", "\r", "\0", "a\nid: x", "a\r\ndata: {}", "a\n\nevent: b", "é\n"])
@pytest.mark.parametrize("field", ["data", "event", "event_id"])
def test_refuses_what_would_end_a_line(field, hostile):
    fields = {"data": b"{}", field: hostile.encode() if field == "data" else hostile}
    with pytest.raises(ValueError, match="CR, LF"):
        frame(**fields)


def test_refuses_a_negative_retry():
    with pytest.raises(ValueError, match="-1"):
        frame(b"{}", retry_ms=-1)


LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))


@given(
    st.lists(
        st.tuples(
            LINES.map(lambda text: json.dumps(text, ensure_ascii=False).encode()),
            st.none() | LINES.filter(lambda text: text and not text.startswith(" ")),
            st.none() | LINES.filter(lambda text: not text.startswith(" ")),
            st.none() | st.integers(0, 10**9),
        )
    ),
    st.booleans(),
)
def test_reads_back_what_was_framed(events, with_heartbeats):
    between = HEARTBEAT if with_heartbeats else b""
    stream = between + between.join(frame(*event) for event in events) + between
    reader = EventStream()
    messages = reader.read(stream) if stream else []
    last_event_id = ""
    for message, (data, event, event_id, _) in zip(messages, events, strict=True):
        last_event_id = last_event_id if event_id is None else event_id
        assert message == Message(event or "message", data.decode(), last_event_id)
    retries = [retry_ms for *_, retry_ms in events if retry_ms is not None]
    assert reader.retry_ms == (retries[-1] if retries else None)


def test_heartbeat_between_frames_touches_nothing():
    assert HEARTBEAT == b":\n"
    stream = frame(b"1", "a", "e-1") + HEARTBEAT + HEARTBEAT + frame(b"2")
    assert read_stream(stream) == [Message("a", "1", "e-1"), Message("message", "2", "e-1")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"a", b"1\r\na\r\n"),
        (b"x" * 16, b"10\r\n" + b"x" * 16 + b"\r\n"),
        (b"\r\n0\r\n\r\n", b"7\r\n\r\n0\r\n\r\n\r\n"),
        (b"x" * 70000, b"11170\r\n" + b"x" * 70000 + b"\r\n"),
    ],
)
def test_chunk(data, expected):
    assert chunk(data) == expected


@given(st.lists(st.binary()))
def test_chunks_read_back(pieces):
    stream = b"".join(map(chunk, pieces))
    body = b""
    while stream:
        size, _, rest = stream.partition(b"\r\n")
        length = int(size, 16)
        assert length > 0
        body, end, stream = body + rest[:length], rest[length : length + 2], rest[length + 2 :]
        assert end == b"\r\n"
    assert body == b"".join(pieces)


@pytest.mark.parametrize("named", ["task.status", None])
@pytest.mark.parametrize("before", ["e-1", None])
@pytest.mark.parametrize("after", ["e-22", None])
def test_another_id_gives_the_frame_of_it(named: str | None, before: str | None, after: str | None) -> None:
    data = b'{"text":"id: forged"}'
    assert with_id(frame(data, named, before), after) == frame(data, named, after)
