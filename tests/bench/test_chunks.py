from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.commands.bench.chunks import Chunks

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(1, 300), max_size=20))
def test_chunks_give_the_body_however_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    wire = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    wire += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    chunks, body = Chunks(), b""
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(wire)], strict=True):
        body += chunks.feed(wire[start:end])
    assert body == b"".join(pieces)
    assert chunks.over
    assert chunks.status == "HTTP/1.1 200 OK"


def test_a_body_without_chunks_is_passed_on() -> None:
    chunks = Chunks()
    assert chunks.feed(HEAD) == b""
    assert chunks.feed(b"\r\ndata: 1\n") == b"data: 1\n"
    assert chunks.feed(b"\n") == b"\n"
    assert not chunks.over
